"""A cache of connections, what is behind it, and the clock of both."""

from __future__ import annotations

import pytest

from support.keeping import Upstream, cached
from toolguard.connections import CachedConnections
from toolguard.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    return FrozenClock()


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
def connections(upstream: Upstream, clock: FrozenClock) -> CachedConnections:
    return cached(upstream, clock)
