"""Where the introspection endpoint is: found as the keys are, and believed only where it may be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from toolguard import Issuer
from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock
from toolguard.tokens.introspection import (
    BasicClient,
    HTTPAnswer,
    Introspection,
    IntrospectionVerifier,
)
from toolguard.tokens.issuers import Network

NOW = 1_800_000_000
ISSUER, SERVER = "https://a.test", "https://mcp.test/mcp"
OAUTH = f"{ISSUER}/.well-known/oauth-authorization-server"
ENDPOINT = f"{ISSUER}/introspect"
METADATA: dict[str, Any] = {"issuer": ISSUER, "introspection_endpoint": ENDPOINT}
ACTIVE = {"active": True, "sub": "alice", "aud": SERVER, "exp": NOW + 9_000}


class World:
    """An issuer's documents, and the URLs that were requested."""

    def __init__(self, documents: Mapping[str, object]) -> None:
        self.documents = dict(documents)
        self.fetched: list[str] = []
        self.posted: list[str] = []
        self.answer: HTTPAnswer | str = HTTPAnswer(200, "", json.dumps(ACTIVE).encode())
        self.clock = FrozenClock(NOW)

    def fetch(self, url: str, timeout: float) -> bytes:
        assert 0 <= timeout <= 5
        self.fetched.append(url)
        if url not in self.documents:
            raise KeysUnavailableError("HTTP 404")
        return json.dumps(self.documents[url]).encode()

    async def post(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer | str:
        self.posted.append(url)
        return self.answer

    def verifier(self, issuer: str = ISSUER, **settings: Any) -> IntrospectionVerifier:
        asking = Introspection(BasicClient("server", "secret"))
        return IntrospectionVerifier(
            Issuer(issuer, introspection=asking, **settings),
            audience=SERVER,
            post=self.post,
            fetch=self.fetch,
            clock=self.clock,
        )


def outage(verifier: IntrospectionVerifier) -> KeysUnavailableError:
    with pytest.raises(KeysUnavailableError) as caught:
        asyncio.run(verifier.verify("opaque"))
    return caught.value


def test_the_endpoint_is_looked_for_where_the_keys_are() -> None:
    world = World({f"{ISSUER}/.well-known/openid-configuration": METADATA})

    assert asyncio.run(world.verifier().verify("opaque")).user_id == "alice"
    assert world.fetched == [OAUTH, f"{ISSUER}/.well-known/openid-configuration"]
    assert world.posted == [ENDPOINT]


def test_the_endpoint_may_be_of_another_origin() -> None:
    elsewhere = "https://introspect.example.net/i"
    world = World({OAUTH: {**METADATA, "introspection_endpoint": elsewhere}})

    asyncio.run(world.verifier().verify("opaque"))
    assert world.posted == [elsewhere]


@pytest.mark.parametrize(
    "changes",
    [
        {"introspection_endpoint": None},
        {"introspection_endpoint": 5},
        {"introspection_endpoint": ""},
        {"introspection_endpoint": "http://a.test/introspect"},
        {"introspection_endpoint": "http://127.0.0.1/introspect"},
        {"introspection_endpoint": "https://user:secret@a.test/introspect"},
        {"issuer": "https://b.test"},
        {"issuer": f"{ISSUER}/"},
        {"issuer": None},
    ],
)
def test_metadata_that_names_no_safe_endpoint_is_an_outage(
    changes: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    world = World({OAUTH: {**METADATA, **changes}})

    assert outage(world.verifier()).retry_after == 1
    assert world.posted == []
    assert "no endpoint of https://a.test" in caplog.text
    assert "secret" not in caplog.text


def test_an_insecure_origin_is_asked_only_if_it_is_named() -> None:
    inside = "http://keycloak:8080"
    found = {"issuer": inside, "introspection_endpoint": f"{inside}/introspect"}
    world = World({f"{inside}/.well-known/oauth-authorization-server": found})
    network = Network(insecure_origins=[inside])

    asyncio.run(world.verifier(inside, network=network).verify("opaque"))
    assert world.posted == [f"{inside}/introspect"]


def test_given_metadata_is_used_and_has_to_name_its_issuer() -> None:
    url = "https://meta.test/.well-known/openid-configuration"
    settings = {"metadata_url": url, "metadata_issuer": "https://meta.test"}
    world = World({url: {**METADATA, "issuer": "https://meta.test"}})

    asyncio.run(world.verifier(**settings).verify("opaque"))
    assert world.fetched == [url]
    outage(world.verifier(metadata_url=url))


def test_an_outage_is_asked_about_less_and_less_until_it_ends() -> None:
    world = World({})
    verifier = world.verifier()

    waits = []
    for _ in range(8):
        waits.append(outage(verifier).retry_after)
        fetched = len(world.fetched)
        outage(verifier)  # too early: nothing is requested
        assert len(world.fetched) == fetched
        world.clock.advance(waits[-1])
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]

    world.documents[OAUTH] = METADATA
    assert asyncio.run(verifier.verify("opaque")).user_id == "alice"
    world.documents.clear()
    world.clock.advance(3_600)
    assert outage(verifier).retry_after == 1


def test_a_thousand_tokens_at_once_discover_once() -> None:
    world = World({OAUTH: METADATA})
    verifier = world.verifier()

    async def all_at_once() -> None:
        await asyncio.gather(*(verifier.verify(f"opaque-{number}") for number in range(1_000)))

    asyncio.run(all_at_once())
    assert world.fetched == [OAUTH]
    assert len(world.posted) == 1_000


@pytest.mark.parametrize("answer", ["ConnectError", HTTPAnswer(404, "", b"")])
def test_an_endpoint_that_has_moved_is_discovered_again(answer: HTTPAnswer | str) -> None:
    world = World({OAUTH: METADATA})
    verifier = world.verifier()
    good, world.answer = world.answer, answer
    outage(verifier)

    world.answer = good
    world.documents[OAUTH] = {**METADATA, "introspection_endpoint": f"{ISSUER}/moved"}
    asyncio.run(verifier.verify("opaque"))
    assert world.posted == [ENDPOINT, f"{ISSUER}/moved"]


def test_the_endpoint_is_discovered_before_the_first_call() -> None:
    world = World({OAUTH: METADATA})
    verifier = world.verifier()

    asyncio.run(verifier.warm_up())
    assert (world.fetched, world.posted) == ([OAUTH], [])
    world.documents.clear()
    assert asyncio.run(verifier.verify("opaque")).user_id == "alice"
    with pytest.raises(KeysUnavailableError):
        asyncio.run(world.verifier().warm_up())
