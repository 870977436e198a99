"""Which requests reach an application behind ``guard.asgi``, and what do they bring?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asgi import App, Exchange, Receive, Scope, Send, exchange, http_scope
from support.callers import NOW, Tokens, person
from toolguard import ToolGuard, public, requires_auth, requires_scopes
from toolguard.calls.request import SCOPE_KEY
from toolguard.decorators.wrapper import GuardDecorator

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "post"]
ALICE = "alices-token"
DOCUMENT = "/.well-known/oauth-protected-resource/mcp"
RULES = {"delete_*": requires_scopes("admin"), "*": requires_auth}
OPEN_RULES = {"hello": public, "delete_*": requires_scopes("admin")}
PREFLIGHT = [(b"origin", b"https://evil.example"), (b"access-control-request-method", b"POST")]


class Application:
    """Notes every request that reaches it."""

    def __init__(self) -> None:
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        headers = [(b"mcp-session-id", b"s1")] if scope.get("method") == "POST" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"{}"})


class Site:
    """An application behind a guard of its own."""

    def __init__(self, *, default: Any = "authenticated", **settings: Any) -> None:
        self.app = Application()
        verifier = Tokens({ALICE: person("alice"), "bobs": person("bob")})
        audience = "https://mcp.example.com/mcp"
        guard = ToolGuard(verifier=verifier, audience=audience, default=default, clock=lambda: NOW)
        self.door: App = guard.asgi(self.app, **settings)

    def send(
        self,
        method: str = "GET",
        path: str = "/mcp",
        token: str | None = ALICE,
        *,
        body: Mapping[str, Any] | None = None,
        **scope: Any,
    ) -> Exchange:
        content = b"" if body is None else json.dumps(body).encode()
        made = {**http_scope(method, token=token, path=path, session=scope.pop("session", None))}
        made["headers"] = [*made["headers"], *scope.pop("headers", ())]
        return exchange(self.door, {**made, **scope}, content)

    @property
    def reached(self) -> int:
        return len(self.app.scopes)


def call(tool: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}}


# --- without rules


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/", "/mcp", "/admin/users", DOCUMENT + "/"])
def test_every_path_and_method_needs_a_token(method: str, path: str) -> None:
    site = Site(default="public")

    assert site.send(method, path, None).status == 401
    assert site.send(method, path, "forged").status == 401
    assert site.reached == 0
    assert site.send(method, path).status == 200


def test_a_preflight_does_not_reach_the_application() -> None:
    for site in (Site(), Site(rules=OPEN_RULES), Site(rules=RULES, others="authenticated")):
        for path in ("/", "/mcp", "/admin"):
            site.send("OPTIONS", path, None, headers=PREFLIGHT)

        assert site.reached == 0


@pytest.mark.parametrize("settings", [{}, {"rules": RULES}])
@pytest.mark.parametrize("forwards", [True, False])
def test_the_token_stays_at_the_guard_unless_it_is_forwarded(
    settings: dict[str, Any], forwards: bool
) -> None:
    site = Site(**settings, forward_token=forwards)

    assert site.send("POST", body=call("hello")).status == 200

    (scope,) = site.app.scopes
    sent = [value for name, value in scope["headers"] if name == b"authorization"]
    assert sent == ([f"Bearer {ALICE}".encode()] if forwards else [])
    assert (SCOPE_KEY in scope) is forwards
    assert (ALICE in repr(scope)) is forwards


def test_settings_of_rules_without_rules_are_refused() -> None:
    for settings in ({"path": "/mcp"}, {"others": "refuse"}):
        with pytest.raises(ValueError, match="need rules="):
            Site(**settings)


# --- with rules


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("token", [None, ALICE])
def test_only_the_endpoint_reaches_the_application(method: str, token: str | None) -> None:
    site = Site(rules=OPEN_RULES, default="public")

    for path in ("/", "/admin/users", "/mcp/", "/mcp/x", "/MCP", "//mcp", "/mcp%2f", "/a/../mcp"):
        assert site.send(method, path, token, body=call("hello")).status == 404
    assert site.reached == 0


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"])
@pytest.mark.parametrize("token", [None, ALICE])
@pytest.mark.parametrize("rules", [RULES, OPEN_RULES])
def test_what_brings_no_message_does_not_reach_the_application(
    method: str, token: str | None, rules: Mapping[str, GuardDecorator]
) -> None:
    site = Site(rules=rules)

    site.send(method, token=token, body=call("hello"))

    assert site.reached == 0


def test_a_stranger_reaches_just_the_public_operation() -> None:
    site = Site(rules=OPEN_RULES)

    assert site.send("POST", token=None, body=call("hello")).status == 200
    assert site.send("POST", token=None, body=call("delete_x")).status == 401
    assert site.send("POST", token=None, body=call("other")).status == 401
    assert Site(rules=RULES).send("POST", token=None, body=call("hello")).status == 401
    assert site.reached == 1


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_session_is_reached_by_its_owner(method: str) -> None:
    site = Site(rules=RULES)
    assert site.send("POST", body=call("hello")).header("mcp-session-id") == "s1"

    assert site.send(method, session="s1", token="bobs").status == 404
    assert site.send(method, session="s1", token=None).status == 401
    assert site.send(method, session="s2").status == 404
    assert site.reached == 1
    assert site.send(method, session="s1").status == 200


@given(st.text(st.sampled_from("/mcpMCP.%2f25\\ "), max_size=12))
def test_no_spelling_of_the_endpoint_gets_around_its_rules(path: str) -> None:
    site = Site(rules={"*": requires_scopes("admin")}, others="authenticated")

    answer = site.send("POST", f"/{path}", body=call("hello"))

    if site.reached:
        plain = f"/{path}".lower().replace("%25", "%").replace("%2f", "/").strip("/")
        assert plain != "mcp"
        assert answer.status == 200


def test_other_paths_can_be_let_in_with_a_token() -> None:
    site = Site(rules=OPEN_RULES, others="authenticated", default="public")

    assert site.send("GET", "/health", None).status == 401
    assert site.send("GET", "/health").status == 200
    for path in ("/mcp/", "/MCP", "//mcp", "/x/../mcp", "/%6dcp", "/mcp/x"):
        assert site.send("POST", path, body=call("delete_x")).status == 404
    assert site.reached == 1


@pytest.mark.parametrize(
    "path",
    ["/mcp;v=1", "/mcp;/x", "/x/..;/mcp", "/mcp%253bx", "/x\\..\\mcp", "/x/%2e%2e%5cmcp"],
)
def test_what_another_server_reads_as_the_endpoint_is_not_elsewhere(path: str) -> None:
    site = Site(rules=RULES, others="authenticated")

    assert site.send("POST", path, body=call("delete_x")).status == 404
    assert site.reached == 0


@pytest.mark.parametrize("path", ["/mcp?x", "/mcp#x", "/%256dcp", "/%2525256dcp", "/%2%356dcp"])
def test_what_is_decoded_again_into_the_endpoint_is_not_elsewhere(path: str) -> None:
    site = Site(rules=RULES, others="authenticated")

    assert site.send("POST", path, body=call("delete_x")).status == 404
    assert site.reached == 0


@pytest.mark.parametrize(
    "path",
    [
        *("/mcp\n", "/mcp\0", "/mcp\0.html", "/mcp%250a", "/x/../mcp\n", "/\n/../mcp\n"),
        *("/mcp/..", "/mcp/../health", "/mcp/..;a/health", "/mcp/%2e%2e/x", "/mcp\0/../health"),
        *("/mcp ", "/mcp.", "/mcp. ./x", "/\uff4dcp", "/\uff0f..\uff0fmcp", "http://host/mcp", "*"),
    ],
)
def test_what_a_router_takes_for_the_endpoint_is_not_elsewhere(path: str) -> None:
    for endpoint in ("/mcp", "/mcp/"):
        site = Site(rules=RULES, others="authenticated", path=endpoint)

        assert site.send("POST", path, body=call("delete_x")).status == 404
        assert site.reached == 0


def test_the_endpoint_is_found_where_the_application_is_mounted() -> None:
    site = Site(rules=RULES, path="/rpc")

    for scope in ({"path": "/v1/rpc", "root_path": "/v1"}, {"path": "/rpc", "root_path": "/v1"}):
        assert site.send("POST", body=call("hello"), **scope).status == 200
    assert site.send("POST", "/v1/rpc", body=call("hello")).status == 404


@pytest.mark.parametrize("path", ["", "mcp", "/mcp/../x", "//mcp", "/a//b"])
def test_a_path_that_is_no_endpoint_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="write the path of the endpoint"):
        Site(rules=RULES, path=path)


def test_the_document_is_served_to_strangers_beside_everything() -> None:
    for site in (Site(), Site(rules=RULES)):
        answer = site.send("GET", DOCUMENT, None)

        assert (answer.status, answer.json["resource"]) == (200, "https://mcp.example.com/mcp")
        assert site.reached == 0


@pytest.mark.parametrize("kind", ["websocket", "something new"])
def test_what_cannot_be_guarded_does_not_get_in(kind: str) -> None:
    for settings in ({}, {"rules": RULES}, {"rules": RULES, "others": "authenticated"}):
        site = Site(**settings)

        assert site.send(path="/x", type=kind).messages == [
            {"type": "websocket.close", "code": 1008}
        ]
        assert site.reached == 0
