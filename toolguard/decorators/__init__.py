"""The decorators, and what becomes of a decorated function. Private; public in ``toolguard``."""
