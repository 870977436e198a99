"""A key of a client, and DPoP proofs made with it: valid ones, and invalid ones by name."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.utils import base64url_encode

from toolguard.errors import InvalidProofReason
from toolguard.tokens.proofs.proof import MAX_PROOF_LENGTH, token_hash
from toolguard.tokens.proofs.thumbprint import thumbprint

__all__ = ["INVALID_PROOFS", "ProofKey"]

_JWS = PyJWS()
_HOUR = 3_600

_Algorithm = Literal["ES256", "ES384", "EdDSA", "RS256", "PS256"]
_Changes = Mapping[str, Any]

# The kinds that differ in a member of the header or of the claims; None leaves it out.
_HEADERS: Mapping[str, tuple[InvalidProofReason, _Changes]] = {
    "without_type": ("type", {"typ": None}),
    "other_type": ("type", {"typ": "JWT"}),
    "type_of_access_token": ("type", {"typ": "at+jwt"}),
    "unsigned": ("algorithm", {"alg": "none"}),
    "symmetric": ("algorithm", {"alg": "HS256"}),
    "without_algorithm": ("algorithm", {"alg": None}),
    "without_key": ("key", {"jwk": None}),
    "key_by_reference": ("key", {"jwk": None, "jku": "https://evil.example/jwks"}),
    "key_that_is_text": ("key", {"jwk": "a key"}),
    "symmetric_key": ("key", {"jwk": {"kty": "oct", "k": "c2VjcmV0"}}),
    "critical_extension": ("malformed", {"crit": ["b64"], "b64": False}),
}
_CLAIMS: Mapping[str, tuple[InvalidProofReason, _Changes]] = {
    "without_id": ("id", {"jti": None}),
    "empty_id": ("id", {"jti": ""}),
    "overlong_id": ("id", {"jti": "a" * 257}),
    "id_that_is_a_number": ("id", {"jti": 7}),
    "without_method": ("method", {"htm": None}),
    "other_method": ("method", {"htm": "PATCH"}),
    "without_target": ("target", {"htu": None}),
    "other_host": ("target", {"htu": "https://evil.example/mcp"}),
    "relative_target": ("target", {"htu": "/mcp"}),
    "without_time": ("time", {"iat": None}),
    "time_that_is_text": ("time", {"iat": "now"}),
    "time_that_is_true": ("time", {"iat": True}),
    "without_token_hash": ("token_hash", {"ath": None}),
    "hash_of_another_token": ("token_hash", {"ath": token_hash("another")}),
}
_OTHERS: Mapping[str, InvalidProofReason] = {
    "missing": "missing",
    "repeated": "repeated",
    "joined": "repeated",
    "empty": "malformed",
    "not_a_token": "malformed",
    "encrypted": "malformed",
    "overlong": "malformed",
    "not_json": "malformed",
    "repeated_member": "malformed",
    "private_key": "key",
    "another_key": "binding",
    "wrong_signature": "signature",
    "other_path": "target",
    "other_scheme": "target",
    "too_old": "time",
    "of_the_future": "time",
}
INVALID_PROOFS: Mapping[str, InvalidProofReason] = MappingProxyType(
    {name: reason for name, (reason, _) in {**_HEADERS, **_CLAIMS}.items()} | dict(_OTHERS)
)
"""The name of every kind of invalid proof, and the ``reason`` it is refused for."""


class ProofKey:
    """The key of a client that proves its possession (DPoP, RFC 9449).

    Args:
        algorithm: the signature algorithm.
        clock: returns the time, in seconds since the epoch.

    Example::

        key = ProofKey()
        token = issuer.mint("alice", key=key)
        proof = key.prove("POST", "https://mcp.example.com/mcp", token)
    """

    def __init__(
        self, algorithm: _Algorithm = "ES256", *, clock: Callable[[], float] = time.time
    ) -> None:
        self.algorithm = algorithm
        self._clock = clock
        self._signer = _JWS.get_algorithm_by_name(algorithm)
        if algorithm == "EdDSA":
            self._key: Any = ed25519.Ed25519PrivateKey.generate()
            self._private = OKPAlgorithm.to_jwk(self._key, as_dict=True)
        elif algorithm in ("ES256", "ES384"):
            curve = ec.SECP256R1() if algorithm == "ES256" else ec.SECP384R1()
            self._key = ec.generate_private_key(curve)
            self._private = ECAlgorithm.to_jwk(self._key, as_dict=True)
        else:
            self._key = rsa.generate_private_key(65_537, 2_048)
            self._private = RSAAlgorithm.to_jwk(self._key, as_dict=True)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        return {m: self._private[m] for m in self._private if m in ("kty", "crv", *"xyne")}

    @property
    def thumbprint(self) -> str:
        """The thumbprint to which tokens are bound (RFC 7638), the ``jkt`` of ``cnf``."""
        return thumbprint(self.jwk)

    def prove(
        self,
        method: str,
        url: str,
        token: str | None = None,
        *,
        nonce: str | None = None,
        headers: Mapping[str, Any] | None = None,
        **claims: Any,
    ) -> str:
        """Return a proof, with an id of its own, for one request (RFC 9449 §4.2).

        Args:
            method: the method of the request.
            url: its URL.
            token: the access token that it carries.
            nonce: the nonce that the server has sent.
            headers: header parameters to add or replace; None omits one.
            claims: claims to add or replace; None omits one.
        """
        usual = {
            "jti": uuid.uuid4().hex,
            "htm": method,
            "htu": url.partition("?")[0].partition("#")[0],
            "iat": int(self._clock()),
            "ath": None if token is None else token_hash(token),
            "nonce": nonce,
        }
        return self.sign_bytes(_json({**usual, **claims}), headers=headers)

    def sign_bytes(self, payload: bytes, *, headers: Mapping[str, Any] | None = None) -> str:
        """Return exactly this payload, signed.

        Args:
            payload: JSON or not.
            headers: header parameters to add or replace; None omits one.
        """
        header = {"typ": "dpop+jwt", "alg": self.algorithm, "jwk": self.jwk, **(headers or {})}
        signing_input = b".".join(map(base64url_encode, (_json(header), payload)))
        signature = self._signer.sign(signing_input, self._key)
        return b".".join((signing_input, base64url_encode(signature))).decode()

    def prove_invalid(self, name: str, method: str, url: str, token: str) -> list[str]:
        """Return the ``DPoP`` headers of a request with an invalid proof: normally one.

        Each differs from a valid proof in one respect, which is its name.

        Args:
            name: one of :data:`INVALID_PROOFS`.
            method: the method of the request.
            url: its URL.
            token: the access token that it carries.

        Raises:
            ValueError: if there is no kind of that name.
        """
        if name in _HEADERS:
            return [self.prove(method, url, token, headers=_HEADERS[name][1])]
        if name in _CLAIMS:
            return [self.prove(method, url, token, **_CLAIMS[name][1])]
        if name not in _OTHERS:
            raise ValueError(
                f"unknown kind of proof {name!r}: write one of {', '.join(INVALID_PROOFS)}"
            )
        good = self.prove(method, url, token)
        head, payload, signature = good.split(".")
        # Its first character: in the last one of some lengths, some bits have no meaning.
        altered = ("B" if signature[0] == "A" else "A") + signature[1:]
        now = int(self._clock())
        scheme, _, rest = url.partition("://")
        other_scheme = "http" if scheme == "https" else "https"
        made: Mapping[str, Callable[[], list[str]]] = {
            "missing": list,
            "repeated": lambda: [good, self.prove(method, url, token)],
            "joined": lambda: [f"{good}, {self.prove(method, url, token)}"],
            "empty": lambda: [""],
            "not_a_token": lambda: ["proof"],
            "encrypted": lambda: [f"{good}.a.b"],
            "overlong": lambda: [self.prove(method, url, token, pad="a" * MAX_PROOF_LENGTH)],
            "not_json": lambda: [self.sign_bytes(b"proof")],
            "repeated_member": lambda: [self.sign_bytes(b'{"jti": "a", "jti": "b"}')],
            "private_key": lambda: [self.prove(method, url, token, headers={"jwk": self._private})],
            "another_key": lambda: [ProofKey(clock=self._clock).prove(method, url, token)],
            "wrong_signature": lambda: [f"{head}.{payload}.{altered}"],
            "other_path": lambda: [self.prove(method, f"{url}x", token)],
            "other_scheme": lambda: [self.prove(method, f"{other_scheme}://{rest}", token)],
            "too_old": lambda: [self.prove(method, url, token, iat=now - _HOUR)],
            "of_the_future": lambda: [self.prove(method, url, token, iat=now + _HOUR)],
        }
        return made[name]()

    def __repr__(self) -> str:
        return f"<ProofKey: {self.thumbprint}>"


def _json(members: Mapping[str, Any]) -> bytes:
    stated = {name: value for name, value in members.items() if value is not None}
    return json.dumps(stated, separators=(",", ":")).encode()
