"""A world that fits a server: ``toolguard dev --for``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from support.lines import LINES, Line
from toolguard import (
    ToolGuard,
    requires_auth,
    requires_permissions,
    requires_roles,
    requires_scopes,
    requires_tenant,
    with_connection,
)
from toolguard.audit import audit
from toolguard.audit.loading import LoadError
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.dev.fitting import DEFAULT_RESOURCE, Fit, fitted, read_server
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.policies import decide

ISSUER = "http://127.0.0.1:8800/P2dev"
URL = "http://127.0.0.1:8055/mcp"
FETCH = "outbound.token.fetch"


@pytest.fixture(params=LINES, ids=str)
def line(request: pytest.FixtureRequest) -> Line:
    found: Line = request.param
    return found


async def connect(request: ConnectionRequest) -> Connection:
    raise NotImplementedError


def notes(line: Line, *, issuer: str | None = ISSUER) -> Any:
    """Return a server with two scopes, a permission and a connection; protected if it can be."""
    server = line.server("notes")

    @server.tool()
    @requires_scopes("notes.read")
    async def read_note() -> str:
        return ""

    @server.tool()
    @requires_scopes("notes.read", "notes.write")
    @with_connection("github", scopes=["repo", "read:user"])
    async def push_note(*, connection_token: str) -> str:
        return connection_token

    @server.tool()
    @requires_permissions("admin")
    @with_connection("github", scopes=["repo", "gist"])
    async def drop_notes(*, connection_token: str) -> str:
        return connection_token

    if issuer is not None:
        ToolGuard(issuer=issuer, audience=URL, connections=connect).protect(server)
    return server


def fit(line: Line, **settings: Any) -> Fit:
    return fitted(builtin_world(), audit(notes(line, **settings)), issuer=ISSUER)


def grants(fit: Fit, user_id: str) -> tuple[str, ...]:
    user = fit.world.user(user_id)
    assert user is not None
    return decide(fit.world.rules, collect_facts(fit.world, user), tuple(fit.world.scopes)).granted


def test_the_world_has_what_the_server_asks_for(line: Line) -> None:
    made = fit(line)

    assert [each.url for each in made.world.resources] == [URL]
    assert set(made.world.scopes) == {"notes.read", "notes.write", FETCH}
    assert made.world.scopes["notes.write"] == "Use push_note"
    assert set(made.world.scopes["notes.read"][4:].split(", ")) == {"read_note", "push_note"}
    assert {name: set(scopes) for name, scopes in made.world.connections.items()} == {
        "github": {"repo", "read:user", "gist"}
    }
    assert made.notes == ()


def test_schedulers_may_grant_every_scope_and_others_the_first(line: Line) -> None:
    made = fit(line)

    assert set(grants(made, "alice")) == {"notes.read", "notes.write", FETCH}
    assert grants(made, "bob") == ("notes.read", FETCH)
    assert made.world.default_scopes == ("notes.read",)


def test_schedulers_have_the_permissions_that_are_asked_for(line: Line) -> None:
    world = fit(line).world
    alice, bob = world.users[:2]

    assert collect_facts(world, alice).permissions == ("scheduler", "admin")
    assert collect_facts(world, bob).permissions == ()


def test_with_one_scope_the_others_may_grant_nothing() -> None:
    server = LINES[0].server("one")
    server.tool()(requires_scopes("only")(named_tool))
    ToolGuard(issuer=ISSUER, audience=URL).protect(server)

    made = fitted(builtin_world(), audit(server), issuer=ISSUER)

    assert grants(made, "alice") == ("only",)
    assert grants(made, "bob") == ()


def test_a_server_without_scopes_gets_a_world() -> None:
    server = LINES[0].server("none")
    server.tool()(requires_auth(named_tool))
    ToolGuard(issuer=ISSUER, audience=URL).protect(server)

    made = fitted(builtin_world(), audit(server), issuer=ISSUER)

    assert made.world.scopes == {}
    assert grants(made, "alice") == ()
    assert made.notes == ()


def test_a_server_with_connections_only_has_the_scope_of_the_vault() -> None:
    server = LINES[0].server("connected")
    server.tool()(with_connection("github")(connected_tool))
    ToolGuard(issuer=ISSUER, audience=URL, connections=connect).protect(server)

    made = fitted(builtin_world(), audit(server), issuer=ISSUER)

    assert set(made.world.scopes) == {FETCH}
    assert grants(made, "alice") == (FETCH,)


async def connected_tool(*, connection_token: str) -> str:
    return connection_token


async def named_tool() -> str:
    return ""


def test_a_server_that_trusts_another_issuer_is_noted(line: Line) -> None:
    made = fit(line, issuer="https://auth.example.com")

    (note,) = made.notes
    assert note.startswith("the server trusts https://auth.example.com, not this one: read the ")


def test_what_nobody_has_is_noted() -> None:
    server = LINES[0].server("office")

    @server.tool("wipe")
    @requires_roles("owner")
    async def wipe() -> str:
        return ""

    @server.tool("close")
    @requires_tenant("tenant-z")
    async def close() -> str:
        return ""

    @server.tool("enter")
    @requires_tenant("tenant-a")
    async def enter() -> str:
        return ""

    ToolGuard(issuer=ISSUER, audience=URL).protect(server)

    made = fitted(builtin_world(), audit(server), issuer=ISSUER)

    assert [each.partition(", which")[0] for each in made.notes] == [
        "tool 'wipe' asks for role owner",
        "tool 'close' asks for tenant tenant-z",
    ]
    assert "no person of this world has: try it in a test" in made.notes[0]


def test_a_server_without_a_guard_is_noted(line: Line) -> None:
    made = fit(line, issuer=None)

    assert made.notes == (
        "no guard protects the server: write ToolGuard.from_env().protect(server)",
    )
    assert made.world.resources[0].url == DEFAULT_RESOURCE
    assert "notes.write" in made.world.scopes


SERVER = """
import os
from support.lines import LINES
from toolguard import ToolGuard, requires_scopes

mcp = LINES[0].server("notes")

@mcp.tool()
@requires_scopes("notes.read")
async def read_note() -> str:
    return ""

ToolGuard.from_env().protect(mcp)
"""


def test_a_server_reads_the_variables_and_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes_server.py").write_text(SERVER, "utf-8")
    monkeypatch.setenv("TOOLGUARD_ISSUER", "https://auth.example.com")
    monkeypatch.setenv("MCP_SERVER_URL", "https://mcp.example.com/mcp")
    before = dict(os.environ)

    report = read_server(
        f"{tmp_path / 'notes_server.py'}:mcp",
        {
            "DESCOPE_MCP_WELL_KNOWN_URL": f"{ISSUER}/.well-known/openid-configuration",
            "MCP_SERVER_URL": URL,
        },
    )

    assert report.guard is not None
    assert (report.guard.issuer, report.guard.resource) == (ISSUER, URL)
    assert dict(os.environ) == before


DEFAULT = "http://127.0.0.1:9000/mcp"
WELL_KNOWN = {"DESCOPE_MCP_WELL_KNOWN_URL": f"{ISSUER}/.well-known/openid-configuration"}


@pytest.mark.parametrize(
    ("line_of_code", "set_to", "expected"),
    [
        (f"os.environ.setdefault('MCP_SERVER_URL', '{DEFAULT}')", None, DEFAULT),
        (f"os.environ['MCP_SERVER_URL'] = '{DEFAULT}'", None, DEFAULT),
        (f"os.environ.setdefault('MCP_SERVER_URL', '{DEFAULT}')", URL, URL),
        ("", None, DEFAULT_RESOURCE),
        ("os.environ['MCP_SERVER_URL']", None, DEFAULT_RESOURCE),
        ("", "", DEFAULT_RESOURCE),
    ],
)
def test_the_url_is_the_one_that_the_server_will_have(
    line_of_code: str,
    set_to: str | None,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "notes_server.py"
    path.write_text(SERVER.replace("mcp =", f"{line_of_code}\nmcp =", 1), "utf-8")
    monkeypatch.delenv("MCP_SERVER_URL", raising=False)
    if set_to is not None:
        monkeypatch.setenv("MCP_SERVER_URL", set_to)
    before = dict(os.environ)

    report = read_server(f"{path}:mcp", WELL_KNOWN)

    assert report.guard is not None
    assert report.guard.resource == expected
    assert dict(os.environ) == before


def test_a_server_at_another_machine_is_noted() -> None:
    server = LINES[0].server("far")
    server.tool()(requires_auth(named_tool))
    ToolGuard(issuer=ISSUER, audience="https://mcp.example.com/mcp").protect(server)

    (note,) = fitted(builtin_world(), audit(server), issuer=ISSUER).notes

    assert note == (
        "the server is to be at https://mcp.example.com/mcp: to try it on this machine, set "
        f"MCP_SERVER_URL={DEFAULT_RESOURCE} and start again"
    )


def test_a_file_without_a_server_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty_server.py").write_text("x = 1\n", "utf-8")

    with pytest.raises(LoadError, match="no server found there"):
        read_server(str(tmp_path / "empty_server.py"), {})
