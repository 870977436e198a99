"""Seal what the vault writes: with keys of this process, or with a key management service."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol, runtime_checkable

from toolguard.connections.sealing import NamedCipher, read_keys
from toolguard.parts.environment import VAULT_KEYS, secret

__all__ = ["KeySeal", "Seal", "UnknownKeyError", "parse_seal"]


class UnknownKeyError(Exception):
    """A row was sealed with a key that this server does not have."""


@runtime_checkable
class Seal(Protocol):
    """Seals and opens rows; the hook for a key management service.

    With envelope encryption, ``sealed`` is the wrapped data key, the nonce and the text; keep
    unwrapped data keys in memory for a while, because ``open`` is on the way of every call.
    """

    @property
    def key_id(self) -> str:
        """The id of the key that :meth:`seal` uses now. Rows under other ids are sealed anew."""
        ...

    async def seal(self, text: bytes, bound_to: bytes) -> bytes:
        """Encrypt ``text``.

        Args:
            text: the text.
            bound_to: the associated data, without which it cannot be opened.
        """
        ...

    async def open(self, sealed: bytes, bound_to: bytes, key_id: str) -> bytes | None:
        """Decrypt a text; None if it was changed, or bound to something else.

        Args:
            sealed: what :meth:`seal` returned.
            bound_to: what the row stands for.
            key_id: the id of the key it was sealed with.

        Raises:
            UnknownKeyError: if there is no key of this id.
        """
        ...


class KeySeal:
    """Seals rows with AES-GCM; the first key writes, all of them read.

    To change a key: give every process the new one as the second, then as the first, run
    ``toolguard vault rotate``, and remove the old one.

    Args:
        keys: 32 bytes each, as bytes or in base64; by default those in the environment variable
            ``TOOLGUARD_VAULT_KEYS``, separated by commas.

    Raises:
        ValueError: if there is no key, or one is not 32 bytes.
        TypeError: if ``keys`` is not a list.
    """

    def __init__(self, keys: Sequence[str | bytes] | None = None) -> None:
        if keys is None:
            keys = [key for key in (secret(VAULT_KEYS) or "").split(",") if key.strip()]
        read = read_keys(
            keys,
            absent=f"every row of the vault is sealed: write keys=[...] or set {VAULT_KEYS} to "
            "the output of: openssl rand -base64 32",
        )
        ciphers = [NamedCipher(key, "toolguard vault 1") for key in read]
        self._ciphers = {cipher.derive("id", "").hex()[:16]: cipher for cipher in ciphers}
        self._key_id = next(iter(self._ciphers))

    @property
    def key_id(self) -> str:
        """The id of the first key."""
        return self._key_id

    async def seal(self, text: bytes, bound_to: bytes) -> bytes:
        """Encrypt ``text`` with the first key.

        Args:
            text: the text.
            bound_to: the associated data, without which it cannot be opened.
        """
        return self._ciphers[self._key_id].seal(_name(bound_to), text, bound_to)

    async def open(self, sealed: bytes, bound_to: bytes, key_id: str) -> bytes | None:
        """Decrypt a text; None if it was changed, or bound to something else.

        Args:
            sealed: what :meth:`seal` returned.
            bound_to: what the row stands for.
            key_id: the id of the key it was sealed with.

        Raises:
            UnknownKeyError: if there is no key of this id.
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise UnknownKeyError(
                "a row is sealed with a key that is not here: put its key back into keys=[...]"
            )
        return cipher.open(_name(bound_to), sealed, bound_to)

    def __repr__(self) -> str:
        return f"<KeySeal: keys: {len(self._ciphers)}>"


def parse_seal(keys: Sequence[str | bytes] | Seal | None) -> Seal:
    """Return the seal that ``keys`` stands for.

    Raises:
        ValueError: if there is no key, or one is not 32 bytes.
        TypeError: if ``keys`` is neither a list nor a seal.
    """
    return keys if isinstance(keys, Seal) else KeySeal(keys)


def _name(bound_to: bytes) -> str:
    return sha256(bound_to).hexdigest()
