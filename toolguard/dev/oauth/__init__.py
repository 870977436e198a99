"""A local OAuth authorization server: users, tenants, policies, sign-in, consent, tokens."""
