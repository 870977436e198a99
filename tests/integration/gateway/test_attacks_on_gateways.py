"""Can a caller reach what is another's, or what no rule permits them, through a gateway?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from support.gateways import served_before
from support.lines import LINES, MODERN_PROTOCOL
from support.scripted_upstream import ScriptedUpstream, events, text
from support.wire import Caller, Reply
from toolguard.testing import LocalIssuer

RULES = """
[rules]
hour = "time.read"
erase = "notes.erase"
"opening_*" = { public = true }
"""
PROTOCOLS = ("2025-11-25", *([MODERN_PROTOCOL] if LINES[0].modern else []))
Call = Callable[[str], Caller]


@pytest.fixture(scope="module")
def upstream() -> ScriptedUpstream:
    """The server behind; it answers every call."""
    return ScriptedUpstream("hour", "erase", "opening_hours", "unruled")


@pytest.fixture(scope="module")
def endpoint(
    upstream: ScriptedUpstream, signing: LocalIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The endpoint of a gateway before it."""
    with served_before(
        upstream.app, signing.issuer, RULES, tmp_path_factory.mktemp("rules")
    ) as url:
        yield url


@pytest.fixture(params=PROTOCOLS)
def call(
    request: pytest.FixtureRequest, endpoint: str, signing: LocalIssuer, patient: httpx.Client
) -> Call:
    """Make callers of the gateway, who may read the time."""

    def caller(user: str = "alice") -> Caller:
        token = signing.mint(user, scopes=["time.read"])
        made = Caller(patient, endpoint, request.param, token=token)
        if request.param != MODERN_PROTOCOL:
            assert made.open().status == 200
        return made

    return caller


@pytest.fixture(autouse=True)
def reached(upstream: ScriptedUpstream) -> Callable[[], list[str]]:
    """Return the names of the tools that were called at the upstream, from now on."""
    upstream.requests.clear()
    return lambda: [sent["params"]["name"] for _, sent in upstream.sent("tools/call")]


def post(caller: Caller, body: str, **headers: str) -> Reply:
    """Send a body as it is written."""
    of_call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hour"}}
    sent = {**caller.headers(of_call), "content-type": "application/json", **headers}
    return Reply.of(caller.http.post(caller.endpoint, content=body, headers=sent))


def test_what_has_no_rule_is_refused(call: Call, reached: Callable[[], list[str]]) -> None:
    assert call("alice").call("unruled").is_error
    assert reached() == []


def test_the_session_of_another_user_is_unknown(
    call: Call, reached: Callable[[], list[str]]
) -> None:
    alice, bob = call("alice"), call("bob")
    if alice.session is None:
        pytest.skip("this revision has no sessions")
    bob.session = alice.session

    assert bob.call("hour").status == 404
    assert reached() == []


@pytest.mark.parametrize(
    "params",
    [
        '{"name": "hour", "name": "erase"}',
        '{"name": "erase", "name": "hour"}',
        '{"name": "hour", "Name": "erase"}',
        '{"name": "hour\\u0000", "arguments": {}}',
        '{"name": "HOUR"}',
        '{"name": "hour", "arguments": {"name": "erase"}}',
    ],
)
def test_a_name_in_two_spellings_reaches_nothing_unpermitted(
    call: Call, reached: Callable[[], list[str]], params: str
) -> None:
    body = f'{{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {params}}}'

    post(call("alice"), body)

    assert set(reached()) <= {"hour"}


@pytest.mark.parametrize(
    "headers",
    [
        {"mcp-method": "tools/list"},
        {"mcp-name": "erase"},
        {"mcp-name": "opening_hours"},
        {"x-http-method-override": "DELETE"},
        {"x-original-url": "/other"},
    ],
)
def test_headers_open_nothing(
    call: Call, reached: Callable[[], list[str]], headers: dict[str, str]
) -> None:
    body = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "erase"}}'

    reply = post(call("alice"), body, **headers)

    assert reply.status in (400, 403)
    assert reached() == []


def test_a_stranger_reaches_what_is_public_and_no_more(
    call: Call, reached: Callable[[], list[str]], upstream: ScriptedUpstream
) -> None:
    caller = call("alice")
    caller.token = caller.session = None
    if caller.protocol != MODERN_PROTOCOL:
        assert caller.open().status == 200

    served, refused = caller.call("opening_hours"), caller.call("hour")
    unruled = caller.call("unruled")

    assert served.value == "served"
    assert refused.status == 401
    assert unruled.is_error
    assert reached() == ["opening_hours"]
    assert all("authorization" not in headers for headers, _ in upstream.requests)


def test_strangers_who_share_a_session_see_no_logs_of_each_other(
    call: Call, upstream: ScriptedUpstream
) -> None:
    caller = call("alice")
    caller.token = caller.session = None
    if caller.protocol != MODERN_PROTOCOL:
        assert caller.open().status == 200
    logged = {"level": "info", "data": "of a stranger"}
    upstream.answers["tools/call"] = lambda sent: events(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": logged},
        {"jsonrpc": "2.0", "id": sent["id"], "result": text("served")},
    )

    reply = caller.call("opening_hours")
    del upstream.answers["tools/call"]

    assert reply.value == "served"
    assert "of a stranger" not in reply.content


def test_methods_that_name_nothing_are_refused(call: Call, upstream: ScriptedUpstream) -> None:
    caller = call("alice")

    for method in ("logging/setLevel", "resources/subscribe", "tasks/list", "made/up"):
        assert caller.send(method, {"level": "debug", "uri": "a://b"}).is_error

    assert {sent["method"] for _, sent in upstream.requests} <= {
        "initialize",
        "notifications/initialized",
    }


def test_other_hosts_and_paths_lead_nowhere(call: Call, endpoint: str) -> None:
    caller = call("alice")
    body = '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "hour"}}'

    assert post(caller, body, host="evil.example").status == 421
    assert post(caller, body, origin="https://evil.example").status == 403
    for path in ("/", "/mcp/other", "/MCP", "/mcp;x"):
        other = Caller(caller.http, endpoint.replace("/mcp", path), token=caller.token)
        assert post(other, body).status in (404, 405, 307)
