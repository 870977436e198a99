"""The shared context of the parts of the development server."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolguard.dev.oauth.config import World
from toolguard.dev.oauth.notes import Notes
from toolguard.dev.oauth.redirects import LOOPBACK_HOSTS
from toolguard.dev.oauth.signing import SigningKeys
from toolguard.dev.store import Store

__all__ = ["ServerContext"]

_ORIGIN = re.compile(r"https?://(?P<host>[a-z0-9.]+|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", re.ASCII)


@dataclass(frozen=True)
class ServerContext:
    """One authorization server: its world, its memory, its address, its clock.

    Attributes:
        world: who and what there is.
        store: what has happened.
        origin: where it listens, such as ``"http://127.0.0.1:8800"``.
        clock: the time in seconds since the epoch.
        keys: what it signs with.
        notes: its last decisions, for the console.
        server_secrets: what the resources of the world authenticate with, by ``client_id``: as
            the world has it, else made up for this state.

    Raises:
        ValueError: if ``origin`` is not on this machine, or the world has no resource.
    """

    world: World
    store: Store
    origin: str
    clock: Callable[[], float] = field(default=time.time, repr=False)
    keys: SigningKeys = field(init=False, repr=False)
    notes: Notes = field(init=False, repr=False)
    server_secrets: Mapping[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        match = _ORIGIN.fullmatch(self.origin)
        if match is None or match["host"] not in LOOPBACK_HOSTS:
            raise ValueError(
                f"{self.origin!r} is not the origin of a development server: it runs on this "
                "machine only; write 'http://127.0.0.1:8800', without a path"
            )
        if not self.world.resources:
            raise ValueError(
                "no server is known that tokens could be for: write [[resources]] into the world, "
                "or world.with_resources('http://127.0.0.1:8000/mcp')"
            )
        lifetime = self.world.lifetimes.access_token
        object.__setattr__(self, "keys", SigningKeys(self.store, self.clock, lifetime=lifetime))
        object.__setattr__(self, "notes", Notes(self.clock))
        made = {
            resource.client_id: resource.client_secret
            or self.store.secret(f"of {resource.client_id}")
            for resource in self.world.resources
        }
        object.__setattr__(self, "server_secrets", made)

    @property
    def path(self) -> str:
        """The path of the issuer, such as ``"/P2dev"``."""
        return f"/{self.world.project_id}"

    @property
    def issuer(self) -> str:
        """The issuer URL (RFC 8414 §2), such as ``"http://127.0.0.1:8800/P2dev"``."""
        return self.origin + self.path

    def url(self, endpoint: str) -> str:
        """Return the URL of an endpoint, such as ``"token"``."""
        return f"{self.issuer}/{endpoint}"

    def owns(self, url: str) -> bool:
        """Return whether ``url`` is one of this server; redirect to nothing else unasked."""
        return url.isascii() and url.isprintable() and url.startswith(f"{self.origin}/")
