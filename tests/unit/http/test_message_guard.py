"""Does a guard in front of any MCP server decide on the message that the server will read?"""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from collections.abc import Mapping
from typing import Any

import pytest

from support.asgi import Exchange, Message, Receive, Scope, Send, http_scope
from support.callers import Desk, Tokens, person
from toolguard import public, requires, requires_auth, requires_scopes, requires_tenant
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.http.door import Denials, Door, HeldBytes, Refusals
from toolguard.http.jsonrpc import MAX_BODY
from toolguard.http.middleware import GuardMiddleware
from toolguard.http.proxy import ProxyGuard
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.policy import DefaultPolicy

RULES: Mapping[str, GuardDecorator] = {
    "delete_*": requires_scopes("notes.delete"),
    "createNote": requires_auth,
    "status": public,
    "resource:notes://private/*": requires_scopes("notes.private"),
    "resource:notes://public/*": public,
    "resource:notes://My%20Notes/*": requires_auth,
    "prompt:plan_*": requires_scopes("notes.{topic}.plan"),
}


NEEDLE = "needle of a test"


class Upstream:
    """An MCP server in some language: it remembers what reached it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.after: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        self.bodies.append(body)
        self.after.append((await receive())["type"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})


class Front:
    """The guard in front of an upstream."""

    def __init__(
        self,
        rules: Mapping[str, GuardDecorator] = RULES,
        *,
        default: DefaultPolicy = "authenticated",
        door: Door | None = None,
    ) -> None:
        people = {"alice": person("alice"), "editor": person("editor", "notes.delete")}
        people["reader"] = person("reader", "notes.read")
        people["tenant"] = person("tenant", "cal.mine.write", tenant_ids=("mine",))
        self.upstream = Upstream()
        desk = Desk(Tokens(people), default=default, door=door)
        inside = ProxyGuard(self.upstream, desk, PoliciesByName(rules))
        self.app = GuardMiddleware(inside, desk, admits_anonymous=lambda: inside.admits_anonymous)

    def send(
        self, body: object, token: str | None = "alice", *, method: str = "POST", **headers: str
    ) -> Exchange:
        """Send one request; the body in two pieces."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        scope = http_scope(method, token=token, headers=named)
        pieces = [content[:10], content[10:]]
        sent: list[Message] = []

        async def receive() -> Message:
            if pieces:
                piece = pieces.pop(0)
                return {"type": "http.request", "body": piece, "more_body": bool(pieces)}
            return {"type": "http.disconnect"}

        async def collect(message: Message) -> None:
            sent.append(message)

        asyncio.run(self.app(scope, receive, collect))
        return Exchange(sent)

    def denied(self, body: object) -> bool:
        """Return whether Alice is denied something, as her revision has it."""
        before = len(self.upstream.bodies)
        old = self.send(body)
        new = self.send(body, mcp_protocol_version="2026-07-28")
        assert (old.status, new.status, len(self.upstream.bodies)) == (200, 403, before)
        assert old.json["id"] == new.json["id"] == 1
        if "result" not in old.json:
            return bool(old.refusal["error"] == new.refusal["error"] == "access_denied")
        result = old.json["result"]
        said = json.loads(result["content"][0]["text"])
        return bool(result["isError"] and said == new.refusal)


def call(tool: str, method: str = "tools/call", **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def read(uri: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": uri}}


def test_what_is_allowed_arrives_byte_by_byte_as_it_was_sent() -> None:
    front = Front()
    content = json.dumps(call("delete_note", note="ü")).encode() + b"\n "

    assert front.send(content, "editor").status == 200
    assert front.upstream.bodies == [content]
    assert front.upstream.after == ["http.disconnect"], "who hangs up is still noticed"


@pytest.mark.parametrize(
    ("body", "token", "status"),
    [
        (call("delete_note"), "alice", 403),
        (call("delete_note"), None, 401),
        (call("list_notes"), None, 401),
        (call("list_notes"), "alice", 200),
        (call("status"), None, 200),
        (call("createNote"), "alice", 200),
        (read("notes://private/1"), "alice", 403),
        (read("notes://public/1"), None, 200),
        (read("notes://My%20Notes/1"), "alice", 200),
        (call("plan_week", "prompts/get", topic="work"), "alice", 403),
        (call("plan_week", "prompts/get", topic="a b"), "alice", 400),
        (call("plan_week", "prompts/get"), "alice", 400),
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, None, 200),
        ({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}, None, 200),
        ({"jsonrpc": "2.0", "method": "notifications/initialized"}, None, 200),
        ({"jsonrpc": "2.0", "method": "notifications/acme/purge"}, None, 401),
        ({"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": {}}, None, 401),
    ],
)
def test_each_message_meets_the_rules_for_its_name_and_the_default(
    body: dict[str, Any], token: str | None, status: int
) -> None:
    front = Front()

    assert front.send(body, token).status == status
    assert len(front.upstream.bodies) == (status == 200)


def test_a_refusal_names_what_is_missing() -> None:
    refused = Front().send(call("delete_note"))

    assert refused.refusal["missing_scopes"] == ["notes.delete"]
    assert refused.json["id"] == 1
    assert 'scope="notes.delete"' in str(refused.header("www-authenticate"))
    malformed = Front().send(b"{")
    assert malformed.refusal["error"] == "invalid_request"
    assert malformed.json["error"]["code"] == -32700
    assert malformed.header("www-authenticate") is None


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (json.dumps([call("status"), call("delete_note")]).encode(), {}),
        (json.dumps(call("status")).replace("status", "delete_note", 1).encode()[:-1], {}),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"status","name":"x"}}',
            {},
        ),
        (json.dumps(call("delete_note")).encode("utf-16"), {}),
        (gzip.compress(json.dumps(call("status")).encode(), mtime=0), {"content_encoding": "gzip"}),
        (call("status"), {"mcp_name": "delete_note"}),
        (call("status"), {"mcp_method": "prompts/get"}),
        (call("status"), {"content_type": "application/json; charset=utf-7"}),
        ({**call("status"), "Params": {"name": "delete_note"}}, {}),
        ({**call("status"), "Method": "prompts/get"}, {}),
    ],
)
def test_what_could_be_read_in_two_ways_reaches_nobody(
    body: object, headers: dict[str, str]
) -> None:
    front = Front()

    assert front.send(body, "editor", **headers).status == 400
    assert front.upstream.bodies == []


@pytest.mark.parametrize(
    "uri", ["notes://public/../private/1", "NOTES://private/1", "notes://public/%2e%2e/private/1"]
)
@pytest.mark.parametrize("token", [None, "alice"])
def test_no_spelling_gets_around_a_rule(uri: str, token: str | None) -> None:
    front = Front()

    assert front.send(read(uri), token).status in (401, 403)
    assert front.upstream.bodies == []


def test_a_uri_without_a_plain_spelling_is_malformed() -> None:
    front = Front()

    answer = front.send(read("notes://%" + "25" * 200 + "41"))

    assert (answer.status, answer.json["error"]["code"]) == (400, -32602)
    assert "percent-encode a name once at most" in answer.json["error"]["message"]
    assert front.upstream.bodies == []


@pytest.mark.parametrize("tool", ["Status", "STATUS", "status ", "st%61tus"])
def test_a_rule_that_makes_one_name_public_opens_no_other(tool: str) -> None:
    front = Front()

    assert front.send(call(tool), None).status in (400, 401)
    assert front.upstream.bodies == []


@pytest.mark.parametrize("tool", ["Delete_note", "DELETE_NOTE", "delete%5Fnote", "delete_note%20"])
def test_a_rule_that_guards_a_name_guards_what_could_be_taken_for_it(tool: str) -> None:
    assert Front().send(call(tool), "alice").status == 403


def test_a_denying_default_leaves_what_rules_name_and_nothing_else() -> None:
    front = Front(default="deny")

    assert front.send(call("createNote")).status == 200
    assert front.denied(call("createnote"))
    assert front.denied(call("list_notes"))
    assert front.send(read("notes://My%20Notes/1")).status == 200
    assert front.denied(read("notes://elsewhere/../public/1"))


def test_a_check_is_given_the_message() -> None:
    seen: list[tuple[str, str, object]] = []

    async def check(principal: object, invocation: Any) -> bool:
        seen.append((invocation.kind, invocation.name, dict(invocation.arguments)))
        return True

    front = Front({"*": requires(check)})
    assert front.send(call("anything", amount=3)).status == 200
    assert front.send(read("notes://1")).status == 200
    assert seen == [
        ("tool", "anything", {"amount": 3}),
        ("resource", "notes://1", {"uri": "notes://1"}),
    ]


def test_a_body_beyond_the_limit_is_not_read_to_its_end() -> None:
    front = Front()

    assert front.send(call("x" * 20), content_length=str(MAX_BODY + 1)).status == 413
    assert front.send(b" " * (MAX_BODY + 1)).status == 413
    assert front.upstream.bodies == []


@pytest.mark.parametrize("method", ["PUT", "PATCH", "QUERY", "post"])
def test_messages_come_by_post_alone(method: str) -> None:
    front = Front()

    assert front.send(call("status"), method=method).status == 400
    assert front.upstream.bodies == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_body_that_nobody_decided_on_reaches_nobody(method: str) -> None:
    front = Front()
    front.app.sessions.open("s1", person("alice"))

    answer = front.send(call("delete_note"), method=method, mcp_session_id="s1")

    assert answer.status == 200
    assert front.upstream.bodies == [b""]
    assert front.upstream.after == ["http.disconnect"]


@pytest.mark.parametrize(
    ("method", "status"), [("GET", 405), ("DELETE", 405), ("HEAD", 405), ("OPTIONS", 204)]
)
def test_a_request_without_message_and_session_reaches_nobody(method: str, status: int) -> None:
    front = Front()

    answer = front.send(b"", method=method)

    assert (answer.status, answer.header("allow")) == (status, "POST, GET, DELETE")
    assert front.upstream.bodies == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize(("token", "status"), [("editor", 404), (None, 401)])
def test_a_session_of_another_principal_is_not_reached(
    method: str, token: str | None, status: int
) -> None:
    front = Front()
    front.app.sessions.open("s1", person("alice"))

    assert front.send(b"", token, method=method, mcp_session_id="s1").status == status
    assert front.upstream.bodies == []


def test_two_session_headers_are_refused() -> None:
    front = Front()
    scope = http_scope("GET", token="alice", session="one", headers=[(b"mcp-session-id", b"two")])

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(front.app(scope, receive, send))
    assert Exchange(sent).status == 400
    assert front.upstream.bodies == []


def test_rules_that_contradict_each_other_let_nobody_in() -> None:
    front = Front({"a*": public, "*b": requires_auth})

    assert front.send(call("ab")).refusal["error"] == "guard_not_configured"
    assert front.send(call("a"), None).status == 200
    assert front.upstream.bodies != []


# --- arguments that a lenient server takes for others

BY_ARGUMENTS: Mapping[str, GuardDecorator] = {
    "invoices": requires_tenant(tenant_from="tenant_id"),
    "add": requires_scopes("cal.{calendar_id}.write"),
    "any": requires(lambda principal, call: call.arguments.get("amount", 0) < 100),
    "free": requires_auth,
}


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("invoices", {"tenant_id": "mine", "Tenant_ID": "theirs"}),
        ("invoices", {"tenant_id": "mine", "tenant-id": "theirs"}),
        ("invoices", {"tenantId": "theirs", "tenant_id": "mine"}),
        ("invoices", {"tenant_id": "mine", "tenant_\u0131d": "theirs"}),
        ("invoices", {"Tenant_ID": "mine"}),
        ("add", {"calendar_id": "mine", "Calendar_id": "theirs"}),
        ("any", {"amount": 1, "Amount": 1_000}),
        ("any", {"order": {"x": 1, "X": 2}}),
        ("any", {"orders": [{"x_y": 1, "x-y": 2}]}),
        ("any", {str(number): number for number in range(1_001)}),
    ],
)
def test_arguments_that_resemble_what_a_rule_reads_are_refused(
    tool: str, arguments: dict[str, Any]
) -> None:
    front = Front(BY_ARGUMENTS)

    answer = front.send(call(tool, **arguments), "tenant")

    assert (answer.status, answer.json["error"]["code"]) == (400, -32602)
    assert front.upstream.bodies == []


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("invoices", {"tenant_id": "mine", "note": "theirs"}),
        ("add", {"calendar_id": "mine", "Note": "x", "title": "x"}),
        ("any", {"amount": 1, "order": {"amount": 2, "items": [{"Amount": 1}]}}),
        ("free", {"x": 1, "X": 2}),
    ],
)
def test_arguments_with_one_reading_pass(tool: str, arguments: dict[str, Any]) -> None:
    assert Front(BY_ARGUMENTS).send(call(tool, **arguments), "tenant").status == 200


MINE = {"calendar_id": "mine"}


@pytest.mark.parametrize(
    ("tool", "arguments", "headers"),
    [
        ("add", MINE, {"calendar_id": "theirs"}),
        ("add", MINE, {"CalendarID": "theirs"}),
        ("add", MINE, {"region": "theirs"}),
        ("add", MINE, {"calendar_id": ""}),
        ("add", MINE, {"calendar_id": "=?base64?dGhlaXJz?="}),
        ("add", MINE, {"calendar_id": "=?base64?bWluZQ?="}),
        ("add", {**MINE, "n": {"region": "eu"}}, {"region": "us"}),
        ("any", {"amount": 1}, {"amount": "1000"}),
        ("any", {"amount": 1}, {"amount": "1e0"}),
        ("any", {"amount": 2**53}, {"amount": str(2**53 + 1)}),
        ("any", {"amount": True}, {"amount": "1"}),
        ("any", {}, {"amount": "1000"}),
        ("any", {"amount": [1]}, {"amount": "[1]"}),
    ],
)
def test_headers_that_repeat_other_arguments_are_refused(
    tool: str, arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    front = Front(BY_ARGUMENTS)
    named = {f"mcp_param_{name}": value for name, value in headers.items()}

    answer = front.send(call(tool, **arguments), "tenant", **named)

    assert (answer.status, answer.json["error"]["code"]) == (400, -32020)
    assert front.upstream.bodies == []


@pytest.mark.parametrize(
    ("tool", "arguments", "headers"),
    [
        ("add", MINE, {"calendar_id": "mine"}),
        ("add", MINE, {"Calendar": "mine"}),
        ("add", {**MINE, "n": {"region": "eu"}}, {"Region": "eu"}),
        ("add", MINE, {"calendar_id": "=?base64?bWluZQ==?="}),
        ("any", {"amount": 1, "gift": True}, {"amount": "1", "gift": "true"}),
        ("any", {"amount": -1.5, "ratio": 2.0}, {"amount": "-1.5", "ratio": "2"}),
        ("any", {"amount": 1, "to": "a"}, {"to": "a"}),
        ("free", {"x": 1}, {"x": "2"}),
    ],
)
def test_headers_that_repeat_arguments_pass(
    tool: str, arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    named = {f"mcp_param_{name}": value for name, value in headers.items()}

    answer = Front(BY_ARGUMENTS).send(call(tool, **arguments), "tenant", **named)

    assert answer.status == 200


def test_a_header_that_repeats_an_argument_is_sent_once() -> None:
    headers = {"mcp_param_x": "1", "Mcp_Param_x": "1"}

    assert Front(BY_ARGUMENTS).send(call("free", x=1), "tenant", **headers).status == 400


# --- the answer


@pytest.mark.parametrize("method", ["resources/subscribe", "tools/call", "prompts/get"])
def test_a_missing_name_keeps_the_code_of_the_protocol(method: str) -> None:
    answer = Front().send({"jsonrpc": "2.0", "id": "m-1", "method": method, "params": {}})

    assert (answer.status, answer.json["id"]) == (400, "m-1")
    assert answer.json["error"]["code"] == -32602


def test_a_header_that_does_not_match_keeps_the_code_of_the_protocol() -> None:
    for header in ({"mcp_method": "tools/list"}, {"mcp_name": "other"}):
        answer = Front().send(call("status"), **header)

        assert (answer.status, answer.json["error"]["code"]) == (400, -32020)


@pytest.mark.parametrize(
    ("denials", "statuses"),
    [("auto", (200, 403)), ("http", (403, 403)), ("tool-error", (200, 200))],
)
def test_denials_are_answered_as_the_guard_is_set(
    denials: Denials, statuses: tuple[int, int]
) -> None:
    front = Front(default="deny", door=Door(Refusals(denials=denials)))

    answers = [
        front.send(call("list_notes"), mcp_protocol_version=revision)
        for revision in ("2025-11-25", "2026-07-28")
    ]
    assert tuple(answer.status for answer in answers) == statuses
    complete = [a.json["result"].get("resultType") for a in answers if a.status == 200]
    assert complete in ([], [None], [None, "complete"])


def test_a_denied_message_that_is_no_call_is_a_json_rpc_error() -> None:
    answer = Front(default="deny").send({"jsonrpc": "2.0", "id": 7, "method": "logging/setLevel"})

    assert (answer.status, answer.json["id"], answer.refusal["error"]) == (200, 7, "access_denied")


def test_a_denied_notification_has_no_answer_but_a_status() -> None:
    answer = Front(default="deny").send({"jsonrpc": "2.0", "method": "logging/setLevel"})

    assert (answer.status, answer.json["id"]) == (403, None)


@pytest.mark.parametrize(
    ("revision", "scope"),
    [(None, "notes.read notes.delete"), ("2026-07-28", "notes.delete"), ("x", "notes.read")],
)
def test_a_challenge_names_what_clients_of_the_revision_need(
    revision: str | None, scope: str
) -> None:
    headers = {} if revision is None else {"mcp_protocol_version": revision}

    answer = Front().send(call("delete_note"), "reader", **headers)

    assert f'scope="{scope}' in str(answer.header("www-authenticate"))


@pytest.mark.parametrize("default", ["authenticated", "public", "deny"])
def test_nobody_is_told_of_the_tasks_of_everybody(default: DefaultPolicy) -> None:
    front = Front(default=default)

    listing = {"jsonrpc": "2.0", "id": 1, "method": "tasks/list"}
    assert front.denied(listing)
    front.send(listing, None)
    assert front.upstream.bodies == []


def test_more_held_bytes_than_allowed_are_503() -> None:
    front = Front(door=Door(held=HeldBytes(200)))

    refused = front.send(call("createNote", text="x" * 70_000))

    assert (refused.status, refused.header("retry-after")) == (503, "5")
    assert front.upstream.bodies == []
    assert front.send(call("createNote")).status == 200


def test_nothing_of_a_permitted_message_is_kept_while_the_server_works() -> None:
    front = Front()
    kept: list[object] = []
    serve = front.upstream.__call__

    async def counting(scope: Scope, receive: Receive, send: Send) -> None:
        kept.extend(each for each in gc.get_objects() if isinstance(each, dict) and NEEDLE in each)
        await serve(scope, receive, send)

    front.app.app.app = counting  # type: ignore[attr-defined]
    content = json.dumps(call("createNote")).replace("{}", f'{{"{NEEDLE}": [[]]}}').encode()
    assert front.send(content).status == 200
    assert kept == []
    assert front.upstream.bodies == [content]


def test_a_hundred_names_are_decided_on_and_no_more() -> None:
    front = Front()

    def listen(count: int) -> dict[str, Any]:
        uris = [f"notes://public/{number}" for number in range(count)]
        params = {"notifications": {"resourceSubscriptions": uris}}
        return {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}

    assert front.send(listen(100)).status == 200
    assert front.send(listen(101)).status == 400


def test_one_subscription_among_public_ones_is_decided_on_by_itself() -> None:
    uris = ["notes://public/1", "notes://private/1", "notes://public/2"]
    params = {"notifications": {"resourceSubscriptions": uris}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}

    assert Front().send(body, "alice").status == 403
    assert Front().send(body, None).status == 401
