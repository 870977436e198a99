"""What if the endpoint of an issuer is slow, or down, or changes its keys at a bad moment?

An endpoint that does as it is told and counts, and short words for a source of keys: for tests
within the fetching of keys, where a user's have it behind them.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.keys import KeySource

URL = "https://auth.example.com/jwks"
OUTAGE = KeysUnavailableError("HTTP 500")


class Endpoint:
    """Serves the keys of these names; may fail, or hold its answer back until it is released."""

    def __init__(self, *kids: str) -> None:
        self.calls: list[float] = []
        self.error: Exception | None = None
        self.released = threading.Event()
        self.released.set()
        self.serve(*kids)

    def serve(self, *kids: str) -> None:
        self.body = json.dumps({"keys": [jwk(kid) for kid in kids]}).encode()

    def __call__(self, url: str, timeout: float) -> bytes:
        self.calls.append(timeout)
        assert self.released.wait(20)
        if self.error is not None:
            raise self.error
        return self.body


def jwk(kid: str) -> dict[str, Any]:
    (published,) = LocalIssuer(algorithm="EdDSA").jwks()["keys"]
    return {**published, "kid": kid}


def source_of(endpoint: Endpoint, clock: FrozenClock, **settings: Any) -> JWKS:
    return JWKS(url=URL, fetch=endpoint, clock=clock, **{"jitter": lambda: 0.0, **settings})


def names(source: KeySource, kid: str | None = "a") -> list[str | None] | None:
    found = source.find(kid, "EdDSA")
    return None if found is None else [key.kid for key in found]


def refresh(source: KeySource) -> None:
    asyncio.run(source.refresh())


def settle(source: JWKS) -> None:
    """Wait for the fetch in the background, whatever becomes of it."""
    for flight in list(source._running.values()):
        asyncio.run(flight.wait(20))


def warmed(endpoint: Endpoint, clock: FrozenClock) -> JWKS:
    """Return a source that has fetched."""
    source = source_of(endpoint, clock)
    assert names(source) is None
    refresh(source)
    assert names(source) == ["a"]
    return source


@contextlib.contextmanager
def held(endpoint: Endpoint, source: JWKS) -> Iterator[None]:
    """Hold the endpoint's answers back within the block."""
    endpoint.released.clear()
    try:
        yield
    finally:
        endpoint.released.set()
        settle(source)
