"""The laws of one call and one decision, each held on every line.

Law 2 is in ``test_laws_of_interleaving``, law 3 in ``test_laws_of_moves``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from lines import Guarding, Line
from lowlevel_servers import Told, lowlevel

from toolguard import Invocation, Principal, requires, requires_auth, requires_scopes
from toolguard.testing import Answer, GuardedClient

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

        async def is_owner(caller: Principal, call: Invocation) -> bool:
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


def is_served(answer: Answer) -> bool:
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


def test_law_4_on_low_level_servers_no_handler_is_called(guarding: Guarding) -> None:
    """A name that no list and no rule knows reaches no handler of a low-level server."""

    async def secret(_: Mapping[str, Any]) -> str:
        return "the secret"

    told = Told(tools={"secret": secret}, resources=("d://secret",), prompts=("secret",))
    server = guarding(default="public").protect(lowlevel(told))

    @SOME
    @given(st.sampled_from(["tools/call", "prompts/get", "resources/read"]), NAMES)
    def holds(method: str, name: str) -> None:
        assume(name not in KNOWN)
        answer = GuardedClient(server, user=None).send(method, METHODS[method](name))
        assert told.calls == []
        assert not is_served(answer), answer

    holds()
