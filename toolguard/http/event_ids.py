"""Seal the ids of SSE events, so that only their owner can resume a stream.

An event store knows ids but no owners: any caller with the id of an event reads the events after
it. So the guard sends an id with a seal over the id, the principal and the session, and accepts it
in ``Last-Event-ID`` only from that principal. This needs no access to the store, and replicas
have to share only the secret.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from hashlib import blake2b
from typing import NamedTuple

from toolguard.parts import environment
from toolguard.principal import OwnerKey, Principal

__all__ = ["EventIds", "EventOwner"]


_MIN_SECRET = 16
_SEAL_BYTES = 24


class EventOwner(NamedTuple):
    """The owner of the events of one session.

    Attributes:
        principal: the caller, as the owner of what they open; None for one without a token.
        session: the session; None on a server without sessions.
    """

    principal: OwnerKey | None
    session: str | None

    @classmethod
    def of(cls, principal: Principal | None, session: str | None) -> EventOwner:
        """Return the owner of the events sent to ``principal`` in ``session``."""
        return cls(None if principal is None else principal.owner_key, session)


class EventIds:
    """Seals and unseals the ids of events.

    Args:
        secret: the secret that replicas share; by default the environment variable
            ``TOOLGUARD_SECRET``; without one, a random secret for the lifetime of this process.

    Raises:
        ValueError: for a secret of less than 16 bytes.
    """

    def __init__(self, secret: str | bytes | None = None) -> None:
        found = secret if secret is not None else environment.secret(environment.SECRET)
        if found is None:
            material = os.urandom(64)
        else:
            if not isinstance(found, (str, bytes)):  # the value is not shown
                raise TypeError(f"secret= takes a string or bytes, not {type(found).__name__}")
            material = found if isinstance(found, bytes) else found.strip().encode()
        if len(material) < _MIN_SECRET:
            raise ValueError(
                f"secret= (or {environment.SECRET}) must have at least {_MIN_SECRET} bytes: write "
                "32 random ones, as `openssl rand -hex 32` prints them"
            )
        self._key = blake2b(material, person=b"toolguard-events").digest()
        #: A second key, for the pseudonyms of users in decision records.
        self.pseudonyms = blake2b(material, person=b"toolguard-names").digest()
        #: A third one, for the nonces of DPoP proofs.
        self.nonces = blake2b(material, person=b"toolguard-nonces").digest()

    def sealed(self, event_id: bytes, owner: EventOwner) -> bytes:
        """Return the sealed id for ``owner``."""
        return event_id + b"." + self._seal(event_id, owner)

    def unsealed(self, sent: bytes, owner: EventOwner) -> bytes | None:
        """Return the id of the event store; None if it was not sealed for ``owner``."""
        event_id, separator, seal = sent.rpartition(b".")
        is_owners = hmac.compare_digest(seal, self._seal(event_id, owner))
        return event_id if separator and is_owners else None

    def _seal(self, event_id: bytes, owner: EventOwner) -> bytes:
        sealed = json.dumps([event_id.hex(), owner.principal, owner.session]).encode()
        digest = blake2b(sealed, key=self._key, digest_size=_SEAL_BYTES).digest()
        return base64.urlsafe_b64encode(digest)
