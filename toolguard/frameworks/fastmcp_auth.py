"""A token verifier for fastmcp that uses a verifier of toolguard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastmcp.server.auth import AccessToken, TokenVerifier

from toolguard.frameworks.sdk_auth import answering_outages, verified
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.tokens.verifier import Verifier

__all__ = ["FastMCPTokenVerifier", "token_verifier"]


class FastMCPTokenVerifier(TokenVerifier):
    """A ``fastmcp.server.auth.TokenVerifier``, for ``FastMCP(auth=...)`` and providers around it.

    Args:
        verifying: the guard or verifier that verifies tokens.
        required_scopes: the scopes that every request needs.
    """

    def __init__(self, verifying: ServerGuard | Verifier, required_scopes: Sequence[str]) -> None:
        super().__init__(required_scopes=list(required_scopes))
        #: The guard or verifier that verifies tokens.
        self.verifying = verifying

    async def verify_token(self, token: str) -> AccessToken | None:
        """Return the access token object for ``token``; None if the token is invalid.

        Raises:
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        return await verified(self.verifying, token, AccessToken)

    def get_middleware(self) -> list[Any]:
        """Return the middleware of fastmcp's applications; an outage is answered with 503."""
        return [*answering_outages(super().get_middleware())]

    def __repr__(self) -> str:
        return f"<FastMCPTokenVerifier: {self.verifying!r}>"


def token_verifier(
    verifying: ServerGuard | Verifier, required_scopes: Sequence[str]
) -> FastMCPTokenVerifier:
    """Return the verifier for fastmcp."""
    return FastMCPTokenVerifier(verifying, required_scopes)
