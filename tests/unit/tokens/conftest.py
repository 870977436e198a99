"""A source of keys, with an endpoint and a clock that a test moves."""

from __future__ import annotations

import pytest

from support.issuing import Endpoint, source_of, warmed
from toolguard.testing import FrozenClock
from toolguard.tokens.jwks import JWKS


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock(1_000)


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint("a")


@pytest.fixture
def source(endpoint: Endpoint, clock: FrozenClock) -> JWKS:
    return source_of(endpoint, clock)


@pytest.fixture
def warm(endpoint: Endpoint, clock: FrozenClock) -> JWKS:
    return warmed(endpoint, clock)
