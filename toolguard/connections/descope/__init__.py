"""Fetch connections from Descope's vault. Private; public through ``toolguard.descope``."""
