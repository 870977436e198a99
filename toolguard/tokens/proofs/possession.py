"""Check that the client of a request has the key that its token is bound to (RFC 9449 §7)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import quote

from toolguard.errors import InvalidProofError, NonceRequiredError
from toolguard.tokens.proofs.nonces import Nonces
from toolguard.tokens.proofs.proof import Request, check_proof, read_proof
from toolguard.tokens.proofs.replays import MemoryReplays, Replays
from toolguard.tokens.proofs.settings import DPoP
from toolguard.tokens.proofs.target import canonical_target, target_of

__all__ = ["Possession"]

_KEPT_TARGETS = 256
# What a path may contain unencoded (RFC 3986 §3.3).
_PATH = "/:@!$&'()*+,;=-._~"


class Possession:
    """The proofs of one server.

    Args:
        settings: the settings.
        resource: the URL of this server.
        secret: the secret of its nonces, at most 64 bytes.
        clock: returns the time, in seconds since the epoch.
    """

    def __init__(
        self, settings: DPoP, resource: str, secret: bytes, clock: Callable[[], float]
    ) -> None:
        self.settings = settings
        self._resource = resource
        self._clock = clock
        self._replays: Replays = settings.replays or MemoryReplays(clock=clock)
        self._nonces = Nonces(secret, settings.nonce_period, clock) if settings.nonces else None

    @property
    def nonce(self) -> str | None:
        """The nonce that clients are told; None if proofs need none."""
        return None if self._nonces is None else self._nonces.current

    async def check(self, scope: Mapping[str, Any], token: str, key: str) -> None:
        """Check the proof of a request.

        Args:
            scope: the ASGI scope of the request.
            token: the access token that it carries; verified.
            key: the thumbprint of the key that the token is bound to.

        Raises:
            InvalidProofError: if there is no proof, or it is not valid; its ``reason`` says why.
            KeysUnavailableError: if it cannot be told whether the proof was used before.
        """
        window = self.settings.window
        proof = check_proof(
            read_proof(scope["headers"]),
            Request(scope["method"], self._target(scope), token, key),
            now=self._clock(),
            window=window,
            algorithms=self.settings.algorithms,
        )
        if self._nonces is not None and not self._nonces.accepts(proof.nonce):
            raise NonceRequiredError(self._nonces.current)
        name = sha256(f"{key} {proof.id}".encode("utf-8", "surrogatepass")).digest()
        # Longer than the proof is good: at its very end it is still accepted.
        if not await self._replays.is_first(key, name, proof.issued_at + window + 1):
            raise InvalidProofError("replay", "The DPoP proof has been used before")

    def _target(self, scope: Mapping[str, Any]) -> str:
        """Return the URL of a request, as its client knows it."""
        raw = scope.get("raw_path")
        # RFC 3986 §2.5: without the raw path, a server has decoded the path as UTF-8.
        path = raw.decode("latin-1") if raw else quote(scope["path"], safe=_PATH)
        return _known_target(self._resource, path.partition("?")[0])


@functools.lru_cache(_KEPT_TARGETS)
def _known_target(resource: str, path: str) -> str:
    """Return the canonical URL of a path; no proof is for a path that has none."""
    return canonical_target(target_of(resource, path)) or ""
