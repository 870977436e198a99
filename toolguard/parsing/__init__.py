"""Untrusted text, read only when it may mean one thing. Private."""
