"""What does an operation without a guard ask for?"""

from __future__ import annotations

import logging
from typing import Any

import httpx
import pytest

from support.calendar_server import calendar
from support.lines import Guarding, Line, Mode, Serve, ServeOnce
from support.wire import Caller, Connect, denied_with
from toolguard.testing import LocalIssuer

UNDECLARED: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "weather", "arguments": {"city": "oslo"}}),
    ("tools/call", {"name": "no_such_tool", "arguments": {}}),
    ("resources/read", {"uri": "calendar://today"}),
    ("prompts/get", {"name": "plan"}),
]
LISTS = ("tools/list", "resources/list", "resources/templates/list", "prompts/list")


@pytest.fixture
def strict(mode: Mode, guarding: Guarding, serve_once: ServeOnce, http: httpx.Client) -> Connect:
    """Make callers of a calendar that refuses whatever has no rule."""

    def connected(token: str | None) -> Caller:
        key = ("strict", mode.line.name, mode.stateless, mode.json)
        guard = guarding(default="deny")
        url = serve_once(key, lambda: mode.app(guard.protect(calendar(mode.line)))) + "/mcp"
        made = Caller(http, url, mode.protocol, token=token)
        if mode.has_sessions:
            assert made.open().status == 200
        return made

    return connected


def test_undeclared_operations_need_a_valid_token_and_no_more(
    caller: Connect, issuer: LocalIssuer
) -> None:
    alice = caller(issuer.mint("alice"))

    assert alice.call("weather", {"city": "oslo"}).value == "fine in oslo"
    read = alice.send("resources/read", {"uri": "calendar://today"})
    assert read.result["contents"][0]["text"] == "an empty day"
    prompt = alice.send("prompts/get", {"name": "plan"})
    assert prompt.result["messages"][0]["content"]["text"] == "plan the week"


def test_by_deny_a_tool_that_is_not_there_is_unknown(strict: Connect, issuer: LocalIssuer) -> None:
    alice = strict(issuer.mint("alice", scopes=["calendar.read"]))
    reply = alice.call("no_such_tool")

    assert (reply.status, reply.challenge) == (200, None)
    assert "no_such_tool" in reply.tool_error
    alice.token = None
    assert alice.call("no_such_tool").status == 401


@pytest.mark.parametrize(("method", "params"), [UNDECLARED[0], *UNDECLARED[2:]])
def test_by_deny_a_valid_token_does_not_open_what_has_no_rule(
    strict: Connect, issuer: LocalIssuer, method: str, params: dict[str, Any]
) -> None:
    alice = strict(issuer.mint("alice", scopes=["calendar.read"]))
    reply = alice.send(method, params)

    assert reply.status == denied_with(alice.protocol)
    assert reply.denial == {
        "error": "access_denied",
        "error_description": "You are not allowed to do this",
    }


def test_by_deny_what_has_a_rule_is_open_and_everything_can_be_listed(
    strict: Connect, issuer: LocalIssuer
) -> None:
    alice = strict(issuer.mint("alice", scopes=["calendar.read"]))

    assert alice.call("list_events", {"day": "monday"}).value == "monday of alice"
    assert [alice.send(method).status for method in LISTS] == [200, 200, 200, 200]


@pytest.mark.parametrize("json", [False, True])
def test_by_public_a_stranger_may_do_what_has_no_rule(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    json: bool,
) -> None:
    server = guarding(default="public").protect(calendar(line))
    url = serve(line.http_app(server, stateless=True, json=json)) + "/mcp"
    stranger = Caller(http, url)

    assert stranger.call("weather", {"city": "oslo"}).value == "fine in oslo"
    assert stranger.send("resources/read", {"uri": "calendar://today"}).status == 200
    assert stranger.send("prompts/get", {"name": "plan"}).status == 200
    assert stranger.call("whoami").status == 401
    assert stranger.call("list_events", {"day": "monday"}).status == 401
    stranger.token = issuer.mint("alice")
    assert stranger.call("whoami").value == "alice"


def test_public_by_default_is_logged(
    line: Line, guarding: Guarding, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "toolguard"):
        guarding(default="public").protect(calendar(line))

    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "public" in caplog.text
