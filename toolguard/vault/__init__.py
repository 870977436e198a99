"""Connections without a vendor: a vault that a server runs itself. Public."""
