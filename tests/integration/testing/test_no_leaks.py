"""Does a search for leaks find every one, and none where there is none?"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from support.calendar_server import calendar
from support.lines import FASTMCP_LINES, Guarding, Line
from toolguard import (
    AccessDeniedError,
    Connection,
    InsufficientScopeError,
    OperationCall,
    Principal,
    public,
    requires,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.calls.message import current_access_token
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.telemetry import DecisionRecord
from toolguard.testing import (
    LeakError,
    assert_no_leaks,
    assert_no_leaks_async,
)

Body = Callable[[str, str], object]

ACCESS, MAIL = "access token", "token of connection mail"
_log = logging.getLogger("tests.mail")
_aside = logging.getLogger("tests.aside")
_aside.propagate = False
_aside.setLevel(logging.CRITICAL)


def desk(line: Line, guarding: Guarding, body: Body, *guards: GuardDecorator) -> Any:
    """Return a protected server with one tool, which does ``body(access, connection)``."""
    server = line.server("desk")

    @requires_scopes("mail.read")
    @with_connection("mail", as_="mail")
    async def read(mail: Connection) -> str:
        return str(body(current_access_token(), mail.token))

    for guard in guards:
        read = guard(read)
    server.tool()(read)
    return guarding().protect(server)


def found(server: Any, **how: Any) -> set[tuple[str, str, str]]:
    """Return where which tokens were found."""
    with pytest.raises(LeakError) as caught:
        assert_no_leaks(server, **how)
    return {(each.channel, each.where, each.token) for each in caught.value.leaks}


# --- what is a leak


def _in_pieces(access: str, _: str) -> None:
    for start in range(0, len(access), 24):
        _log.debug("part: %s", access[start : start + 24])


def _with_traceback(_: str, mail: str) -> None:
    try:
        int(mail)
    except ValueError:
        _log.info("it failed", exc_info=True)


def _challenge(_: str, mail: str) -> None:
    raise InsufficientScopeError([f"mail.{mail[:20]}"])


def _print_slowly(access: str, _: str) -> None:
    for letter in access:
        sys.stdout.write(letter)


LEAKS: dict[str, tuple[Body, tuple[str, str, str]]] = {
    "returned": (lambda _, mail: mail, ("result", "", MAIL)),
    "returned in part": (lambda access, _: access[-20:], ("result", "", ACCESS)),
    "logged": (lambda _, m: _log.info("with %s", m), ("log", "tests.mail (INFO)", MAIL)),
    "logged as data": (
        lambda a, _: _log.warning("call", extra={"headers": {"authorization": f"Bearer {a}"}}),
        ("log", "tests.mail (WARNING)", ACCESS),
    ),
    "logged in pieces": (_in_pieces, ("log", "tests.mail (DEBUG)", ACCESS)),
    "logged with a traceback": (_with_traceback, ("log", "tests.mail (INFO)", MAIL)),
    "logged aside": (lambda a, _: _aside.debug(a), ("log", "tests.aside (DEBUG)", ACCESS)),
    "in base64": (
        lambda a, _: _log.info(base64.b64encode(f"Bearer {a}".encode())),
        ("log", "tests.mail (INFO)", ACCESS),
    ),
    "in hexadecimal": (lambda _, mail: mail.encode().hex(), ("result", "", MAIL)),
    "without the signature": (lambda a, _: a.rpartition(".")[0], ("result", "", ACCESS)),
    "in a header": (_challenge, ("header", "www-authenticate", MAIL)),
    "printed": (_print_slowly, ("stdout", "", ACCESS)),
    "printed as an error": (lambda _, m: sys.stderr.write(m), ("stderr", "", MAIL)),
}


@pytest.mark.parametrize("name", LEAKS)
def test_a_token_is_found(
    line: Line, guarding: Guarding, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    body, place = LEAKS[name]

    assert place in found(desk(line, guarding, body))


def test_a_token_in_an_exception_is_found_wherever_the_framework_tells_it(
    line: Line, guarding: Guarding, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: str, mail: str) -> None:
        raise RuntimeError(f"no mail for {mail}")

    assert {"result", "log"} & {channel for channel, _, _ in found(desk(line, guarding, fail))}


def test_a_token_in_a_warning_is_found_also_where_the_framework_logs_warnings(
    line: Line, guarding: Guarding
) -> None:
    def warn(_: str, mail: str) -> None:
        warnings.warn(f"mail of {mail}", DeprecationWarning, stacklevel=1)

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        places = found(desk(line, guarding, warn))

    assert places & {
        ("warning", "DeprecationWarning", MAIL),
        ("log", "mcp.server.lowlevel.server (INFO)", MAIL),
    }


def test_an_exception_that_escapes_the_application_is_found(
    line: Line, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = desk(line, guarding, lambda *_: "mail")

    async def fail(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError(str(dict(scope["headers"]).get(b"authorization")))

    def broken(**_: Any) -> Starlette:
        return Starlette(routes=[Mount("", fail)])

    monkeypatch.setattr(server.__toolguard_protected__, "stateless_app", broken)

    assert ("exception", "RuntimeError", ACCESS) in found(server)


def test_what_a_call_leaves_in_a_list_is_found(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.tool()
    @requires_auth
    async def remember(*, user_id: str) -> str:
        async def latest() -> str:
            return "nothing"

        latest.__doc__ = f"The mail of {current_access_token()}"
        server.tool()(latest)
        return "remembered"

    assert ("schema", "", ACCESS) in found(guarding().protect(server))


def test_what_a_client_is_notified_of_is_searched(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    async def read(ctx: Any, *, user_id: str) -> str:
        await ctx.report_progress(1, 2, f"reading with {current_access_token()}")
        return "mail"

    read.__annotations__["ctx"] = line.context
    server.tool()(requires_auth(read))
    places = found(guarding().protect(server))

    assert ("notification", "notifications/progress", ACCESS) in places
    assert "result" not in {channel for channel, _, _ in places}


def test_a_token_of_an_earlier_call_is_found(line: Line, guarding: Guarding) -> None:
    server, kept = line.server("desk"), [""]

    @server.tool()
    @requires_auth
    async def write(*, user_id: str) -> str:
        kept[0] = current_access_token()
        return "written"

    @server.prompt()
    def last() -> str:
        return kept[0]

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(guarding().protect(server))

    places = {(each.operation, each.channel) for each in caught.value.leaks}
    assert ("prompt:last", "result") in places
    assert {operation for operation, _ in places} == {"prompt:last"}


def test_resources_and_templates_are_searched(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.resource("mail://inbox")
    @requires_scopes("mail.read")
    async def inbox(*, user_id: str) -> str:
        return current_access_token()

    @server.resource("mail://{folder}/{number}")
    @requires_scopes("mail.read")
    def folder(folder: str, number: int, *, user_id: str) -> str:
        _log.info("%s of %s", number, current_access_token())
        return folder

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(guarding().protect(server))

    assert {(each.operation, each.channel) for each in caught.value.leaks} >= {
        ("resource:mail://inbox", "result"),
        ("resource:mail://{folder}/{number}", "log"),
    }


def test_a_refusal_is_searched_and_that_there_was_no_more_is_said(
    line: Line, guarding: Guarding
) -> None:
    def told(principal: Principal, call: OperationCall) -> bool:
        _log.info("who calls with %s?", current_access_token())
        return False

    server = desk(line, guarding, lambda *_: "mail", requires(told))

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(server)

    assert {each.where for each in caught.value.leaks} == {"tests.mail (INFO)"}
    assert caught.value.report.refused == {"read": "access_denied"}
    assert caught.value.report.ran == ()


def test_every_leak_says_which_call_it_comes_from_and_shows_no_token(
    line: Line, guarding: Guarding
) -> None:
    seen: list[str] = []

    def body(access: str, mail: str) -> str:
        seen.extend((access, mail))
        _log.info("Authorization: Bearer %s, and then", access)
        return f"mail with {mail} is here"

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(desk(line, guarding, body))

    text = str(caught.value)
    assert (
        "read, called with every scope: access token in log tests.mail (INFO): "
        "Authorization: Bearer <access token>, and then" in text
    )
    assert "token of connection mail in result: " in text
    assert "mail with <token of connection mail> is here" in text
    said = text + repr(caught.value) + repr(caught.value.report)
    assert len(seen) == 2
    for token in (seen[0].rpartition(".")[2], seen[1]):
        assert not any(token[at : at + 12] in said for at in range(len(token) - 11))


# --- what is none


def _decoded(access: str) -> object:
    payload = access.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


NO_LEAKS: dict[str, Body] = {
    "the representation of a connection": lambda _, mail: repr(Connection(mail)),
    "a digest": lambda access, mail: sha256((access + mail).encode()).hexdigest(),
    "a few letters": lambda access, mail: f"{access[:12]}... {mail[:8]}...",
    "what is the same in all tokens": lambda access, _: access[:40],
    "what is read out of it": lambda access, _: _decoded(access),
    "its length": lambda access, _: len(access),
}


@pytest.mark.parametrize("name", NO_LEAKS)
def test_this_is_no_leak(line: Line, guarding: Guarding, name: str) -> None:
    def body(access: str, mail: str) -> object:
        said = NO_LEAKS[name](access, mail)
        _log.info("%s", said)
        return said

    report = assert_no_leaks(desk(line, guarding, body))

    assert report.ran == ("read",)


def test_a_server_that_says_nothing_passes(line: Line, guarding: Guarding) -> None:
    server = line.server("quiet")

    @server.tool()
    @requires_scopes("a")
    @with_connection("mail")
    async def send(to: str, *, user_id: str, connection_token: str) -> str:
        return f"sent to {to}"

    @server.tool()
    @public
    def hours() -> str:
        return "9 to 5"

    @server.resource("quiet://{day}")
    def day(day: str) -> str:
        return day

    @server.prompt()
    def plan(week: int) -> str:
        return f"plan week {week}"

    report = assert_no_leaks(guarding().protect(server))

    assert set(report.ran) == {"send", "hours", "resource:quiet://{day}", "prompt:plan"}
    assert (report.leaks, report.failed, report.refused) == ((), {}, {})


def test_the_calendar_of_these_tests_returns_a_connection_token(
    line: Line, guarding: Guarding
) -> None:
    with pytest.raises(LeakError) as caught:
        assert_no_leaks(guarding().protect(calendar(line)))

    places = {(each.operation, each.token) for each in caught.value.leaks}
    assert places == {("create_event", "token of connection google-calendar")}
    assert "result" in {each.channel for each in caught.value.leaks}


# --- what is left behind


def test_inside_an_event_loop_it_is_awaited(line: Line, guarding: Guarding) -> None:
    server = desk(line, guarding, lambda _, mail: mail)

    with pytest.raises(LeakError):
        asyncio.run(assert_no_leaks_async(server))


def test_everything_is_as_before(
    line: Line, guarding: Guarding, capsys: pytest.CaptureFixture[str]
) -> None:
    server = desk(line, guarding, LEAKS["logged aside"][0])
    guard = server.__toolguard_protected__.guard

    def state() -> tuple[object, ...]:
        make, out = logging.getLogRecordFactory(), (sys.stdout, sys.stderr)
        levels = {name: logging.getLogger(name).level for name in ("", "tests.mail", "mcp")}
        return guard.verifier, guard.connections, make, out, levels, warnings.showwarning

    before = state()
    found(server)

    assert state() == before
    assert capsys.readouterr() == ("", "")


def test_searches_may_overlap(line: Line, guarding: Guarding) -> None:
    meeting = threading.Barrier(2)

    async def search(server: Any) -> bool:
        with pytest.raises(LeakError) as caught:
            await assert_no_leaks_async(server)
        return "result" in {each.channel for each in caught.value.leaks}

    async def both(server: Any) -> list[bool]:
        return [*await asyncio.gather(search(server), search(server))]

    server = line.server("desk")

    @server.tool()
    @with_connection("mail")
    def read(*, connection_token: str) -> str:  # in a thread of its own
        meeting.wait(timeout=30)
        return connection_token

    guard = guarding()
    connections = guard.connections
    guard.protect(server)

    assert asyncio.run(both(server)) == [True, True]
    assert guard.connections is connections


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_mounted_servers_are_searched(line: Line, guarding: Guarding) -> None:
    outer: Any = line.server("outer")
    inner = line.server("inner")

    @inner.tool()
    @requires_scopes("mail.read")
    async def read(*, user_id: str) -> str:
        return current_access_token()

    outer.mount(inner, namespace="mail")

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(guarding().protect(outer))

    assert {each.operation for each in caught.value.leaks} == {"mail_read"}


def test_a_token_in_a_decision_record_is_a_leak(line: Line, guarding: Guarding) -> None:
    def body(access: str, _: str) -> object:
        raise AccessDeniedError(rule=f"not with {access[-60:]}")

    assert ("record", "refused", ACCESS) in found(desk(line, guarding, body))


def test_records_of_a_search_go_to_the_consumers_of_the_guard(
    line: Line, guarding: Guarding
) -> None:
    records: list[DecisionRecord] = []
    server = guarding(on_decision=records.append).protect(calendar(line))
    assert_no_leaks(server, skip={"create_event"})

    assert {each.verdict for each in records} >= {"served", "refused"}
