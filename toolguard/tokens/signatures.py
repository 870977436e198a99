"""Verify the signature of a JWS with one key (RFC 7515 §5.2)."""

from __future__ import annotations

from collections.abc import Mapping

from jwt.algorithms import Algorithm, get_default_algorithms

from toolguard.tokens.jws import CompactJWS
from toolguard.tokens.keys import Key

__all__ = ["DEFAULT_ALGORITHMS", "is_signed"]

DEFAULT_ALGORITHMS = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
)
"""All supported signature algorithms: asymmetric ones (RFC 7518 §3.1, RFC 8037, RFC 9864)."""

_PYJWT = get_default_algorithms()
_ALGORITHMS: Mapping[str, Algorithm] = {
    # RFC 9864 §2.2: Ed25519 is EdDSA with the curve in its name; the key decides which it is.
    name: _PYJWT["EdDSA" if name == "Ed25519" else name]
    for name in DEFAULT_ALGORITHMS
}


def is_signed(jws: CompactJWS, key: Key) -> bool:
    """Return whether ``key`` verifies the signature of ``jws``.

    Args:
        jws: the parsed token; its ``alg`` is a supported one.
        key: the key; it verifies its own algorithms only.
    """
    # RFC 8725 §3.1: a key is used with one algorithm, which is checked at every use. A key has
    # algorithms of its own type and curve only, so PyJWT need not look at these again.
    if jws.algorithm not in key.algorithms:
        return False
    return _ALGORITHMS[jws.algorithm].verify(jws.signing_input, key.material, jws.signature)
