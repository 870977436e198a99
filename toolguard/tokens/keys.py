"""Public keys, JWK sets (RFC 7517), and sources of keys.

Parsing a JWK set and choosing a key from it are pure functions. :class:`StaticKeys` is the source
of configured keys, :class:`toolguard.tokens.jwks.JWKS` that of fetched keys. Only asymmetric keys
are accepted: a shared secret that verifies tokens can also sign them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from toolguard.parsing.strict_json import strict_object
from toolguard.tokens.algorithms import BY_CURVE, MIN_RSA_BITS

__all__ = [
    "Key",
    "KeySet",
    "KeySetError",
    "KeySource",
    "PublicKey",
    "StaticKeys",
    "parse_json",
    "read_key",
]

PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey
"""A public key, as PyJWT's algorithms take it."""

_MAX_KEYS = 100
# The signatures that are computed for one token: a token without a key id fits every key.
_MAX_CANDIDATES = 10
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
# RFC 9864 §2.2: "Ed25519" is the fully specified name of what "EdDSA" means for such a key.
_EDDSA = frozenset({"EdDSA", "Ed25519"})

_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
# RFC 7515 §2, RFC 4648 §3.5: base64url without padding, one text for one number. 2,731 characters
# hold 16,384 bits, OpenSSL's largest RSA.
_BASE64URL = re.compile(
    r"(?:[A-Za-z0-9_-]{4}){0,682}(?:[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048]|[A-Za-z0-9_-][AQgw])?"
)

# CVE-2017-15361 (ROCA): the primes of a flawed generator are powers of 65537 modulo every small
# prime, and so is their product. By chance that happens to one modulus in 2^83.
_ROCA = tuple(
    (prime, frozenset(pow(65537, exponent, prime) for exponent in range(prime)))
    for prime in range(3, 354)
    if all(prime % divisor for divisor in range(2, prime))
)

_FIELD = 2**255 - 19
# The y-coordinates of the eight points of small order on Curve25519 in Edwards form (RFC 7748
# §4.1), those of order 8 solved from the curve equation. With such a key anyone can sign.
_SMALL_ORDER = frozenset(
    {
        *(0, 1, _FIELD - 1, _FIELD, _FIELD + 1),
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)


class KeySetError(ValueError):
    """Raised for a key, or a whole key set, that must not be used; the text says why."""


@dataclass(frozen=True)
class Key:
    """One public key that may verify tokens.

    Attributes:
        kid: its key id in the set (RFC 7517 §4.5); None if it has no key id.
        algorithms: the JWS algorithms it may verify: those of its type, narrowed by its ``alg``.
        material: the key as an object of ``cryptography``.
        issuer: its ``issuer`` member, with which Entra says whose tokens it signs; None without.
    """

    kid: str | None
    algorithms: frozenset[str]
    material: PublicKey = field(hash=False)
    issuer: str | None = None

    def __repr__(self) -> str:
        return f"<Key: {self.kid!r} for {' '.join(sorted(self.algorithms))}>"


@dataclass(frozen=True, repr=False)
class KeySet:
    """The keys of one issuer; immutable.

    Attributes:
        keys: one to 100 keys; several may share a ``kid`` (RFC 7517 §4.5).
        skipped: why other members of the document were left out, one sentence each.

    Raises:
        KeySetError: if there are no keys, or too many.
    """

    keys: tuple[Key, ...]
    skipped: tuple[str, ...] = ()
    _index: Mapping[tuple[str | None, str], tuple[Key, ...]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.keys:
            raise KeySetError("; ".join(("the set holds no usable key", *self.skipped[:5])))
        _check_count(len(self.keys))
        object.__setattr__(self, "_index", _index(self.keys))

    @classmethod
    def from_jwks(cls, document: object) -> KeySet:
        """Return the keys of a JWK set (RFC 7517 §5) that may verify signatures.

        Keys that are of an unknown or symmetric type, for other purposes (``use``, ``key_ops``,
        ``alg``), too weak or malformed are left out and listed in ``skipped``.

        Args:
            document: the parsed JSON.

        Raises:
            KeySetError: if the document is not a JWK set, has more than 100 members, or no usable
                key.
        """
        members = document.get("keys") if isinstance(document, Mapping) else None
        if not isinstance(members, list):
            raise KeySetError('a JWK set is an object with a list: {"keys": [...]}')
        _check_count(len(members))
        keys: list[Key] = []
        skipped: list[str] = []
        for position, jwk in enumerate(members):
            try:
                keys.append(read_key(jwk))
            except KeySetError as error:  # noqa: PERF203 - there are at most 100
                skipped.append(f"key {_name(jwk, position)} {error}")
        return cls(tuple(keys), tuple(skipped))

    @classmethod
    def from_pem(cls, pem: str | bytes, *, kid: str | None = None) -> KeySet:
        """Return the one public key of a PEM text (``-----BEGIN PUBLIC KEY-----``).

        Raises:
            KeySetError: if it is anything else, for example a private key or a certificate.
        """
        encoded = pem.encode() if isinstance(pem, str) else pem
        if b"PRIVATE KEY-----" in encoded:
            raise KeySetError("this is a private key: give its public half, and keep it secret")
        try:
            material = serialization.load_pem_public_key(encoded)
        except (ValueError, UnsupportedAlgorithm):
            raise KeySetError(
                "this is not a public key: write the PEM that begins -----BEGIN PUBLIC KEY-----"
            ) from None
        try:
            return cls((Key(kid, *_examined(material)),))
        except KeySetError as error:
            raise KeySetError(f"the key {error}") from None

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """Return the keys to verify a token with, at most 10; an empty tuple if there is none.

        Args:
            kid: the ``kid`` of the token, compared exactly. A token without one is matched with
                every key of the set that fits the algorithm.
            algorithm: the JWS algorithm, such as ``"RS256"``.
        """
        return self._index.get((kid, algorithm), ())

    def __repr__(self) -> str:
        return f"<KeySet: {', '.join(repr(key) for key in self.keys)}>"


class KeySource(Protocol):
    """A source of keys for a verifier, used by any number of threads and event loops."""

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        """Return the known keys for a token, without I/O; may start a fetch in the background.

        Args:
            kid: the ``kid`` of the token's header; None if it has none.
            algorithm: the JWS algorithm, such as ``"RS256"``.

        Returns:
            The candidates; an empty tuple if there is no such key; None if keys have to be
            fetched first: await :meth:`refresh`, and call again.

        Raises:
            KeysUnavailableError: if there are no usable keys, and it is too early for another
                fetch.
        """
        ...

    async def refresh(self) -> None:
        """Wait for newer keys, if a fetch is due; called again while :meth:`find` returns None.

        Raises:
            KeysUnavailableError: if there are no usable keys afterwards.
        """
        ...

    def report_bad_signature(self, kid: str | None) -> bool:
        """Report that a signature did not verify with the key of this ``kid``.

        Returns:
            Whether the issuer may have replaced the key: await :meth:`refresh`, and try again.
        """
        ...


class StaticKeys:
    """A key source with configured keys, which are never fetched.

    If no key has a ``kid``, the keys verify tokens with any ``kid``.

    Args:
        keys: a JWK set (as a dict or as JSON), a public key in PEM, or a :class:`KeySet`.
        kid: the ``kid`` of a PEM key; None to accept any ``kid`` in tokens.

    Raises:
        KeySetError: if there is no usable key, or the set is refused; a ``ValueError``.

    >>> StaticKeys('{"keys": []}')
    Traceback (most recent call last):
    ...
    toolguard.tokens.keys.KeySetError: the set holds no usable key
    """

    def __init__(
        self, keys: KeySet | Mapping[str, Any] | str | bytes, *, kid: str | None = None
    ) -> None:
        self._keys = _given(keys, kid)
        self._nameless = all(key.kid is None for key in self._keys.keys)

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """Return the keys to verify a token with; an empty tuple if there is none.

        Args:
            kid: the ``kid`` of the token; None if it names none.
            algorithm: its ``alg``.
        """
        return self._keys.find(None if self._nameless else kid, algorithm)

    async def refresh(self) -> None:
        """Do nothing: there are no newer keys."""

    def report_bad_signature(self, kid: str | None) -> bool:  # noqa: ARG002 - as KeySource has it
        """Return False: a given key is never replaced.

        Args:
            kid: the ``kid`` of the token.
        """
        return False

    def __repr__(self) -> str:
        return f"<StaticKeys: {self._keys!r}>"


def _given(keys: KeySet | Mapping[str, Any] | str | bytes, kid: str | None) -> KeySet:
    if isinstance(keys, (str, bytes)) and keys.lstrip()[:1] not in ("{", b"{"):
        return KeySet.from_pem(keys, kid=kid)
    if kid is not None:
        raise KeySetError("kid= names a PEM key; the keys of a JWK set have names of their own")
    if isinstance(keys, KeySet):
        return keys
    return KeySet.from_jwks(parse_json(keys) if isinstance(keys, (str, bytes)) else keys)


def parse_json(document: str | bytes) -> dict[str, Any]:
    """Return the JSON object in ``document``, as :func:`strict_object` reads it.

    Raises:
        KeySetError: if it is not such an object (RFC 7517 §4: no member name twice).
    """
    # A lone surrogate in a str becomes bytes that are not UTF-8.
    encoded = document.encode("utf-8", "surrogatepass") if isinstance(document, str) else document
    value = strict_object(encoded)
    if value is None:
        raise KeySetError("it is not a JSON object in UTF-8 that names each member once")
    return value


def _check_count(count: int) -> None:
    if count > _MAX_KEYS:
        raise KeySetError(f"the set holds more than {_MAX_KEYS} keys")


def _index(keys: tuple[Key, ...]) -> dict[tuple[str | None, str], tuple[Key, ...]]:
    index: dict[tuple[str | None, str], tuple[Key, ...]] = {}
    for key in keys:
        for name in product({key.kid, None}, key.algorithms):
            index[name] = (*index.get(name, ()), key)[:_MAX_CANDIDATES]
    return index


def read_key(jwk: object) -> Key:
    """Return the public key that a JWK describes (RFC 7517 §4).

    Raises:
        KeySetError: if it must not verify signatures; the text says why.
    """
    if not isinstance(jwk, Mapping):
        raise KeySetError("is not an object")
    if jwk.get("kty") == "oct":
        # Asymmetric algorithms only: a published secret could sign tokens.
        raise KeySetError("is a symmetric key (kty oct)")
    kid = jwk.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise KeySetError("has a kid that is not a string")
    if any(member in jwk for member in _PRIVATE_MEMBERS):
        raise KeySetError("holds private members: publish public keys only")
    if jwk.get("use") not in (None, "sig"):
        raise KeySetError("is not for signatures (use)")
    operations = jwk.get("key_ops", ["verify"])
    # RFC 7517 §4.3: unrelated operations are not to be combined in one key.
    if operations not in (["verify"], ["sign", "verify"], ["verify", "sign"]):
        raise KeySetError("is not for verifying signatures (key_ops)")
    algorithms, material = _examined(_material(jwk))
    issuer = jwk.get("issuer")
    if issuer is not None and not isinstance(issuer, str):
        raise KeySetError("has an issuer that is not a string")
    return Key(kid, _narrowed(algorithms, jwk.get("alg")), material, issuer)


def _material(jwk: Mapping[str, Any]) -> object:
    kind, curve = jwk.get("kty"), jwk.get("crv", "")
    if not isinstance(kind, str) or kind not in _PUBLIC_MEMBERS or not isinstance(curve, str):
        raise KeySetError("is not of a known kind (kty RSA, EC or OKP)")
    members = {name: jwk.get(name) for name in _PUBLIC_MEMBERS[kind]}
    if not all(isinstance(v, str) and _BASE64URL.fullmatch(v) for v in members.values()):
        raise KeySetError(f"lacks one of {', '.join(members)}, or has it malformed or too long")
    try:
        return PyJWK({"kty": kind, "crv": curve, **members}).key
    except (PyJWTError, ValueError, UnsupportedAlgorithm):
        raise KeySetError("is not a valid key of its kind") from None


def _examined(material: object) -> tuple[frozenset[str], PublicKey]:
    """Return the algorithms of a key, and the key; refuse weak keys (RFC 8725 §3.4)."""
    if isinstance(material, RSAPublicKey):
        _check_modulus(material.public_numbers().n)
        return _RSA, material
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in BY_CURVE:
        return frozenset({BY_CURVE[material.curve.name]}), material
    if isinstance(material, Ed25519PublicKey):
        if _y_coordinate(material) in _SMALL_ORDER:
            raise KeySetError("is a point of small order: anyone could sign for it")
        return _EDDSA, material
    raise KeySetError("is on a curve or of a kind that is not supported")


def _y_coordinate(material: Ed25519PublicKey) -> int:
    # RFC 8032 §5.1.2: little-endian, the topmost bit is the sign of x.
    raw = material.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return int.from_bytes(raw, "little") % 2**255


def _check_modulus(modulus: int) -> None:
    bits = modulus.bit_length()
    if bits < MIN_RSA_BITS:
        # RFC 7518 §3.3 and §3.5.
        raise KeySetError(f"has {bits} bits, where RSA needs {MIN_RSA_BITS}")
    if all(modulus % prime in powers for prime, powers in _ROCA):
        raise KeySetError("can be factored: its generator had the ROCA flaw (CVE-2017-15361)")


def _narrowed(algorithms: frozenset[str], alg: object) -> frozenset[str]:
    """Return the algorithms that ``alg`` permits: one algorithm for a key (RFC 8725 §3.1)."""
    if alg is None:
        return algorithms
    if not isinstance(alg, str) or alg not in algorithms:
        raise KeySetError("states an algorithm (alg) that it cannot verify, or that is not known")
    return _EDDSA if alg in _EDDSA else frozenset({alg})


def _name(jwk: object, position: int) -> str:
    kid = jwk.get("kid") if isinstance(jwk, Mapping) else None
    return ascii(kid[:64]) if isinstance(kid, str) else f"number {position + 1}"
