"""How does a server of each line get auth of its own?"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from support.lines import Line, Server
from toolguard import InvalidTokenError
from toolguard.testing import LocalIssuer

__all__ = ["Issued", "Known", "authenticated", "fastmcp_verifier", "with_token_verifier"]


class Issued:
    """A framework's own verification of an issuer's tokens, that counts what it is asked.

    Args:
        issuer: whose tokens.
        audience: whom they may be for; by default the issuer's audience.
    """

    def __init__(self, issuer: LocalIssuer, *audience: str) -> None:
        self._verifier = issuer.verifier(**({"audience": audience} if audience else {}))
        self.asked: list[str] = []

    async def verify_token(self, token: str) -> AccessToken | None:
        self.asked.append(token)
        try:
            principal = await self._verifier.verify(token)
        except InvalidTokenError:
            return None
        return AccessToken(
            token=token,
            client_id=principal.client_id or "",
            scopes=list(principal.scopes),
            expires_at=int(principal.expires_at),
            subject=principal.user_id,
            claims=dict(principal.claims),
        )


class Known:
    """A framework's own verification of tokens that it looks up.

    Args:
        answers: token -> what is known of it.
    """

    def __init__(self, answers: Mapping[str, AccessToken]) -> None:
        self.answers = dict(answers)

    async def verify_token(self, token: str) -> AccessToken | None:
        return self.answers.get(token)


def with_token_verifier(
    line: Line, verifier: Any, *, required_scopes: Sequence[str] = (), **settings: Any
) -> Server:
    """Return a server of ``line`` that has this token verifier; settings are AuthSettings'."""
    if line.family == "fastmcp":
        return line.server("own", auth=verifier)
    auth = AuthSettings(
        **{
            "issuer_url": AnyHttpUrl("https://issuer.test"),
            "resource_server_url": AnyHttpUrl("https://mcp.test/mcp"),
            "required_scopes": list(required_scopes),
            "validate_token_resource": False,
            **settings,
        }
    )
    return line.server("own", auth=auth, token_verifier=verifier)


def authenticated(line: Line, own: Issued | Known, required_scopes: Sequence[str] = ()) -> Server:
    """Return a server of ``line`` whose own auth is ``own``."""
    if line.family == "sdk":
        return with_token_verifier(line, own, required_scopes=required_scopes)
    return line.server("own", auth=fastmcp_verifier(own.verify_token, required_scopes))


def fastmcp_verifier(
    verify: Callable[[str], Awaitable[AccessToken | None]], required_scopes: Sequence[str]
) -> Any:
    """Return a verifier of fastmcp's that asks ``verify``."""
    auth = importlib.import_module("fastmcp.server.auth")

    class Verifier(auth.TokenVerifier):  # type: ignore[misc, name-defined]
        async def verify_token(self, token: str) -> AccessToken | None:
            return await verify(token)

    return Verifier(required_scopes=list(required_scopes))
