"""Who issues the tokens in a test? A local issuer with real keys."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.keys import StaticKeys
from toolguard.verifiers import JWTVerifier

__all__ = ["LocalIssuer"]

Algorithm = Literal["RS256", "PS256", "ES256", "EdDSA"]
_PrivateKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class LocalIssuer:
    """An issuer of access tokens: mints them, and serves its keys and metadata.

    In process, give :meth:`verifier` to a guard. Over HTTP, serve :attr:`app` (for instance with
    :class:`~toolguard.testing.Loopback`) and let the guard discover it.

    Args:
        issuer: the issuer URL it signs with.
        audience: the default ``aud`` of minted tokens.
        algorithm: ``RS256``, ``PS256``, ``ES256`` or ``EdDSA``.
        clock: the time in seconds since the epoch.

    >>> issuer = LocalIssuer(audience="https://mcp.example.com/mcp", algorithm="ES256")
    >>> token = issuer.mint("alice", scopes=["calendar.read"])
    """

    def __init__(
        self,
        issuer: str = "https://issuer.test",
        *,
        audience: str = "https://mcp.test/mcp",
        algorithm: Algorithm = "RS256",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.audience = audience
        self.algorithm: Algorithm = algorithm
        self._clock = clock
        self._keys: dict[str, _PrivateKey] = {}
        self.key_id = ""
        self.rotate()

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; return its ``kid``."""
        if not keep_old:
            self._keys.clear()
        self.key_id = f"key-{len(self._keys) + 1}-{uuid.uuid4().hex[:8]}"
        self._keys[self.key_id] = _generate(self.algorithm)
        return self.key_id

    def claims(
        self,
        user: str | None = "alice",
        *,
        scopes: Sequence[str] = (),
        expires_in: float = 300,
        **claims: Any,
    ) -> dict[str, Any]:
        """Return the claims :meth:`mint` would sign; a claim given as None is left out."""
        now = int(self._clock())
        made: dict[str, Any] = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": user,
            "client_id": "test-client",
            "iat": now,
            "exp": int(now + expires_in),
            "jti": uuid.uuid4().hex,
            "scope": " ".join(scopes) or None,
            **claims,
        }
        return {name: value for name, value in made.items() if value is not None}

    def mint(
        self,
        user: str | None = "alice",
        *,
        scopes: Sequence[str] = (),
        expires_in: float = 300,
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed access token (RFC 9068).

        Args:
            user: the ``sub``; None leaves it out.
            scopes: the ``scope`` claim.
            expires_in: seconds until ``exp``; negative for an expired token.
            headers: JOSE header members to add or replace.
            claims: claims to add or replace; None leaves one out.
        """
        return self.sign(
            self.claims(user, scopes=scopes, expires_in=expires_in, **claims), headers=headers
        )

    def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] | None = None) -> str:
        """Return exactly these claims, signed with the current key."""
        header = {"typ": "at+jwt", "kid": self.key_id, **(headers or {})}
        return jwt.encode(
            dict(claims), self._keys[self.key_id], algorithm=self.algorithm, headers=header
        )

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517 §5)."""
        return {"keys": [_public_jwk(kid, key, self.algorithm) for kid, key in self._keys.items()]}

    def metadata(self) -> dict[str, Any]:
        """Return the discovery document (RFC 8414 §2, with what OpenID adds)."""
        return {
            "issuer": self.issuer,
            "jwks_uri": f"{self.issuer}/jwks",
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [self.algorithm],
            "code_challenge_methods_supported": ["S256"],
        }

    def verifier(self, **settings: Any) -> JWTVerifier:
        """Return a real verifier for this issuer's tokens, with the keys it has now."""
        return JWTVerifier(
            issuer=self.issuer,
            keys=StaticKeys(self.jwks()),
            **{"audience": self.audience, "clock": self._clock, **settings},
        )

    @property
    def app(self) -> Starlette:
        """An ASGI application that serves the metadata and the keys."""
        document, keys = self._serve(self.metadata), self._serve(self.jwks)
        return Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", document),
                Route("/.well-known/openid-configuration", document),
                Route("/jwks", keys),
            ]
        )

    @staticmethod
    def _serve(content: Callable[[], dict[str, Any]]) -> Callable[[Request], Response]:
        return lambda _: JSONResponse(content())

    def __repr__(self) -> str:
        return f"<LocalIssuer: {self.issuer} for {self.audience}>"


def _generate(algorithm: Algorithm) -> _PrivateKey:
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)


def _public_jwk(kid: str, key: _PrivateKey, algorithm: Algorithm) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        text = RSAAlgorithm.to_jwk(key.public_key())
    elif isinstance(key, ec.EllipticCurvePrivateKey):
        text = ECAlgorithm.to_jwk(key.public_key())
    else:
        text = OKPAlgorithm.to_jwk(key.public_key())
    return {**json.loads(str(text)), "kid": kid, "alg": algorithm, "use": "sig"}
