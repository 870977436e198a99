"""A local issuer of access tokens for tests, with real keys."""

from __future__ import annotations

import functools
import json
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import Self

from toolguard.connections.signing import PrivateKey
from toolguard.testing.bad_tokens import BadTokens
from toolguard.testing.proofs import ProofKey
from toolguard.testing.providers import RFC_9068, Provider, ProviderName, provider_named
from toolguard.testing.token_content import TokenContent
from toolguard.tokens.discovery import discovery_urls
from toolguard.tokens.issuers import Issuer
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys
from toolguard.tokens.profile import STRICT

__all__ = ["LocalIssuer", "checked_scopes"]

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"
]
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}
# The parts of a grant that every provider writes in its own claims.
_WORDS = frozenset({"client_id", "tenant", "roles", "permissions"})
_JWS = PyJWS()

# RSA keys of deleted issuers: creating one takes as long as minting a hundred tokens. A key in use
# is never given to a second issuer, which could sign tokens of the first.
_IDLE: deque[rsa.RSAPrivateKey] = deque()


class LocalIssuer(BadTokens):
    """An issuer of access tokens: mints them, and serves its keys and metadata.

    In process, pass :meth:`verifier` to a guard. Over HTTP, serve :attr:`app` (for instance with
    :class:`~toolguard.testing.Loopback`) and let the guard discover it. Invalid tokens are minted
    by name: ``mint_expired()``, ``mint_wrong_audience()`` and the others of
    :data:`~toolguard.testing.bad_tokens.INVALID_TOKENS`.

    Args:
        issuer: the issuer URL (``iss``).
        audience: the default ``aud`` of minted tokens.
        algorithm: an asymmetric one of RFC 7518 §3.1, or ``EdDSA`` with an Ed25519 key.
        provider: the provider whose form the tokens have.
        clock: returns the time, in seconds since the epoch.

    >>> issuer = LocalIssuer(audience="https://mcp.example.com/mcp", algorithm="ES256")
    >>> token = issuer.mint("alice", scopes=["calendar.read"])
    >>> issuer.verifier().verify_now(token)
    <Principal: alice of https://issuer.test via test-client [calendar.read]>
    >>> issuer.verifier().verify_now(issuer.mint_expired("alice", scopes=["calendar.read"]))
    Traceback (most recent call last):
    ...
    toolguard.errors.InvalidTokenError: The token has expired
    """

    def __init__(
        self,
        issuer: str = RFC_9068.issuer,
        *,
        audience: str = RFC_9068.audience,
        algorithm: Algorithm = "RS256",
        provider: Provider = RFC_9068,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.algorithm: Algorithm = algorithm
        self.provider = provider
        self._clock = clock
        self._keys: dict[str, PrivateKey] = {}
        self.key_id = ""
        self.rotate()

    @classmethod
    def like(
        cls,
        provider: ProviderName | Provider,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        algorithm: Algorithm = "RS256",
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return an issuer whose tokens have the claims and headers of a provider's.

        Args:
            provider: a name of :data:`~toolguard.testing.PROVIDERS`, such as ``okta``, or a
                :class:`~toolguard.testing.providers.Provider` of your own.
            issuer: the issuer URL; None for one of the provider's form.
            audience: the server, or the provider's identifier for it; None likewise.
            algorithm: as for the constructor; all of these providers use RS256.
            clock: returns the time, in seconds since the epoch.

        Raises:
            ValueError: if there is no provider of that name.

        >>> issuer = LocalIssuer.like("okta", algorithm="ES256")
        >>> issuer.claims("alice", scopes=["calendar.read"])["scp"]
        ['calendar.read']
        >>> issuer.verifier().verify_now(issuer.mint("alice", scopes=["notes"]))
        <Principal: alice of https://example.okta.com/oauth2/default via test-client [notes]>
        """
        found = provider if isinstance(provider, Provider) else provider_named(provider)
        return cls(
            found.issuer if issuer is None else issuer,
            audience=found.audience if audience is None else audience,
            algorithm=algorithm,
            provider=found,
            clock=clock,
        )

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; return its ``kid``.

        Args:
            keep_old: whether the other keys are still published, so that older tokens stay valid.
        """
        kept = self._keys if keep_old else {}
        key_id = f"key-{len(kept) + 1}-{uuid.uuid4().hex[:8]}"
        # Replaced as a whole: a server in another thread may be reading it.
        self._keys = {**kept, key_id: _new_key(self.algorithm, owner=self)}
        self.key_id = key_id
        return key_id

    def claims(
        self,
        user: str | None = "alice",
        *,
        scopes: Sequence[str] = (),
        expires_in: float = 300,
        **claims: Any,
    ) -> dict[str, Any]:
        """Return the claims :meth:`mint` would sign; a claim given as None is omitted.

        Args:
            user: the subject; None for a client without a user.
            scopes: the granted scopes.
            expires_in: seconds until the token expires.
            claims: further claims.

        Raises:
            ValueError: if tokens of the provider have no such claim.
            TypeError: if ``scopes`` is a string.
        """
        now = self._now()
        grant = TokenContent(
            issuer=self.issuer,
            audience=self.audience,
            user=user,
            scopes=checked_scopes(scopes),
            issued_at=now,
            expires_at=int(now + expires_in),
            **{word: claims.pop(word) for word in _WORDS & claims.keys()},
        )
        made = {**self.provider.claims(grant), **claims}
        return {name: value for name, value in made.items() if value is not None}

    def mint(
        self,
        user: str | None = "alice",
        *,
        scopes: Sequence[str] = (),
        expires_in: float = 300,
        headers: Mapping[str, Any] | None = None,
        key: ProofKey | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed access token (RFC 9068, or in the provider's form).

        Args:
            user: the ``sub``; None omits it.
            scopes: the granted scopes.
            expires_in: seconds until ``exp``; negative for an expired token.
            headers: JOSE header members to add or replace; None omits one. The signature always
                uses :attr:`algorithm`, whatever ``alg`` they state.
            key: the key of the client to which the token is bound (RFC 9449 §6).
            claims: ``client_id``, ``tenant``, ``roles`` and ``permissions``, written in the
                provider's claims for them; and claims to add or replace; None omits one.

        Raises:
            ValueError: if tokens of the provider have no such claim.
            TypeError: if ``scopes`` is a string.
        """
        if key is not None:
            claims = {"cnf": {"jkt": key.thumbprint}, **claims}
        return self.sign(
            self.claims(user, scopes=scopes, expires_in=expires_in, **claims), headers=headers
        )

    def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] | None = None) -> str:
        """Return exactly these claims, signed with the current key.

        Args:
            claims: the claims of the token.
            headers: further members of its header.
        """
        return self.sign_bytes(_json(claims), headers=headers)

    def sign_bytes(
        self, payload: bytes, *, headers: Mapping[str, Any] | bytes | None = None
    ) -> str:
        """Return exactly this payload, signed with the current key.

        Args:
            payload: JSON or not.
            headers: as for :meth:`mint`; bytes are used as the whole header.
        """
        if not isinstance(headers, bytes):
            headers = self._header(headers or {})
        signing_input = b".".join(map(base64url_encode, (headers, payload)))
        # Not PyJWS.encode: it uses the header's `alg`, and refuses invalid headers.
        signer = _JWS.get_algorithm_by_name(self.algorithm)
        signature = signer.sign(signing_input, self._keys[self.key_id])
        return b".".join((signing_input, base64url_encode(signature))).decode()

    def _header(self, members: Mapping[str, Any]) -> bytes:
        usual = {
            "typ": self.provider.typ,
            "alg": self.algorithm,
            "kid": self.key_id,
            **self.provider.header,
        }
        stated = {name: value for name, value in {**usual, **members}.items() if value is not None}
        return _json(stated)

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517 §5)."""
        return {"keys": [_public_jwk(kid, key, self.algorithm) for kid, key in self._keys.items()]}

    def metadata(self) -> dict[str, Any]:
        """Return the discovery document (RFC 8414 §2, with the members of OpenID)."""
        base = self.issuer.removesuffix("/")
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{base}/jwks",
            "authorization_endpoint": f"{base}/authorize",
            "token_endpoint": f"{base}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "code_challenge_methods_supported": ["S256"],
        }

    def verifier(self, **settings: Any) -> JWTVerifier:
        """Return a real verifier for this issuer's tokens, with its current keys.

        Args:
            settings: those of :class:`~toolguard.tokens.jwt.JWTVerifier`, such as
                ``keys=JWKS(url=...)``; they replace the issuer's name, keys, audience and clock,
                and the settings for the provider's tokens.
        """
        known = self.provider.described
        own: dict[str, Any] = {
            "issuer": self.issuer,
            "keys": _Published(self),
            "audience": self.audience,
            "permissions_are_scopes": known is not None and known.permissions_are_scopes,
            # The settings may name another issuer.
            "profile": STRICT if known is None else replace(known.profile, names=None),
            "clock": self._clock,
        }
        return JWTVerifier(**{**own, **settings})

    @property
    def described(self) -> Issuer:
        """The description of this issuer, with its current keys: ``ToolGuard(issuers=[...])``."""
        description = self.provider.description(self.issuer, self.audience)
        plain = {"metadata_url": None, "metadata_issuer": None, "jwks_url": None}
        # Its tokens are JWTs, and nobody is asked about them.
        return description.with_settings(**plain, introspection=None, keys=_Published(self))

    @property
    def app(self) -> Starlette:
        """An ASGI application that serves the metadata and the keys.

        At the paths of the issuer URL, for a server at its origin; and at the root, for an
        application that is mounted at its path.
        """
        metadata = {urlsplit(url).path for url in discovery_urls(self.issuer)}
        metadata |= {urlsplit(url).path for url in discovery_urls("https://mounted.test")}
        keys = {urlsplit(self.metadata()["jwks_uri"]).path, "/jwks"}
        return Starlette(
            routes=[
                *(Route(path, _serving(self.metadata)) for path in sorted(metadata)),
                *(Route(path, _serving(self.jwks)) for path in sorted(keys)),
            ]
        )

    def _now(self) -> int:
        return int(self._clock())

    @functools.cached_property
    def _stranger(self) -> LocalIssuer:
        return LocalIssuer(
            self.issuer,
            audience=self.audience,
            algorithm=self.algorithm,
            provider=self.provider,
            clock=self._clock,
        )

    def __repr__(self) -> str:
        return f"<LocalIssuer: {self.issuer} for {self.audience}>"


def checked_scopes(scopes: Sequence[str]) -> Sequence[str]:
    """Return ``scopes``.

    Raises:
        TypeError: if they are one string.
    """
    if isinstance(scopes, str):
        raise TypeError(f"scopes are a list: write scopes={scopes.split()}")
    return scopes


class _Published(StaticKeys):
    """The published keys of an issuer, which keep the issuer alive."""

    def __init__(self, owner: LocalIssuer) -> None:
        super().__init__(owner.jwks())
        self._owner = owner


def _new_key(algorithm: Algorithm, *, owner: LocalIssuer) -> PrivateKey:
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    try:
        key = _IDLE.pop()
    except IndexError:
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    weakref.finalize(owner, _IDLE.append, key).atexit = False
    return key


def _public_jwk(kid: str, key: PrivateKey, algorithm: Algorithm) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        members = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        members = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    else:
        members = OKPAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**members, "kid": kid, "alg": algorithm, "use": "sig"}


def _serving(content: Callable[[], dict[str, Any]]) -> Callable[[Request], Response]:
    return lambda _: JSONResponse(content())


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
