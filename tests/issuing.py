"""An issuer's endpoint that tests are in charge of, a clock, and short words for a source."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from jwt.algorithms import OKPAlgorithm

from toolguard.errors import KeysUnavailableError
from toolguard.jwks import JWKS
from toolguard.keys import KeySource

URL = "https://auth.example.com/jwks"
OUTAGE = KeysUnavailableError("HTTP 500")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


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
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    return {**OKPAlgorithm.to_jwk(public, as_dict=True), "kid": kid}


def source_of(endpoint: Endpoint, clock: Clock, **settings: Any) -> JWKS:
    return JWKS(url=URL, fetch=endpoint, clock=clock, **{"jitter": lambda: 0.0, **settings})


def names(source: KeySource, kid: str | None = "a") -> list[str | None] | None:
    found = source.find(kid, "EdDSA")
    return None if found is None else [key.kid for key in found]


def refresh(source: KeySource) -> None:
    asyncio.run(source.refresh())


def settle(source: JWKS) -> None:
    """Wait for the fetch in the background, whatever becomes of it."""
    for flight in list(source._flights.values()):
        asyncio.run(flight.wait(20))


def warmed(endpoint: Endpoint, clock: Clock) -> JWKS:
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
