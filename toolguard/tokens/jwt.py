"""Verify JWT access tokens (RFC 9068, RFC 8725) and return their principals.

A verifier remembers the result for the bytes of a valid token. A remembered result is used only
while the key source returns the same key; the time claims are checked on every call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from typing_extensions import Self

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.parsing.audience import (
    accepted_audiences,
    audience_fault,
    canonical_audience,
    check_audience,
)
from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.parts.figures import Figure, figures_of
from toolguard.parts.lifecycle import warm_up
from toolguard.principal import Principal
from toolguard.tokens.claims import (
    Times,
    check_actors,
    check_confirmation,
    check_subject,
    check_times,
    read_times,
)
from toolguard.tokens.faults import Faults, warn_of_shared
from toolguard.tokens.forgetting import forget_variables
from toolguard.tokens.issuers.issuer import MAX_LEEWAY, Issuer
from toolguard.tokens.jws import CompactJWS, media_type, parse_object
from toolguard.tokens.keys import Key, KeySource
from toolguard.tokens.memo import Memo, Verified, digest_of
from toolguard.tokens.profile import STRICT, Profile
from toolguard.tokens.proofs.presented import check_binding
from toolguard.tokens.signatures import DEFAULT_ALGORITHMS, is_signed
from toolguard.tokens.verifier import Verifier

__all__ = [
    "DEFAULT_ALGORITHMS",
    "DEFAULT_TOKEN_TYPES",
    "JWTVerifier",
    "Verifier",
    "canonical_audience",
]

DEFAULT_TOKEN_TYPES = ("at+jwt", "JWT")
"""The accepted ``typ`` values: that of RFC 9068, and the generic one that most issuers send."""

# One may end early because stale keys may serve, one may have started before the token came.
_REFRESHES = 3
# The key ids that verified signatures; more than one key set may hold.
_MAX_PROVEN = 200


class JWTVerifier:
    """Verifies JWT access tokens of one issuer for one server (RFC 9068 §4, RFC 8725).

    Args:
        issuer: the ``iss`` of every token, compared character by character. None takes the
            issuer that ``keys`` discovered; until it is known, no token is accepted.
        audience: the ``aud`` value of this server: its canonical URI, or the identifier that the
            authorization server uses for it. Several are alternatives. URLs are compared in the
            form of :func:`canonical_audience`, other values as exact strings. A configured URL
            that ends in a slash also accepts the form without it.
        keys: the source of the issuer's keys: a ``StaticKeys``, a ``JWKS``, or your own.
        algorithms: the ``alg`` values to accept; a subset of ``DEFAULT_ALGORITHMS``. ``none`` and
            shared secrets cannot be accepted.
        leeway: seconds by which the issuer's clock may differ, for ``exp``, ``nbf`` and ``iat``;
            0 to 300.
        token_types: the ``typ`` values to accept, in any case, with or without ``application/``.
            A token without ``typ`` counts as ``JWT``. ``{"at+jwt"}`` is what RFC 9068 requires.
        permissions_are_scopes: count the ``permissions`` claim as scopes (Auth0 with RBAC).
        require_single_audience: refuse tokens with further audiences: those servers could replay
            them here (RFC 8707 §3).
        remember: how many valid tokens to remember, so that their signatures are not verified
            again while the key source returns the same key; 0 for none.
        profile: the differences of the issuer's tokens; use :meth:`of` for a described issuer.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if a setting is empty or out of range, or names an algorithm that is not
            asymmetric.
        TypeError: if ``keys`` is not a key source.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        *,
        issuer: str | None,
        audience: str | Sequence[str],
        keys: KeySource,
        algorithms: Collection[str] = DEFAULT_ALGORITHMS,
        leeway: float = 5.0,
        token_types: Collection[str] = DEFAULT_TOKEN_TYPES,
        permissions_are_scopes: bool = False,
        require_single_audience: bool = False,
        remember: int = 1024,
        profile: Profile = STRICT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not all(callable(getattr(keys, name, None)) for name in ("find", "refresh")):
            raise TypeError("keys is a source of keys: write keys=StaticKeys(jwks) or a JWKS")
        if issuer == "" or (issuer is None and not hasattr(keys, "issuer")):
            raise ValueError('write issuer="https://auth.example.com", as the tokens have it')
        self._issuer = issuer
        self._keys = keys
        self._audiences = _configured_audiences(audience)
        self._accepted = accepted_audiences(self._audiences)
        self._algorithms = _checked_algorithms(algorithms)
        self._leeway = _checked_leeway(leeway)
        self._token_types = _checked_types(token_types)
        self._permissions_are_scopes = permissions_are_scopes
        self._require_single_audience = require_single_audience
        self._profile = profile
        self._proven: dict[str | None, None] = {}
        self._memo = Memo(_checked_size(remember))
        self._clock = clock
        self._faults = Faults(issuer or repr(keys), clock)
        warn_of_shared(self._audiences)

    @classmethod
    def of(
        cls,
        issuer: Issuer,
        *,
        audience: str | Sequence[str] = (),
        keys: KeySource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return the verifier of a described issuer's tokens.

        Args:
            issuer: the description.
            audience: the ``aud`` of this server, if the description has none.
            keys: the source of its keys, instead of the described one.
            clock: returns the time, in seconds since the epoch.
        """
        return cls(
            issuer=issuer.url,
            audience=issuer.audiences or audience,
            keys=issuer.key_source() if keys is None else keys,
            algorithms=issuer.algorithms or DEFAULT_ALGORITHMS,
            leeway=issuer.leeway,
            token_types=issuer.token_types or DEFAULT_TOKEN_TYPES,
            permissions_are_scopes=issuer.permissions_are_scopes,
            profile=issuer.profile,
            clock=clock,
        )

    @property
    def issuer(self) -> str | None:
        """The issuer whose tokens are accepted; None until it is discovered."""
        if self._issuer is not None:
            return self._issuer
        discovered: str | None = getattr(self._keys, "issuer", None)
        return discovered

    @property
    def profile(self) -> Profile:
        """The declared differences of the issuer's tokens."""
        return self._profile

    @property
    def published(self) -> tuple[str, ...]:
        """The authorization servers that clients are told of (RFC 9728)."""
        return self._profile.published or ((self.issuer,) if self.issuer else ())

    @property
    def shares_connections(self) -> bool:
        """Whether the issuer's subjects are known to the connection provider."""
        return self._profile.shares_connections

    def scope_names_of(self, issuer: str | None) -> ScopeNames:
        """Return how scopes are called at the issuer.

        Args:
            issuer: an issuer; this verifier has one only.
        """
        del issuer
        return self._profile.scope_names

    async def discover(self) -> None:
        """Fetch the issuer's name, if only its metadata has it.

        Raises:
            KeysUnavailableError: if it cannot be fetched.
        """
        if self.issuer is None:
            await self._keys.refresh()

    @property
    def audiences(self) -> tuple[str, ...]:
        """The ``aud`` values of this server, as configured."""
        return self._audiences

    @property
    def leeway(self) -> float:
        """Seconds by which the issuer's clock may differ."""
        return self._leeway

    async def warm_up(self) -> None:
        """Fetch the issuer's keys, if the source fetches keys and has none.

        Raises:
            KeysUnavailableError: if they cannot be fetched.
        """
        await warm_up(self._keys)

    def figures(self) -> Iterable[Figure]:
        """Return the figures of the source of keys."""
        return figures_of(self._keys)

    async def verify(self, token: str, *, bound: bool = False) -> Principal:
        """Verify ``token`` and return its principal; suspends only to fetch keys.

        Args:
            token: the access token.
            bound: whether the token has to be bound to a key, whose possession the caller of this
                method checks (RFC 9449 §7); otherwise it must not be.

        Raises:
            InvalidTokenError: if the token is not valid; its ``reason`` says why.
            KeysUnavailableError: if the issuer's keys cannot be fetched.
        """
        try:
            principal = self._judge(token, bound=bound)
            for _ in range(_REFRESHES):
                if principal is None:
                    await self._keys.refresh()
                    principal = self._judge(token, refreshed=True, bound=bound)
            if principal is None:
                raise KeysUnavailableError("The keys of the authorization server are not known")  # noqa: TRY301
        except BaseException as error:
            forget_variables(error)
            del token
            raise
        return principal

    async def verify_bound(self, token: str) -> Principal:
        """Verify a ``token`` that is bound to a key, and return its principal with ``jkt``.

        The possession of the key is checked by the caller of this method (RFC 9449 §7).

        Args:
            token: the access token.

        Raises:
            InvalidTokenError: if the token is not valid, or not bound to a key.
            KeysUnavailableError: if the issuer's keys cannot be fetched.
        """
        verifying = self.verify(token, bound=True)
        del token  # a traceback shows local variables, and none may hold a token
        return await verifying

    def verify_now(self, token: str) -> Principal | None:
        """Verify ``token`` without I/O; return None if keys have to be fetched first.

        Raises:
            InvalidTokenError: if the token is not valid; its ``reason`` says why.
            KeysUnavailableError: if the issuer's keys cannot be fetched.
        """
        try:
            return self._judge(token)
        except BaseException as error:
            forget_variables(error)
            del token
            raise

    def _judge(
        self, token: str, *, refreshed: bool = False, bound: bool = False
    ) -> Principal | None:
        """Return the principal; None if keys must be fetched first."""
        issuer, digest = self.issuer, digest_of(token)
        verified = known = self._memo.recall(digest)
        if known is not None:  # valid while its key and issuer are in use
            keys = self._keys.find(known.kid, known.algorithm) or ()
            # The names of a described issuer do not change; a discovered one may become known.
            is_other = self._profile.names is None and known.issuer != issuer
            if is_other or all(key is not known.key for key in keys):
                verified = None
        if verified is None:
            verified = self._examine(token, issuer, refreshed=refreshed)
        if verified is None:
            return None
        if (verified.principal.jkt is None) is bound:
            check_binding(verified.principal.jkt, bound=bound)
        check_times(verified.times, self._clock(), self._leeway)
        if verified is not known:
            self._memo.keep(digest, verified)
        return verified.principal if verified.is_flat else verified.own_principal()

    def _examine(self, token: str, issuer: str | None, *, refreshed: bool) -> Verified | None:
        jws = self._read(token)
        claims = parse_object(jws.payload)
        # Before the look-up: a token of another issuer causes none, and no request.
        if issuer is not None and not self._issued(claims, issuer):
            if self._profile.reads_token_issuer and not getattr(self._keys, "is_fetched", True):
                # The metadata may name it. Asked for once: afterwards it is known.
                self._keys.find(None, jws.algorithm)
                return None
            self._faults.tell("iss", self._issuer_names, claims.get("iss"))
            raise InvalidTokenError("issuer", "The token is of another issuer")
        key = self._signer(jws, issuer, refreshed=refreshed)
        if key is None:
            return None
        if key.issuer is not None and not self._profile.vouches(key.issuer, claims):
            raise InvalidTokenError("key", "The key of the token is one of another issuer")
        return Verified(jws.algorithm, jws.kid, key, *self.examined(claims, jws.typ))

    def check_issuer(self, claims: Mapping[str, Any]) -> None:
        """Check that claims, whose origin has been verified, are of this issuer.

        Args:
            claims: the claims of a token.

        Raises:
            InvalidTokenError: if they are of another one.
        """
        if not self._issued(claims, self.issuer):
            raise InvalidTokenError("issuer", "The token is of another issuer")

    def _issued(self, claims: Mapping[str, Any], issuer: str | None) -> bool:
        """Return whether the claims are of this issuer, which has that name."""
        if self._profile.issued(claims, issuer):
            return True
        named = getattr(self._keys, "token_issuer", None)
        return self._profile.reads_token_issuer and named is not None and claims.get("iss") == named

    @property
    def _issuer_names(self) -> tuple[str, ...]:
        names = self._profile.names
        return (str(self.issuer),) if names is None else tuple(names.exact) or (str(self.issuer),)

    def _read(self, token: str) -> CompactJWS:
        jws = self._faults.parsed(token, self._profile.ignored_parameters)
        if jws.algorithm not in self._algorithms:
            raise InvalidTokenError("algorithm", "The token uses an algorithm not accepted here")
        if jws.typ not in self._token_types:
            self._faults.tell("typ", sorted(self._token_types), jws.typ)
            raise InvalidTokenError("type", "The token is not of a type accepted here")
        return jws

    def _signer(self, jws: CompactJWS, issuer: str | None, *, refreshed: bool) -> Key | None:
        """Return the issuer's key that signed the token; None if keys must be fetched first."""
        keys = self._keys.find(jws.kid, jws.algorithm)
        if keys is None or issuer is None:
            return None
        for key in keys:
            if is_signed(jws, key):
                if jws.kid not in self._proven and len(self._proven) < _MAX_PROVEN:
                    self._proven[jws.kid] = None
                return key
        if not keys:
            self._faults.tell("kid", "one that the issuer publishes", jws.kid)
            raise InvalidTokenError(
                "key", "The token is signed with a key that its issuer does not publish"
            )
        # The issuer may have replaced a key under its old name.
        if not refreshed and jws.kid in self._proven and self._keys.report_bad_signature(jws.kid):
            return None
        raise InvalidTokenError("signature", "The signature of the token is wrong")

    def examined(self, claims: Mapping[str, Any], typ: str) -> tuple[Times, Principal]:
        """Return the period and the principal of claims of this issuer.

        Args:
            claims: the claims of a token, whose origin has been verified.
            typ: the ``typ`` of its header.

        Raises:
            InvalidTokenError: if one of the claims is not accepted; times are not compared.
        """
        if "aud" in claims or not self._profile.admits_client(claims):
            self._check_audience(claims)
        check_subject(claims)
        if "act" in claims:
            check_actors(claims)
        # RFC 7519 §4.1.7.
        if not isinstance(claims.get("jti", ""), str):
            raise InvalidTokenError("claims", "The jti claim of the token is not a string")
        if "cnf" in claims:
            check_confirmation(claims)
        fault = self._profile.fault_of_kind(claims, typ)
        if fault is not None:
            self._faults.tell("kind", "an access token", fault)
            raise InvalidTokenError("type", "The token is not an access token")
        times = read_times(claims)
        principal = Principal.from_claims(
            claims, permissions_are_scopes=self._permissions_are_scopes
        )
        if self._profile.scope_names is not SAME:
            scopes = self._profile.scope_names.read(principal.scopes)
            principal = replace(principal, scopes=scopes)
        return times, principal

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        aud = claims.get("aud")
        if isinstance(aud, str) and aud in self._accepted:  # the accepted ones are canonical
            return
        fault = audience_fault(aud, self._accepted, alone=self._require_single_audience)
        if fault is not None:
            self._faults.tell("aud", self._audiences, aud)
            raise InvalidTokenError("audience", fault)

    def __repr__(self) -> str:
        return f"<JWTVerifier: tokens of {self.issuer} for {', '.join(self._audiences)}>"


def _configured_audiences(audience: str | Sequence[str]) -> tuple[str, ...]:
    audiences = (audience,) if isinstance(audience, str) else tuple(audience or ())
    if not audiences or "" in audiences:
        raise ValueError('write audience="https://mcp.example.com/mcp", the URL of this server')
    for item in audiences:
        check_audience(item)
    return audiences


def _checked_algorithms(algorithms: Collection[str]) -> frozenset[str]:
    if isinstance(algorithms, str) or not algorithms:
        raise ValueError('write algorithms=["RS256"]: a list that names at least one')
    unknown = [name for name in algorithms if name not in DEFAULT_ALGORITHMS]
    if unknown:
        raise ValueError(
            f"{unknown[0]!r} is not accepted for access tokens: a public key cannot check it "
            f"safely; choose among {', '.join(DEFAULT_ALGORITHMS)}"
        )
    return frozenset(algorithms)


def _checked_leeway(leeway: float) -> float:
    # NaN fails this comparison, too. RFC 9068 §4 allows "no more than a few minutes".
    if not 0 <= leeway <= MAX_LEEWAY:
        raise ValueError(f"leeway is a number of seconds from 0 to {MAX_LEEWAY}, not {leeway!r}")
    return leeway


def _checked_types(token_types: Collection[str]) -> frozenset[str]:
    if isinstance(token_types, str) or not token_types:
        raise ValueError('write token_types=["at+jwt"]: a list that names at least one')
    return frozenset(media_type(name) for name in token_types)


def _checked_size(remember: int) -> int:
    if type(remember) is not int or remember < 0:
        raise ValueError(f"remember is a number of tokens, 0 for none, not {remember!r}")
    return remember
