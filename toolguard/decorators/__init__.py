"""The decorators, and what becomes of a decorated function. Private; import them from ``toolguard``."""
