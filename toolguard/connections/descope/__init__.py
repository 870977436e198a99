"""Descope's vault as a connection provider. Public through ``toolguard.descope``."""
