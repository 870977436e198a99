"""The laws of one call and one decision, each held on every line.

Law 2 is in ``test_laws_of_interleaving``, law 3 in ``test_laws_of_moves``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from lines import Guarding, Line

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
