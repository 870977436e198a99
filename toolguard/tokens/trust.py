"""Verify the tokens of several issuers: each token by the one issuer that its ``iss`` names."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, cast

from toolguard.errors import InvalidTokenError
from toolguard.parsing.scope_names import ScopeNames
from toolguard.parts.figures import Figure, figures_of
from toolguard.parts.lifecycle import close, warm_up
from toolguard.principal import Principal
from toolguard.tokens.faults import Faults
from toolguard.tokens.forgetting import forget_variables
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.jws import KEY_PARAMETERS, has_jose_header, parse_object
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.memo import digest_of
from toolguard.tokens.profile import Profile
from toolguard.tokens.proofs.settings import Mode

__all__ = ["TrustedIssuers", "trusted", "with_issuer"]

_MAX_ROUTES = 2_048
_DOTS_OF_A_JWT = 2


class IssuerVerifier(Protocol):
    """A verifier of the tokens of one described issuer."""

    @property
    def issuer(self) -> str | None:
        """The issuer whose tokens are accepted."""
        ...

    @property
    def profile(self) -> Profile:
        """The declared differences of the issuer's tokens."""
        ...

    @property
    def published(self) -> tuple[str, ...]:
        """The authorization servers that clients are told of."""
        ...

    @property
    def audiences(self) -> tuple[str, ...]:
        """The ``aud`` values of this server."""
        ...

    @property
    def leeway(self) -> float:
        """Seconds by which the issuer's clock may differ."""
        ...

    @property
    def shares_connections(self) -> bool:
        """Whether the issuer's subjects are known to the connection provider."""
        ...

    def verify_now(self, token: str) -> Principal | None:
        """Verify a token without I/O; None if that is not possible."""
        ...

    async def verify(self, token: str) -> Principal:
        """Verify a token."""
        ...

    async def verify_bound(self, token: str) -> Principal:
        """Verify a token that is bound to a key, and return its principal."""
        ...


class TrustedIssuers:
    """Verifies the tokens of a finite set of issuers.

    A token is verified by exactly the issuer that its ``iss`` names, with the keys, the audience
    and the settings of that issuer. For any other ``iss`` no key is looked up and nothing is
    requested.

    Args:
        verifiers: the verifiers of described issuers (:meth:`JWTVerifier.of`); the first is the
            one that clients without a token are sent to first.

    Raises:
        ValueError: if there are none, or two of them claim the same ``iss``.
    """

    def __init__(self, verifiers: Sequence[IssuerVerifier]) -> None:
        if not verifiers:
            raise ValueError('write issuers=[Issuer("https://auth.example.com")]: at least one')
        for position, each in enumerate(verifiers):
            for other in verifiers[:position]:
                _check_apart(each, other)
        self.verifiers = tuple(verifiers)
        self._exact = {
            name: each
            for each in verifiers
            if each.profile.names is not None
            for name in each.profile.names.exact
        }
        self._open = tuple(
            each
            for each in verifiers
            if each.profile.names is not None and each.profile.names.patterns
        )
        asking = [each for each in verifiers if getattr(each, "takes_opaque", False)]
        if len(asking) > 1:
            raise ValueError(
                "opaque tokens do not name their issuer: only one of several issuers may have "
                "introspection= without confirm=True"
            )
        self._opaque = asking[0] if asking else None
        self._faults = Faults("several issuers", time.time)
        # Which verifier accepted a token, by digest: the payload is not read again for routing.
        self._routes: dict[bytes, IssuerVerifier] = {}

    @property
    def issuer(self) -> str | None:
        """The issuer that clients without a token are sent to first."""
        return self.verifiers[0].issuer

    @property
    def published(self) -> tuple[str, ...]:
        """The authorization servers that clients are told of (RFC 9728)."""
        return tuple(dict.fromkeys(name for each in self.verifiers for name in each.published))

    @property
    def audiences(self) -> tuple[str, ...]:
        """The ``aud`` values of this server at any of the issuers."""
        return tuple(dict.fromkeys(name for each in self.verifiers for name in each.audiences))

    @property
    def leeway(self) -> float:
        """The smallest leeway of the issuers, in seconds: for checks after the verification."""
        return min(each.leeway for each in self.verifiers)

    def trusts(self, issuer: str) -> bool:
        """Return whether tokens of ``issuer`` are accepted."""
        return self._verifier_of(issuer) is not None

    def shares_connections(self, issuer: str) -> bool:
        """Return whether the subjects of ``issuer`` are known to the connection provider."""
        found = self._verifier_of(issuer)
        return found is self.verifiers[0] or (found is not None and found.shares_connections)

    def scope_names_of(self, issuer: str | None) -> ScopeNames:
        """Return how scopes are called at ``issuer``; None is the first one."""
        found = self.verifiers[0] if issuer is None else self._verifier_of(issuer)
        return (found or self.verifiers[0]).profile.scope_names

    def figures(self) -> Iterable[Figure]:
        """Return the figures of the issuers' sources of keys."""
        return figures_of(*self.verifiers)

    def dpop_of(self, issuer: str) -> Mode | None:
        """Return whether bound tokens of ``issuer`` are accepted; None if it does not say."""
        found = self._verifier_of(issuer)
        return None if found is None else found.profile.dpop

    async def verify_bound(self, token: str) -> Principal:
        """Verify a ``token`` that is bound to a key, and return its principal with ``jkt``.

        The possession of the key is checked by the caller of this method (RFC 9449 §7).

        Args:
            token: the access token.

        Raises:
            InvalidTokenError: if the token is not valid, or not bound to a key.
            KeysUnavailableError: if the keys of its issuer cannot be fetched.
        """
        verifying = self.verify(token, bound=True)
        del token  # a traceback shows local variables, and none may hold a token
        return await verifying

    async def verify(self, token: str, *, bound: bool = False) -> Principal:
        """Verify ``token`` and return its principal; suspends only to fetch keys.

        Args:
            token: the access token.
            bound: whether the token has to be bound to a key; otherwise it must not be.

        Raises:
            InvalidTokenError: if the token is not valid; its ``reason`` says why.
            KeysUnavailableError: if the keys of its issuer cannot be fetched.
        """
        try:
            digest, verifier = self._route(token)
            principal = await (verifier.verify_bound(token) if bound else verifier.verify(token))
        except BaseException as error:
            forget_variables(error)
            del token
            raise
        self._remember(digest, verifier)
        return principal

    def verify_now(self, token: str) -> Principal | None:
        """Verify ``token`` without I/O; return None if keys have to be fetched first.

        Raises:
            InvalidTokenError: if the token is not valid; its ``reason`` says why.
            KeysUnavailableError: if the keys of its issuer cannot be fetched.
        """
        try:
            digest, verifier = self._route(token)
            principal = verifier.verify_now(token)
        except BaseException as error:
            forget_variables(error)
            del token
            raise
        if principal is not None:
            self._remember(digest, verifier)
        return principal

    async def warm_up(self) -> None:
        """Fetch the keys of all issuers at once.

        Raises:
            KeysUnavailableError: if no issuer can be reached; the outage of one leaves the tokens
                of the others alone.
        """
        outcomes = await asyncio.gather(*map(warm_up, self.verifiers), return_exceptions=True)
        faults = [each for each in outcomes if isinstance(each, BaseException)]
        if faults and len(faults) == len(self.verifiers):
            raise faults[0]

    async def aclose(self) -> None:
        """Close the connections to the issuers that belong to the running event loop."""
        await close(*self.verifiers)

    def _route(self, token: str) -> tuple[bytes, IssuerVerifier]:
        digest = digest_of(token)
        known = self._routes.get(digest)
        if known is not None:
            return digest, known
        # Opaque tokens of Google have one or two dots.
        is_jwt = token.count(".") == _DOTS_OF_A_JWT and has_jose_header(token)
        if self._opaque is not None and not is_jwt:
            return digest, self._opaque
        # Nothing in it has been verified: it only chooses the issuer that the token is held
        # against, which then checks this very claim.
        claims = parse_object(self._faults.parsed(token, KEY_PARAMETERS).payload)
        issuer = claims.get("iss")
        found = self._verifier_of(issuer) if isinstance(issuer, str) else None
        if found is None:
            self._faults.tell("iss", tuple(self._exact) or self.published, issuer)
            raise InvalidTokenError("issuer", "The token is of an issuer that is not trusted here")
        return digest, found

    def _verifier_of(self, issuer: str) -> IssuerVerifier | None:
        found = self._exact.get(issuer)
        if found is not None:
            return found
        fitting = [
            each
            for each in self._open
            if each.profile.names is not None and each.profile.names.has(issuer)
        ]
        return fitting[0] if len(fitting) == 1 else None

    def _remember(self, digest: bytes, verifier: IssuerVerifier) -> None:
        if len(self._routes) >= _MAX_ROUTES:
            self._routes = {}
        self._routes[digest] = verifier

    def __repr__(self) -> str:
        return f"<TrustedIssuers: {', '.join(self.published)}>"


def trusted(
    issuers: Sequence[Issuer], audiences: Sequence[str], clock: Callable[[], float]
) -> IssuerVerifier | TrustedIssuers:
    """Return the verifier of the tokens of these issuers.

    Args:
        issuers: one or more descriptions.
        audiences: the ``aud`` of this server, where a description has none.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if there are none, one has no audience, or two of them claim the same ``iss``.
        TypeError: if one is not an :class:`Issuer`.
    """
    verifiers = [_verifier_for(each, audiences, clock) for each in issuers]
    return verifiers[0] if len(verifiers) == 1 else TrustedIssuers(verifiers)


def with_issuer(
    verifier: object, issuer: Issuer, audiences: Sequence[str], clock: Callable[[], float]
) -> TrustedIssuers:
    """Return a verifier that also trusts ``issuer``; the known issuers keep their keys.

    Raises:
        ValueError: if ``verifier`` is not one of described issuers, or one of them claims the
            same ``iss``.
        TypeError: if ``issuer`` is not an :class:`Issuer`.
    """
    known = verifier.verifiers if isinstance(verifier, TrustedIssuers) else (verifier,)
    if any(getattr(getattr(each, "profile", None), "names", None) is None for each in known):
        raise ValueError(
            "add_issuer() needs a guard with issuers=: write ToolGuard(issuers=[...]) instead of "
            "well_known_url= or verifier="
        )
    described = cast("tuple[IssuerVerifier, ...]", known)
    return TrustedIssuers([*described, _verifier_for(issuer, audiences, clock)])


def _verifier_for(
    issuer: Issuer, audiences: Sequence[str], clock: Callable[[], float]
) -> IssuerVerifier:
    if not isinstance(issuer, Issuer):
        raise TypeError(f"write issuers=[Issuer(...)]: {type(issuer).__name__} is not an Issuer")
    if not (audiences or issuer.audiences):
        raise ValueError('give audience=: what tokens for this server name in their "aud"')
    if issuer.introspection is None:
        return JWTVerifier.of(issuer, audience=audiences, clock=clock)
    from toolguard.tokens.introspection import (  # noqa: PLC0415 - imports httpx
        ConfirmedVerifier,
        IntrospectionVerifier,
        JWTOrOpaqueVerifier,
    )

    if issuer.confirm:
        return ConfirmedVerifier.asking(issuer, audience=audiences, clock=clock)
    if issuer.introspection.jwts:
        return JWTOrOpaqueVerifier.asking(issuer, audience=audiences, clock=clock)
    return IntrospectionVerifier(issuer, audience=audiences, clock=clock)


def _check_apart(one: IssuerVerifier, other: IssuerVerifier) -> None:
    if one.profile.names is None or other.profile.names is None:
        raise ValueError(
            "of several issuers each has to be described: write JWTVerifier.of(Issuer(...))"
        )
    shared = one.profile.names.overlap(other.profile.names)
    if shared is not None:
        raise ValueError(f"two issuers have the same iss in their tokens, {shared!r}")
