"""The signing keys of the development server, and their rotation."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from toolguard.dev.store import Store

__all__ = ["ALGORITHM", "SigningKeys"]

ALGORITHM = "ES256"
"""How tokens are signed."""

# A verifier's clock may be five minutes off (RFC 9068 §4), and it keeps keys for as long.
_GRACE = 600


class SigningKeys:
    """The keys of one server, in its store.

    One key signs; the next one is published already, so that verifiers have fetched it before it
    signs a token; retired keys are published for as long as their tokens are valid.

    Args:
        store: where they are kept.
        clock: the time in seconds since the epoch.
        lifetime: seconds for which what was signed is good.
    """

    def __init__(self, store: Store, clock: Callable[[], float], *, lifetime: float) -> None:
        self._store = store
        self._clock = clock
        self._lifetime = lifetime
        if self._current() is None:
            self.rotate(keep_old=False)

    def rotate(self, *, keep_old: bool = True) -> str:
        """Sign with the next key from now on; return its ``kid``.

        Args:
            keep_old: publish the old keys for as long as tokens of theirs are good; False
                withdraws them at once, as after a theft.
        """
        with self._store.transaction() as db:
            if not keep_old:
                db.execute("DELETE FROM signing_key")
                db.execute("INSERT INTO signing_key VALUES (?, ?, 'next', NULL)", _new_key())
            db.execute(
                "UPDATE signing_key SET state = 'retired', retired_at = ? WHERE state = 'current'",
                (self._clock(),),
            )
            db.execute("UPDATE signing_key SET state = 'current' WHERE state = 'next'")
            db.execute("INSERT INTO signing_key VALUES (?, ?, 'next', NULL)", _new_key())
        return self._signing_key()[0]

    def sign(self, claims: Mapping[str, Any], *, kind: str = "at+jwt") -> str:
        """Return ``claims`` as a token, signed with the current key.

        Args:
            claims: its content.
            kind: its ``typ``; by default that of access tokens (RFC 9068 §2.1).
        """
        kid, pem = self._signing_key()
        return jwt.encode(dict(claims), pem, algorithm=ALGORITHM, headers={"typ": kind, "kid": kid})

    def jwks(self) -> dict[str, Any]:
        """Return the public keys (RFC 7517 §5), the current one first."""
        oldest = self._clock() - self._lifetime - _GRACE
        with self._store.lock:
            rows = self._store.db.execute(
                "SELECT kid, pem FROM signing_key WHERE retired_at IS NULL OR retired_at > ?"
                " ORDER BY state, retired_at DESC",
                (oldest,),
            ).fetchall()
        return {"keys": [_public_jwk(kid, pem) for kid, pem in rows]}

    def _signing_key(self) -> tuple[str, str]:
        row = self._current()
        if row is None:
            raise RuntimeError("the store was emptied under the server")
        return row

    def _current(self) -> tuple[str, str] | None:
        with self._store.lock:
            row: tuple[str, str] | None = self._store.db.execute(
                "SELECT kid, pem FROM signing_key WHERE state = 'current'"
            ).fetchone()
        return row


def _new_key() -> tuple[str, str]:
    key = generate_ec_key(SECP256R1())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return secrets.token_hex(8), pem


def _public_jwk(kid: str, pem: str) -> dict[str, Any]:
    key = load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TypeError("the store holds a signing key of another kind")
    jwk = json.loads(str(ECAlgorithm.to_jwk(key.public_key())))
    return {**jwk, "kid": kid, "alg": ALGORITHM, "use": "sig"}
