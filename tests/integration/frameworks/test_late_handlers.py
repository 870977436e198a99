"""Are handlers and operations guarded that a server gets after ``protect()`` or in service?"""

from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest

from support.lines import LINES, Guarding, Line, Serve, Server
from support.wire import Caller
from toolguard import public, requires_scopes
from toolguard.testing import LocalIssuer

SECRET = "what-only-planners-read"


def add_handlers(line: Line, server: Any, ran: list[str]) -> None:
    """Give the server handlers for completions and log levels."""
    line.complete_with(server, SECRET)
    inside = server._mcp_server if hasattr(server, "_mcp_server") else server._lowlevel_server

    async def level(*_: Any) -> Any:
        ran.append("logging/setLevel")
        return importlib.import_module("mcp_types").EmptyResult() if line.modern else None

    if line.modern:
        params = importlib.import_module("mcp_types").SetLevelRequestParams
        inside.add_request_handler("logging/setLevel", params, level)
    else:
        inside.set_logging_level()(level)


@pytest.mark.parametrize("when", ["after protect()", "while it serves"])
def test_a_handler_that_comes_late_needs_what_it_is_about(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, when: str
) -> None:
    server: Server = line.server("late")
    ran: list[str] = []

    @server.prompt()
    @requires_scopes("plan")
    async def plan(topic: str) -> str:
        return topic

    guarding(default="deny").protect(server)
    if when == "after protect()":
        add_handlers(line, server, ran)
    url = serve(line.http_app(server, stateless=True, json=True))
    if when != "after protect()":
        add_handlers(line, server, ran)
    weak, planner = (
        Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=scopes))
        for scopes in ([], ["plan"])
    )
    completion = {
        "ref": {"type": "ref/prompt", "name": "plan"},
        "argument": {"name": "topic", "value": ""},
    }

    assert weak.send("completion/complete", completion).status == 403
    assert SECRET in planner.send("completion/complete", completion).content
    planner.send("logging/setLevel", {"level": "info"})
    assert ran == []


@pytest.mark.parametrize("line", [line for line in LINES if line.modern], ids=str)
def test_a_handler_for_a_notification_of_its_own_gets_the_default(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    types = importlib.import_module("mcp_types")
    ran: list[str] = []

    def serving(default: Any) -> str:
        server: Any = line.server("notified")
        server.tool()(public(_hello))
        guarding(default=default).protect(server)
        inside = server._mcp_server if hasattr(server, "_mcp_server") else server._lowlevel_server

        async def purge(*_: Any) -> Any:
            ran.append(default)
            return types.EmptyResult()

        for add in (inside.add_notification_handler, inside.add_request_handler):
            add("notifications/acme/purge", types.NotificationParams, purge)
        return f"{serve(line.http_app(server, stateless=True, json=True))}/mcp"

    for default, token, is_served in (
        ("authenticated", None, False),
        ("deny", issuer.mint("alice"), False),
        ("authenticated", issuer.mint("alice"), True),
    ):
        url = serving(default)
        for message_id in ({}, {"id": 1}):
            body = {"jsonrpc": "2.0", "method": "notifications/acme/purge", **message_id}
            headers = {"accept": "application/json, text/event-stream"}
            if token is not None:
                headers["authorization"] = f"Bearer {token}"
            http.post(url, json=body, headers=headers)
        assert bool(ran) is is_served


def _hello() -> str:
    return "hello"


@pytest.mark.parametrize("kind", ["tool", "resource", "template", "prompt"])
def test_an_operation_that_comes_late_is_under_its_rules(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, kind: str
) -> None:
    server: Server = line.server("late")
    rules = {name: requires_scopes("plan") for name in ("*", "tool:late")}
    guarding().protect(server, rules=rules)
    url = serve(line.http_app(server, stateless=True, json=True))
    weak, planner = (
        Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=scopes))
        for scopes in ([], ["plan"])
    )

    async def late() -> str:
        return SECRET

    async def of(number: str) -> str:
        return SECRET

    if kind == "tool":
        server.tool()(late)
    elif kind == "prompt":
        server.prompt()(late)
    elif kind == "resource":
        server.resource("late://it")(late)
    else:
        server.resource("late://{number}")(of)
    message = {
        "tool": ("tools/call", {"name": "late"}),
        "prompt": ("prompts/get", {"name": "late"}),
    }.get(kind, ("resources/read", {"uri": "late://it"}))

    assert weak.send(*message).status == 403
    assert SECRET in planner.send(*message).content
