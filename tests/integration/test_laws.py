"""The laws of one call and one decision, each held on every line.

Law 2 is in ``test_laws_of_interleaving``, law 3 in ``test_laws_of_moves``.
"""

from __future__ import annotations

import functools
import inspect
import json
import re
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.client import HTTPConnection
from types import FrameType
from typing import Annotated, Any

import anyio
import httpx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, ValidationError

from support.lines import LEGACY_PROTOCOLS, MODERN_PROTOCOL, Guarding, Line, Serve
from support.lowlevel_servers import Told, lowlevel
from support.wire import message, request_headers
from toolguard import (
    Connection,
    OperationCall,
    Principal,
    public,
    requires,
    requires_auth,
    requires_scopes,
    sent_by_client,
    with_connection,
)
from toolguard.calls.request import RequestAuth
from toolguard.calls.rows import Row
from toolguard.policies.decision import Verdict
from toolguard.policies.operations import MAX_NAMES
from toolguard.testing import (
    AsyncGuardedClient,
    GuardedClient,
    LocalIssuer,
    ScriptedConnections,
    ServerAnswer,
)

# Every example is a request through the application: fewer than for what is pure.
SOME = settings(max_examples=40)

OWNERS = ("ann", "ben", "cat")
SCOPES = ("list", "write", *(f"notes.{owner}" for owner in OWNERS))


# --- law 1


@dataclass(frozen=True)
class Shape:
    """One operation of the server of law 1.

    Attributes:
        ask: the message that asks for it, about one owner.
        needs: the scopes that it needs then.
    """

    ask: Callable[[str], tuple[str, dict[str, Any]]]
    needs: Callable[[str], set[str]]


def _call(name: str, **arguments: str) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": name, "arguments": arguments}


def _fixed(scope: str) -> Callable[[str], set[str]]:
    return lambda _: {scope}


def _own(owner: str) -> set[str]:
    return {f"notes.{owner}"}


# All operations do the same; they differ in where their policy stands and in what it reads.
SHAPES: Mapping[str, Shape] = {
    "decorated": Shape(lambda owner: _call("decorated", owner=owner), _fixed("write")),
    "ruled": Shape(lambda owner: _call("ruled", owner=owner), _fixed("write")),
    "reading": Shape(lambda owner: _call("reading", owner=owner), _own),
    "defaulting": Shape(lambda _: _call("defaulting"), _fixed("notes.ann")),
    "reading by rule": Shape(lambda owner: _call("ruled_reading", owner=owner), _own),
    "decorated and ruled": Shape(
        lambda owner: _call("both", owner=owner), lambda owner: {"write", *_own(owner)}
    ),
    "checked": Shape(lambda owner: _call("checked", owner=owner), _own),
    "open": Shape(lambda owner: _call("open", owner=owner), lambda _: set()),
    "resource": Shape(lambda _: ("resources/read", {"uri": "notes://all"}), _fixed("list")),
    "template": Shape(lambda owner: ("resources/read", {"uri": f"notes://of/{owner}"}), _own),
    "template by rule": Shape(
        lambda owner: ("resources/read", {"uri": f"notes://ruled/{owner}"}),
        lambda owner: {"list", *(_own(owner) if owner == "ann" else ())},
    ),
    "prompt": Shape(
        lambda owner: ("prompts/get", {"name": "prompt", "arguments": {"owner": owner}}), _own
    ),
    "prompt by rule": Shape(
        lambda owner: ("prompts/get", {"name": "ruled", "arguments": {"owner": owner}}),
        _fixed("list"),
    ),
}


@dataclass
class Notes:
    """A server with an operation of every shape, and which of them have run for which owner."""

    ran: list[tuple[str, str]] = field(default_factory=list)

    def body(self, shape: str, default: str = "ann") -> Any:
        async def about(owner: str = default) -> str:
            self.ran.append((shape, owner))
            return f"the notes of {owner} by {shape}"

        return about

    def required(self, shape: str) -> Any:
        body = self.body(shape)

        async def about(owner: str) -> str:
            return str(await body(owner))

        return about

    def whole(self, shape: str) -> Any:
        async def about() -> str:
            return str(await self.body(shape)())

        return about

    def server(self, line: Line) -> Any:
        server = line.server("notes")
        by_owner = requires_scopes("notes.{owner}")

        async def is_owner(caller: Principal, call: OperationCall) -> bool:
            return f"notes.{call.arguments['owner']}" in caller.scopes

        tools = {
            "decorated": requires_scopes("write")(self.required("decorated")),
            "ruled": self.required("ruled"),
            "reading": by_owner(self.required("reading")),
            "defaulting": by_owner(self.body("defaulting")),
            "ruled_reading": self.required("reading by rule"),
            "both": by_owner(self.required("decorated and ruled")),
            "checked": requires(is_owner)(self.required("checked")),
            "open": requires_auth(self.required("open")),
        }
        for name, function in tools.items():
            server.tool(name)(function)
        server.resource("notes://all")(requires_scopes("list")(self.whole("resource")))
        server.resource("notes://of/{owner}")(by_owner(self.required("template")))
        server.resource("notes://ruled/{owner}")(self.required("template by rule"))
        server.prompt("prompt")(by_owner(self.required("prompt")))
        server.prompt("ruled")(self.required("prompt by rule"))
        return server

    RULES = {  # noqa: RUF012 - a constant
        "ruled": requires_scopes("write"),
        "ruled_reading": requires_scopes("notes.{owner}"),
        "both": requires_scopes("write"),
        "resource:notes://ruled/ann": requires_scopes("notes.ann"),
        "resource:notes://ruled/*": requires_scopes("list"),
        "prompt:ruled": requires_scopes("list"),
    }


def is_served(answer: ServerAnswer) -> bool:
    return answer.ok and "error" not in answer.body


def test_law_1_decided_by_its_own_policy_and_its_own_arguments(
    line: Line, guarding: Guarding
) -> None:
    """What runs is what was asked for, and only with the scopes of that operation and owner."""
    notes = Notes()
    server = guarding().protect(notes.server(line), rules=Notes.RULES)

    @SOME
    @given(
        st.sampled_from(sorted(SHAPES)), st.sampled_from(OWNERS), st.sets(st.sampled_from(SCOPES))
    )
    def holds(name: str, owner: str, held: set[str]) -> None:
        shape = SHAPES[name]
        notes.ran.clear()
        answer = GuardedClient(server, scopes=sorted(held)).send(*shape.ask(owner))
        about = "ann" if name in ("resource", "defaulting") else owner
        if shape.needs(owner) <= held:
            assert is_served(answer), answer
            assert notes.ran == [(name, about)]
            assert f"the notes of {about} by {name}" in str(answer.body)
        else:
            assert not is_served(answer)
            assert notes.ran == []
            assert "the notes of" not in str(answer.body)

    holds()


# --- law 4

METHODS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "tools/call": lambda name: {"name": name, "arguments": {}},
    "prompts/get": lambda name: {"name": name, "arguments": {}},
    "resources/read": lambda uri: {"uri": uri},
    "resources/subscribe": lambda uri: {"uri": uri},
    "resources/unsubscribe": lambda uri: {"uri": uri},
    "completion/complete": lambda name: {
        "ref": {"type": "ref/prompt", "name": name},
        "argument": {"name": "x", "value": ""},
    },
}


def _wide(name: str) -> str:
    return "".join(chr(ord(each) + 0xFEE0) for each in name)


# What a look-up could take for a name that it knows.
RESPELLED = st.sampled_from(["secret", "d://secret", "d://at/1"]).flatmap(
    lambda name: st.sampled_from(
        [
            name.upper(),
            name.title(),
            f" {name}",
            f"{name} ",
            f"{name}/",
            f"{name}\u200b",
            f"{name}@1",
            f"{name}#x",
            f"{name}?x=1",
            f"tool:{name}",
            f"./{name}",
            _wide(name),
            name.replace("s", "%73"),
            name.replace("e", "\u0435"),  # Cyrillic
            f"__0123456789ab_{name}",
            f"0123456789ab_{name}",
            f"___{name}",
        ]
    )
)
NAMES = st.one_of(st.text(max_size=40), RESPELLED, st.just("d://other"), st.just("ui://prefab/x"))
KNOWN = {"secret", "d://secret"}


def test_law_4_what_is_not_resolved_is_not_dispatched(line: Line, guarding: Guarding) -> None:
    """A name that the server's look-up does not know runs nothing, even where all is public."""
    ran: list[str] = []

    async def secret() -> str:
        ran.append("secret")
        return "the secret"

    async def at(which: str) -> str:
        return await secret()

    server = line.server("small")
    scope = requires_scopes("secret")
    server.tool("secret")(scope(secret))
    server.prompt("secret")(scope(secret))
    server.resource("d://secret")(scope(secret))
    server.resource("d://at/{which}")(scope(at))
    line.complete_with(server, "the secret")
    guarding(default="public").protect(server)

    @SOME
    @given(st.sampled_from(sorted(METHODS)), NAMES, st.booleans())
    def holds(method: str, name: str, signed_in: bool) -> None:
        user = "bob" if signed_in else None
        answer = GuardedClient(server, user=user).send(method, METHODS[method](name))
        assert ran == []
        assert not is_served(answer), answer
        assert "the secret" not in str(answer.body)

    holds()


def _parsed(uri: str) -> str:
    """Return a URI as mcp 1.x has it before a guard sees it."""
    try:
        return str(AnyUrl(uri))
    except ValidationError:
        return uri


def test_law_4_on_low_level_servers_no_handler_is_called(guarding: Guarding) -> None:
    """A name that no list and no rule knows reaches no handler of a low-level server."""

    async def secret(_: Mapping[str, Any]) -> str:
        return "the secret"

    told = Told(tools={"secret": secret}, resources=("d://secret",), prompts=("secret",))
    server = guarding(default="public").protect(lowlevel(told))

    @SOME
    @given(st.sampled_from(["tools/call", "prompts/get", "resources/read"]), NAMES)
    def holds(method: str, name: str) -> None:
        assume(name not in KNOWN and _parsed(name) not in KNOWN)
        answer = GuardedClient(server, user=None).send(method, METHODS[method](name))
        assert told.calls == []
        assert not is_served(answer), answer

    holds()


# --- law 5

ENDPOINTS = [
    "/mcp",
    "/mcp/",
    "//mcp",
    "/MCP",
    "/%6dcp",
    "/mcp%2f",
    "/x/../mcp",
    "/mcp/.",
    "/mcp;x=1",
    "/mcp?x=1",
    "/other",
    "/",
]
VERBS = ["POST", "GET", "DELETE", "PUT", "PATCH", "OPTIONS", "HEAD", "post", "TRACE", "QUERY"]
ASKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "public tool": ("tools/call", {"name": "hours", "arguments": {}}),
    "guarded tool": ("tools/call", {"name": "secret", "arguments": {}}),
    "default tool": ("tools/call", {"name": "plain", "arguments": {}}),
    "unknown tool": ("tools/call", {"name": "nothing", "arguments": {}}),
    "public resource": ("resources/read", {"uri": "d://hours"}),
    "guarded resource": ("resources/read", {"uri": "d://secret"}),
    "guarded prompt": ("prompts/get", {"name": "secret"}),
    "completion": ("completion/complete", METHODS["completion/complete"]("secret")),
    "subscription": ("resources/subscribe", {"uri": "d://secret"}),
    "level": ("logging/setLevel", {"level": "info"}),
    "tasks": ("tasks/list", {}),
    "custom": ("custom/method", {}),
    "list": ("tools/list", {}),
    "ping": ("ping", {}),
    "nameless": ("tools/call", {"arguments": {}}),
}
# What anyone may send where something is public.
OPEN = {"public tool", "public resource", "list", "ping"}
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "mcp-session-id": st.just("0" * 32),
        "last-event-id": st.just("1"),
        "origin": st.just("https://evil.test"),
        "access-control-request-method": st.just("POST"),
        "x-http-method-override": st.just("DELETE"),
        "authorization": st.sampled_from(["", "Basic YTpi", "bearer", "Negotiate x"]),
        "x-forwarded-user": st.just("alice"),
    },
)


class Behind:
    """An application of any kind, and what has reached it."""

    def __init__(self) -> None:
        self.reached: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (event := (await receive())["type"]) != "lifespan.shutdown":
                await send({"type": f"{event}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.reached.append(scope["method"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"the secret"})


def _sent(origin: str, verb: str, path: str, headers: Mapping[str, str], body: str) -> str:
    """Send exactly this; return the body of the response."""
    connection = HTTPConnection(origin.removeprefix("http://"), timeout=10)
    try:
        connection.request(verb, path, body, dict(headers))
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def _bodies(ran: list[str], name: str) -> Any:
    async def body() -> str:
        ran.append(name)
        return f"{name} ran"

    return body


def test_law_5_a_stranger_reaches_what_is_public_at_that_door(
    line: Line, guarding: Guarding, serve: Serve
) -> None:
    """One guard, three doors: what is public at one of them opens nothing at another."""
    ran: list[str] = []
    server = line.server("office")
    server.tool("hours")(public(_bodies(ran, "public tool")))
    server.tool("secret")(requires_scopes("secret")(_bodies(ran, "guarded tool")))
    server.tool("plain")(_bodies(ran, "default tool"))
    server.resource("d://hours")(public(_bodies(ran, "public resource")))
    server.resource("d://secret")(requires_scopes("secret")(_bodies(ran, "guarded resource")))
    server.prompt("secret")(requires_scopes("secret")(_bodies(ran, "guarded prompt")))
    line.complete_with(server, "completed")
    guard, behind = guarding(), Behind()
    rules = {"hours": public, "resource:d://hours": public, "*ecret": requires_scopes("secret")}
    doors = {
        "protected": serve(line.http_app(guard.protect(server), stateless=True, json=True)),
        "whole": serve(guard.asgi(behind)),
        "ruled": serve(guard.asgi(behind, rules=rules, others="authenticated")),
    }

    def sent(door: str, verb: str, path: str, what: str, more: Mapping[str, str]) -> str:
        ran.clear()
        behind.reached.clear()
        method, params = ASKS[what]
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
        accepted = "application/json, text/event-stream"
        headers = {"accept": accepted, "content-type": "application/json", **more}
        return _sent(doors[door], verb, path, headers, body)

    assert "public tool ran" in sent("protected", "POST", "/mcp", "public tool", {})
    assert "the secret" in sent("ruled", "POST", "/mcp", "public tool", {})

    @settings(max_examples=80)
    @given(
        st.sampled_from(["protected", "whole", "ruled"]),
        st.sampled_from(VERBS),
        st.sampled_from(ENDPOINTS),
        st.sampled_from(sorted(ASKS)),
        HEADERS,
    )
    def holds(door: str, verb: str, path: str, what: str, more: dict[str, str]) -> None:
        text = sent(door, verb, path, what, more)
        assert "completed" not in text
        assert set(ran) <= {"public tool", "public resource"}, text
        assert "the secret" not in text or (door, verb) == ("ruled", "POST")
        if door == "ruled":
            assert set(behind.reached) <= {"POST"}
            assert not behind.reached or what in OPEN
        else:
            assert behind.reached == []

    holds()


# --- law 7

INJECTED = ("user_id", "caller", "token", "mail")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("mallory"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=5,
)
# The names of what is injected, what resembles them, and what a framework could unpack.
SENT = st.sampled_from(
    [
        *INJECTED,
        *(name.upper() for name in INJECTED),
        *(f" {name}" for name in INJECTED),
        *(f"{name}." for name in INJECTED),
        *("userId", "user-id", "user_id\u200b", "args", "kwargs", "self", "__kwargs__", "ctx"),
    ]
)


def test_law_7_nothing_that_a_client_sends_is_injected(line: Line, guarding: Guarding) -> None:
    """Whatever arguments are sent, what is injected is what the token and the provider say."""
    server = line.server("mail")
    got: list[tuple[Any, ...]] = []

    @with_connection("mail", as_="token")
    @with_connection("mail", as_="mail")
    @requires_auth
    async def sent(
        note: str, *, user_id: str, caller: Principal, token: str, mail: Connection
    ) -> str:
        got.append((note, user_id, caller.user_id, token, mail.token))
        return note

    server.tool("sent")(sent)
    server.prompt("sent")(sent)
    connections = ScriptedConnections({"mail": "alices-token"})
    guarding(connections=connections).protect(server)
    both = ("alice", "alice", "alices-token", "alices-token")

    @SOME
    @given(
        st.sampled_from(["tools/call", "prompts/get"]), st.dictionaries(SENT, VALUES, max_size=4)
    )
    def holds(method: str, more: dict[str, Any]) -> None:
        got.clear()
        if method == "prompts/get":
            more = {name: json.dumps(value) for name, value in more.items()}
        arguments = {"note": "a note", **more}
        params = {"name": "sent", "arguments": arguments, "user_id": "mallory"}
        answer = GuardedClient(server).send(method, params)
        assert got in ([], [("a note", *both)]), answer
        assert "mallory" not in str(got)

    holds()
    assert got or GuardedClient(server).call("sent", {"note": "a note"}).ok


def _by_position(user_id: str, note: str) -> str:
    return f"{user_id} {note}"


def _by_keyword(note: str, *, user_id: str) -> str:
    return f"{user_id} {note}"


def _with_a_default(note: str, *, user_id: str = "nobody") -> str:
    return f"{user_id} {note}"


def _marked(user_id: Annotated[str, sent_by_client], note: str) -> str:
    return f"{user_id} {note}"


def _marked_by_keyword(note: str, *, user_id: Annotated[str, sent_by_client]) -> str:
    return f"{user_id} {note}"


def _with_a_principal(note: str, *, caller: Principal) -> str:
    return f"{caller.user_id} {note}"


SHOWN: Mapping[str, Callable[[Any], Any]] = {
    "decorated": requires_auth,
    "ruled": lambda function: function,
    "by default": lambda function: function,
    "said to be sent": lambda function: function,
}


@pytest.mark.parametrize("guarded", SHOWN)
@pytest.mark.parametrize(
    "function",
    [
        _by_position,
        _by_keyword,
        _with_a_default,
        _marked,
        _marked_by_keyword,
        _with_a_principal,
    ],
    ids=lambda function: function.__name__.strip("_"),
)
def test_law_7_no_parameter_disappears_in_silence(
    line: Line, guarding: Guarding, function: Callable[..., Any], guarded: str
) -> None:
    """An error says so at import or at ``protect()``, or clients see a parameter and it arrives."""
    server = line.server("shown")
    parameters = inspect.signature(function).parameters.keys()
    fresh = types.FunctionType(function.__code__, globals(), "shown", function.__defaults__)
    fresh.__kwdefaults__ = function.__kwdefaults__
    fresh.__annotations__ = function.__annotations__
    fault = ""
    try:
        server.tool("shown")(SHOWN[guarded](fresh))
        guarding().protect(
            server,
            rules={"shown": requires_auth} if guarded == "ruled" else {},
            sent_by_client={"shown": ["user_id"]} if guarded == "said to be sent" else None,
        )
    except (TypeError, ValueError) as error:
        fault = str(error)
    if fault:
        assert parameters & set(re.findall(r"\w+", fault)) - {"note"}, fault
        return
    alice = GuardedClient(server)
    (tool,) = alice.send("tools/list").result["tools"]
    visible = tool["inputSchema"]["properties"].keys()
    injected = parameters - visible
    assert injected in (set(), {"user_id"}, {"caller"})
    assert not injected or guarded == "decorated"
    answer = alice.call("shown", {each: f"a {each}" for each in visible})
    assert answer.text == f"{'alice' if injected else 'a user_id'} a note"


# --- law 8

RULES = 40
# What one of our stretches may take, whatever is sent: each spelling of a name is held against
# each rule.
STRETCH = 500 * RULES
MANY = (1, 300, 2_000, 20_000)
PIECES = ("x", "%41", "%2e%2E", "..", "\uff21", "\u0152", "%c3%a9", "/", "%25", "*y")
LONG: Mapping[str, Callable[[str, int], tuple[str, dict[str, Any]]]] = {
    "tool": lambda text, _: _call(text),
    "uri": lambda text, _: ("resources/read", {"uri": f"notes://{text}"}),
    "subscribe": lambda text, _: ("resources/subscribe", {"uri": f"notes://{text}"}),
    "complete": lambda text, _: (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": f"notes://{text}"},
            "argument": {"name": "note", "value": text},
        },
    ),
    # Up to the limit, and the last one is refused: no caller waits for an event.
    "listen": lambda text, count: (
        "subscriptions/listen",
        {
            "notifications": {
                "resourceSubscriptions": [
                    *(f"notes://{at}{text[:1_000]}" for at in range(min(count, MAX_NAMES - 1))),
                    "other://unknown",
                ]
            }
        },
    ),
    "listen to more": lambda text, count: (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": [f"notes://{text[:9]}"] * (MAX_NAMES + count)}},
    ),
    "scopes": lambda _, count: _call_with("several", ids=[str(at) for at in range(count)]),
    "arguments": lambda _, count: _call_with(
        "several", ids=["1"], **{f"a{at}": at for at in range(min(count, 50))}
    ),
    "deep": lambda _, count: _call_with("several", ids=functools.reduce(_nest, range(count % 90))),
}


def _call_with(name: str, **arguments: Any) -> tuple[str, dict[str, Any]]:
    return "tools/call", {"name": name, "arguments": arguments}


def _nest(inner: Any, _: int) -> Any:
    return [inner]


class Steps:
    """How many lines of ours are run while a message is served.

    Attributes:
        stretch: the most of them before others get a turn.
        turns: how many turns others got.
    """

    def __init__(self) -> None:
        self.stretch = self.turns = self._now = 0

    def trace(self, frame: FrameType, event: str, arg: object) -> Any:
        """Count what runs in the package, the kit for tests aside."""
        del event, arg
        name = str(frame.f_globals.get("__name__"))
        is_ours = name.startswith("toolguard.") and not name.startswith("toolguard.testing")
        return self._count if is_ours else None

    def _count(self, _: FrameType, event: str, __: object) -> Any:
        self._now += event == "line"
        self.stretch = max(self.stretch, self._now)
        return self._count

    async def others(self) -> None:
        """Take every turn that there is."""
        while True:
            self._now = 0
            self.turns += 1
            await anyio.lowlevel.checkpoint()


async def _counted(app: Any, body: Mapping[str, Any], headers: Mapping[str, str]) -> Steps:
    steps = Steps()
    transport = httpx.ASGITransport(app)
    lifespan = app.router.lifespan_context(app) if hasattr(app, "router") else nullcontext()
    client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")
    async with lifespan, client, anyio.create_task_group() as group:
        group.start_soon(steps.others)
        await anyio.lowlevel.checkpoint()
        before = sys.gettrace()  # that of coverage
        sys.settrace(steps.trace)
        try:
            await client.post("/mcp", json=body, headers=headers)
        finally:
            sys.settrace(before)
        group.cancel_scope.cancel()
    return steps


def _scopes_of(call: OperationCall) -> list[str]:
    return [f"notes.{each}" for each in call.arguments["ids"]]


def _ruled(line: Line, guarding: Guarding) -> Any:
    server = line.server("ruled")

    async def about(note: str) -> str:
        return note

    async def several(ids: list[str]) -> str:
        return str(ids)

    server.tool("several")(several)
    server.resource("notes://{note}")(requires_auth(about))
    line.complete_with(server, "a note")
    return guarding().protect(server, rules=_rules())


def _rules() -> dict[str, Any]:
    names = [f"{kind}x{at}*y*" for at in range(RULES // 2) for kind in ("", "resource:notes://")]
    return {
        **{name: requires_scopes("notes") for name in names},
        "several": requires_scopes(_scopes_of),
    }


def _hold_bounded(app: Callable[[], Any], protocol: str, token: str, what: str) -> None:
    @settings(max_examples=2)
    @given(
        st.lists(st.sampled_from(PIECES), min_size=1, max_size=4, unique=True),
        st.sampled_from(MANY),
    )
    @example(["x"], 20_000)
    @example(["%41", "\uff21"], 2_000)
    def holds(pieces: list[str], count: int) -> None:
        text = "".join(pieces * count)[:count]
        method, params = LONG[what](text, min(count, 2_000))
        body = message(protocol, method, params)
        headers = request_headers(protocol, body, token=token)
        headers.pop("mcp-name", None)
        steps = anyio.run(_counted, app(), body, headers)
        assert steps.stretch <= STRETCH
        if what == "listen" and protocol == MODERN_PROTOCOL and pieces == ["x"]:
            assert steps.turns >= min(count, MAX_NAMES)

    holds()


@pytest.mark.parametrize("what", LONG)
def test_law_8_work_before_a_permit_is_bounded_and_yields(
    line: Line, guarding: Guarding, issuer: LocalIssuer, what: str
) -> None:
    """Whatever is sent, our steps are few, and others get a turn between two operations."""
    protocol = MODERN_PROTOCOL if line.modern else LEGACY_PROTOCOLS[-1]

    def app() -> Any:
        return line.http_app(_ruled(line, guarding), stateless=True, json=True)

    _hold_bounded(app, protocol, issuer.mint("bob", scopes=["base"]), what)


@pytest.mark.parametrize("what", LONG)
def test_law_8_in_front_of_another_server(
    guarding: Guarding, issuer: LocalIssuer, what: str
) -> None:
    """The same holds where a guard reads the messages to a server that it knows nothing of."""

    def app() -> Any:
        return guarding().asgi(Behind(), rules=_rules())

    _hold_bounded(app, MODERN_PROTOCOL, issuer.mint("bob", scopes=["base"]), what)


# --- law 9


class Permits:
    """What the rows of messages were told, while a block runs in this thread."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []
        self.let_go = 0

    def note(self, frame: FrameType, event: str, _: object) -> None:
        """Note each decision, and each time the door was told to let go of an answer."""
        if event != "call":
            return
        if frame.f_code is Row.decided.__code__:
            self.verdicts.append(frame.f_locals["decision"].verdict)
        self.let_go += frame.f_code is RequestAuth.permit.__code__

    @property
    def count(self) -> int:
        """How often something was permitted."""
        return self.verdicts.count(Verdict.PERMIT)


async def _permits(server: Any, scopes: Sequence[str], ask: tuple[str, dict[str, Any]]) -> Permits:
    permits = Permits()
    caller: Any = AsyncGuardedClient(server, scopes=scopes)
    sys.setprofile(permits.note)
    try:
        answer = await caller.send(*ask)
    finally:
        sys.setprofile(None)
    assert is_served(answer) == (permits.count > 0), answer
    return permits


@pytest.mark.parametrize("name", SHAPES)
def test_law_9_a_plain_call_is_permitted_exactly_once(
    line: Line, guarding: Guarding, name: str
) -> None:
    """One permit for what is served, none for what is refused, and the door gives none itself."""
    notes = Notes()
    server = guarding().protect(notes.server(line), rules=Notes.RULES)
    shape = SHAPES[name]

    served = anyio.run(_permits, server, [*SCOPES], shape.ask("ann"))
    assert (served.count, served.let_go) == (1, 1)
    assert Verdict.REFUSE not in served.verdicts
    if shape.needs("ann"):
        refused = anyio.run(_permits, server, ["none"], shape.ask("ann"))
        assert (refused.count, refused.let_go) == (0, 0)
        assert refused.verdicts.count(Verdict.REFUSE) == 1


@pytest.mark.parametrize("scope", ["secret", "none"])
def test_law_9_in_front_of_another_server(
    guarding: Guarding, issuer: LocalIssuer, scope: str
) -> None:
    """Where nothing else decides, the guard in front does, once for each operation."""
    behind, permits = Behind(), Permits()
    app = guarding().asgi(behind, rules={"*": requires_scopes("secret")})
    token = issuer.mint("bob", scopes=[scope])

    async def post() -> int:
        body = message(MODERN_PROTOCOL, *_call("hours"))
        headers = request_headers(MODERN_PROTOCOL, body, token=token)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            sys.setprofile(permits.note)
            try:
                reply = await client.post("http://127.0.0.1/mcp", json=body, headers=headers)
            finally:
                sys.setprofile(None)
        return reply.status_code

    may = scope == "secret"
    assert anyio.run(post) == (200 if may else 403)
    assert permits.verdicts == [Verdict.PERMIT if may else Verdict.REFUSE]
    assert behind.reached == (["POST"] if may else [])
