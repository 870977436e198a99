"""Encrypt what is stored outside of this process, each value for one name.

Every name has its own key, derived from a configured one: a value cannot be decrypted under another
name, and the number of values under one key, which AES-GCM with random nonces limits (NIST SP
800-38D §8.3), is that of one name.
"""

from __future__ import annotations

import base64
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

__all__ = ["NamedCipher", "read_keys"]

_KEY_BYTES = 32
# NIST SP 800-38D §5.2.1.1: 96 bits.
_NONCE_BYTES = 12


class NamedCipher:
    """Encrypts and decrypts values for names, with one configured key.

    Args:
        key: 32 bytes.
        context: what the key is used for, with the version of the format of a value; keys derived
            for other contexts are unrelated.
    """

    def __init__(self, key: bytes, context: str) -> None:
        self._key = key
        self._context = context

    def derive(self, purpose: str, name: str) -> bytes:
        """Return 32 bytes that are the same for the same purpose and name only."""
        return hmac.digest(self._key, f"{self._context} {purpose} {name}".encode(), "sha256")

    def seal(self, name: str, text: bytes, bound_to: bytes) -> bytes:
        """Encrypt ``text`` for ``name``.

        Args:
            name: the name of the value; its key is derived from it.
            text: the value.
            bound_to: the associated data, which :meth:`open` has to be given again.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + AESGCM(self.derive("seal", name)).encrypt(nonce, text, bound_to)

    def open(self, name: str, sealed: object, bound_to: bytes) -> bytes | None:
        """Decrypt a value; None unless :meth:`seal` returned it for the same arguments."""
        if not isinstance(sealed, bytes) or len(sealed) < _NONCE_BYTES:
            return None
        nonce, text = sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:]
        try:
            return AESGCM(self.derive("seal", name)).decrypt(nonce, text, bound_to)
        except InvalidTag:
            return None

    def __repr__(self) -> str:
        return f"<NamedCipher: {self._context}>"


def read_keys(keys: Sequence[str | bytes], *, absent: str) -> list[bytes]:
    """Return keys of 32 bytes, given as such or in base64.

    Args:
        keys: the keys.
        absent: what to say where there is none.

    Raises:
        ValueError: if there is no key, or one is not 32 bytes.
        TypeError: if ``keys`` is not a list.
    """
    if isinstance(keys, (str, bytes)):
        raise TypeError("keys are a list, so that they can be changed: write keys=[key]")
    if not keys:
        raise ValueError(absent)
    return list(map(_read_key, keys))


def _read_key(given: str | bytes) -> bytes:
    key = given if isinstance(given, bytes) else _decode_base64(given)
    if len(key) != _KEY_BYTES:
        raise ValueError(
            f"a key is {_KEY_BYTES} bytes, as such or in base64: openssl rand -base64 32"
        )
    return key


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except ValueError:
        return b""
