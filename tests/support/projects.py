"""A project in Descope's shapes, served on loopback: discovery, keys and the vault."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import Receive, Scope, Send

from toolguard.descope import DescopeMCP
from toolguard.dev.vault.connection_table import ConnectionTable, Owner, ProviderToken
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE, Vault
from toolguard.principal import Principal
from toolguard.testing import Answer, LocalIssuer, Loopback, call_as

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


class Services:
    """Refreshes every token."""

    async def refresh(self, token: ProviderToken) -> ProviderToken:
        fresh = f"{token.subject}.fresh"
        return ProviderToken(token.id, token.subject, fresh, token.refresh_token, token.scopes, FAR)


class Links:
    """Makes URLs that say for whom they are."""

    def new(self, user_id: str, app: str, scopes: tuple[str, ...]) -> str:
        return f"https://vault.test/connect/{user_id}/{app}/{len(scopes)}"


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
        table = ConnectionTable.in_memory()
        for user in ("alice", "bob", "dave", "mallory"):
            table.put(Owner("user", user), APP, provider_token(f"ya29.{user}", READ))
        for tenant in ("acme", "globex"):
            table.put(
                Owner("tenant", tenant), SLACK, provider_token(f"xoxb.{tenant}", "chat:write")
            )
        self._vault = Vault(
            project_id="Plocal",
            connections=table,
            verifier=self.issuer.verifier(),
            providers={APP: Services(), SLACK: Services()},
            links=Links(),
            management_key=KEY,
            policy=self._allows,
        )
        self._app = Starlette(
            routes=[*self._vault.routes(), Mount("/Plocal", self.issuer.app)],
        )

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


def provider_token(access_token: str, *scopes: str) -> ProviderToken:
    return ProviderToken("OT1", access_token, access_token, "1//refresh", scopes, FAR)


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
) -> Answer:
    """Call a tool of a protected server with this token, or with none."""
    return call_as(server, tool, arguments, user=None, token=token)
