"""Nonces that a server has its clients put into their proofs (RFC 9449 §9).

A nonce is a seal over the period in which it was given out. So nothing is stored, and replicas
have to share only the secret.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from hashlib import blake2b

__all__ = ["Nonces"]

_BYTES = 18


class Nonces:
    """The current nonce, and the one before it.

    Args:
        secret: the secret that replicas share, at most 64 bytes.
        period: the seconds after which there is a new nonce; it is accepted for one period more.
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(self, secret: bytes, period: float, clock: Callable[[], float]) -> None:
        self._secret = secret
        self._period = period
        self._clock = clock

    @property
    def current(self) -> str:
        """The nonce to give out now."""
        return self._of(self._number)

    def accepts(self, nonce: str | None) -> bool:
        """Return whether a proof with this nonce is a new one."""
        # As bytes: compare_digest takes no other text than ASCII.
        sent = (nonce or "").encode("utf-8", "surrogatepass")
        number = self._number
        return any(hmac.compare_digest(sent, self._of(n).encode()) for n in (number, number - 1))

    @property
    def _number(self) -> int:
        return int(self._clock() // self._period)

    def _of(self, number: int) -> str:
        seal = blake2b(str(number).encode(), key=self._secret, digest_size=_BYTES).digest()
        return base64.urlsafe_b64encode(seal).decode("ascii")
