"""Connections without a vendor: a vault that a server runs itself. Public.

Needs the extra ``vault``: ``pip install 'toolguard-mcp[vault]'``.
"""

from toolguard.parts.extras import explained

with explained():
    from toolguard.vault.connecting import connect_routes
    from toolguard.vault.presets import (
        atlassian,
        dropbox,
        github,
        github_app,
        google,
        hubspot,
        linear,
        microsoft,
        notion,
        openid,
        salesforce,
        slack,
    )
    from toolguard.vault.providers import Endpoints, OAuthProvider
    from toolguard.vault.seals import KeySeal, Seal, UnknownKeyError
    from toolguard.vault.sign_in import OpenIDSignIn, Person
    from toolguard.vault.vault import Connected, Vault

__all__ = [
    "Connected",
    "Endpoints",
    "KeySeal",
    "OAuthProvider",
    "OpenIDSignIn",
    "Person",
    "Seal",
    "UnknownKeyError",
    "Vault",
    "atlassian",
    "connect_routes",
    "dropbox",
    "github",
    "github_app",
    "google",
    "hubspot",
    "linear",
    "microsoft",
    "notion",
    "openid",
    "salesforce",
    "slack",
]
