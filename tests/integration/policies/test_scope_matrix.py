"""Does the scope matrix say what a server does, and find what it does not?"""

from __future__ import annotations

import re
from typing import Any

import pytest

from support.lines import Guarding, Line, Server
from toolguard import (
    InsufficientScopeError,
    OperationCall,
    Principal,
    all_of,
    any_of,
    public,
    requires,
    requires_auth,
    requires_roles,
    requires_scopes,
)
from toolguard.calls.message import Frame, here
from toolguard.policies.decision import PERMIT, Decision, Verdict
from toolguard.testing.matrix import (
    PUBLIC,
    assert_scope_matrix,
    scope_matrix,
    verify_scope_matrix,
)

# mcp 2 decides early and where the tool is found; where those differ it refuses.
SENDS = r"send (lets in without|asks for \{\} where) mail\.write"


def _rich(principal: Principal, call: OperationCall) -> bool:
    return bool(call.arguments.get("amount", 0) < 100)


def office(line: Line) -> Server:
    server = line.server("office")

    @server.tool()
    @requires_scopes(any_of("mail.read", all_of("admin", "audit")))
    async def mail() -> str:
        return "mail"

    @server.tool()
    @requires_scopes("mail.read", "mail.write")
    async def send() -> str:
        return "sent"

    @server.tool()
    @public
    async def hours() -> str:
        return "9 to 5"

    @server.tool()
    async def whoami() -> str:
        return "you"

    @server.tool()
    @any_of(requires_roles("boss"), "salary.read")
    async def salary() -> str:
        return "salary"

    @server.tool()
    @all_of(requires(_rich), "pay.{account}.out")
    async def pay(account: str, amount: int) -> str:
        return f"paid {amount}"

    @server.resource("office://plan")
    @requires_scopes("plan.read")
    def plan() -> str:
        return "plan"

    @server.resource("office://rooms/{room}")
    @requires_scopes("room.{room}.read")
    def rooms(room: str) -> str:
        return room

    @server.prompt()
    @requires_auth
    def speech(topic: str) -> str:
        return f"about {topic}"

    return server


HIERARCHY = {"mail.write": ["mail.read"]}
ARGUMENTS: dict[str, dict[str, Any]] = {
    "pay": {"account": "a", "amount": 7},
    "resource:office://rooms/{room}": {"room": "blue", "uri": "office://rooms/blue"},
    "prompt:speech": {"topic": "tests"},
}
EXPECTED: dict[str, Any] = {
    "mail": [{"mail.read"}, {"mail.write"}, {"admin", "audit"}],
    "send": [{"mail.write"}],
    "hours": PUBLIC,
    "whoami": [set()],
    "salary": [{"salary.read"}],
    "pay": [{"pay.a.out"}],
    "resource:office://plan": [{"plan.read"}],
    "resource:office://rooms/{room}": [{"room.blue.read"}],
    "prompt:speech": [set()],
}


@pytest.fixture
def server(line: Line, guarding: Guarding) -> Server:
    """A protected server that does as it says."""
    return guarding(scope_hierarchy=HIERARCHY).protect(office(line))


def test_the_matrix_has_the_smallest_scope_sets_of_every_operation(server: Server) -> None:
    assert_scope_matrix(server, EXPECTED, arguments=ARGUMENTS)
    assert scope_matrix(server, arguments=ARGUMENTS)["mail"] == (
        frozenset({"mail.read"}),
        frozenset({"mail.write"}),
        frozenset({"admin", "audit"}),
    )


def test_claims_say_who_calls_where_more_than_scopes_counts(server: Server) -> None:
    found = scope_matrix(server, claims={"salary": {"roles": ["boss"]}}, arguments=ARGUMENTS)

    assert found["salary"] == (frozenset(),)


def test_arguments_decide_where_they_count(server: Server) -> None:
    arguments = {**ARGUMENTS, "pay": {"account": "b", "amount": 1_000}}

    assert scope_matrix(server, arguments=arguments)["pay"] == ()


def test_a_server_that_does_as_it_says_is_verified_in_one_line(server: Server) -> None:
    verify_scope_matrix(server, arguments=ARGUMENTS)


def test_what_nobody_can_open_is_reported_with_what_to_write(server: Server) -> None:
    with pytest.raises(AssertionError, match=r"pay is opened by no scopes: say who may do it in"):
        verify_scope_matrix(server)


def test_a_matrix_that_differs_is_told_operation_by_operation(server: Server) -> None:
    expected = {**EXPECTED, "mail": [{"mail.read"}], "gone": [set()], "hours": [set()]}
    del expected["send"]

    with pytest.raises(AssertionError) as failed:
        assert_scope_matrix(server, expected, arguments=ARGUMENTS)
    assert str(failed.value).splitlines() == [
        "the scope matrix differs:",
        "  mail: expected {mail.read}, is {mail.read} or {mail.write} or {admin, audit}",
        "  hours: expected {}, is public",
        "  gone: expected {}, is no such operation",
        "  send: expected no such operation, is {mail.write}",
    ]


@pytest.mark.parametrize("sets", [["mail.read"], ("a", "b")])
def test_a_scope_in_the_place_of_a_set_is_told_what_to_write(server: Server, sets: Any) -> None:
    with pytest.raises(TypeError, match=rf"write {{'mail': \[{{'{sets[0]}'}}\]}}: a list of sets"):
        assert_scope_matrix(server, {"mail": sets}, arguments=ARGUMENTS)


def test_an_operation_that_there_is_not_is_told(server: Server) -> None:
    with pytest.raises(ValueError, match="no operation is called spend: write"):
        scope_matrix(server, claims={"spend": {}})
    with pytest.raises(ValueError, match="protect the server first"):
        scope_matrix(_unprotected(server))


def _unprotected(server: Any) -> Any:
    return type(server)("unprotected")


def test_a_default_that_denies_is_in_the_matrix(line: Line, guarding: Guarding) -> None:
    denying = guarding(default="deny").protect(office(line))

    assert scope_matrix(denying)["whoami"] == ()


def test_a_server_that_does_otherwise_is_found_out(line: Line, guarding: Guarding) -> None:
    made = office(line)
    guard = guarding()
    guard.protect(made)
    told = scope_matrix(made, arguments=ARGUMENTS)
    assert told["send"] == (frozenset({"mail.read", "mail.write"}),)

    class Turning:
        """A hierarchy that the matrix is computed with, and the server is not."""

        def __init__(self) -> None:
            self.real = guard.scope_hierarchy
            self.including = self.real.including

        def expand(self, granted: Any) -> frozenset[str]:
            held = self.real.expand(granted)
            # Over HTTP the caller comes with claims that the matrix knows nothing of.
            return held | ({"mail.write"} if "mail.read" in held and _over_http() else set())

    guard.scope_hierarchy = Turning()  # type: ignore[assignment]
    with pytest.raises(AssertionError, match=SENDS):
        verify_scope_matrix(made, arguments=ARGUMENTS)


def _over_http() -> bool:
    return here() is not None


def test_guards_that_refuse_everybody_are_found_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def authorize(frame: Frame, call: object) -> None:
        refusal = InsufficientScopeError(["moon.read"])
        frame.entered.decided(Decision(Verdict.REFUSE, refusal), None)
        raise refusal

    monkeypatch.setattr(Frame, "authorize", authorize)
    with pytest.raises(AssertionError) as failed:
        verify_scope_matrix(server, arguments=ARGUMENTS)
    found = str(failed.value)
    assert "hours is public and refuses a caller without a token (403)" in found
    assert "resource:office://plan refuses {plan.read} (403 insufficient_scope)" in found
    assert "resource:office://plan asks for {moon.read} where plan.read is missing" in found
    assert "which is more than enough" in found


def test_guards_that_let_everybody_in_are_found_out(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def authorize(frame: Frame, call: object) -> Principal:
        frame.entered.decided(PERMIT, mallory)
        return mallory

    mallory = Principal("mallory", "https://issuer.test", expires_at=float("inf"))
    monkeypatch.setattr(Frame, "authorize", authorize)
    with pytest.raises(AssertionError) as failed:
        verify_scope_matrix(server, arguments=ARGUMENTS)
    found = str(failed.value)
    assert "prompt:speech lets in a caller without a token" in found
    assert re.search(SENDS, found)
