"""A local authorization server: users, tenants, policies, sign-in, consent, tokens. Private."""
