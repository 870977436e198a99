"""Do two servers in one process share anything, side by side or one inside the other?"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, cast

import anyio
import httpx
import pytest

from support.calendar_server import calendar
from support.lines import FASTMCP_LINES, Guarding, Line, Serve, Server
from support.wire import Caller
from toolguard import GuardNotConfiguredError, Principal, ToolGuard, injected, requires_scopes
from toolguard.testing import GuardedClient, LocalIssuer, call_as

fastmcp_lines = pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
OTHER = "https://other.test/mcp"
OTHER_METADATA = "https://other.test/.well-known/oauth-protected-resource/mcp"


@dataclass(frozen=True)
class _Other:
    """The other server's guard, and who issues tokens for it."""

    issuer: LocalIssuer
    guard: ToolGuard


@pytest.fixture
def other() -> _Other:
    """Make a guard that shares nothing with the usual one."""
    issuer = LocalIssuer(audience=OTHER, algorithm="ES256")
    return _Other(issuer, ToolGuard(verifier=issuer.verifier(), audience=OTHER))


@requires_scopes("notes.read")
async def read_notes(*, caller: Principal = injected) -> str:
    """Read the notes of the caller, on whatever server this is registered."""
    return f"notes of {caller.user_id} at {caller.claims['aud']}"


def _with_notes(line: Line, name: str) -> Server:
    server = line.server(name)
    server.tool()(read_notes)
    return server


def test_a_function_on_two_servers_is_judged_by_the_one_that_serves_it(
    line: Line,
    guarding: Guarding,
    other: _Other,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> None:
    servers = [
        guarding().protect(_with_notes(line, "one")),
        other.guard.protect(_with_notes(line, "two")),
    ]
    one, two = [serve(line.http_app(server, stateless=True)) + "/mcp" for server in servers]
    ours, theirs = (each.mint("alice", scopes=["notes.read"]) for each in (issuer, other.issuer))

    assert Caller(http, one, token=ours).call("read_notes").value == (
        "notes of alice at https://mcp.test/mcp"
    )
    assert Caller(http, two, token=theirs).call("read_notes").value == (
        "notes of alice at https://other.test/mcp"
    )
    assert Caller(http, one, token=theirs).call("read_notes").body["error"] == "invalid_token"
    refused = Caller(http, two, token=ours).call("read_notes")
    assert (refused.status, refused.body["error"]) == (401, "invalid_token")
    assert OTHER_METADATA in str(refused.challenge)
    assert http.get(f"{one[:-4]}/.well-known/oauth-protected-resource/mcp").json()["resource"] == (
        "https://mcp.test/mcp"
    )


def test_a_server_is_protected_once(line: Line, guarding: Guarding, other: _Other) -> None:
    server = guarding().protect(line.server("calendar"))

    with pytest.raises(ValueError, match="protected already"):
        other.guard.protect(server)


def test_one_guard_protects_several_servers_of_one_resource(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    guard = guarding()
    first = guard.protect(calendar(line))
    second = guard.protect(_with_notes(line, "notes"))
    urls = [serve(line.http_app(server, stateless=True)) for server in (first, second)]
    scopes = ["calendar.read", "calendar.write", "contacts.read", "notes.read"]

    for url in urls:
        document = http.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()
        assert sorted(document["scopes_supported"]) == scopes
    assert Caller(http, urls[1] + "/mcp", token=issuer.mint()).call("read_notes").status == 403


def test_a_guarded_tool_of_an_unprotected_server_never_runs(
    line: Line,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran: list[str] = []
    server = line.server("forgotten")

    @server.tool()
    @requires_scopes("calendar.read")
    async def list_events() -> str:
        ran.append("list_events")
        return "events"

    url = serve(line.http_app(server, stateless=True)) + "/mcp"
    token = issuer.mint(scopes=["calendar.read"])
    with caplog.at_level(logging.ERROR):
        reply = Caller(http, url, token=token).call("list_events")

    # mcp 2 tells the client nothing about a crash and logs it.
    assert "no guard protects the server" in reply.tool_error + caplog.text
    assert token not in reply.content
    assert ran == []


def test_a_guarded_function_called_by_hand_says_what_is_missing() -> None:
    with pytest.raises(GuardNotConfiguredError, match=r"write ToolGuard\(...\).protect\(server\)"):
        anyio.run(read_notes)


def _mounted(line: Line, inner: Server, outer_guard: ToolGuard, namespace: str | None) -> Server:
    @inner.tool()
    async def shelves() -> str:
        return "many"

    outer: Any = calendar(line)
    outer.mount(inner, namespace=namespace)
    outer_guard.protect(outer)
    return cast("Server", outer)


@fastmcp_lines
@pytest.mark.parametrize("namespace", [None, "inner"])
def test_the_outer_guard_judges_for_a_mounted_server_without_one(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    namespace: str | None,
) -> None:
    server = _mounted(line, _with_notes(line, "inner"), guarding(), namespace)
    url = serve(line.http_app(server, stateless=True)) + "/mcp"
    prefix = f"{namespace}_" if namespace else ""
    alice = Caller(http, url, token=issuer.mint("alice"))
    reader = Caller(http, url, token=issuer.mint("alice", scopes=["notes.read"]))

    assert f"{prefix}read_notes" in alice.tools()
    refused = alice.call(f"{prefix}read_notes")
    assert (refused.status, refused.body["missing_scopes"]) == (403, ["notes.read"])
    assert "notes of alice" in reader.call(f"{prefix}read_notes").value
    assert alice.call(f"{prefix}shelves").value == "many"
    assert (
        "notes.read"
        in http.get(f"{url[:-4]}/.well-known/oauth-protected-resource/mcp").json()[
            "scopes_supported"
        ]
    )


@fastmcp_lines
@pytest.mark.parametrize("namespace", [None, "inner"])
def test_a_protected_mounted_server_checks_its_own_audience(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    namespace: str | None,
) -> None:
    own = guarding(verifier=issuer.verifier(audience=OTHER), audience=OTHER)
    server = _mounted(line, own.protect(_with_notes(line, "inner")), guarding(), namespace)
    url = serve(line.http_app(server, stateless=True)) + "/mcp"
    prefix = f"{namespace}_" if namespace else ""
    outer_only = Caller(http, url, token=issuer.mint("alice", scopes=["notes.read"]))
    inner_only = Caller(http, url, token=issuer.mint("alice", scopes=["notes.read"], aud=OTHER))
    audiences = ["https://mcp.test/mcp", OTHER]
    both = Caller(http, url, token=issuer.mint("alice", scopes=["notes.read"], aud=audiences))
    neither_scope = Caller(http, url, token=issuer.mint("alice", aud=audiences))

    assert outer_only.call("whoami").value == "alice"
    for tool in ("read_notes", "shelves"):
        refused = outer_only.call(f"{prefix}{tool}")
        assert (refused.status, refused.body["error"]) == (401, "invalid_token")
        assert inner_only.call(f"{prefix}{tool}").status == 401
    assert "notes of alice" in both.call(f"{prefix}read_notes").value
    assert both.call(f"{prefix}shelves").value == "many"
    assert neither_scope.call(f"{prefix}read_notes").status == 403


@fastmcp_lines
def test_the_default_of_a_mounted_server_counts_for_its_tools(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    inner = guarding(default="deny").protect(_with_notes(line, "inner"))
    server = _mounted(line, inner, guarding(), "inner")
    url = serve(line.http_app(server, stateless=True)) + "/mcp"
    alice = Caller(http, url, token=issuer.mint("alice", scopes=["notes.read"]))

    assert "notes of alice" in alice.call("inner_read_notes").value
    assert alice.call("weather", {"city": "oslo"}).value == "fine in oslo"
    assert alice.call("inner_shelves").denial["error"] == "access_denied"


@fastmcp_lines
def test_nothing_of_a_protected_server_is_open_through_an_unprotected_one(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    outer: Any = line.server("outer")
    outer.mount(guarding().protect(calendar(line)))
    url = serve(line.http_app(outer, stateless=True)) + "/mcp"

    for token in (None, issuer.mint("alice", scopes=["calendar.read"])):
        caller = Caller(http, url, token=token)
        for tool, arguments in (
            ("list_events", {"day": "monday"}),
            ("whoami", {}),
            ("weather", {"city": "oslo"}),
        ):
            assert "no caller" in caller.call(tool, arguments).tool_error
        assert "error" in caller.send("resources/read", {"uri": "calendar://today"}).body
        assert "error" in caller.send("prompts/get", {"name": "plan"}).body


async def _many() -> str:
    return "many"


@fastmcp_lines
def test_a_rule_in_front_holds_for_the_name_on_a_mounted_server(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    for protects in (False, True):
        inner: Any = line.server("inner")
        inner.tool("shelves")(_many)
        if protects:
            guarding().protect(inner)
        server: Any = line.server("outer")
        server.mount(inner, namespace="in")
        guarding().protect(server, rules={"shelves": requires_scopes("admin")})

        nobody, admin = issuer.mint(), issuer.mint(scopes=["admin"])
        assert call_as(server, "in_shelves", token=nobody).missing_scopes == ("admin",)
        assert call_as(server, "in_shelves", token=admin).text == "many"
        listed = GuardedClient(server, token=nobody).send("tools/list").result["tools"]
        asked = [each["_meta"]["toolguard/requires"] for each in listed]
        assert {"scopes": [["admin"]]} in asked


@fastmcp_lines
def test_the_rules_of_a_mounted_server_count_whoever_guards_the_one_in_front(
    line: Line, guarding: Guarding, issuer: LocalIssuer
) -> None:
    guard = guarding()
    for outside in (guard, guarding()):
        inner: Any = _with_notes(line, "inner")
        guard.protect(inner, rules={"shelves": requires_scopes("admin")})
        server = _mounted(line, inner, outside, "in")

        nobody, admin = issuer.mint(), issuer.mint(scopes=["admin"])
        assert call_as(server, "in_shelves", token=nobody).missing_scopes == ("admin",)
        assert call_as(server, "in_shelves", token=admin).text == "many"
        assert call_as(inner, "shelves", token=nobody).missing_scopes == ("admin",)


@pytest.mark.parametrize(
    ("audiences", "scope", "status"),
    [
        (["https://mcp.test/mcp"], "notes.read", 401),
        (["https://mcp.test/mcp", OTHER], "notes.write", 403),
        (["https://mcp.test/mcp", OTHER], "notes.read", 200),
    ],
)
def test_a_server_whose_tool_another_calls_decides_by_its_own_guard(
    line: Line,
    guarding: Guarding,
    issuer: LocalIssuer,
    audiences: list[str],
    scope: str,
    status: int,
) -> None:
    ran: list[str] = []
    inner: Any = line.server("inner")

    @requires_scopes("notes.read")
    async def secret(*, user_id: str) -> str:
        ran.append(user_id)
        return "a secret"

    inner.tool()(secret)
    ToolGuard(verifier=issuer.verifier(audience=OTHER), audience=OTHER).protect(inner)
    outer: Any = line.server("outer")

    async def through() -> str:
        return str(await inner.call_tool("secret", {}))

    outer.tool()(through)
    guarding().protect(outer)
    reply = GuardedClient(outer, token=issuer.mint(scopes=[scope], aud=audiences)).call("through")

    assert (reply.status, "a secret" in str(reply.body)) == (status, status == 200)
    assert ran == (["alice"] if status == 200 else [])
