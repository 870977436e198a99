"""The official client signs in and steps up at the server of every vendor, as it is imitated."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import get_args

import httpx
import pytest
from mcp.shared.auth import OAuthClientInformationFull

from support.lines import LINES, Line
from toolguard import Refusals, ToolGuard, requires_scopes
from toolguard.dev.story.mcp_client import MCPClient
from toolguard.dev.story.oauth_client import Callback, SignedInClient
from toolguard.dev.vendors import VendorServer
from toolguard.parsing.pkce import s256_challenge
from toolguard.testing import Loopback
from toolguard.testing.providers import ProviderName
from toolguard.tokens.issuers import ScopeNames

VENDORS: tuple[ProviderName, ...] = get_args(ProviderName)
READ, WRITE = "notes.read", "notes.write"
# Their clients have to ask for another name than the one in the tool.
NAMED_OTHERWISE: dict[ProviderName, ScopeNames | None] = {
    "entra": None,
    "xsuaa": None,
    "azure-b2c": ScopeNames("https://contoso.onmicrosoft.com/notes/"),
    "cognito": ScopeNames("notes/", in_tokens=True),
}


class Browser:
    """A browser that goes where it is sent, and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    async def visit(self, url: str) -> None:
        self.asked.append((httpx.URL(url).params.get("scope") or "").split())
        async with httpx.AsyncClient(follow_redirects=True) as browser:
            await browser.get(url)


@contextmanager
def guarded_by(
    vendor: ProviderName, line: Line, callback: str
) -> Iterator[tuple[VendorServer, str]]:
    """Run a vendor's server, and a server that trusts it; yield it and the URL of that."""
    with Loopback() as authorization, Loopback() as resource:
        vendors = VendorServer(
            vendor,
            origin=authorization.url,
            scopes=[READ, WRITE],
            redirect_uri=callback,
            scope_names=NAMED_OTHERWISE.get(vendor),
        )
        authorization.start(vendors.app)
        url = f"{resource.url}/mcp"
        server = line.server("notes")

        @server.tool()
        @requires_scopes(READ)
        async def read_note(*, user_id: str) -> str:
            return f"the note of {user_id}"

        @server.tool()
        @requires_scopes(READ, WRITE)
        async def write_note(*, user_id: str) -> str:
            return f"written for {user_id}"

        guard = ToolGuard(
            issuers=[vendors.described], audience=url, refusals=Refusals(initial_scopes=[READ])
        )
        guard.protect(server)
        resource.start(line.http_app(server, stateless=True, json=True))
        yield vendors, url


def client_of(server: VendorServer, url: str, browser: Browser, callback: Callback) -> MCPClient:
    client = SignedInClient(url, browser, callback)
    if not server.registers:
        known = {
            "client_id": server.client_id,
            "redirect_uris": [callback.redirect_uri],
            "token_endpoint_auth_method": "none",
        }
        client.storage.client = OAuthClientInformationFull.model_validate(known)
    return MCPClient(url, auth=client.auth)


# The servers of vendors do not depend on the line: each is tried with one.
@pytest.mark.parametrize(("vendor", "line"), [*zip(VENDORS, itertools.cycle(LINES))], ids=str)
def test_the_official_client_signs_in_and_steps_up(vendor: ProviderName, line: Line) -> None:
    browser = Browser()
    with Callback() as callback, guarded_by(vendor, line, callback.redirect_uri) as (server, url):
        client = client_of(server, url, browser, callback)
        read = asyncio.run(client.call("read_note"))
        written = asyncio.run(client.call("write_note"))

    assert (read.ok, read.text) == (True, "the note of alice")
    assert (written.ok, written.text) == (True, "written for alice")
    names = server.described.scope_names
    first, second = browser.asked
    assert names.requested(READ) in first
    assert (names.requested(READ) != READ) is (vendor in NAMED_OTHERWISE)
    assert names.requested(WRITE) in second


@pytest.mark.parametrize("vendor", NAMED_OTHERWISE)
def test_a_vendor_does_not_know_the_short_name_of_a_scope(vendor: ProviderName) -> None:
    with Loopback() as loopback:
        server = VendorServer(
            vendor, origin=loopback.url, scopes=[READ], scope_names=NAMED_OTHERWISE[vendor]
        )
        loopback.start(server.app)
        asked = {
            "client_id": server.client_id,
            "redirect_uri": "http://127.0.0.1:3000/callback",
            "code_challenge": "c" * 43,
            "code_challenge_method": "S256",
            "scope": READ,
        }
        endpoint = server.issuer.metadata()["authorization_endpoint"]
        answer = httpx.get(endpoint, params=asked)

    assert "error=invalid_scope" in answer.headers["location"]


@pytest.mark.parametrize(
    ("vendor", "more", "is_refreshed"),
    [
        ("entra", {}, False),
        ("entra", {"scope": "offline_access"}, True),
        ("okta", {"scope": "openid"}, False),
        ("keycloak", {}, True),
        ("cognito", {}, True),
        ("google", {"scope": "openid"}, False),
        ("google", {"access_type": "offline"}, True),
    ],
)
def test_a_vendor_gives_refresh_tokens_to_clients_that_ask_its_way(
    vendor: ProviderName, more: dict[str, str], is_refreshed: bool
) -> None:
    verifier = "v" * 43
    asked = {
        "redirect_uri": "http://127.0.0.1:3000/callback",
        "code_challenge": s256_challenge(verifier),
        "code_challenge_method": "S256",
        **more,
    }
    with Loopback() as loopback:
        server = VendorServer(vendor, origin=loopback.url, scopes=[READ])
        loopback.start(server.app)
        known, asked["client_id"] = server.issuer.metadata(), server.client_id
        back = httpx.get(known["authorization_endpoint"], params=asked).headers["location"]
        code = httpx.URL(back).params["code"]
        form = {**asked, "code": code, "code_verifier": verifier}
        tokens = httpx.post(known["token_endpoint"], data=form).json()

    assert ("refresh_token" in tokens) is is_refreshed


@pytest.mark.parametrize("vendor", ["cognito", "google"])
def test_a_vendor_may_know_no_scope_for_refresh_tokens(vendor: ProviderName) -> None:
    with Loopback() as loopback:
        server = VendorServer(vendor, origin=loopback.url, scopes=[READ])
        loopback.start(server.app)
        metadata = httpx.get(f"{server.issuer.issuer}/.well-known/openid-configuration").json()

    assert "offline_access" not in metadata["scopes_supported"]
