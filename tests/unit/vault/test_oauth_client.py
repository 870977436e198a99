"""What does the vault send to a service, and what does it make of the answers?"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import httpx
import jwt
import pytest

from toolguard.connections.http import VaultClient
from toolguard.errors import ConnectionResponseError, ConnectionTokenError
from toolguard.vault import Endpoints, OAuthProvider, notion
from toolguard.vault.grants import Grant
from toolguard.vault.oauth_client import OAuthClient

ISSUER = "https://id.test"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}/authorize",
    "token_endpoint": f"{ISSUER}/token",
    "revocation_endpoint": f"{ISSUER}/revoke",
}
ENDPOINTS = Endpoints(f"{ISSUER}/authorize", f"{ISSUER}/token", account=f"{ISSUER}/me")
TOKENS = {"access_token": "access", "refresh_token": "refresh", "token_type": "Bearer"}


def described_by(**settings: Any) -> OAuthProvider:
    known = {"title": "Notes", "client_id": "app", "client_secret": "s:ecret"}
    return OAuthProvider(**{**known, **settings})


class Service:
    """Answers as the test says, and keeps the requests."""

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer
        self.requests: list[httpx.Request] = []

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answered = self.answer(request.url.path)
        if isinstance(answered, Exception):
            raise answered
        return (
            answered if isinstance(answered, httpx.Response) else httpx.Response(200, json=answered)
        )

    def client(self, provider: OAuthProvider | None = None) -> OAuthClient:
        described = provider or described_by(issuer=ISSUER)
        transport = httpx.MockTransport(self)
        return OAuthClient("notes", described, VaultClient(transport=transport), lambda: 1_000.0)


def exchanged(client: OAuthClient) -> Grant:
    grant, _ = asyncio.run(client.exchange("code", "verifier", "https://mcp.test/back", ["read"]))
    return grant


def test_a_service_that_takes_the_secret_in_a_header_gets_it_nowhere_else() -> None:
    service = Service(lambda _: {**TOKENS, "workspace_name": "Ours"})
    grant = exchanged(service.client(notion("app", "s:e cret")))

    (request,) = service.requests
    scheme, _, sent = request.headers["authorization"].partition(" ")
    assert (scheme, b64decode(sent)) == ("Basic", b"app:s%3Ae+cret")
    assert json.loads(request.content) == {
        "grant_type": "authorization_code",
        "code": "code",
        "code_verifier": "verifier",
        "redirect_uri": "https://mcp.test/back",
    }
    assert (grant.access_token, grant.account) == ("access", "Ours")


@pytest.mark.parametrize(
    ("secret", "sent"), [("s:ecret", {"client_secret": ["s:ecret"]}), ("", {})]
)
def test_other_services_get_the_secret_that_there_is_in_the_form(
    secret: str, sent: dict[str, list[str]]
) -> None:
    service = Service(lambda _: TOKENS)
    described = described_by(client_secret=secret, endpoints=ENDPOINTS)
    asyncio.run(service.client(described).refresh(Grant("", refresh_token="old")))

    (request,) = service.requests
    assert "authorization" not in request.headers
    assert parse_qs(request.content.decode()) == {
        "grant_type": ["refresh_token"],
        "refresh_token": ["old"],
        "client_id": ["app"],
        **sent,
    }


def test_the_endpoints_of_an_issuer_are_discovered_once() -> None:
    service = Service(lambda path: TOKENS if path == "/token" else METADATA)
    client = service.client()

    async def twice() -> None:
        for _ in range(2):
            assert isinstance(await client.refresh(Grant("", refresh_token="old")), Grant)

    asyncio.run(twice())
    assert [each.url.path for each in service.requests] == [
        "/.well-known/openid-configuration",
        "/token",
        "/token",
    ]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({**METADATA, "issuer": f"{ISSUER}/"}, "that of another issuer"),
        ({**METADATA, "issuer": "https://evil.test"}, "that of another issuer"),
        ({**METADATA, "token_endpoint": "http://id.test/token"}, "lacks a secure"),
        ({**METADATA, "authorization_endpoint": 5}, "lacks a secure"),
        ({}, "lacks a secure"),
        (httpx.Response(404), "publishes no metadata"),
    ],
)
def test_no_code_is_sent_where_the_metadata_is_not_that_of_the_issuer(
    metadata: Any, told: str
) -> None:
    service = Service(lambda _: metadata)

    with pytest.raises(ConnectionResponseError, match=told):
        exchanged(service.client())
    assert {each.method for each in service.requests} == {"GET"}


@pytest.mark.parametrize(
    ("answer", "confirmed"),
    [
        (httpx.Response(200), True),
        (httpx.Response(400, json={"error": "invalid_token"}), False),
        (httpx.Response(503), False),
        (httpx.ConnectError("refused"), False),
    ],
)
def test_a_grant_is_revoked_where_the_service_says_so(answer: Any, confirmed: bool) -> None:
    service = Service(lambda path: answer if path == "/revoke" else METADATA)
    grant = Grant("access", refresh_token="refresh")

    assert asyncio.run(service.client().revoke(grant)) is confirmed
    sent = parse_qs(service.requests[1].content.decode())
    assert (service.requests[1].url.path, sent["token"]) == ("/revoke", ["refresh"])


@pytest.mark.parametrize("grant", [Grant(""), Grant("access", refresh_token="refresh")])
@pytest.mark.parametrize("url", [None, "http://id.test/revoke"])
def test_what_cannot_be_revoked_is_not_sent(grant: Grant, url: str | None) -> None:
    service = Service(lambda _: {**METADATA, "revocation_endpoint": url})

    assert not asyncio.run(service.client().revoke(grant))
    assert [each.method for each in service.requests] == ["GET"]


@pytest.mark.parametrize(
    ("answer", "account"),
    [
        ({"email": "alice@notes.test"}, "alice@notes.test"),
        ({"email": ["alice"]}, ""),
        (httpx.Response(403, json={}), ""),
        (httpx.ReadTimeout("slow"), ""),
    ],
)
def test_an_account_that_the_service_does_not_tell_has_no_name(answer: Any, account: str) -> None:
    service = Service(lambda path: answer if path == "/me" else TOKENS)
    grant = exchanged(service.client(described_by(endpoints=ENDPOINTS)))

    assert grant.account == account
    assert service.requests[1].headers["authorization"] == "Bearer access"


@pytest.mark.parametrize(
    ("more", "account", "requests"),
    [
        ({"id_token": jwt.encode({"email": "alice@notes.test"}, "s" * 32)}, "alice@notes.test", 1),
        ({"id_token": "e30"}, "", 2),
        ({"id_token": 5}, "", 2),
        ({}, "", 2),
    ],
)
def test_an_account_that_the_answer_names_is_not_asked_for(
    more: dict[str, Any], account: str, requests: int
) -> None:
    service = Service(lambda _: {**TOKENS, **more})

    assert exchanged(service.client(described_by(endpoints=ENDPOINTS))).account == account
    assert len(service.requests) == requests


@pytest.mark.parametrize("answer", [httpx.ConnectError("refused"), httpx.Response(500)])
def test_a_refresh_that_fails_is_sent_once_and_returns_its_error(answer: Any) -> None:
    service = Service(lambda _: answer)
    outcome = asyncio.run(
        service.client(described_by(endpoints=ENDPOINTS)).refresh(Grant("", refresh_token="old"))
    )

    assert isinstance(outcome, ConnectionTokenError)
    assert "old" not in str(outcome)
    assert len(service.requests) == 1
