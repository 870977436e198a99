"""Who may be a client by a metadata document of their own, and from where it is fetched."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from support.devrooms import CALLBACK, Room, authorize_url
from toolguard.dev.oauth.metadata_documents import MetadataDocuments, is_document_url, resolve_host
from toolguard.dev.oauth.refusals import Refusal
from toolguard.testing import Loopback


class Publisher:
    """Publishes what it is told to, at /client.json, on loopback."""

    def __init__(self) -> None:
        self.document: Any = {}
        self.asked = 0
        self.headers: dict[str, str] = {}
        self.app = Starlette(
            routes=[
                Route("/client.json", self._client),
                Route("/long.json", self._long),
                Route("/moved.json", self._moved),
                Route("/slow.json", self._slow),
            ]
        )

    async def _client(self, request: Request) -> Response:
        self.asked += 1
        return JSONResponse(self.document, headers=self.headers)

    async def _long(self, request: Request) -> Response:
        return JSONResponse({"client_id": str(request.url), "x": "x" * 40_000})

    async def _moved(self, request: Request) -> Response:
        return RedirectResponse("/client.json")

    async def _slow(self, request: Request) -> Response:
        return StreamingResponse(self._drip(), media_type="application/json")

    async def _drip(self) -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.02)


def ask_with_document(
    path: str = "/client.json", asked: str = CALLBACK, **document: Any
) -> httpx.Response:
    """Begin an authorization as a client that publishes ``document``."""
    publisher = Publisher()
    with Loopback(publisher.app) as published:
        url = published.url + path
        publisher.document = {
            "client_id": url,
            "client_name": "Published",
            "redirect_uris": [CALLBACK],
            **document,
        }
        # Only what drips for ever has to wait for it.
        timeout = 0.5 if path == "/slow.json" else 30.0
        room = Room(documents=MetadataDocuments(timeout=timeout))
        return room.client.follow(room.client.get(authorize_url(url, redirect_uri=asked)))


def test_a_document_is_a_registration() -> None:
    page = ask_with_document()
    assert page.status_code == 200
    assert "<strong>Published</strong> asks you to sign in" in page.text


def test_the_consent_page_says_who_published_the_document() -> None:
    publisher = Publisher()
    with Loopback(publisher.app) as published:
        url = f"{published.url}/client.json"
        publisher.document = {"client_id": url, "redirect_uris": [CALLBACK]}
        room = Room()
        page = room.consent_at(room.visitor(), url)
        assert f"It is published by {published.url.removeprefix('http://')}" in page.text


def test_a_document_may_name_addresses_of_its_own_origin() -> None:
    publisher = Publisher()
    with Loopback(publisher.app) as published:
        url = f"{published.url}/client.json"
        own = f"{published.url}/callback"
        publisher.document = {"client_id": url, "redirect_uris": [own]}
        room = Room()
        page = room.client.follow(room.client.get(authorize_url(url, redirect_uri=own)))
        assert page.status_code == 200


@pytest.mark.parametrize(
    "document",
    [
        {"client_id": "http://127.0.0.1:1/client.json"},
        {"client_id": None},
        {"redirect_uris": ["https://evil.example/callback"]},
        {"redirect_uris": []},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"client_secret": "published"},
        {"client_name": ["x"]},
        {"grant_types": ["client_credentials"]},
    ],
)
def test_a_document_that_cannot_be_met_stops_on_a_page(document: dict[str, Any]) -> None:
    page = ask_with_document(**document)
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "This cannot go on" in page.text


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "https://127.0.0.1:1/callback",
        "claude://evil/x",
        "javascript:alert(1)",
    ],
)
def test_a_document_cannot_approve_of_itself(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "toolguard.dev"):
        page = ask_with_document(asked=uri, redirect_uris=[uri])
    assert page.status_code == 400
    assert "location" not in page.headers
    assert "A redirect URI is not among those approved for this server" in page.text
    assert "registration of 'Published' refused" in caplog.text


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/nothing.json", "it is not there"),
        ("/moved.json", "it is not there"),
        ("/long.json", "it is too long"),
        ("/slow.json", "it cannot be fetched"),
    ],
)
def test_a_document_that_cannot_be_had_stops_on_a_page(path: str, why: str) -> None:
    page = ask_with_document(path)
    assert page.status_code == 400
    assert f"not usable: {why}" in page.text


@pytest.mark.parametrize("document", [[], "x", 5])
def test_a_document_has_to_be_an_object(document: Any) -> None:
    publisher = Publisher()
    publisher.document = document
    with Loopback(publisher.app) as published:
        assert "it is not a JSON object" in fetch(f"{published.url}/client.json")


def test_a_document_has_to_be_json() -> None:
    broken = Starlette(routes=[Route("/client.json", broken_json)])
    with Loopback(broken) as published:
        assert "it is not a JSON object" in fetch(f"{published.url}/client.json")


async def broken_json(request: Request) -> Response:
    return Response(b'{"client_id": ', media_type="application/json")


def test_hosts_are_looked_up_where_the_system_does() -> None:
    assert asyncio.run(resolve_host("127.0.0.1", 443))[0] == "127.0.0.1"


@pytest.mark.parametrize("headers", [{"content-type": "text/html"}, {"content-encoding": "gzip"}])
def test_a_document_has_to_be_plain_json(headers: dict[str, str]) -> None:
    publisher = Publisher()
    publisher.headers = headers
    with Loopback(publisher.app) as published:
        assert "it is not plain JSON" in fetch(f"{published.url}/client.json")


def test_a_document_is_fetched_for_every_authorization_and_not_for_tokens() -> None:
    publisher = Publisher()
    with Loopback(publisher.app) as published:
        url = f"{published.url}/client.json"
        publisher.document = {"client_id": url, "redirect_uris": [CALLBACK]}
        room = Room()
        response = room.redeem(url, room.code(url))
        assert response.status_code == 200
        assert publisher.asked == 1
        assert "refresh_token" not in response.json()
        publisher.document["redirect_uris"] = ["http://127.0.0.1:3000/other"]
        assert room.client.get(authorize_url(url)).status_code == 400
        assert publisher.asked == 2


def fetch(url: str, *addresses: str) -> str:
    """Return why the document at ``url`` is not usable."""

    async def resolve(host: str, port: int) -> list[str]:
        return [*addresses]

    class Unreachable(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise AssertionError("it was fetched")

    transport = Unreachable() if addresses else None
    documents = MetadataDocuments(resolve=resolve, transport=transport)
    with pytest.raises(Refusal) as refused:
        asyncio.run(documents.fetch(url))
    assert refused.value.error == "invalid_client"
    return refused.value.description


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["192.168.0.1"],
        ["169.254.169.254"],
        ["100.64.0.1"],
        ["0.0.0.0"],
        ["224.0.0.1"],
        ["::1"],
        ["fe80::1"],
        ["fd00::1"],
        ["::ffff:10.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
    ],
)
def test_no_document_is_fetched_from_inside_a_network(addresses: list[str]) -> None:
    assert "private network" in fetch("https://client.example/client.json", *addresses)


def test_a_document_is_fetched_from_the_address_that_was_checked() -> None:
    seen: list[httpx.Request] = []

    class Remote(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            seen.append(request)
            headers = {"content-type": "application/json; charset=utf-8"}
            content = httpx.ByteStream(b'{"client_id": "x"}')
            return httpx.Response(200, headers=headers, stream=content)

    async def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("client.example", 8443)
        return ["2606:4700::1111"]

    documents = MetadataDocuments(resolve=resolve, transport=Remote())
    found = asyncio.run(documents.fetch("https://client.example:8443/client.json"))
    assert found == {"client_id": "x"}
    assert str(seen[0].url) == "https://[2606:4700::1111]:8443/client.json"
    assert seen[0].headers["host"] == "client.example:8443"
    assert seen[0].extensions["sni_hostname"] == "client.example"
    assert "authorization" not in seen[0].headers
    assert "cookie" not in seen[0].headers


@pytest.mark.parametrize(
    "url",
    [
        "https://client.example",
        "https://client.example/",
        "https://client.example/a/../b.json",
        "https://client.example/%2e%2e/b.json",
        "https://client.example/a.json#x",
        "https://client.example/a.json?x=1",
        "https://user@client.example/a.json",
        "http://client.example/a.json",
        "ftp://client.example/a.json",
        "https://client.example/a b.json",
    ],
)
def test_a_client_id_that_is_no_acceptable_url_is_not_fetched(url: str) -> None:
    assert not is_document_url(url)
    page = Room().client.get(authorize_url(url))
    assert page.status_code == 400
    assert "location" not in page.headers


def test_a_registered_client_cannot_take_the_id_of_a_document() -> None:
    room = Room()
    registered = room.register(client_id="https://claude.ai/client.json")
    assert registered["client_id"].startswith("client-")
    assert room.redeem("https://claude.ai/client.json", "x").json()["error"] == "invalid_client"
