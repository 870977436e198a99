"""Combine toolguard with the frameworks' own token verification.

:func:`verifier_for` lets a framework verify tokens with toolguard. Conversely, a guard accepts the
framework's verification with ``ToolGuard(verifier="framework")``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any

from toolguard.frameworks import internals
from toolguard.frameworks.server_guard import ServerGuard, verifier_of
from toolguard.tokens.verifier import Verifier

__all__ = ["check_auth", "check_one", "has_auth", "verifier_for"]

# By name: either may be installed without the other.
_OURS = (
    ("toolguard.frameworks.sdk_auth", "SDKTokenVerifier"),
    ("toolguard.frameworks.fastmcp_auth", "FastMCPTokenVerifier"),
)
_REMOTE = ("fastmcp.server.auth.auth", "RemoteAuthProvider")


def verifier_for(verifying: ServerGuard | Verifier, *, required_scopes: Sequence[str] = ()) -> Any:
    """Return a ``TokenVerifier`` for the frameworks that uses a guard or verifier of toolguard.

    ::

        MCPServer("calendar", token_verifier=verifier_for(guard), auth=AuthSettings(...))
        FastMCP("calendar", auth=verifier_for(guard))

    For an invalid token it returns None, and the framework answers 401. While the issuer's keys
    are unavailable it raises: fastmcp answers 503 with ``Retry-After``; the official SDK, and a
    ``RemoteAuthProvider`` around this verifier, cannot report that and answer 500.

    Args:
        verifying: a guard, or a verifier such as :class:`~toolguard.tokens.jwt.JWTVerifier`.
        required_scopes: the scopes that every request needs, for fastmcp. With the SDK, use
            ``AuthSettings(required_scopes=...)``.

    Returns:
        A ``fastmcp.server.auth.TokenVerifier`` if fastmcp has been imported (the SDK accepts it
        too), else an implementation of ``mcp.server.auth.provider.TokenVerifier``.

    Raises:
        TypeError: if ``verifying`` is neither a guard nor a verifier.
        ValueError: if ``verifying`` itself relies on the framework's verification, accepts only
            tokens that are bound to a key, which the frameworks cannot check, or
            ``required_scopes`` are given for the SDK, whose verifier does not check them.
    """
    verifier = verifier_of(verifying)
    if not callable(getattr(verifier, "verify", None)):
        raise TypeError("verifier_for() takes a ToolGuard, or an object with an async verify()")
    if hasattr(verifier, "verify_request"):
        raise ValueError(
            "this verifier needs the request, not only its token, and cannot verify for a "
            "framework: write verifier_for(JWTVerifier(...))"
        )
    if not getattr(verifying, "offers_bearer", True):
        raise ValueError(
            'a guard with dpop="required" accepts no bearer tokens, and a framework reads no '
            "others: serve the server behind guard.protect(server), without auth= of its own"
        )
    from_fastmcp = "fastmcp" in sys.modules
    if required_scopes and not from_fastmcp:
        raise ValueError("write AuthSettings(required_scopes=...): the SDK takes them there")
    name = "fastmcp_auth" if from_fastmcp else "sdk_auth"
    made = importlib.import_module(f"toolguard.frameworks.{name}")
    return made.token_verifier(verifying, required_scopes)


def has_auth(server: object) -> bool:
    """Return whether the framework itself verifies the tokens of requests to ``server``."""
    return _auth_of(server) is not None


def check_auth(server: object, guard: ServerGuard) -> None:
    """Check that tokens are verified either by the framework or by the guard, not by both.

    Raises:
        ValueError: if ``verifier="framework"`` and the server has no auth; or if the guard
            verifies by itself, and would override an auth of the server's that does not use it.
    """
    auth = _auth_of(server)
    if not guard.verifies_itself:
        if auth is None:
            raise ValueError(
                'verifier="framework" takes over what the server verifies, and this one verifies '
                "nothing: write FastMCP(..., auth=...) for fastmcp, or MCPServer(..., "
                "token_verifier=..., auth=AuthSettings(...)), or give the guard issuer= instead"
            )
    elif auth is not None:
        check_one(auth, guard)


def check_one(auth: Any, guard: ServerGuard) -> None:
    """Check that a guard which verifies by itself does not override another auth.

    Args:
        auth: the object that verifies tokens for the framework.
        guard: the guard of the same requests.

    Raises:
        ValueError: if the two may differ.
    """
    takes_over = not guard.verifies_itself or hasattr(guard.verifier, "verify_request")
    if not (takes_over or _asks(auth, guard)):
        raise ValueError(
            f"the server verifies tokens with {type(auth).__name__}, and this guard verifies them "
            'by itself: write ToolGuard(verifier="framework", audience=...) to take over what the '
            "server verifies, or remove auth= (token_verifier=) from the server, or give the "
            "server verifier_for(guard)"
        )


def _auth_of(server: Any) -> Any:
    """Return the object that verifies tokens for the framework; None if there is none.

    In fastmcp that is the provider given as ``auth``; in both lines of the SDK, the verifier
    given as ``token_verifier`` or made from an ``auth_server_provider``.
    """
    is_fastmcp = any(kind.__module__ == "fastmcp.server.server" for kind in type(server).__mro__)
    return server.auth if is_fastmcp else internals.token_verifier(server)


def _asks(auth: Any, guard: ServerGuard) -> bool:
    """Return whether ``auth`` is ``verifier_for(guard)``, or a provider around it."""
    if _is_a(auth, _REMOTE):  # it serves metadata, and another verifier verifies
        auth = auth.token_verifier
    return any(_is_a(auth, ours) for ours in _OURS) and any(
        auth.verifying is each for each in (guard, guard.verifier)
    )


def _is_a(auth: Any, kind: tuple[str, str]) -> bool:
    """Return whether ``auth`` is exactly of that class; a subclass may verify differently."""
    return (type(auth).__module__, type(auth).__qualname__) == kind
