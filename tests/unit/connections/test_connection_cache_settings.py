"""Which settings of a cache are refused, and what does one show of itself?"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from support.keeping import Ledger, Upstream, asked, cached, fetched, tokens
from toolguard.connections import Connection, ConnectionRequest, StaticConnections
from toolguard.connections.cache import CachedConnections, MemoryTokenCache
from toolguard.errors import ConnectionRequiredError

ALICE = asked()


@pytest.mark.parametrize("namespace", [None, "", 5])
def test_a_shared_cache_needs_a_name_for_the_provider(namespace: Any) -> None:
    with pytest.raises(ValueError, match='write namespace="vault of project-1"'):
        CachedConnections(Upstream(), cache=Ledger(), namespace=namespace)


@pytest.mark.parametrize("setting", ["max_age", "skew", "not_connected_for", "local_age"])
@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
def test_an_impossible_duration_is_refused(setting: str, seconds: float) -> None:
    with pytest.raises(ValueError, match="are seconds, 0 or more"):
        cached(Upstream(), None, **{setting: seconds})


@pytest.mark.parametrize("seconds", [0, -1, float("inf"), float("nan")])
def test_a_request_without_a_limit_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"write timeout=30\.0"):
        cached(Upstream(), timeout=seconds)


def test_a_cache_of_no_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="write max_entries=10_000"):
        MemoryTokenCache(0)


def test_a_cache_of_no_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match="write max_bytes="):
        MemoryTokenCache(max_bytes=0)


def test_refusals_that_are_remembered_before_there_is_one_are_refused() -> None:
    with pytest.raises(ValueError, match="write not_connected_after=1"):
        cached(Upstream(), not_connected_after=0)


def test_what_is_no_provider_is_refused() -> None:
    with pytest.raises(TypeError, match=r"a provider with an async fetch\(\), .* not from str"):
        CachedConnections("https://vault.example")  # type: ignore[arg-type]


def test_a_function_is_cached_like_a_provider() -> None:
    requests: list[ConnectionRequest] = []

    async def function(request: ConnectionRequest) -> Connection:
        requests.append(request)
        return Connection("token")

    connections = CachedConnections(function)

    for _ in range(2):
        assert asyncio.run(connections.fetch(ALICE)).token == "token"
    assert requests == [ALICE]


def test_a_cache_shows_its_provider_by_kind_only() -> None:
    connections = CachedConnections(StaticConnections({"google-calendar": "secret"}), max_age=5)
    tokens(connections, ALICE)

    assert repr(connections) == (
        "<CachedConnections: StaticConnections, 5 s "
        "in <MemoryTokenCache: at most 10000 connections>>"
    )


def test_nothing_is_logged_about_what_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream()
    connections = cached(upstream)
    with caplog.at_level(logging.DEBUG, logger="toolguard"):
        tokens(connections, ALICE, asked(fresh=True), ALICE)
        upstream.failure = ConnectionRequiredError("Connect it", connection="google-calendar")
        asyncio.run(fetched(connections, asked("bob")))

    assert caplog.messages == []
