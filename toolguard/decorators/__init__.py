"""Declare policies on functions, and wrap the functions. Private; public in ``toolguard``."""
