"""The real MCP client's OAuth code goes all the way, over real sockets, on both of its lines."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import jwt
import pytest
from mcp.client.auth import OAuthClientProvider, OAuthFlowError, OAuthRegistrationError
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.devrooms import FETCH, READ, WRITE, fields_of
from toolguard import Refusals
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.guard import ToolGuard
from toolguard.testing import Loopback

# mcp 2 is written for httpx2 and names what a callback returns, mcp 1 for httpx and a pair.
IS_LINE_2 = importlib.util.find_spec("mcp.server.mcpserver") is not None
HTTP: Any = importlib.import_module("httpx2" if IS_LINE_2 else "httpx")
SHARED: Any = importlib.import_module("mcp.shared.auth")
CALLBACK = "http://127.0.0.1:3000/callback"


class Memory:
    """Remembers what a client is told to."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info


class Person:
    """Answers the pages of the server, as somebody at a browser would."""

    def __init__(self, email: str, decision: str = "allow") -> None:
        self.email = email
        self.decision = decision
        self.seen: list[str] = []
        self.answer: dict[str, str] = {}

    async def open(self, url: str) -> None:
        """Begin at the URL the client opens; end where the server sends the browser back."""
        async with httpx.AsyncClient() as browser:
            response = await browser.get(url)
            while "127.0.0.1:3000" not in response.headers.get("location", ""):
                if response.is_redirect:
                    response = await browser.get(response.headers["location"])
                    continue
                action, content = self._filled(response)
                response = await browser.post(action, content=content, headers=FORM)
        query = urlsplit(response.headers["location"]).query
        self.answer = {name: values[0] for name, values in parse_qs(query).items()}

    def _filled(self, page: httpx.Response) -> tuple[str, str]:
        action, pairs = fields_of(page)
        step = action.rpartition("/")[2]
        self.seen.append(step)
        more = {"sign-in": ("email", self.email), "consent": ("decision", self.decision)}
        return action, urlencode([*pairs, *([more[step]] if step in more else [])])

    async def back(self) -> Any:
        """Return what the client reads from the address the browser came back to."""
        code, state = self.answer.get("code", ""), self.answer["state"]
        if not IS_LINE_2:
            return code, state
        return SHARED.AuthorizationCodeResult(code=code, state=state, iss=self.answer["iss"])


FORM = {"content-type": "application/x-www-form-urlencoded"}


@contextmanager
def running() -> Iterator[tuple[DevServer, str]]:
    """Run the development server and a server that it guards; yield it and the URL of that."""
    with Loopback() as authorization, Loopback() as resource, Store() as store:
        url = f"{resource.url}/mcp"
        world = builtin_world().with_resources(url)
        server = DevServer(world, store, origin=authorization.url)
        authorization.start(server.app)
        guard = ToolGuard(
            well_known_url=server.well_known_url,
            audience=url,
            refusals=Refusals(initial_scopes=[READ, WRITE]),
        )
        resource.start(guard.asgi(Starlette(routes=[Route("/mcp", hello)])))
        yield server, url


async def hello(request: Request) -> Response:
    return JSONResponse({"hello": request.url.path})


def client_of(url: str, memory: Memory, person: Person, **metadata: Any) -> OAuthClientProvider:
    asked = {"client_name": "MCP client", "redirect_uris": [AnyUrl(CALLBACK)], **metadata}
    return OAuthClientProvider(
        url,
        OAuthClientMetadata(**asked),
        memory,
        redirect_handler=person.open,
        callback_handler=person.back,
    )


async def get(url: str, auth: Any) -> Any:
    async with HTTP.AsyncClient(auth=auth) as http:
        return await http.get(url, headers={"mcp-protocol-version": "2025-11-25"})


def test_it_registers_signs_in_gets_a_token_and_refreshes_it() -> None:
    memory, person = Memory(), Person("alice@tenant-a.example")
    with running() as (server, url):
        auth = client_of(url, memory, person)
        assert asyncio.run(get(url, auth)).json() == {"hello": "/mcp"}
        assert person.seen == ["sign-in", "provider", "consent"]
        assert person.answer["iss"] == server.issuer
        assert memory.client is not None
        assert memory.client.token_endpoint_auth_method in ("client_secret_basic", "none")
        first = memory.tokens
        assert first is not None
        assert first.scope == f"{READ} {WRITE} {FETCH}"
        claims = jwt.decode(first.access_token, options={"verify_signature": False})
        assert (claims["iss"], claims["aud"], claims["sub"]) == (server.issuer, url, "alice")

        auth.context.token_expiry_time = 1
        assert asyncio.run(get(url, auth)).status_code == 200
        second = memory.tokens
        assert second is not None
        assert first.refresh_token != second.refresh_token
        assert first.access_token != second.access_token
        assert len(person.seen) == 3


@pytest.mark.parametrize("method", ["none", "client_secret_post", "client_secret_basic"])
def test_it_authenticates_in_every_way_that_is_offered(method: str) -> None:
    memory, person = Memory(), Person("carol@tenant-b.example")
    with running() as (_, url):
        auth = client_of(url, memory, person, token_endpoint_auth_method=method)
        assert asyncio.run(get(url, auth)).status_code == 200
    assert memory.tokens is not None
    assert memory.tokens.scope == f"{READ} {FETCH}"


def test_it_survives_a_change_of_keys() -> None:
    memory, person = Memory(), Person("alice@tenant-a.example")
    with running() as (server, url):
        auth = client_of(url, memory, person)
        assert asyncio.run(get(url, auth)).status_code == 200
        server.rotate_keys()
        auth.context.token_expiry_time = 1
        assert asyncio.run(get(url, auth)).status_code == 200


def test_it_stops_where_the_user_does_not_agree() -> None:
    memory, person = Memory(), Person("alice@tenant-a.example", decision="deny")
    with running() as (_, url), pytest.raises(OAuthFlowError):
        asyncio.run(get(url, client_of(url, memory, person)))
    assert person.answer["error"] == "access_denied"
    assert memory.tokens is None


def test_it_cannot_register_where_it_is_not_approved() -> None:
    memory, person = Memory(), Person("alice@tenant-a.example")
    elsewhere = [AnyUrl("https://evil.example/callback")]
    with running() as (_, url), pytest.raises(OAuthRegistrationError, match="invalid_redirect_uri"):
        asyncio.run(get(url, client_of(url, memory, person, redirect_uris=elsewhere)))
    assert person.seen == []
