"""Verify a token in the way it was presented: as a bearer token, or bound to a key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable

from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.tokens.proofs.settings import Mode
from toolguard.tokens.verifier import Verifier

__all__ = ["Accepting", "BoundVerifier", "check_accepted", "check_binding", "verified"]


@runtime_checkable
class BoundVerifier(Protocol):
    """A verifier that also verifies tokens which are bound to a key (RFC 9449 §6)."""

    async def verify_bound(self, token: str) -> Principal:
        """Verify ``token`` and return its principal, whose ``jkt`` names the key.

        The possession of the key is checked by the caller of this method.

        Args:
            token: the access token.

        Raises:
            InvalidTokenError: if the token is not valid, or not bound to a key.
            KeysUnavailableError: if the token cannot be verified at this time.
        """
        ...


class Accepting(Protocol):
    """The part of a guard that says which tokens are accepted."""

    verifier: Verifier

    def dpop_mode(self, issuer: str) -> Mode:
        """Return whether bound tokens of an issuer are accepted, or only those."""
        ...


def check_binding(jkt: str | None, *, bound: bool) -> None:
    """Refuse a bound token as a bearer token, and the other way round (RFC 9449 §7.1, §7.2).

    Args:
        jkt: the thumbprint of the key that the token is bound to; None for a bearer token.
        bound: whether it was presented with the scheme ``DPoP``.

    Raises:
        InvalidTokenError: with reason ``bound``.
    """
    if jkt is not None and not bound:
        raise InvalidTokenError(
            "bound", "The token is bound to a key, so it is not accepted as a bearer token"
        )
    if jkt is None and bound:
        raise InvalidTokenError(
            "bound", "The token is not bound to a key, so it is not accepted with DPoP"
        )


def check_accepted(jkt: str | None, mode: Mode, *, bound: bool) -> None:
    """Refuse a token that is not of the kind that is accepted from its issuer.

    Args:
        jkt: the thumbprint of the key that the token is bound to; None for a bearer token.
        mode: whether bound tokens of its issuer are accepted, or only those.
        bound: whether it was presented with the scheme ``DPoP``.

    Raises:
        InvalidTokenError: with reason ``bound``.
    """
    check_binding(jkt, bound=bound)
    if bound and mode == "off":
        raise InvalidTokenError("bound", "Tokens that are bound to a key are not accepted here")
    if mode == "required" and not bound:
        raise InvalidTokenError("bound", "Only tokens that are bound to a key are accepted here")


async def verified(guard: Accepting, token: str, *, bound: bool) -> Principal:
    """Return the principal of a token, if the guard accepts its kind from its issuer.

    Args:
        guard: the guard.
        token: the access token.
        bound: whether it was presented with the scheme ``DPoP``.

    Raises:
        InvalidTokenError: if the token is not valid, or not of the kind that is accepted.
        KeysUnavailableError: if the token cannot be verified at this time.
    """
    # Looked up by name: comparing with the protocol takes longer than a remembered token.
    verify: Callable[[str], Awaitable[Principal]] | None = getattr(
        guard.verifier, "verify_bound" if bound else "verify", None
    )
    if verify is None:
        raise InvalidTokenError("bound", "Tokens that are bound to a key are not accepted here")
    try:
        principal = await verify(token)
    finally:
        del token  # a traceback shows local variables, and none may hold a token
    check_accepted(principal.jkt, guard.dpop_mode(principal.issuer), bound=bound)
    return principal
