"""Whose event is this, that a client resumes its stream from?

An event store knows ids and no owners: who has the id of an event reads what came after it. So an
id leaves the guard with a seal over the id, the principal and the session, and comes back in
``Last-Event-ID`` only with the seal of the principal that sends it. No access to the store is
needed for that, and replicas need to share no more than the secret.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
from hashlib import blake2b
from typing import NamedTuple

from toolguard import environment
from toolguard.principal import Principal

__all__ = ["EventIds", "EventOwner"]


_MIN_SECRET = 16
_SEAL_BYTES = 24


class EventOwner(NamedTuple):
    """Whose events those of one session are.

    Attributes:
        principal: issuer, subject and client; None for callers without a token.
        session: the session; None on a server without sessions.
    """

    principal: tuple[str, str | None, str | None] | None
    session: str | None

    @classmethod
    def of(cls, principal: Principal | None, session: str | None) -> EventOwner:
        """Return the owner of what ``principal`` is sent in ``session``."""
        return cls(None if principal is None else principal.session_key, session)


class EventIds:
    """Seals the ids of events, and takes the seals off.

    Args:
        secret: what replicas share; by default the variable ``TOOLGUARD_SECRET``, or without one a
            random one, so that ids are good for as long as this process lives.

    Raises:
        ValueError: for a secret of less than 16 bytes.
    """

    def __init__(self, secret: str | bytes | None = None) -> None:
        found = secret if secret is not None else environment.secret(environment.SECRET)
        material = os.urandom(64) if found is None else _bytes(found)
        if len(material) < _MIN_SECRET:
            raise ValueError(
                f"secret= (or {environment.SECRET}) must have at least {_MIN_SECRET} bytes: write "
                "32 random ones, as `openssl rand -hex 32` prints them"
            )
        self._key = blake2b(material, person=b"toolguard-events").digest()

    def sealed(self, event_id: bytes, owner: EventOwner) -> bytes:
        """Return the id as it is sent to ``owner``."""
        return event_id + b"." + self._seal(event_id, owner)

    def unsealed(self, sent: bytes, owner: EventOwner) -> bytes | None:
        """Return the id as the store knows it; None if it was not sealed for ``owner``."""
        event_id, separator, seal = sent.rpartition(b".")
        is_owners = hmac.compare_digest(seal, self._seal(event_id, owner))
        return event_id if separator and is_owners else None

    def _seal(self, event_id: bytes, owner: EventOwner) -> bytes:
        sealed = json.dumps([event_id.hex(), owner.principal, owner.session]).encode()
        digest = blake2b(sealed, key=self._key, digest_size=_SEAL_BYTES).digest()
        return base64.urlsafe_b64encode(digest)


def _bytes(secret: str | bytes) -> bytes:
    return secret if isinstance(secret, bytes) else secret.strip().encode()
