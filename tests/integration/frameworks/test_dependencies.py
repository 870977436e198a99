"""Does anything that a framework fills in run, or ask, before the call is permitted?"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import httpx
import pytest
from pydantic import BaseModel

from support.lines import (
    FASTMCP_LINES,
    LEGACY_PROTOCOLS,
    LINES,
    MODERN_PROTOCOL,
    Guarding,
    Line,
    Serve,
)
from support.traces import left_behind
from support.wire import Caller
from toolguard import (
    current_principal,
    injected,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.testing import GuardedClient, LocalIssuer, call_as

RESOLVING_LINES = [line for line in LINES if line.family == "sdk" and line.modern]
on_fastmcp = pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
on_fastmcp_4 = pytest.mark.parametrize(
    "line", [line for line in FASTMCP_LINES if line.modern], ids=str
)
with_resolvers = pytest.mark.parametrize("line", RESOLVING_LINES, ids=str)


def _depends(function: Callable[..., Any]) -> Any:
    return importlib.import_module("fastmcp.dependencies").Depends(function)


class _Room:
    """A dependency that says what has happened."""

    def __init__(self) -> None:
        self.said: list[str] = []

    async def open(self) -> str:
        self.said.append(f"opened for {current_principal().user_id}")
        return "a room"


Ask = Callable[[Any, str, list[str]], Any]
KINDS: dict[str, Ask] = {
    "tool": lambda server, day, scopes: call_as(server, "book", {"day": day}, scopes=scopes),
    "prompt": lambda server, day, scopes: GuardedClient(server, scopes=scopes).get_prompt(
        "book", {"day": day}
    ),
    "template": lambda server, day, scopes: GuardedClient(server, scopes=scopes).read(
        f"rooms://{day}"
    ),
}


def _registered(server: Any, kind: str, function: Callable[..., Any]) -> None:
    register = {"tool": server.tool, "prompt": server.prompt}
    made = register[kind]("book") if kind in register else server.resource("rooms://{day}")
    made(function)


@on_fastmcp
@pytest.mark.parametrize("by_rule", [False, True], ids=["decorator", "rule"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_dependency_runs_only_once_its_call_is_permitted(
    line: Line, guarding: Guarding, kind: str, by_rule: bool
) -> None:
    room = _Room()
    needed = requires_scopes("book.{day}")

    async def book(day: str, room: str = _depends(room.open)) -> str:
        return f"{room} on {day}"

    server = line.server("rooms")
    _registered(server, kind, (requires_auth if by_rule else needed)(book))
    names = {"tool": "book", "prompt": "prompt:book", "template": "resource:rooms://*"}
    guarding().protect(server, rules={names[kind]: needed} if by_rule else {})

    refused = KINDS[kind](server, "monday", ["book.sunday"])
    assert (refused.status, room.said) == (403, [])
    assert "a room on monday" in str(KINDS[kind](server, "monday", ["book.monday"]).body)
    assert room.said == ["opened for alice"]


@on_fastmcp
def test_a_dependency_stays_open_until_the_function_has_returned(
    line: Line, guarding: Guarding
) -> None:
    said: list[str] = []

    def room() -> Iterator[str]:
        said.append("opened")
        yield "a room"
        said.append("closed")

    opened = importlib.import_module("contextlib").contextmanager(room)
    server = line.server("rooms")

    @server.tool()
    @requires_auth
    def book(day: str = "monday", room: str = _depends(opened), *, user_id: str) -> str:
        said.append("booked")
        return f"{room} on {day} for {user_id}"

    @server.tool()
    @requires_auth
    def days(room: str = _depends(opened)) -> Any:
        said.append("listed")
        yield room

    guarding().protect(server)

    assert call_as(server, "book").text == "a room on monday for alice"
    assert said == ["opened", "booked", "closed"]
    said.clear()
    assert "a room" in call_as(server, "days").text
    assert said == ["opened", "listed", "closed"]


@on_fastmcp
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_cannot_send_the_value_of_a_dependency(
    line: Line, guarding: Guarding, kind: str
) -> None:
    async def book(day: str, room: str = _depends(lambda: "a room")) -> str:
        return f"{room} on {day}"

    server = line.server("rooms")
    _registered(server, kind, requires_auth(book))
    client = GuardedClient(guarding().protect(server))
    sent = {"day": "monday", "room": "mallory's"}

    if kind == "template":
        answer = client.read("rooms://monday?room=mallory's")
    else:
        answer = client.call("book", sent) if kind == "tool" else client.get_prompt("book", sent)
    assert "mallory's on" not in str(answer.body)
    if kind == "prompt":
        assert "a room on monday" in str(answer.body)
    assert "room" not in str(client.send("tools/list").body.get("inputSchema", ""))


@on_fastmcp
def test_no_token_is_left_behind_by_a_dependency_that_fails(line: Line, guarding: Guarding) -> None:
    caught: list[BaseException] = []

    def watched(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def watching(*args: Any, **kwargs: Any) -> Any:
            try:
                return await function(*args, **kwargs)
            except BaseException as error:
                caught.append(error)
                raise

        return watching

    async def fails() -> str:
        raise LookupError("no room")

    server = line.server("rooms")

    @server.tool()
    @watched
    @requires_auth
    @with_connection("google-calendar")
    async def book(room: str = _depends(fails), *, connection_token: str) -> str:
        return f"{room} {connection_token}"

    guarding().protect(server)

    assert "Failed to resolve" in call_as(server, "book").text
    assert left_behind(caught[0], "google-calendar token of alice") == []


@on_fastmcp
def test_a_guarded_dependency_refuses_the_call(line: Line, guarding: Guarding) -> None:
    @requires_scopes("rooms.open")
    async def room(*, user_id: str = injected) -> str:
        return f"the room of {user_id}"

    async def opened() -> str:
        return await room()

    server = line.server("rooms")

    @server.tool()
    @requires_auth
    async def book(room: str = _depends(opened)) -> str:
        return room

    @server.tool()
    @requires_auth
    async def fails(room: str = _depends(opened)) -> str:
        raise RuntimeError(room) from LookupError("no day")

    guarding().protect(server)

    assert call_as(server, "book").missing_scopes == ("rooms.open",)
    assert call_as(server, "book", scopes=["rooms.open"]).text == "the room of alice"
    assert "the room of alice" in call_as(server, "fails", scopes=["rooms.open"]).text


@on_fastmcp
def test_a_rule_cannot_read_what_is_filled_after_the_decision(line: Line) -> None:
    async def book(day: str = _depends(lambda: "monday")) -> str:
        return day

    with pytest.raises(TypeError, match=r"of book\(\) fills day only once the call is permitted"):
        requires_scopes("book.{day}")(book)


def _call_argument(name: str) -> Any:
    return importlib.import_module("uncalled_for").CallArgument(name)


@on_fastmcp_4
def test_no_dependency_gets_from_the_client_what_the_guard_injects(
    line: Line, guarding: Guarding
) -> None:
    async def account(user_id: str = _call_argument("user_id")) -> str:
        return f"account of {user_id}"

    async def key(token: str = _call_argument("connection_token")) -> str:
        return token

    async def sees(account: str = _depends(account), *, user_id: str) -> str:
        return f"{user_id} sees the {account}"

    async def connected(key: str = _depends(key), *, connection_token: str) -> str:
        return f"{key} {connection_token}"

    async def neither(account: str = _depends(account)) -> str:
        return account

    for function, guard in (
        (sees, requires_auth),
        (neither, requires_auth),
        (connected, with_connection("google-calendar")),
    ):
        with pytest.raises(TypeError, match="by CallArgument, so from the client"):
            guard(function)
    server = line.server("accounts")
    server.tool()(neither)
    with pytest.raises(ValueError, match="takes user_id by keyword only"):
        guarding().protect(server)


@on_fastmcp_4
def test_an_argument_for_a_dependency_is_decided_on(line: Line, guarding: Guarding) -> None:
    asked: list[str] = []

    async def room(day: str = _call_argument("day")) -> str:
        asked.append(day)
        return f"the room of {day}"

    server = line.server("rooms")

    @server.tool()
    @requires_scopes("book.{day}")
    async def book(room: str = _depends(room)) -> str:
        return room

    guarding().protect(server)

    assert call_as(server, "book", {"day": "monday"}).status == 403
    assert asked == []
    answer = call_as(server, "book", {"day": "monday"}, scopes=["book.monday"])
    assert answer.text == "the room of monday"


# --- mcp 2: Resolve


class Sure(BaseModel):
    sure: bool


def _closing(line: Line, asked: list[str]) -> Any:
    """Return a server with tools that depend on what is loaded, and on what the client says."""
    resolve = importlib.import_module("mcp.server.mcpserver.resolve")

    async def load(account: str) -> str:
        asked.append(f"loaded {account}")
        return f"balance of {account}"

    async def confirm(account: str) -> Any:
        asked.append(f"confirm {account}")
        return resolve.Elicit(f"close {account}?", Sure)

    async def show(account: str, balance: str) -> str:
        return balance

    async def close(account: str, sure: Sure) -> str:
        return f"closed {account}"

    confirm.__annotations__["return"] = resolve.Elicit[Sure]
    show.__annotations__["balance"] = Annotated[str, resolve.Resolve(load)]
    close.__annotations__["sure"] = Annotated[Sure, resolve.Resolve(confirm)]
    for function in (load, confirm, show, close):
        function.__annotations__["account"] = str
    server = line.server("accounts")
    for function in (show, close):
        server.tool()(requires_scopes("account.{account}")(function))
    return server


@with_resolvers
def test_a_resolver_runs_only_once_its_call_is_permitted(line: Line, guarding: Guarding) -> None:
    asked: list[str] = []
    server = guarding().protect(_closing(line, asked))

    assert call_as(server, "show", {"account": "own"}, scopes=["account.other"]).status == 403
    assert asked == []
    answer = call_as(server, "show", {"account": "own"}, scopes=["account.own"])
    assert (answer.text, asked) == ("balance of own", ["loaded own"])
    invalid = call_as(server, "show", {"account": ["own"]}, scopes=["account.own"])
    assert invalid.text.startswith("Error executing tool show: 1 validation error")


@with_resolvers
def test_only_a_permitted_caller_is_asked_a_question_in_a_session(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    asked: list[str] = []
    url = serve(line.http_app(guarding().protect(_closing(line, asked)))) + "/mcp"
    can: dict[str, Any] = {"elicitation": {"form": {}}}
    token = issuer.mint("mallory", scopes=["account.own"])
    mallory = Caller(http, url, LEGACY_PROTOCOLS[-1], token=token, capabilities=can)
    mallory.open()

    refused = mallory.call("close", {"account": "victim"})
    assert (refused.status, asked) == (403, [])


@with_resolvers
def test_a_decorator_in_front_asks_only_permitted_callers(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    types = importlib.import_module("mcp_types")
    params = {"message": "close own?", "requested_schema": {"type": "object", "properties": {}}}
    question = types.ElicitRequest(params=types.ElicitRequestFormParams(**params))

    def asking(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def asks(*args: Any, **kwargs: Any) -> Any:
            return types.InputRequiredResult(input_requests={"sure": question})

        asks.__annotations__ = {**function.__annotations__, "return": types.InputRequiredResult}
        return asks

    async def close(account: str) -> str:
        return f"closed {account}"

    server = line.server("accounts")
    server.tool()(asking(requires_scopes("account.{account}")(close)))
    url = serve(line.http_app(guarding().protect(server), stateless=True, json=True)) + "/mcp"
    can: dict[str, Any] = {"elicitation": {"form": {}}}
    token = issuer.mint("mallory", scopes=["account.own"])
    mallory = Caller(http, url, MODERN_PROTOCOL, token=token, capabilities=can)

    assert "close own?" in mallory.call("close", {"account": "own"}).content
    refused = mallory.call("close", {"account": "victim"})
    assert (refused.status, "close own?" in refused.content) == (403, False)
