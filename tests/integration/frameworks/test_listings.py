"""What does who see in the lists of a server, and what do they learn of the requirements?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.lines import FASTMCP_LINES, Guarding, Line, Server
from support.wire import Caller, Reply, Visit
from toolguard import (
    OperationCall,
    Principal,
    Refusals,
    all_of,
    any_of,
    public,
    requires,
    requires_auth,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
    with_connection,
)
from toolguard.calls.request import UnauthorizedTools
from toolguard.errors import MissingTokenError
from toolguard.testing import GuardedClient, LocalIssuer


def _never(principal: Principal, call: OperationCall) -> bool:
    raise AssertionError("a list asks no check")


def _office(line: Line) -> Any:
    server = line.server("office")

    @server.tool()
    @requires_scopes(any_of("mail.read", all_of("admin", "audit")))
    @with_connection("google-mail")
    async def mail(*, connection_token: str) -> str:
        return "mail"

    @server.tool()
    @requires_auth
    async def whoami(*, user_id: str) -> str:
        return user_id

    @server.tool()
    @public
    async def hours() -> str:
        return "9 to 5"

    @server.tool()
    @requires_tenant("secret-customer")
    async def secret() -> str:
        return "secret"

    @server.tool()
    @all_of(requires_roles("boss"), "salary.read", requires_recent_auth(max_age=60))
    async def salary() -> str:
        return "salary"

    @server.tool()
    @requires(_never)
    async def checked() -> str:
        return "checked"

    @server.tool()
    @requires_scopes("room.{room}.book")
    async def book(room: str) -> str:
        return room

    @server.tool()
    async def plain() -> str:
        return "plain"

    _furnish(server)
    return server


def _furnish(server: Server) -> None:
    """Add what is no tool."""

    @server.resource("office://plan")
    @requires_scopes("plan.read")
    def plan() -> str:
        return "plan"

    @server.resource("office://rooms/{room}")
    @requires_scopes("room.{room}.read")
    def room(room: str) -> str:
        return room

    @server.prompt()
    @requires_roles("boss")
    def speech() -> str:
        return "speech"


LISTS = {
    "tools/list": ("tools", "name"),
    "resources/list": ("resources", "uri"),
    "resources/templates/list": ("resourceTemplates", "uriTemplate"),
    "prompts/list": ("prompts", "name"),
}
REQUIRES = {
    "mail": {"scopes": [["mail.read"], ["admin", "audit"]], "connections": ["google-mail"]},
    "whoami": {},
    "hours": {"public": True},
    "secret": {"conditions": True},
    "salary": {
        "scopes": [["salary.read"]],
        "recent_auth": [{"max_age": 60}],
        "conditions": True,
    },
    "checked": {"conditions": True},
    "book": {"conditions": True},
    "plain": {},
    "office://plan": {"scopes": [["plan.read"]]},
    "office://rooms/{room}": {"conditions": True},
    "speech": {"conditions": True},
}
SCHEMES = {
    "mail": [
        {"type": "oauth2", "scopes": ["mail.read"]},
        {"type": "oauth2", "scopes": ["admin", "audit"]},
    ],
    "whoami": [{"type": "oauth2", "scopes": []}],
    "hours": [{"type": "noauth"}],
    "salary": [{"type": "oauth2", "scopes": ["salary.read"]}],
    "plain": [{"type": "oauth2", "scopes": []}],
}


@pytest.fixture
def visitor(guarding: Guarding, visit: Visit, issuer: LocalIssuer) -> Callable[..., Caller]:
    """Make callers of the office, by what its lists leave out."""

    def made(
        shown: UnauthorizedTools, *scopes: str, user: str | None = "alice", **claims: Any
    ) -> Caller:
        def make(line: Line) -> Any:
            return guarding(refusals=Refusals(unauthorized_tools=shown)).protect(_office(line))

        token = None if user is None else issuer.mint(user, scopes=scopes, **claims)
        return visit(f"office {shown}", make, token)

    return made


def listed(caller: Caller) -> dict[str, dict[str, Any]]:
    """Return everything that is listed, by name."""
    found = {}
    for method, (member, key) in LISTS.items():
        for item in caller.send(method).result[member]:
            found[item[key]] = item
    return found


def test_everything_is_shown_with_what_it_requires(visitor: Callable[..., Caller]) -> None:
    shown = listed(visitor("show"))

    assert {name: item["_meta"]["toolguard/requires"] for name, item in shown.items()} == REQUIRES
    for name, schemes in SCHEMES.items():
        assert shown[name]["securitySchemes"] == schemes
        assert shown[name]["_meta"]["securitySchemes"] == schemes
    assert "securitySchemes" not in shown["office://plan"]
    assert "secret-customer" not in str(shown)
    assert "boss" not in str(shown)


def test_strangers_see_what_they_could_get_by_signing_in(visitor: Callable[..., Caller]) -> None:
    assert listed(visitor("show", user=None)).keys() == REQUIRES.keys()
    assert listed(visitor("hide", user=None)).keys() == REQUIRES.keys()
    assert listed(visitor("hide-all", user=None)).keys() == {"hours"}


def test_what_no_consent_could_change_can_be_hidden(visitor: Callable[..., Caller]) -> None:
    alice = visitor("hide")

    assert REQUIRES.keys() - listed(alice).keys() == {"secret", "salary", "speech"}
    boss = visitor("hide", roles=["boss"], tenants={"secret-customer": {}})
    assert listed(boss).keys() == REQUIRES.keys()


def test_whatever_would_be_refused_can_be_hidden(visitor: Callable[..., Caller]) -> None:
    # What depends on the call cannot be told beforehand, and is shown.
    unknown = {"checked", "book", "office://rooms/{room}"}

    assert listed(visitor("hide-all")).keys() == {"whoami", "hours", "plain", *unknown}
    assert "mail" in listed(visitor("hide-all", "mail.read"))
    assert "office://plan" in listed(visitor("hide-all", "plan.read"))


def test_what_is_hidden_answers_as_what_is_not_there(visitor: Callable[..., Caller]) -> None:
    alice = visitor("hide-all")

    unknown = alice.call("nothing")
    for tool in ("mail", "secret"):
        hidden = alice.call(tool)
        assert hidden.status == unknown.status
        assert _without(hidden, tool) == _without(unknown, "nothing")


@pytest.mark.parametrize(
    ("method", "member", "hidden", "unknown"),
    [
        ("tools/call", "name", "mail", "nothing"),
        ("tools/call", "name", "secret", "nothing"),
        ("resources/read", "uri", "office://plan", "office://nothing"),
        ("prompts/get", "name", "speech", "nothing"),
    ],
)
def test_what_is_hidden_from_a_stranger_is_not_told_from_the_unknown(
    visitor: Callable[..., Caller], method: str, member: str, hidden: str, unknown: str
) -> None:
    stranger = visitor("hide-all", user=None)

    answers = [stranger.send(method, {member: name}) for name in (hidden, unknown)]

    assert answers[0].status == answers[1].status == 401
    assert answers[0].challenge == answers[1].challenge
    assert _without(answers[0], hidden) == _without(answers[1], unknown)


def _without(reply: Reply, name: str) -> Any:
    """Return what a reply says, apart from its id and the name that was asked for."""
    return json.loads(json.dumps({**reply.messages[-1], "id": None}).replace(name, ""))


@pytest.mark.parametrize("shown", ["hide", "hide-all"])
def test_a_list_asks_a_check_once_for_each_operation(
    line: Line, guarding: Guarding, shown: UnauthorizedTools
) -> None:
    asked: list[str] = []

    def check(principal: Principal, call: OperationCall) -> bool:
        asked.append(call.name)
        return call.name == "granted"

    @requires(check)
    def checked() -> str:
        return "checked"

    server: Any = line.server("checked")
    for name in ("granted", "refused"):
        server.tool(name)(checked)
    if line.family == "fastmcp":
        inner: Any = line.server("inner")
        inner.tool("below")(checked)
        server.mount(inner)

    assert _tools(guarding(refusals=Refusals(unauthorized_tools=shown)).protect(server)).keys() == {
        "granted"
    }
    assert sorted(asked) == sorted(set(asked))


@pytest.mark.parametrize(
    ("shown", "published"), [("hide", ["plan.read", "audit"]), ("hide-all", ["base"])]
)
def test_the_metadata_names_no_scope_of_what_is_hidden_from_all(
    line: Line, guarding: Guarding, shown: UnauthorizedTools, published: list[str]
) -> None:
    server: Server = line.server("hidden")

    @server.tool()
    @requires_scopes("plan.read", "audit")
    async def plan() -> str:
        return "plan"

    guard = guarding(refusals=Refusals(unauthorized_tools=shown, initial_scopes=["base"]))
    guard.protect(server)

    assert guard.metadata()["scopes_supported"] == published


@pytest.mark.parametrize(
    ("open_to", "told"), [(None, ("plan.read",)), ("authenticated", ()), ("public", ())]
)
def test_no_scope_is_told_where_all_that_needs_one_is_hidden(
    line: Line, guarding: Guarding, open_to: str | None, told: tuple[str, ...]
) -> None:
    server: Server = line.server("hidden")

    @server.tool()
    @requires_scopes("plan.read")
    async def plan() -> str:
        return "plan"

    async def opened() -> str:
        return "open"

    if open_to is not None:
        server.tool("open")(opened if open_to == "authenticated" else public(opened))

    guard = guarding(refusals=Refusals(unauthorized_tools="hide-all"))
    guard.protect(server)

    assert guard.initial_scopes == told
    assert guard.metadata().get("scopes_supported", []) == [*told]
    assert guard.challenge(MissingTokenError()).scope == told  # type: ignore[union-attr]


def test_what_the_default_refuses_is_hidden_as_well(line: Line, guarding: Guarding) -> None:
    server = guarding(default="deny", refusals=Refusals(unauthorized_tools="hide")).protect(
        _office(line)
    )
    tools = _tools(server)

    assert "plain" not in tools
    assert tools["hours"]["securitySchemes"] == [{"type": "noauth"}]


def test_a_default_that_is_public_is_published_as_such(line: Line, guarding: Guarding) -> None:
    tools = _tools(guarding(default="public").protect(_office(line)))

    assert tools["plain"]["securitySchemes"] == [{"type": "noauth"}]
    assert tools["plain"]["_meta"]["toolguard/requires"] == {"public": True}


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_mounted_tools_are_listed_with_what_they_and_the_rules_require(
    line: Line, guarding: Guarding
) -> None:
    outer: Any = line.server("outer")
    outer.mount(_office(line), namespace="o")
    outer.tool("anything")(_anything)
    tools = _tools(guarding().protect(outer, rules={"o_mail": requires_scopes("office")}))

    assert tools["o_mail"]["_meta"]["toolguard/requires"]["scopes"] == [
        ["office", "mail.read"],
        ["office", "admin", "audit"],
    ]
    assert tools["o_hours"]["securitySchemes"] == [{"type": "noauth"}]
    assert tools["anything"]["_meta"]["toolguard/requires"] == {}


def _anything() -> str:
    return "anything"


def _tools(server: Any) -> dict[str, Any]:
    answer = GuardedClient(server).send("tools/list")
    return {tool["name"]: tool for tool in answer.result["tools"]}
