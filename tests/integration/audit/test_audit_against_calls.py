"""Does a call get what the table says?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from support.auditing import Callers, bare, notes
from support.lines import FASTMCP_LINES, Guarding, Line, Serve, Server
from toolguard import ToolGuard, any_of, public, requires_auth, requires_scopes
from toolguard.audit import audit
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.testing import LocalIssuer

Rules = Mapping[str, GuardDecorator]
CallersOf = Callable[[Line, Any], Callers]


@pytest.fixture
def callers_of(serve: Serve, http: httpx.Client, issuer: LocalIssuer) -> CallersOf:
    """Serve a server; make its callers."""

    def callers(line: Line, server: Any) -> Callers:
        url = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
        return Callers(http, url, issuer, ("read", "write", "admin"))

    return callers


DECORATED = {
    "anybody": public,
    "somebody": requires_auth,
    "reader": requires_scopes("read"),
    "either": requires_scopes(any_of("read", "write")),
    "both": requires_scopes("read", "write"),
}


def decorated(line: Line) -> Server:
    """Return a server with a tool for each way of guarding it, and one with none."""
    server = line.server("decorated")
    for name, guard in DECORATED.items():

        async def tool() -> str:
            return "done"

        server.tool(name=name)(guard(tool))

    @server.tool()
    async def undecorated() -> str:
        return "done"

    return server


@pytest.mark.parametrize("default", ["authenticated", "deny", "public"])
@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"undecorated": public},
        {"un*": requires_auth, "resource:*": requires_scopes("read")},
        {"*ed": requires_scopes("admin"), "reader": requires_scopes("write")},
    ],
    ids=lambda rules: " ".join(rules) or "no rules",
)
def test_who_gets_in_is_who_the_table_says(
    line: Line, guarding: Guarding, callers_of: CallersOf, rules: Rules, default: str
) -> None:
    server = guarding(default=default).protect(decorated(line), rules=rules)

    said = {each.name: each.access for each in audit(server).operations}

    callers = callers_of(line, server)
    assert said == {name: callers.access(name) for name in (*DECORATED, "undecorated")}


Protect = Callable[[Any, Any, ToolGuard, ToolGuard], None]


def neither(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    del inner, outer, guard, other


def only_outer(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    del inner, other
    guard.protect(outer, rules={"in_wipe": requires_scopes("admin")})


def only_inner(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    del outer, other
    guard.protect(inner, rules={"wipe": requires_scopes("admin")})


def both_alike(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    del other
    guard.protect(inner, rules={"read": requires_scopes("admin")})
    guard.protect(outer)


def both(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    other.protect(inner, rules={"wipe": requires_scopes("admin")})
    guard.protect(outer)


def both_and_deny(inner: Any, outer: Any, guard: ToolGuard, other: ToolGuard) -> None:
    other.default = "deny"
    other.protect(inner)
    guard.protect(outer, rules={"in_wipe": requires_auth})


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
@pytest.mark.parametrize(
    "protect", [neither, only_outer, only_inner, both_alike, both, both_and_deny]
)
def test_who_gets_in_through_two_servers_is_who_the_table_says(
    line: Line, guarding: Guarding, callers_of: CallersOf, protect: Protect
) -> None:
    inner, outer = notes(line), bare(line)
    outer.mount(inner, namespace="in")
    protect(inner, outer, guarding(), guarding())

    said = {each.name: each.access for each in audit(outer).operations if each.kind == "tool"}

    callers = callers_of(line, outer)
    assert said == {name: callers.access(name) for name in ("in_read", "in_wipe")}
