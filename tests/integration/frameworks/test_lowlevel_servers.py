"""Is a low-level ``mcp.server.Server`` guarded like the servers that stand on it?"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client

from support.lines import LEGACY_PROTOCOLS, MODERN_PROTOCOL, Guarding, Serve
from support.lowlevel_servers import MCP, Told, in_memory, lowlevel, sse_app, streamable_app, types
from support.wire import Caller, Reply
from toolguard import (
    AccessDeniedError,
    MissingTokenError,
    Refusals,
    ToolGuard,
    current_principal,
    injected,
    public,
    requires,
    requires_scopes,
    with_connection,
)
from toolguard.audit import audit
from toolguard.testing import GuardedClient, LocalIssuer, signed_in

SECRET = "SECRET-4711"


@dataclass(frozen=True)
class Way:
    """One way of speaking to a low-level server over HTTP."""

    protocol: str
    stateless: bool
    json: bool

    def __str__(self) -> str:
        session = "stateless" if self.stateless else "stateful"
        return f"{self.protocol}-{session}-{'json' if self.json else 'sse'}"


WAYS = [
    Way(protocol, stateless, json)
    for protocol in (LEGACY_PROTOCOLS[-1], *([MODERN_PROTOCOL] if MCP == 2 else []))
    for stateless in (True, False)
    for json in (True, False)
]
Visiting = Callable[..., Caller]


async def tells(_: Mapping[str, Any]) -> str:
    return SECRET


async def whoami(_: Mapping[str, Any]) -> str:
    try:
        return str(current_principal().user_id)
    except MissingTokenError:
        return "a stranger"


@requires_scopes("deep")
async def deep(*, user_id: str = injected) -> str:
    return f"{SECRET} of {user_id}"


@with_connection("google-calendar")
async def connected(*, connection_token: str = injected) -> str:
    return connection_token


async def calls_helper(_: Mapping[str, Any]) -> str:
    return await deep()


async def connects(_: Mapping[str, Any]) -> str:
    return await connected()


async def swallows(_: Mapping[str, Any]) -> str:
    try:
        return await deep()
    except Exception:  # noqa: BLE001 - what a user's code may do
        return "nothing deep"


async def fails_otherwise(_: Mapping[str, Any]) -> str:
    try:
        return await deep()
    except Exception:  # noqa: BLE001 - what a user's code may do
        raise ValueError("out of luck") from None


TOOLS = {
    "whoami": whoami,
    "secret": tells,
    "delete_all": tells,
    "calls_helper": calls_helper,
    "connects": connects,
    "swallows": swallows,
    "fails_otherwise": fails_otherwise,
}


def made(**changes: Any) -> Told:
    usual: dict[str, Any] = {
        "tools": TOOLS,
        "unlisted": {"hidden": tells},
        "resources": ("notes://today",),
        "templates": ("notes://{day}/lines", "notes://{day}/secret"),
        "prompts": ("plan",),
    }
    return Told(**{**usual, **changes})


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    """Every way of speaking over HTTP."""
    found = request.param
    assert isinstance(found, Way)
    return found


@pytest.fixture
def visiting(serve: Serve, http: httpx.Client) -> Visiting:
    """Serve a protected server; return what makes its callers."""

    def visit(
        guard: ToolGuard, server: Any, token: str | None = None, way: Way = WAYS[0]
    ) -> Caller:
        url = serve(streamable_app(guard, server, stateless=way.stateless, json=way.json))
        caller = Caller(http, f"{url}/mcp", way.protocol, token=token)
        if not way.stateless and way.protocol != MODERN_PROTOCOL:
            caller.open()
        return caller

    return visit


def error_of(reply: Reply) -> Any:
    """Return the JSON-RPC error of a reply."""
    return reply.body["error"]


# --- rules by name


def test_a_rule_refuses_and_permits_calls(
    way: Way, guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding()
    guard.protect(server := lowlevel(told), rules={"delete_*": requires_scopes("admin")})
    caller = visiting(guard, server, issuer.mint("alice"), way)

    refused = caller.call("delete_all")
    caller.token = issuer.mint("alice", scopes=["admin"])
    permitted = caller.call("delete_all")

    assert refused.status == 403
    assert refused.challenge is not None
    assert 'scope="admin"' in refused.challenge
    assert permitted.value == SECRET
    assert told.calls == ["delete_all"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "notes://today"}),
        ("resources/read", {"uri": "notes://monday/lines"}),
        ("prompts/get", {"name": "plan"}),
    ],
)
def test_rules_hold_for_resources_and_prompts(
    guarding: Guarding,
    visiting: Visiting,
    issuer: LocalIssuer,
    method: str,
    params: dict[str, Any],
) -> None:
    told, guard = made(), guarding()
    rules = {
        "resource:notes://today": requires_scopes("read"),
        "resource:notes://{day}/lines": requires_scopes("read"),
        "prompt:plan": requires_scopes("read"),
    }
    guard.protect(server := lowlevel(told), rules=rules)
    caller = visiting(guard, server, issuer.mint("alice"))

    refused = caller.send(method, params)
    assert (refused.status, told.calls) == (403, [])
    caller.token = issuer.mint("alice", scopes=["read"])
    assert caller.send(method, params).status == 200
    assert len(told.calls) == 1


def test_the_template_that_fits_a_uri_decides(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding()
    rules = {
        "resource:notes://{day}/lines": requires_scopes("lines"),
        "resource:notes://{day}/secret": requires_scopes("secret"),
    }
    guard.protect(server := lowlevel(told), rules=rules)
    caller = visiting(guard, server, issuer.mint("alice", scopes=["lines"]))

    assert caller.send("resources/read", {"uri": "notes://a/lines"}).status == 200
    for uri in ("notes://a/secret", "notes://a/b/secret", "notes://a/%73ecret"):
        assert caller.send("resources/read", {"uri": uri}).status == 403
    assert told.calls == ["notes://a/lines"]


def test_rules_that_read_arguments_get_what_was_sent(
    way: Way, guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding()
    own = requires(lambda principal, call: call.arguments.get("of") == principal.user_id)
    guard.protect(server := lowlevel(told), rules={"secret": own})
    caller = visiting(guard, server, issuer.mint("alice"), way)

    assert caller.call("secret", {"of": "alice"}).value == SECRET
    assert SECRET not in caller.call("secret", {"of": "bob"}).content
    assert SECRET not in caller.call("secret").content
    assert told.calls == ["secret"]


@pytest.mark.parametrize("default", ["authenticated", "deny"])
def test_what_no_rule_matches_gets_the_default(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer, default: str
) -> None:
    told, guard = made(), guarding(default=default)
    guard.protect(server := lowlevel(told))
    caller = visiting(guard, server, issuer.mint("alice"))

    answer = caller.call("secret")

    assert (SECRET in answer.content) is (default == "authenticated")
    assert bool(told.calls) is (default == "authenticated")


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("tools/call", {"name": "hidden"}),
        ("prompts/get", {"name": "other"}),
        ("resources/read", {"uri": "notes://elsewhere"}),
    ],
)
def test_a_name_that_no_list_and_no_rule_knows_is_unknown(
    guarding: Guarding,
    visiting: Visiting,
    issuer: LocalIssuer,
    method: str,
    params: dict[str, Any],
) -> None:
    told, guard = made(), guarding()
    guard.protect(server := lowlevel(told), rules={"*": requires_scopes("all")})
    if method == "resources/read":  # any rule makes a resource known
        guard = guarding()
        guard.protect(server := lowlevel(told), rules={"secret": requires_scopes("all")})
    caller = visiting(guard, server, issuer.mint("alice", scopes=["all"]))

    assert error_of(caller.send(method, params))["code"] == -32602
    assert told.calls == []


def test_a_rule_that_names_an_unlisted_tool_makes_it_known(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding()
    guard.protect(server := lowlevel(told), rules={"hidden": requires_scopes("all")})
    caller = visiting(guard, server, issuer.mint("alice"))

    assert caller.call("hidden").status == 403
    caller.token = issuer.mint("alice", scopes=["all"])
    assert caller.call("hidden").value == SECRET


def test_a_tool_that_is_listed_later_is_known_then(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    tools = dict(TOOLS)
    told, guard = made(tools=tools, unlisted={}), guarding()
    guard.protect(server := lowlevel(told), rules={"late": requires_scopes("late")})
    caller = visiting(guard, server, issuer.mint("alice"))

    assert error_of(caller.call("later"))["code"] == -32602
    tools.update(late=tells, later=tells)
    assert caller.call("later").value == SECRET
    assert caller.call("late").status == 403


# --- callers


def test_a_handler_learns_the_caller_of_each_message(
    way: Way, guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))
    caller = visiting(guard, server, issuer.mint("alice"), way)

    assert caller.call("whoami").value == "alice"
    if way.stateless or way.protocol == MODERN_PROTOCOL:
        caller.token = issuer.mint("bob")
        assert caller.call("whoami").value == "bob"


def test_a_stranger_reaches_what_is_public_and_nothing_else(
    way: Way, guarding: Guarding, visiting: Visiting
) -> None:
    told, guard = made(), guarding()
    guard.protect(server := lowlevel(told), rules={"whoami": public})
    caller = visiting(guard, server, None, way)

    assert caller.call("whoami").value == "a stranger"
    assert caller.call("secret").status == 401
    assert caller.call("hidden").status == 401
    assert caller.send("resources/read", {"uri": "notes://today"}).status == 401
    assert told.calls == ["whoami"]


def test_a_stranger_without_public_tools_is_asked_to_sign_in(
    guarding: Guarding, visiting: Visiting
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})

    asked = visiting(guard, server).send("tools/list")

    assert asked.status == 401
    assert 'scope="read"' in str(asked.challenge)


def test_the_metadata_document_is_served_beside_the_endpoint(
    guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})
    url = serve(streamable_app(guard, server))

    document = http.get(f"{url}/.well-known/oauth-protected-resource/mcp").json()

    assert document["resource"] == "https://mcp.test/mcp"
    assert document["scopes_supported"] == ["read"]


# --- guarded functions that handlers call


def test_the_refusal_of_a_helper_is_that_of_the_call(
    way: Way, guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))
    caller = visiting(guard, server, issuer.mint("alice"), way)

    refused = caller.call("calls_helper")
    caller.token = issuer.mint("alice", scopes=["deep"])

    assert refused.status == 403
    assert 'scope="deep"' in str(refused.challenge)
    assert caller.call("calls_helper").value == f"{SECRET} of alice"


def test_a_refusal_that_the_handler_catches_is_none(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))
    caller = visiting(guard, server, issuer.mint("alice"))

    assert caller.call("swallows").value == "nothing deep"
    failed = caller.call("fails_otherwise")
    assert failed.status == 200
    assert SECRET not in failed.content


def test_a_helper_gets_the_connection_of_the_caller(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))
    caller = visiting(guard, server, issuer.mint("alice"))

    assert caller.call("connects").value == "google-calendar token of alice"


# --- lists


def test_lists_say_what_each_operation_asks_for(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding()
    rules = {
        "secret": requires_scopes("read"),
        "resource:notes://{day}/lines": requires_scopes("lines"),
        "prompt:plan": requires_scopes("plan"),
    }
    guard.protect(server := lowlevel(made()), rules=rules)
    caller = visiting(guard, server, issuer.mint("alice"))

    tool = caller.tools()["secret"]
    (prompt,) = caller.send("prompts/list").result["prompts"]
    templates = caller.send("resources/templates/list").result["resourceTemplates"]

    assert tool["securitySchemes"] == [{"type": "oauth2", "scopes": ["read"]}]
    assert tool["_meta"]["toolguard/requires"] == {"scopes": [["read"]]}
    assert prompt["_meta"]["toolguard/requires"] == {"scopes": [["plan"]]}
    assert templates[0]["_meta"]["toolguard/requires"] == {"scopes": [["lines"]]}


def test_lists_hide_what_the_caller_may_not_do(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    guard = guarding(refusals=Refusals(unauthorized_tools="hide-all"))
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})
    caller = visiting(guard, server, issuer.mint("alice"))

    assert "secret" not in caller.tools()
    assert error_of(caller.call("secret"))["code"] == -32602
    caller.token = issuer.mint("alice", scopes=["read"])
    assert "secret" in caller.tools()


# --- other transports


def run_in_memory(server: Any, tool: str, **claims: Any) -> Any:
    async def main() -> Any:
        with signed_in("alice", **claims):
            async with in_memory(server) as session:
                return await session.call_tool(tool, {})

    return anyio.run(main).model_dump(mode="json", by_alias=True)


def test_in_memory_refusals_are_tool_errors(guarding: Guarding) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})

    refused = run_in_memory(server, "secret")
    served = run_in_memory(server, "secret", scopes=["read"])

    assert refused["isError"] is True
    assert json.loads(refused["content"][0]["text"])["missing_scopes"] == ["read"]
    assert served["content"][0]["text"] == SECRET


def test_in_memory_a_call_without_a_caller_is_refused(guarding: Guarding) -> None:
    told, guard = made(), guarding(default="public")
    guard.protect(server := lowlevel(told))

    async def main() -> Any:
        async with in_memory(server) as session:
            return await session.call_tool("secret", {})

    assert SECRET not in str(anyio.run(main))
    assert told.calls == []


def test_over_sse_refusals_are_tool_errors(
    guarding: Guarding, serve: Serve, issuer: LocalIssuer
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})
    url = serve(sse_app(guard, server))

    def call(tool: str, token: str) -> Any:
        async def main() -> Any:
            headers = {"authorization": f"Bearer {token}"}
            async with (
                sse_client(f"{url}/sse", headers=headers) as streams,
                ClientSession(*streams) as session,
            ):
                await session.initialize()
                return await session.call_tool(tool, {})

        return anyio.run(main).model_dump(mode="json", by_alias=True)

    refused = call("secret", issuer.mint("alice"))
    assert refused["isError"] is True
    assert refused["_meta"]["mcp/www_authenticate"]
    assert call("secret", issuer.mint("alice", scopes=["read"]))["content"][0]["text"] == SECRET
    assert call("whoami", issuer.mint("bob"))["content"][0]["text"] == "bob"


def test_over_sse_a_stranger_is_asked_to_sign_in(
    guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))

    assert http.get(f"{serve(sse_app(guard, server))}/sse").status_code == 401


def test_the_kit_calls_low_level_servers(guarding: Guarding) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})

    assert GuardedClient(server).call("secret").status == 403
    assert GuardedClient(server, scopes=["read"]).call("secret").ok


# --- the application around it


def test_an_application_is_guarded_after_its_server(guarding: Guarding) -> None:
    with pytest.raises(ValueError, match=r"guard\.protect\(server\) before"):
        guarding().protect_app(Any, lowlevel(made()), paths=["/mcp"])  # type: ignore[arg-type]


@pytest.mark.skipif(MCP == 2, reason="mcp 2 builds the application")
def test_an_application_without_a_guard_serves_nothing(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding(default="public")
    guard.protect(server := lowlevel(told))
    app = streamable_app(guard, server)
    (endpoint,) = (each for each in app.routes if getattr(each, "path", None) == "/mcp")
    endpoint.app = endpoint.app.app  # type: ignore[attr-defined]
    caller = Caller(http, f"{serve(app)}/mcp", token=issuer.mint("alice"))

    answer = caller.call("secret")

    assert "guard.protect_app(app, server)" in answer.content
    assert told.calls == []


@pytest.mark.skipif(MCP == 2, reason="mcp 2 builds the application")
def test_other_routes_stay_as_they_are(
    guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    guard = guarding()
    guard.protect(server := lowlevel(made()))

    assert http.get(f"{serve(streamable_app(guard, server))}/health").text == "well"


def test_a_server_is_protected_once(guarding: Guarding) -> None:
    guarding().protect(server := lowlevel(made()))

    with pytest.raises(ValueError, match="protected already"):
        guarding().protect(server)


# --- what is put on the server later, or in place of what was there


def add_handlers(server: Any) -> None:
    """Give the server handlers of methods that name an operation, and of one that does not."""
    if MCP == 1:

        @server.completion()  # type: ignore[untyped-decorator,unused-ignore]
        async def complete(*_: Any) -> Any:
            return types.Completion(values=[SECRET])

        @server.subscribe_resource()  # type: ignore[untyped-decorator,unused-ignore]
        async def subscribe(_: Any) -> None:
            return None

        @server.set_logging_level()  # type: ignore[untyped-decorator,unused-ignore]
        async def set_level(_: Any) -> None:
            return None

        return

    async def completed(*_: Any) -> Any:
        return types.CompleteResult(completion=types.Completion(values=[SECRET]))

    async def done(*_: Any) -> Any:
        return types.EmptyResult()

    server.add_request_handler("completion/complete", types.CompleteRequestParams, completed)
    server.add_request_handler("resources/subscribe", types.SubscribeRequestParams, done)
    server.add_request_handler("logging/setLevel", types.SetLevelRequestParams, done)


COMPLETE = {
    "ref": {"type": "ref/prompt", "name": "plan"},
    "argument": {"name": "day", "value": ""},
}


@pytest.mark.parametrize("when", ["before protect()", "after protect()", "after the app"])
def test_late_handlers_are_guarded(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, when: str
) -> None:
    guard, server = guarding(default="deny"), lowlevel(made())
    if when == "before protect()":
        add_handlers(server)
    rules = {
        "prompt:plan": requires_scopes("plan"),
        "resource:notes://today": requires_scopes("notes"),
    }
    guard.protect(server, rules=rules)
    if when == "after protect()":
        add_handlers(server)
    app = streamable_app(guard, server)
    if when == "after the app":
        add_handlers(server)
    caller = Caller(http, f"{serve(app)}/mcp", token=issuer.mint("alice"))
    subscribe = ("resources/subscribe", {"uri": "notes://today"})

    assert SECRET not in (refused := caller.send("completion/complete", COMPLETE)).content
    assert refused.status == 403
    assert caller.send(*subscribe).status == 403
    assert "result" not in caller.send("logging/setLevel", {"level": "debug"}).body
    caller.token = issuer.mint("alice", scopes=["plan", "notes"])
    assert SECRET in caller.send("completion/complete", COMPLETE).content
    assert caller.send(*subscribe).status == 200
    assert "result" not in caller.send("logging/setLevel", {"level": "debug"}).body


def replaced_parts(server: Any) -> None:
    """Put something of one's own in place of what the guard stands in."""
    if MCP == 1:
        kinds = list(server.request_handlers)
        server.request_handlers = {kind: server.request_handlers.handler(kind) for kind in kinds}
    else:
        del server.get_request_handler


def test_a_server_that_lost_its_guard_serves_nothing(
    way: Way, guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    told, guard = made(), guarding(default="public")
    guard.protect(server := lowlevel(told))
    caller = visiting(guard, server, issuer.mint("alice"), way)

    assert caller.call("secret").value == SECRET
    replaced_parts(server)
    lost = caller.call("secret")

    assert lost.status == 500
    assert "altered after protect()" in lost.content
    assert told.calls == ["secret"]


# --- middlewares of mcp 2

on_mcp2 = pytest.mark.skipif(MCP == 1, reason="mcp 1 has no middlewares")
PLACES = ["given", "appended", "inserted first"]


def put(server: Any, middleware: Any, place: str) -> None:
    at = 0 if place == "inserted first" else len(server.middleware)
    server.middleware.insert(at, middleware)


def protected(
    guard: ToolGuard, server: Any, middleware: Any, place: str, rules: Mapping[str, Any]
) -> Any:
    if place == "given":
        put(server, middleware, place)
    guard.protect(server, rules=rules)
    if place != "given":
        put(server, middleware, place)
    return server


@on_mcp2
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("in_place", [True, False])
def test_a_middleware_that_renames_gets_around_no_rule(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer, place: str, *, in_place: bool
) -> None:
    from dataclasses import replace  # noqa: PLC0415

    async def alias(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "tools/call":
            if in_place:
                ctx.params["name"] = "secret"
            else:
                ctx = replace(ctx, params={**ctx.params, "name": "secret"})
        return await call_next(ctx)

    told, guard = made(), guarding()
    server = protected(guard, lowlevel(told), alias, place, {"secret": requires_scopes("read")})
    caller = visiting(guard, server, issuer.mint("alice"))

    assert caller.call("whoami").status == 403
    assert told.calls == []
    caller.token = issuer.mint("alice", scopes=["read"])
    assert caller.call("whoami").value == SECRET


@on_mcp2
@pytest.mark.parametrize("in_place", [True, False])
def test_a_middleware_that_changes_a_subscription_is_refused(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer, *, in_place: bool
) -> None:
    from dataclasses import replace  # noqa: PLC0415

    changed = {**COMPLETE, "ref": {"type": "ref/prompt", "name": "plan"}}

    async def alias(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "completion/complete":
            if in_place:
                ctx.params["ref"] = changed["ref"]
            else:
                ctx = replace(ctx, params=changed)
        return await call_next(ctx)

    guard, server = guarding(), lowlevel(made(prompts=("plan", "open")))
    add_handlers(server)
    protected(guard, server, alias, "appended", {"prompt:plan": requires_scopes("plan")})
    caller = visiting(guard, server, issuer.mint("alice"))

    sent = {**COMPLETE, "ref": {"type": "ref/prompt", "name": "open"}}
    assert SECRET not in caller.send("completion/complete", sent).content


@on_mcp2
def test_a_middleware_that_makes_a_call_of_a_list_gets_around_no_rule(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    from dataclasses import replace  # noqa: PLC0415

    async def alias(ctx: Any, call_next: Any) -> Any:
        if ctx.method == "tools/list":
            params = {**(ctx.params or {}), "name": "secret", "arguments": {}}
            ctx = replace(ctx, method="tools/call", params=params)
        return await call_next(ctx)

    told, guard = made(), guarding()
    rules = {"secret": requires_scopes("read")}
    server = protected(guard, lowlevel(told), alias, "appended", rules)
    caller = visiting(guard, server, issuer.mint("alice"))

    assert SECRET not in caller.send("tools/list").content
    assert told.calls == []


@on_mcp2
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("tool", ["secret", "hidden"])
def test_what_a_middleware_keeps_is_decided_on(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer, place: str, tool: str
) -> None:
    kept: dict[str, Any] = {}

    async def caching(ctx: Any, call_next: Any) -> Any:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        name = ctx.params["name"]
        if name not in kept:
            kept[name] = await call_next(ctx)
        return kept[name]

    told, guard = made(unlisted={}), guarding()
    rules = {"secret": requires_scopes("read")}
    server = protected(guard, lowlevel(told), caching, place, rules)
    caller = visiting(guard, server, issuer.mint("alice", scopes=["read"]))
    assert caller.call("secret").value == SECRET
    kept["hidden"] = kept["secret"]

    caller.token = issuer.mint("bob")
    answer = caller.call(tool)

    assert SECRET not in answer.content
    assert answer.status == (403 if tool == "secret" else 200)


@on_mcp2
def test_a_modern_call_that_is_refused_is_a_403_with_arguments_too(
    guarding: Guarding, visiting: Visiting, issuer: LocalIssuer
) -> None:
    # The SDK asks the server for its tools before such a call, within the same request.
    guard = guarding()
    guard.protect(server := lowlevel(made()), rules={"secret": requires_scopes("read")})
    modern = [way for way in WAYS if way.protocol == MODERN_PROTOCOL]
    for way in modern:
        caller = visiting(guard, server, issuer.mint("alice"), way)
        assert caller.call("secret", {"of": "alice"}).status == 403


# --- audit


def test_an_audit_asks_the_server_for_its_lists(guarding: Guarding) -> None:
    told, guard = made(), guarding(default="deny")
    rules = {
        "secret": requires_scopes("read"),
        "resource:notes://*": requires_scopes("notes"),
        "nothing": requires_scopes("none"),
    }
    guard.protect(server := lowlevel(told), rules=rules)

    report = audit(server)

    found = {(each.kind, each.name): each.rule for each in report.operations}
    assert found["tool", "secret"] == "read"
    assert found["tool", "whoami"] == "nobody (default)"
    assert found["resource", "notes://today"] == "notes"
    assert found["resource", "notes://{day}/lines"] == "notes"
    assert found["prompt", "plan"] == "nobody (default)"
    assert [each.code for each in report.findings] == ["unmatched-rule"]
    assert told.calls == []


def test_an_audit_of_an_unprotected_server_says_so() -> None:
    report = audit(lowlevel(made()))

    assert {each.access for each in report.operations} == {"everybody"}


def test_an_audit_says_what_could_not_be_asked(guarding: Guarding) -> None:
    class Broken(Told):
        def listed_tools(self) -> list[Any]:
            raise AccessDeniedError(rule="no request")

    report = audit(guarding().protect(lowlevel(Broken())))

    assert "could not be asked" in " ".join(report.notes)
