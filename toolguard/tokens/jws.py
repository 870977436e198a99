"""Parse the compact serialization of a JWS strictly (RFC 7515 §7.1).

Parsing verifies nothing: callers of :func:`parse` have to check the signature. All functions here
are pure, refuse ambiguous input, and raise only :class:`~toolguard.errors.InvalidTokenError`.
"""

from __future__ import annotations

import functools
import re
from binascii import a2b_base64
from collections.abc import Collection
from dataclasses import dataclass, field
from string import ascii_letters, digits
from typing import Any, NamedTuple

from toolguard.errors import InvalidTokenError
from toolguard.parsing.strict_json import strict_object

__all__ = [
    "KEY_PARAMETERS",
    "MAX_TOKEN_LENGTH",
    "CompactJWS",
    "base64url",
    "has_jose_header",
    "is_jwe",
    "media_type",
    "parse",
    "parse_object",
]

MAX_TOKEN_LENGTH = 16 * 1024
"""The maximum length of a token, in characters; servers rarely allow longer header lines."""

# RFC 7515 §7.1 with the alphabet of §2; only the payload may be empty.
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)")
# The last characters of canonical segments, by length modulo 4: they leave no bits over.
_LAST: tuple[Collection[str], ...] = (
    {"", *ascii_letters, *digits, "-", "_"},
    (),
    {*"AQgw"},
    {*"AEIMQUYcgkosw048"},
)
# RFC 4648 §5, as the alphabet of §4.
_STANDARD = bytes.maketrans(b"-_", b"+/")
# RFC 7516 §7.1; the encrypted key may be empty.
_JWE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*){4}")
_MAX_KID_LENGTH = 256
# An issuer sends the same few headers all the time. A longer one is parsed each time, so that the
# size of the cache is bounded in bytes too.
_KEPT_HEADERS = 256
_MAX_KEPT_LENGTH = 1024
# RFC 8725 §3.10: a token must not supply its verification key, nor the URL to fetch it from.
# `x5t` and `x5t#S256` only name a key, as `kid` does; Entra sends them in every token.
KEY_PARAMETERS = frozenset({"jku", "jwk", "x5c", "x5u"})
"""The header parameters with which a token would bring its own key."""
# RFC 7515 §4.1.11 (no extension is understood here), RFC 7797, RFC 7516 §4.1.2 and §4.1.3.
_UNSUPPORTED_PARAMETERS = frozenset({"crit", "b64", "enc", "zip"})


@dataclass(slots=True, eq=False)
class CompactJWS:
    """The parts of a signed token, not verified. Its representation shows none of them.

    Attributes:
        algorithm: the ``alg`` parameter, unchecked.
        kid: the ``kid`` parameter, printable and short; None if it is absent.
        typ: the ``typ`` parameter as :func:`media_type` returns it; ``"jwt"`` if it is absent
            (RFC 7519 §5.1 makes it optional).
        payload: the JWS payload, decoded.
        signing_input: the octets that the signature covers (RFC 7515 §5.1).
        signature: the JWS signature, decoded.
    """

    algorithm: str = field(repr=False)
    kid: str | None = field(repr=False)
    typ: str = field(repr=False)
    payload: bytes = field(repr=False)
    signing_input: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def parse(token: str, ignored: frozenset[str] = frozenset()) -> CompactJWS:
    """Return the parts of ``token`` (RFC 7515 §7.1).

    Args:
        token: the compact serialization: three base64url segments without padding, of which the
            first decodes to a JSON object. At most ``MAX_TOKEN_LENGTH`` characters.
        ignored: those of ``jku``, ``jwk``, ``x5c`` and ``x5u`` that are ignored, not refused.

    Raises:
        InvalidTokenError: for every other text, with reason ``malformed``, ``encrypted``,
            ``algorithm``, ``key`` or ``type``.
    """
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidTokenError("malformed", "The token is too long")
    match = _COMPACT.fullmatch(token)
    if match is None:
        if is_jwe(token):
            raise InvalidTokenError("encrypted", "The token is encrypted")
        raise InvalidTokenError("malformed", "The token is not a compact JWS")
    header, payload, signature = match.groups()
    read = _known_header if len(header) <= _MAX_KEPT_LENGTH else _read_header
    return CompactJWS(
        *read(header, ignored),
        payload=base64url(payload),
        signing_input=token[: match.end(2)].encode("ascii"),
        signature=base64url(signature),
    )


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``, as :func:`strict_object` reads it.

    Raises:
        InvalidTokenError: with reason ``malformed``, if it is not such an object.
    """
    value = strict_object(data)
    if value is None:
        raise InvalidTokenError("malformed", "A part of the token is not a strict JSON object")
    return value


def is_jwe(text: str) -> bool:
    """Return whether ``text`` has the five segments of an encrypted token (RFC 7516 §7.1)."""
    return _JWE.fullmatch(text) is not None


def has_jose_header(token: str) -> bool:
    """Return whether ``token`` is a JWS or a JWE, valid or not, and so is not opaque.

    >>> has_jose_header("eyJhbGciOiJSUzI1NiJ9.e30.c2ln"), has_jose_header("ya29.c.b0Aaekm1K4")
    (True, False)
    """
    header, dot, _ = token.partition(".")
    try:
        return bool(dot) and strict_object(base64url(header)) is not None
    except ValueError:  # also InvalidTokenError
        return False


def media_type(typ: str) -> str:
    """Return ``typ`` in lower case without ``application/`` (RFC 7515 §4.1.9).

    >>> media_type("application/AT+JWT")
    'at+jwt'
    """
    return typ.lower().removeprefix("application/")


class _Header(NamedTuple):
    algorithm: str
    kid: str | None
    typ: str


def _read_header(segment: str, ignored: frozenset[str]) -> _Header:
    header = parse_object(base64url(segment))
    if not _UNSUPPORTED_PARAMETERS.isdisjoint(header):
        raise InvalidTokenError(
            "malformed", "The token header asks for an extension that is not supported"
        )
    if not (KEY_PARAMETERS - ignored).isdisjoint(header):
        raise InvalidTokenError("key", "The token header brings its own key")
    algorithm, kid, typ = header.get("alg"), header.get("kid"), header.get("typ", "jwt")
    if not isinstance(algorithm, str):
        raise InvalidTokenError("algorithm", "The token header names no algorithm")
    if not isinstance(typ, str) or not typ.isascii():
        raise InvalidTokenError("type", "The typ header of the token is not a media type")
    if "kid" in header and not _is_key_id(kid):
        raise InvalidTokenError("key", "The kid header of the token is not a usable string")
    return _Header(algorithm, kid, media_type(typ))


_known_header = functools.lru_cache(_KEPT_HEADERS)(_read_header)


def _is_key_id(kid: object) -> bool:
    # RFC 8725 §3.10 requires sanitized key ids: they reach look-ups and logs.
    return isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_LENGTH and kid.isprintable()


def base64url(segment: str) -> bytes:
    """Decode canonical base64url only (RFC 4648 §3.5), so that each token has one encoding.

    Args:
        segment: characters of the alphabet of base64url.

    Raises:
        InvalidTokenError: with reason ``malformed``, for another encoding of the same bytes.
    """
    if segment[-1:] not in _LAST[len(segment) % 4]:
        raise InvalidTokenError("malformed", "A part of the token is not canonical base64url")
    return a2b_base64(segment.encode("ascii").translate(_STANDARD) + b"=" * (-len(segment) % 4))
