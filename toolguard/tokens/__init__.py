"""Verify bearer access tokens: syntax, signature, keys, claims and times. Public."""
