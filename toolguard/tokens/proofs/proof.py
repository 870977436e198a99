"""Check a DPoP proof against the request that carries it (RFC 9449 §4.3).

Pure functions of their arguments; each raises only
:class:`~toolguard.errors.InvalidProofError`, whose text contains nothing of the proof.
"""

from __future__ import annotations

import functools
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, NamedTuple

from toolguard.errors import InvalidProofError, InvalidTokenError, KeyMismatchError
from toolguard.parsing.strict_json import strict_object
from toolguard.tokens.jws import CompactJWS, base64url, parse, parse_object
from toolguard.tokens.keys import Key, KeySetError, read_key
from toolguard.tokens.proofs.target import canonical_target
from toolguard.tokens.proofs.thumbprint import thumbprint
from toolguard.tokens.signatures import is_signed

__all__ = ["MAX_PROOF_LENGTH", "Proof", "Request", "check_proof", "read_proof", "token_hash"]

MAX_PROOF_LENGTH = 8 * 1024
"""The maximum length of a proof, in characters; one with an RSA key of 4,096 bits has 2,000."""

_TYPE = "dpop+jwt"
_MAX_ID_LENGTH = 256
_MAX_NONCE_LENGTH = 256
# A client sends the same header with each of its proofs; a longer one is parsed each time.
_KEPT_HEADERS = 1_024
_MAX_KEPT_LENGTH = 2_048
_EMBEDDED = frozenset({"jwk"})


@dataclass(frozen=True)
class Request:
    """What a proof has to be about.

    Attributes:
        method: the method of the request.
        target: its URL, in the form of :func:`canonical_target`.
        token: the access token that it carries; None for a token request.
        key: the thumbprint of the key that the token is bound to; None for a token request.
    """

    method: str
    target: str
    token: str | None = field(default=None, repr=False)
    key: str | None = None


@dataclass(frozen=True)
class Proof:
    """A valid proof, apart from its nonce and from replays.

    Attributes:
        key: the thumbprint of the key that signed it (RFC 7638).
        id: its ``jti``.
        issued_at: its ``iat``, in seconds since the epoch.
        nonce: its ``nonce``; None without one.
    """

    key: str
    id: str = field(repr=False)
    issued_at: float
    nonce: str | None = field(default=None, repr=False)


def read_proof(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """Return the proof of the DPoP header, unchecked.

    Args:
        headers: the raw headers of an ASGI scope; names in lower case.

    Raises:
        InvalidProofError: if there is not exactly one such header.
    """
    sent = [value for name, value in headers if name == b"dpop"]
    if not sent:
        raise InvalidProofError("missing", "Send a DPoP proof in the DPoP header")
    # RFC 9110 §5.3: a proxy may have joined two headers; a proof contains no comma.
    if len(sent) > 1 or b"," in sent[0]:
        raise InvalidProofError("repeated", "Send exactly one DPoP header")
    return sent[0].strip(b" \t").decode("latin-1")


def check_proof(
    proof: str, request: Request, *, now: float, window: float, algorithms: Collection[str]
) -> Proof:
    """Return what ``proof`` says, after checking all of RFC 9449 §4.3 but its nonce.

    Args:
        proof: the content of the DPoP header.
        request: the request that carries it.
        now: the time, in seconds since the epoch.
        window: the seconds by which ``iat`` may differ from that.
        algorithms: the signature algorithms to accept; asymmetric ones.

    Raises:
        InvalidProofError: if it is not valid for this request; its ``reason`` says why.
    """
    jws = _parsed(proof)
    if jws.typ != _TYPE:
        raise InvalidProofError("type", "The DPoP proof does not have the type dpop+jwt")
    if jws.algorithm not in algorithms:
        raise InvalidProofError("algorithm", "The DPoP proof uses an algorithm not accepted here")
    header = proof.partition(".")[0]
    read = _known_key if len(header) <= _MAX_KEPT_LENGTH else _read_key
    key, name = read(header)
    # Before the signature: only for the holder of a token is one verified.
    if request.key is not None and name != request.key:
        raise KeyMismatchError
    if not is_signed(jws, key):
        raise InvalidProofError("signature", "The signature of the DPoP proof is wrong")
    claims = strict_object(jws.payload)
    if claims is None:
        raise InvalidProofError("malformed", "A part of the DPoP proof is not a strict JSON object")
    _check_target(claims, request)
    return Proof(
        key=name,
        id=_text_of(claims, "jti", _MAX_ID_LENGTH),
        issued_at=_time_of(claims, now, window),
        nonce=_text_of(claims, "nonce", _MAX_NONCE_LENGTH) if "nonce" in claims else None,
    )


def token_hash(token: str) -> str:
    """Return the ``ath`` of an access token (RFC 9449 §4.2).

    >>> token_hash("Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU")
    'fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo'
    """
    digest = sha256(token.encode("ascii")).digest()
    return urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def _parsed(proof: str) -> CompactJWS:
    if len(proof) > MAX_PROOF_LENGTH:
        raise InvalidProofError("malformed", "The DPoP proof is too long")
    try:
        return parse(proof, _EMBEDDED)
    except InvalidTokenError as error:
        reason = error.reason
    if reason == "algorithm":
        raise InvalidProofError("algorithm", "The DPoP proof names no algorithm")
    if reason == "type":
        raise InvalidProofError("type", "The DPoP proof does not have the type dpop+jwt")
    if reason == "key":
        raise InvalidProofError("key", "The DPoP proof may name its key by jwk only")
    raise InvalidProofError("malformed", "The DPoP proof is not a signed JWT")


class _EmbeddedKey(NamedTuple):
    key: Key
    thumbprint: str


def _read_key(header: str) -> _EmbeddedKey:
    """Return the public key in a header that :func:`parse` has accepted."""
    jwk = parse_object(base64url(header)).get("jwk")
    if not isinstance(jwk, dict):
        raise InvalidProofError("key", "The DPoP proof contains no key")
    try:
        return _EmbeddedKey(read_key(jwk), thumbprint(jwk))
    except KeySetError:
        problem = "The key in the DPoP proof is not a public key that is accepted here"
    raise InvalidProofError("key", problem)


_known_key = functools.lru_cache(_KEPT_HEADERS)(_read_key)


def _check_target(claims: Mapping[str, Any], request: Request) -> None:
    if claims.get("htm") != request.method:
        raise InvalidProofError("method", "The DPoP proof is for another method")
    if not _is_target(claims.get("htu"), request.target):
        raise InvalidProofError("target", "The DPoP proof is for another URL")
    if request.token is not None and claims.get("ath") != token_hash(request.token):
        raise InvalidProofError("token_hash", "The DPoP proof is for another access token")


def _is_target(named: object, target: str) -> bool:
    """Return whether this is the target, which is empty for a request that no proof is for."""
    if not isinstance(named, str) or not target:
        return False
    # Most clients send the canonical form, which is not worked out again then.
    return named == target or canonical_target(named) == target


def _text_of(claims: Mapping[str, Any], name: str, longest: int) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise InvalidProofError(
            "id" if name == "jti" else "nonce",
            f"The {name} of the DPoP proof is missing, empty or too long",
        )
    return value


def _time_of(claims: Mapping[str, Any], now: float, window: float) -> float:
    """Return the time of issue; refuse a proof that is too old, or of the future."""
    issued_at = claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, (int, float)):
        raise InvalidProofError("time", "The DPoP proof does not say when it was issued")
    # Written so that a number which is not comparable is refused.
    if not now - window <= issued_at <= now + window:
        raise InvalidProofError("time", "The DPoP proof was not issued just now")
    return float(issued_at)
