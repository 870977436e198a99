"""What do the tests of gateways share?"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from support.gateways import publishing
from support.scripted_upstream import ScriptedUpstream
from toolguard.testing import LocalIssuer


@pytest.fixture(scope="package")
def signing() -> Iterator[LocalIssuer]:
    """An authorization server that publishes its keys."""
    with publishing() as issuer:
        yield issuer


@pytest.fixture(scope="package")
def patient() -> Iterator[httpx.Client]:
    """An HTTP client that waits until a process has started."""
    with httpx.Client(timeout=60) as client:
        yield client


@pytest.fixture
def upstream() -> ScriptedUpstream:
    """The server behind."""
    return ScriptedUpstream("hour")
