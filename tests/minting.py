"""How are tokens made and judged in these tests?

With real keys, and by hand where no library would.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm, get_default_algorithms

from toolguard.keys import Key, StaticKeys
from toolguard.principal import Principal
from toolguard.verifiers import JWTVerifier

ISSUER = "https://auth.example.com"
AUDIENCE = "https://mcp.example.com/mcp"
NOW = 1_800_000_000
CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "alice",
    "exp": NOW + 600,
    "iat": NOW - 10,
    "jti": "b6f1",
    "client_id": "desktop",
    "scope": "read write",
}
_CURVES = {"ES256": ec.SECP256R1(), "ES384": ec.SECP384R1(), "ES512": ec.SECP521R1()}


def private_key(algorithm: str = "ES256", owner: str = "issuer") -> Any:
    """Return the private key that ``owner`` signs with, the same one every time."""
    return _generate(algorithm, owner)


@lru_cache
def _generate(algorithm: str, owner: str) -> Any:
    if algorithm in ("EdDSA", "Ed25519"):
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm in _CURVES:
        return ec.generate_private_key(_CURVES[algorithm])
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def public_key(algorithm: str = "ES256", kid: str | None = "k1") -> Key:
    return Key(kid, frozenset({algorithm}), private_key(algorithm).public_key())


def public_jwk(algorithm: str = "ES256", kid: str = "k1") -> dict[str, Any]:
    kind = ECAlgorithm if algorithm in _CURVES else RSAAlgorithm
    members = kind.to_jwk(private_key(algorithm).public_key(), as_dict=True)
    return {**members, "kid": kid, "alg": algorithm}


class Keys:
    """A source of given keys that counts how often it was refreshed.

    Args:
        keys: what the issuer publishes.
        fetched: whether the keys are at hand before the first refresh.
        issuer: what discovery will say.
        replaced: the keys before the first refresh, where the issuer has changed them.
    """

    def __init__(
        self,
        *keys: Key,
        fetched: bool = True,
        issuer: str | None = None,
        replaced: tuple[Key, ...] | None = None,
    ) -> None:
        self._keys = keys
        self._known = (keys if replaced is None else replaced) if fetched else None
        self._issuer = issuer
        self.refreshes = 0

    @property
    def issuer(self) -> str | None:
        return self._issuer if self._known is not None else None

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        if self._known is None:
            return None
        return tuple(
            key for key in self._known if kid in (None, key.kid) and algorithm in key.algorithms
        )

    def suspect(self, kid: str | None) -> bool:
        return self.refreshes == 0

    async def refresh(self) -> None:
        self.refreshes += 1
        self._known = self._keys


def verifier(keys: Keys | None = None, **settings: Any) -> JWTVerifier:
    """Return a verifier of good tokens; ``settings`` come before these."""
    values = {"issuer": ISSUER, "audience": AUDIENCE, "clock": lambda: NOW, **settings}
    return JWTVerifier(keys=keys or Keys(public_key()), **values)


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def mint(
    payload: Mapping[str, Any] | bytes = CLAIMS,
    header: Mapping[str, Any] | bytes | None = None,
    *,
    algorithm: str = "ES256",
    owner: str = "issuer",
) -> str:
    """Return a token signed as the header says or not; bytes are signed as they are.

    Args:
        payload: the claims.
        header: what is added to ``alg`` and ``kid``, or the whole header.
        algorithm: the algorithm that is really used.
        owner: whose key signs it.
    """
    if not isinstance(header, bytes):
        header = to_json({"alg": algorithm, "kid": "k1", **(header or {})})
    if not isinstance(payload, bytes):
        payload = to_json(payload)
    signing_input = f"{b64(header)}.{b64(payload)}"
    signer = get_default_algorithms()["EdDSA" if algorithm == "Ed25519" else algorithm]
    signature = signer.sign(signing_input.encode(), private_key(algorithm, owner))
    return f"{signing_input}.{b64(signature)}"


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims with ``changes``; None leaves a claim out."""
    return {name: value for name, value in {**CLAIMS, **changes}.items() if value is not None}


def verify(token: str) -> Principal:
    """Return whom ``token`` speaks for, here and now, under the issuer's ES256 and RS256 keys."""
    principal = _VERIFIER.verify_now(token)
    assert principal is not None
    return principal


_VERIFIER = JWTVerifier(
    issuer=ISSUER,
    audience=AUDIENCE,
    keys=StaticKeys({"keys": [public_jwk("ES256", "k1"), public_jwk("RS256", "rsa")]}),
    clock=lambda: NOW,
)
