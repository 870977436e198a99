"""What do the tests of gateways share?"""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from toolguard.testing import LocalIssuer, Loopback


@pytest.fixture(scope="package")
def signing() -> Iterator[LocalIssuer]:
    """An authorization server that publishes its keys."""
    with Loopback() as loopback:
        issuer = LocalIssuer(loopback.url, audience="https://mcp.test/mcp", algorithm="ES256")
        loopback.start(issuer.app)
        yield issuer


@pytest.fixture(scope="package")
def patient() -> Iterator[httpx.Client]:
    """An HTTP client that waits until a process has started."""
    with httpx.Client(timeout=60) as client:
        yield client
