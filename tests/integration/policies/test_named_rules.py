"""Can a server be guarded whose code nobody touches?"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.lines import FASTMCP_LINES, Guarding, Line, Mode, Serve
from support.wire import Caller, Visit, asked_for
from toolguard import public, requires, requires_auth, requires_scopes
from toolguard.testing import GuardedClient, LocalIssuer, call_as

READ = ("resources/read", "uri")


def notes(line: Line) -> Any:
    """Return a server as somebody else wrote it."""
    server = line.server("notes")

    @server.tool()
    def list_notes() -> str:
        return "all notes"

    @server.tool()
    def delete_note(note_id: str = "1") -> str:
        return f"deleted {note_id}"

    @server.tool()
    def health() -> str:
        return "fine"

    @server.resource("notes://public/{note_id}")
    def published(note_id: str) -> str:
        return f"public {note_id}"

    @server.resource("notes://private/{note_id}")
    def private(note_id: str) -> str:
        return f"private {note_id}"

    @server.resource("file:///etc/motd")
    def motd() -> str:
        return "welcome"

    @server.prompt()
    def summary() -> str:
        return "summarize"

    return server


RULES = {
    "delete_*": requires_scopes("notes.delete"),
    "*_note": requires_scopes("notes.use"),
    "health": public,
    "resource:notes://public/*": public,
    "resource:notes://private/*": requires_scopes("notes.private"),
    "resource:file://*": requires_scopes("files.read"),
    "prompt:*": requires_scopes("notes.prompt"),
}


@pytest.fixture
def visitor(guarding: Guarding, visit: Visit, issuer: LocalIssuer) -> Callable[..., Caller]:
    """Make callers of the notes whose tokens have these scopes; None for no token."""

    def made(*scopes: str | None) -> Caller:
        named = [scope for scope in scopes if scope is not None]
        token = None if None in scopes else issuer.mint("alice", scopes=named)
        return visit("notes", lambda line: guarding().protect(notes(line), rules=RULES), token)

    return made


OPERATIONS = [
    ("tools/call", {"name": "delete_note"}, ["notes.delete", "notes.use"], "deleted 1"),
    ("resources/read", {"uri": "notes://private/7"}, ["notes.private"], "private 7"),
    ("resources/read", {"uri": "file:///etc/motd"}, ["files.read"], "welcome"),
    ("prompts/get", {"name": "summary"}, ["notes.prompt"], "summarize"),
]


@pytest.mark.parametrize(("method", "params", "scopes", "answer"), OPERATIONS)
def test_all_rules_that_match_apply_to_every_kind_of_operation(
    mode: Mode,
    visitor: Callable[..., Caller],
    method: str,
    params: dict[str, Any],
    scopes: list[str],
    answer: str,
) -> None:
    allowed = visitor(*scopes).send(method, params)
    refused = visitor("profile").send(method, params)
    anonymous = visitor(None).send(method, params)

    assert (allowed.status, answer in allowed.content) == (200, True)
    assert refused.status == 403
    assert refused.body["required_scopes"] == scopes
    asked = asked_for(mode.protocol, " ".join(scopes), "profile")
    assert f'scope="{asked}"' in str(refused.challenge)
    assert anonymous.status == 401


def test_rules_make_public_and_unmatched_names_need_a_token(
    visitor: Callable[..., Caller],
) -> None:
    stranger = visitor(None)

    assert stranger.call("health").value == "fine"
    assert "public 1" in stranger.send("resources/read", {"uri": "notes://public/1"}).content
    assert stranger.call("list_notes").status == 401
    assert visitor().call("list_notes").value == "all notes"


@pytest.mark.parametrize(
    "uri",
    [
        "NOTES://private/7",
        "notes://PRIVATE/7",
        "notes://%70rivate/7",
        "notes://private/%37",
        "notes://public/../private/7",
        "notes://public/%2e%2e/private/7",
        "notes://public%2F..%2Fprivate/7",
        "FILE:///etc/motd",
        "file:/etc/motd",
        "file:///etc/./motd",
        "file:///etc/%6dotd",
        "file://localhost/etc/motd",
    ],
)
def test_no_spelling_of_a_uri_gets_around_its_rule(
    visitor: Callable[..., Caller], uri: str
) -> None:
    for caller in (visitor(None), visitor("profile")):
        reply = caller.send("resources/read", {"uri": uri})
        assert "private 7" not in reply.content
        assert "welcome" not in reply.content


def test_a_tool_of_another_name_is_no_other_tool(visitor: Callable[..., Caller]) -> None:
    alice = visitor("notes.use")

    for name in ("DELETE_NOTE", "delete%5Fnote", "delete/note", "delete_note/../delete_note"):
        assert "deleted" not in alice.call(name).content


def test_the_scopes_of_rules_are_supported_scopes(mode: Mode, guarding: Guarding) -> None:
    guard = guarding()
    guard.protect(notes(mode.line), rules=RULES)

    assert set(guard.scopes_supported) == {
        *("notes.delete", "notes.use", "notes.private", "files.read", "notes.prompt")
    }
    assert guard.admits_anonymous


def test_rules_are_added_to_what_decorators_say(line: Line, guarding: Guarding) -> None:
    server = line.server("calendar")

    @server.tool()
    @requires_scopes("read")
    async def delete_event(event_id: str, *, user_id: str) -> str:
        return f"{event_id} of {user_id}"

    guarding().protect(server, rules={"delete_*": requires_scopes("delete")})
    arguments = {"event_id": "1"}

    refused = call_as(server, "delete_event", arguments)
    assert refused.challenge is not None
    assert refused.challenge.scope == ("delete", "read")
    assert call_as(server, "delete_event", arguments, scopes=["read"]).status == 403
    assert call_as(server, "delete_event", arguments, scopes=["delete"]).status == 403
    assert call_as(server, "delete_event", arguments, scopes=["read", "delete"]).ok


def test_a_rule_may_read_the_arguments_that_were_sent(line: Line, guarding: Guarding) -> None:
    server = notes(line)
    checked: list[object] = []

    def check(_: object, call: Any) -> bool:
        checked.append((call.kind, call.name, dict(call.arguments)))
        return bool(call.arguments.get("note_id") != "2")

    guarding().protect(
        server,
        rules={
            "delete_note": requires_scopes("notes.{note_id}.delete"),
            "delete_*": requires(check),
        },
    )

    def delete(arguments: dict[str, Any]) -> Any:
        return call_as(server, "delete_note", arguments, scopes=["notes.1.delete"])

    assert delete({"note_id": "1"}).ok
    assert delete({"note_id": "2"}).error == "access_denied"
    assert delete({"note_id": "3"}).body["missing_scopes"] == ["notes.3.delete"]
    assert '"invalid_input"' in delete({"note_id": "1 2"}).text
    assert '"invalid_input"' in delete({}).text, "the default is known to the server alone"
    assert ("tool", "delete_note", {"note_id": "1"}) in checked


def test_a_rule_for_everything_is_for_every_kind(line: Line, guarding: Guarding) -> None:
    server = notes(line)
    guard = guarding(default="public")
    guard.protect(server, rules={"*": requires_scopes("use")})

    assert not any(policy.public for policy in guard.policies)
    for tool in ("list_notes", "delete_note", "health"):
        assert call_as(server, tool).status == 403


def test_a_denying_default_denies_a_uri_that_only_resolves_to_an_allowed_one(
    line: Line, guarding: Guarding, visit: Visit, issuer: LocalIssuer
) -> None:
    def make(line: Line) -> Any:
        guard = guarding(default="deny")
        return guard.protect(notes(line), rules={"resource:notes://public/*": requires_auth})

    alice = visit("denying notes", make, issuer.mint())
    assert "public 1" in alice.send("resources/read", {"uri": "notes://public/1"}).content
    for uri in ("notes://private/../public/1", "notes://private/7", "file:///etc/motd"):
        reply = alice.send("resources/read", {"uri": uri})
        assert "error" in reply.messages[-1]
        assert not any(found in reply.content for found in ("public 1", "private 7", "welcome"))


def test_contradicting_rules_are_refused_at_once(line: Line, guarding: Guarding) -> None:
    with pytest.raises(ValueError, match=r"'health' is matched by the rules '\*' and 'health'"):
        guarding().protect(notes(line), rules={"*": requires_auth, "health": public})


def test_a_rule_that_matches_nothing_is_reported_at_start(
    line: Line, guarding: Guarding, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "toolguard")
    server = guarding().protect(
        notes(line), rules={"remove_*": requires_scopes("x"), "delete_*": requires_auth}
    )
    assert "remove_*" not in caplog.text, "the tools may not be registered yet"
    assert call_as(server, "list_notes").ok

    assert "the rule 'remove_*' matches nothing" in caplog.text
    assert "delete_" not in caplog.text


def test_a_rule_about_the_call_is_decided_beside_what_decorators_say(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("calendar")

    @server.tool()
    @requires_scopes("events.{calendar}.delete")
    async def delete_event(calendar: str, event_id: str = "1") -> str:
        return f"deleted {event_id}"

    def check(_: object, call: Any) -> bool:
        return bool(call.arguments.get("event_id") != "9")

    guarding().protect(server, rules={"delete_*": requires(check)})
    scopes = ["events.work.delete"]

    def delete(**arguments: str) -> Any:
        return call_as(server, "delete_event", arguments, scopes=scopes)

    assert delete(calendar="work").text == "deleted 1"
    assert delete(calendar="home").missing_scopes == ("events.home.delete",)
    assert delete(calendar="work", event_id="9").error == "access_denied"


def test_a_tool_that_comes_later_and_contradicts_a_rule_is_refused_to_everybody(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = guarding().protect(notes(line), rules={"new*": requires_auth})
    url = serve(line.http_app(server, stateless=True))
    server.tool("newer")(public(_anything))

    for token in (issuer.mint(), None):
        reply = Caller(http, f"{url}/mcp", token=token).call("newer")
        assert "anything" not in reply.content
        assert reply.status == 401 or "public by its decorators or by a rule" in reply.content
    with pytest.raises(ValueError, match=r"tool 'newer' is public by its decorators or by a rule"):
        line.http_app(server)


async def _anything() -> str:
    return "anything"


def test_a_uri_that_is_encoded_over_and_over_is_refused(line: Line, guarding: Guarding) -> None:
    server = guarding().protect(notes(line), rules={"resource:notes://private/*": requires_auth})
    uri = "notes://public/%" + "25" * 200

    assert GuardedClient(server).read(uri).error == "access_denied"


# --- servers of other servers (fastmcp)


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_mounted_servers_are_guarded_by_the_names_that_clients_see(
    line: Line, guarding: Guarding
) -> None:
    outer: Any = line.server("outer")
    outer.mount(notes(line), namespace="n")
    guarding().protect(outer, rules={"n_delete_*": requires_scopes("notes.delete")})

    assert call_as(outer, "n_delete_note").status == 403
    assert call_as(outer, "n_delete_note", scopes=["notes.delete"]).text == "deleted 1"
    assert call_as(outer, "n_list_notes").text == "all notes"
    assert call_as(outer, "n_list_notes", user=None).status == 401


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_proxied_servers_are_guarded_too(line: Line, guarding: Guarding) -> None:
    proxy: Any = importlib.import_module("fastmcp.server").create_proxy(notes(line))
    guarding().protect(proxy, rules={"delete_*": requires_scopes("notes.delete")})

    assert call_as(proxy, "delete_note").status == 403
    assert call_as(proxy, "delete_note", scopes=["notes.delete"]).text == "deleted 1"
    assert call_as(proxy, "list_notes", user=None).status == 401


# --- many


def test_two_hundred_tools_and_fifty_rules_each_get_what_matches(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("large")
    names = [f"{verb}_{noun}{n}" for verb in VERBS for noun in NOUNS for n in range(5)]
    for name in names:
        server.tool(name)(_answering(name))
    patterns = [
        *(f"{verb}_*" for verb in VERBS),
        *(f"*_{noun}*" for noun in NOUNS),
        *(f"{verb}_{noun}{n}" for verb in VERBS for noun in NOUNS[:2] for n in range(2)),
        *(f"read_note{n}*" for n in range(5)),
    ]
    assert (len(names), len(patterns)) == (200, 50)
    scopes = {pattern: f"s.{number}" for number, pattern in enumerate(patterns)}
    guarding().protect(server, rules={p: requires_scopes(s) for p, s in scopes.items()})

    nobody = GuardedClient(server)
    listed = {tool["name"]: tool for tool in nobody.send("tools/list").result["tools"]}
    for number, name in enumerate(names):
        needed = {scope for pattern, scope in scopes.items() if fnmatchcase(name, pattern)}
        assert {*listed[name]["_meta"]["toolguard/requires"]["scopes"][0]} == needed
        if number % 13 == 0:  # a call is slower than a look at the list
            assert set(nobody.call(name).missing_scopes) == needed
            assert GuardedClient(server, scopes=sorted(needed)).call(name).text == name


VERBS = ("create", "delete", "find", "list", "move", "read", "share", "update")
NOUNS = ("event", "file", "mail", "note", "task")


def _answering(name: str) -> Callable[[], str]:
    def answer() -> str:
        return name

    return answer


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_tools_that_are_generated_from_an_api_are_guarded_by_name(
    line: Line, guarding: Guarding
) -> None:
    async def answer(request: Request) -> JSONResponse:
        return JSONResponse({"did": f"{request.method} {request.path_params['note_id']}"})

    methods = ["GET", "DELETE"]
    api = Starlette(routes=[Route("/notes/{note_id}", answer, methods=methods)])
    made: Any = line.server
    kind = importlib.import_module("httpx2" if line.modern else "httpx")
    client = kind.AsyncClient(transport=kind.ASGITransport(api), base_url="http://api.test")
    server = made.from_openapi(_OPENAPI, client)
    guarding().protect(server, rules={"delete_*": requires_scopes("notes.delete")})
    arguments = {"note_id": "7"}

    assert call_as(server, "delete_note", arguments).missing_scopes == ("notes.delete",)
    assert "DELETE 7" in call_as(server, "delete_note", arguments, scopes=["notes.delete"]).text
    assert "GET 7" in call_as(server, "read_note", arguments).text
    assert call_as(server, "read_note", arguments, user=None).status == 401


_NOTE = {
    "parameters": [
        {"name": "note_id", "in": "path", "required": True, "schema": {"type": "string"}}
    ],
    "responses": {"200": {"description": "done"}},
}
_OPENAPI = {
    "openapi": "3.1.0",
    "info": {"title": "notes", "version": "1"},
    "paths": {
        "/notes/{note_id}": {
            "get": {"operationId": "read_note", **_NOTE},
            "delete": {"operationId": "delete_note", **_NOTE},
        }
    },
}
