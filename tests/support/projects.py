"""A project in Descope's shapes, served on loopback: discovery, keys and the vault."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import shutil
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from tempfile import mkdtemp
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from toolguard.descope import DescopeMCP
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE, OutboundApps
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer, Loopback, ServerAnswer, call_as
from toolguard.vault import Endpoints, OAuthProvider, Person, Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = [
    "APP",
    "KEY",
    "MCP",
    "READ",
    "SLACK",
    "Project",
    "anywhere",
    "call",
    "on_each_line",
    "sdk",
]

MCP = "https://mcp.test/mcp"
KEY = "K-management"
APP = "google-calendar"
SLACK = "slack-workspace"
READ = "https://www.googleapis.com/auth/calendar.readonly"
FAR = 4_000_000_000


SERVICE = "https://service.test"
PAGES = "https://vault.test"


async def refreshed(request: Request) -> JSONResponse:
    """Refresh every token; a refresh token names the access token that it came with."""
    sent = dict(parse_qsl((await request.body()).decode()))["refresh_token"]
    fresh = f"{sent.removeprefix('1//refresh/')}.fresh"
    return JSONResponse({"access_token": fresh, "token_type": "Bearer", "expires_in": 3_600})


async def no_one(_: Request) -> Person | None:
    return None


class Project:
    """Alice of acme and Bob of globex have connected Google, and each tenant has Slack.

    Whose token is refreshed in some test is Dave.

    Attributes:
        issuer: mints the tokens.
        well_known_url: where clients begin.
        asked: what the vault was asked: the last part of the path, and with which credential.
        refuses: whom the vault's policy refuses.
    """

    def __init__(self, url: str) -> None:
        self.issuer = LocalIssuer(f"{url}/Plocal", audience=MCP, algorithm="ES256")
        self.well_known_url = f"{url}/Plocal/.well-known/openid-configuration"
        self.asked: list[tuple[str, str]] = []
        self.refuses = {"mallory"}
        directory = mkdtemp(prefix="toolguard-project-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        services = Starlette(routes=[Route("/token", refreshed, methods=["POST"])])
        endpoints = Endpoints(f"{SERVICE}/authorize", f"{SERVICE}/token")
        self._vault = Vault(
            f"sqlite:///{directory}/vault.db",
            keys=[b"k" * 32],
            connections={
                name: OAuthProvider(
                    title=name, client_id="vault", client_secret="secret", endpoints=endpoints
                )
                for name in (APP, SLACK)
            },
            sign_in=no_one,
            public_url=PAGES,
            transport=httpx.ASGITransport(services),
        )
        apps = OutboundApps(
            self._vault,
            issuer=self.issuer.issuer,
            project_id="Plocal",
            verifier=self.issuer.verifier(),
            management_key=KEY,
            policy=self._allows,
        )
        self._app = Starlette(
            routes=[*apps.routes(), Mount("/Plocal", self.issuer.app)], lifespan=self._connected
        )

    @asynccontextmanager
    async def _connected(self, _: Starlette) -> AsyncIterator[None]:
        for user in ("alice", "bob", "dave", "mallory"):
            await self._keep(Owner(self.issuer.issuer, user), APP, f"ya29.{user}", READ)
        for tenant in ("acme", "globex"):
            owner = Owner(self.issuer.issuer, tenant, "tenant")
            await self._keep(owner, SLACK, f"xoxb.{tenant}", "chat:write")
        yield
        await self._vault.aclose()

    async def _keep(self, owner: Owner, connection: str, token: str, scope: str) -> None:
        grant = Grant(token, f"1//refresh/{token}", "Bearer", (scope,), FAR, token)
        await self._vault.store.put(GrantKey(owner, connection), grant, time.time())

    def _allows(self, caller: Principal, app: str, scopes: tuple[str, ...]) -> bool:
        return caller.user_id not in self.refuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and "/outbound/app/" in scope["path"]:
            credential = dict(scope["headers"])[b"authorization"].decode()
            self.asked.append((scope["path"].partition("/outbound/app/")[2], credential))
        await self._app(scope, receive, send)

    def token(self, user: str | None = "alice", *scopes: str, **claims: Any) -> str:
        """Return a token of this project for ``MCP`` that the vault takes."""
        return self.issuer.mint(user, scopes=(FETCH_SCOPE, *scopes), **claims)

    @classmethod
    @contextmanager
    def served(cls) -> Iterator[Project]:
        """Serve a new project."""
        with Loopback() as loopback:
            project = cls(loopback.url)
            loopback.start(project)
            yield project


def _servers() -> dict[str, Callable[[str], Any]]:
    """Return how to make a server, by framework line, for the lines that are installed."""
    if importlib.util.find_spec("mcp.server.mcpserver") is not None:
        made = {"mcp2": importlib.import_module("mcp.server.mcpserver").MCPServer}
    else:
        made = {"mcp1": importlib.import_module("mcp.server.fastmcp").FastMCP}
    if importlib.util.find_spec("fastmcp") is not None:
        fastmcp = importlib.import_module("fastmcp")
        made[f"fastmcp{fastmcp.__version__.partition('.')[0]}"] = fastmcp.FastMCP
    return made


def sdk(project: Project, **settings: Any) -> DescopeMCP:
    """Return the SDK's object for ``project``."""
    return DescopeMCP(project.well_known_url, **{"mcp_server_url": MCP, **settings})


def inside_a_loop(function: Callable[[], Any]) -> Any:
    async def main() -> Any:
        return function()

    return asyncio.run(main())


def outside(function: Callable[[], Any]) -> Any:
    return function()


anywhere = pytest.mark.parametrize("run", [outside, inside_a_loop])

_SERVERS = _servers()
on_each_line = pytest.mark.parametrize("make", _SERVERS.values(), ids=_SERVERS)


def call(
    server: Any, tool: str, arguments: Mapping[str, Any] | None = None, *, token: str | None
) -> ServerAnswer:
    """Call a tool of a protected server with this token, or with none."""
    return call_as(server, tool, arguments, user=None, token=token)
