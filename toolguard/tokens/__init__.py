"""Whether a token is good, here and now."""
