"""Is a connection that no provider has found out before anybody calls?"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from support.lines import Guarding, Line, Server
from toolguard import CachedConnections, StaticConnections, with_connection
from toolguard.connections import ConnectionProvider, ConnectionRouter
from toolguard.connections.server import APIKey, ServerConnections
from toolguard.testing import call_as
from toolguard.vault import Vault, github

GITHUB = github("id", "secret")


async def _key() -> str:
    return "a-key"


PROVIDERS: dict[str, Callable[[], ConnectionProvider]] = {
    "server": lambda: ServerConnections({"github": APIKey(_key)}),
    "cached": lambda: CachedConnections(ServerConnections({"github": APIKey(_key)})),
    "router": lambda: ConnectionRouter({"github": StaticConnections({"github": "t"})}),
    "default": lambda: ConnectionRouter(
        {"github": StaticConnections({"github": "t"})},
        default=ServerConnections({"github": APIKey(_key)}),
    ),
    "vault": lambda: Vault("sqlite:///v.db", keys=[b"k" * 32], connections={"github": GITHUB}),
}


def _server(line: Line, name: str) -> Server:
    server: Server = line.server("issues")

    @server.tool()
    @with_connection(name)
    async def list_issues(*, connection_token: str) -> str:
        return "listed"

    return server


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_misspelt_connection_is_found_at_protect(
    line: Line, guarding: Guarding, provider: str
) -> None:
    told = (
        "tool 'list_issues' uses connection 'githb', which the guard's provider does not have: "
        "write one of ['github'], or add it there"
    )

    with pytest.raises(ValueError, match=re.escape(told)):
        guarding(connections=PROVIDERS[provider]()).protect(_server(line, "githb"))
    guarding(connections=PROVIDERS[provider]()).protect(_server(line, "github"))


def test_a_provider_that_does_not_say_may_have_any(line: Line, guarding: Guarding) -> None:
    async def anything(_: object) -> str:
        return "token"

    router = ConnectionRouter({"slack": anything}, default=anything)

    server = guarding(connections=router).protect(_server(line, "github"))

    assert call_as(server, "list_issues").ok
