"""Is there a way around a rule: another name, another tool that calls, another reader, a cache?"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeAlias, cast

import httpx
import pytest
from pydantic import AliasChoices, BaseModel, Field

from support.lines import (
    FASTMCP_LINES,
    LEGACY_PROTOCOLS,
    LINES,
    MODERN_PROTOCOL,
    Guarding,
    Line,
    Serve,
)
from support.wire import Caller
from toolguard import (
    OperationCall,
    Principal,
    Refusals,
    all_of,
    any_of,
    public,
    requires,
    requires_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)
from toolguard.calls.request import UnauthorizedTools
from toolguard.testing import GuardedClient, LocalIssuer, call_as

RULES = {
    "delete_*": requires_scopes("notes.delete"),
    "resource:notes://*": requires_scopes("notes.private"),
    "prompt:*": requires_scopes("notes.prompt"),
}
MODERN_LINES = [line for line in LINES if line.modern]
SDK_LINES = [line for line in LINES if line.family == "sdk"]


def _notes(line: Line) -> Any:
    server = line.server("notes")

    @server.tool()
    def delete_note(note_id: str = "1") -> str:
        return f"deleted {note_id}"

    @server.resource("notes://private/{note_id}")
    def private(note_id: str) -> str:
        return f"deleted and private {note_id}"

    @server.prompt()
    def summary() -> str:
        return "a summary of what was deleted"

    return server


def _fastmcp(module: str, name: str) -> Any:
    return getattr(importlib.import_module(f"fastmcp.{module}"), name)


@pytest.fixture
def reach(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> Callable[..., Caller]:
    """Serve a server; return a caller of it whose token has these scopes and claims."""

    def reached(server: Any, *scopes: str, user: str = "mallory", **claims: Any) -> Caller:
        url = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
        protocol = MODERN_PROTOCOL if line.modern else LEGACY_PROTOCOLS[-1]
        token = issuer.mint(user, scopes=scopes, **claims)
        can: dict[str, Any] = {"elicitation": {"form": {}}}
        return Caller(http, url, protocol, token=token, capabilities=can)

    return reached


# --- other names (fastmcp)


def _desk(tool: str) -> Any:
    """Return an app with a tool that its user interface calls."""

    def all_gone() -> str:
        return "deleted all"

    app = _fastmcp("apps.app", "FastMCPApp")("Desk")
    app.tool(tool)(all_gone)
    return app


def _address(tool: str) -> str:
    return str(_fastmcp("server.providers.addressing", "hashed_backend_name")("Desk", tool))


@pytest.mark.parametrize("namespace", [None, "n"])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_the_address_of_an_app_tool_does_not_bypass_rules(
    line: Line, guarding: Guarding, reach: Callable[..., Caller], namespace: str | None
) -> None:
    app = _desk("delete_all")

    server: Any = line.server("outer")
    if namespace is None:
        server.add_provider(app)
    else:
        inner: Any = line.server("inner")
        inner.add_provider(app)
        server.mount(inner, namespace=namespace)
    guarding().protect(server, rules={"*delete_*": requires_scopes("nobody")})

    listed = "delete_all" if namespace is None else "n_delete_all"  # which 3.x does not serve
    assert "deleted" not in reach(server).call(listed).content
    reply = reach(server).call(_address("delete_all"))
    assert (reply.status, reply.body["missing_scopes"]) == (403, ["nobody"])


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_the_rule_of_a_listed_name_is_that_of_the_address(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    inner: Any = line.server("inner")
    inner.add_provider(_desk("wipe"))
    server: Any = line.server("outer")
    server.mount(inner, namespace="n")
    guarding().protect(server, rules={"n_wipe": requires_scopes("wipe")})

    assert reach(server).call(_address("wipe")).status == 403
    assert reach(server, "wipe").call(_address("wipe")).value == "deleted all"


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
@pytest.mark.parametrize(
    "asked",
    [5, "9", ["x"], {"version": 5}, {"version": ""}, {"version": ["1"]}, {"version": {"gte": "0"}}],
)
def test_a_version_that_only_one_reader_understands_is_refused(
    line: Line, guarding: Guarding, reach: Callable[..., Caller], asked: object
) -> None:
    server: Any = line.server("versions")
    server.add_provider(_desk("wipe"))

    def note(note_id: str) -> str:
        return f"deleted {note_id}"

    server.resource("notes://{note_id}/x")(note)
    rules = {"wipe": requires_scopes("wipe"), "resource:notes://{note_id}/x": requires_scopes("x")}
    mallory = reach(guarding().protect(server, rules=rules))
    meta = {"fastmcp": asked}
    wiping = {"name": _address("wipe"), "arguments": {}}

    for method, params in (("tools/call", wiping), ("resources/read", {"uri": "notes://1/x"})):
        assert mallory.send(method, params).status == 403
        assert mallory.send(method, {**params, "meta": meta}).status == 403
        assert "deleted" not in mallory.send(method, {**params, "_meta": meta}).content


# --- tools that call others by name (fastmcp)


def _by_search(server: Any) -> tuple[str, dict[str, Any], str]:
    server.add_transform(_fastmcp("server.transforms.search", "RegexSearchTransform")())
    return "call_tool", {"name": "delete_note"}, "notes.delete"


def _by_uri(server: Any) -> tuple[str, dict[str, Any], str]:
    made = _fastmcp("server.transforms.resources_as_tools", "ResourcesAsTools")(server)
    server.add_transform(made)
    return "read_resource", {"uri": "notes://private/7"}, "notes.private"


def _by_prompt(server: Any) -> tuple[str, dict[str, Any], str]:
    made = _fastmcp("server.transforms.prompts_as_tools", "PromptsAsTools")(server)
    server.add_transform(made)
    return "get_prompt", {"name": "summary"}, "notes.prompt"


def _by_its_own(server: Any) -> tuple[str, dict[str, Any], str]:
    async def clean() -> str:
        return str(await server.call_tool("delete_note", {}))

    server.tool("clean")(clean)
    return "clean", {}, "notes.delete"


BY_NAME = [_by_search, _by_uri, _by_prompt, _by_its_own]


@pytest.mark.parametrize("by_name", BY_NAME)
@pytest.mark.parametrize("mounted", [False, True])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_what_calls_by_name_is_held_to_the_rule_of_that_name(
    line: Line,
    guarding: Guarding,
    reach: Callable[..., Caller],
    by_name: Callable[[Any], tuple[str, dict[str, Any], str]],
    mounted: bool,
) -> None:
    server = _notes(line)
    tool, arguments, scope = by_name(server)
    guarding().protect(server, rules=RULES)
    if mounted:
        outer: Any = line.server("outer")
        outer.mount(server, namespace="n")
        server, tool = guarding().protect(outer), f"n_{tool}"

    refused = reach(server, "profile").call(tool, arguments)
    assert refused.status == 403
    assert refused.body["missing_scopes"] == [scope]
    assert "deleted" in reach(server, scope).call(tool, arguments).value


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_public_tool_opens_no_other(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server = _notes(line)
    tool, arguments, _ = _by_search(server)
    guarding().protect(server, rules={"call_tool": public})
    stranger = reach(server)
    stranger.token = None

    assert stranger.call(tool, arguments).status == 401


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_what_lists_hide_a_search_does_not_find(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server = _notes(line)
    _by_search(server)
    rules = {"delete_note": requires_roles("boss")}
    guarding(refusals=Refusals(unauthorized_tools="hide")).protect(server, rules=rules)
    pattern = {"pattern": "delete"}

    assert "delete_note" not in reach(server).call("search_tools", pattern).content
    assert "delete_note" in reach(server, roles=["boss"]).call("search_tools", pattern).content


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_what_a_mounted_server_hides_the_one_in_front_does_not_list(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    inner = guarding(refusals=Refusals(unauthorized_tools="hide")).protect(
        _notes(line),
        rules={"*": requires_roles("boss")},
    )
    outer: Any = line.server("outer")
    outer.mount(inner, namespace="n")
    guarding().protect(outer)
    mallory, boss = reach(outer), reach(outer, roles=["boss"])

    for method in ("tools/list", "resources/templates/list", "prompts/list"):
        assert "n/" not in mallory.send(method).content
        assert "n_" not in mallory.send(method).content
        assert boss.send(method).content != mallory.send(method).content


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_search_of_a_mounted_server_is_held_to_the_rules_in_front(
    line: Line, guarding: Guarding
) -> None:
    inner, outer = _notes(line), line.server("outer")
    _by_search(inner)
    outer.mount(inner, namespace="n")  # type: ignore[attr-defined]
    guarding().protect(outer, rules={"n_delete_*": requires_scopes("notes.delete")})

    assert GuardedClient(outer).call("n_delete_note").status == 403
    found = {"name": "delete_note", "arguments": {}}
    assert GuardedClient(outer).call("n_call_tool", found).status == 403
    assert GuardedClient(outer, scopes=["notes.delete"]).call("n_call_tool", found).ok


# --- another reader of the arguments


Either: TypeAlias = Annotated[str, Field(validation_alias=AliasChoices("tenantId", "tenant_id"))]


@pytest.mark.parametrize("line", SDK_LINES, ids=str)
def test_a_rule_reads_the_argument_that_the_function_is_given(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server = line.server("invoices")

    def invoices(tenant_id: Either) -> str:
        return f"invoices of {tenant_id}"

    server.tool()(invoices)
    guarding().protect(server, rules={"invoices": requires_tenant(tenant_from="tenant_id")})
    mallory = reach(server, tenants={"own": {}})

    both = mallory.call("invoices", {"tenant_id": "own", "tenantId": "victim"})
    assert "invoices of" not in both.content
    assert '"error": "invalid_input"' in both.tool_error
    assert mallory.call("invoices", {"tenantId": "victim"}).denial["error"] == "access_denied"


def _move(src: str, dst: str) -> str:
    return f"moved {src} to {dst}"


def _remade(**changes: Any) -> Any:
    """Return the tool "mv", which is made from the tool "move" by these changes."""
    tool = _fastmcp("tools", "Tool")
    return tool.from_tool(tool.from_function(_move, name="move"), name="mv", **changes)


def _swapped(server: Any, way: str) -> None:
    """Add a tool whose arguments have each other's names in the tool it is made from."""
    change = _fastmcp("tools.tool_transform", "ArgTransform")
    swapped = {"src": change(name="dst"), "dst": change(name="src")}
    if way == "copied":
        server.add_tool(_remade(transform_args=swapped))
        return
    target = server
    if way == "mounted":
        target = type(server)("inner")
        server.mount(target)
    target.add_tool(_fastmcp("tools", "Tool").from_function(_move, name="move"))
    config = _fastmcp("tools.tool_transform", "ToolTransformConfig")
    renamed = _fastmcp("tools.tool_transform", "ArgTransformConfig")
    arguments = {"src": renamed(name="dst"), "dst": renamed(name="src")}
    transform = _fastmcp("server.transforms", "ToolTransform")
    server.add_transform(transform({"move": config(name="mv", arguments=arguments)}))


SWAPPED = ({"src": "own", "dst": "other"}, {"src": "other", "dst": "own"})
Refused = Callable[..., None]


@pytest.fixture
def refused(line: Line, guarding: Guarding, reach: Callable[..., Caller]) -> Refused:
    """Check that a tool is refused by rules: at protect(), and on each call if it comes later."""

    def check(add: Callable[[Any], None], rules: Any, said: str, *calls: Mapping[str, str]) -> None:
        early = line.server("early")
        add(early)
        with pytest.raises(ValueError, match=said):
            guarding().protect(early, rules=rules)

        late = guarding().protect(line.server("late"), rules=rules)
        mallory = reach(late, "write.own")
        add(late)
        for sent in calls:
            assert "moved" not in mallory.call("mv", sent).content

    return check


@pytest.mark.parametrize("way", ["copied", "transformed", "mounted"])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_rule_never_reads_the_argument_of_another_tool_by_its_name(
    refused: Refused, way: str
) -> None:
    rules = {"move": requires_scopes("write.{src}")}
    said = "an argument 'src' that is a different one there"
    refused(lambda server: _swapped(server, way), rules, said, *SWAPPED)


BY_CALL = [
    requires(lambda _, call: call.arguments.get("src") == "own"),
    requires_scopes(lambda call: f"write.{call.arguments.get('src')}"),
]


@pytest.mark.parametrize("rule", BY_CALL, ids=["check", "scopes"])
@pytest.mark.parametrize("name", ["move", "mv", "*"])
@pytest.mark.parametrize("way", ["copied", "transformed", "mounted"])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_function_of_a_rule_never_reads_the_argument_of_another_tool(
    refused: Refused, way: str, name: str, rule: Any
) -> None:
    said = "could read those of either"
    refused(lambda server: _swapped(server, way), {name: rule}, said, *SWAPPED)


async def _passing_another(src: str, dst: str) -> Any:
    forward = _fastmcp("tools.tool_transform", "forward")
    return await forward(src="other", dst=f"{src} {dst}")


async def _passing_its_own(path: str, dst: str, **_: str) -> Any:
    forward = _fastmcp("tools.tool_transform", "forward_raw")
    return await forward(src=path, dst=dst)


@pytest.mark.parametrize("rule", [requires_scopes("write.{src}"), *BY_CALL])
@pytest.mark.parametrize("in_front", [_passing_another, _passing_its_own])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_rule_never_reads_what_a_function_in_front_of_a_tool_replaces(
    refused: Refused, in_front: Any, rule: Any
) -> None:
    def add(server: Any) -> None:
        server.add_tool(_remade(transform_fn=in_front))

    sent = {"src": "own", "path": "other", "dst": "x"}
    calls = [
        {name: value for name, value in sent.items() if name != left_out}
        for left_out in ("src", "path", "")
    ]
    refused(add, {"move": rule}, "could read", *calls)


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_function_of_a_rule_reads_a_tool_whose_arguments_keep_their_names(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server: Any = line.server("files")
    change = _fastmcp("tools.tool_transform", "ArgTransform")
    changes = {"src": change(description="from"), "dst": change(hide=True, default="bin")}
    server.add_tool(_remade(transform_args=changes))
    guarding().protect(server, rules={"move": BY_CALL[0]})
    bob = reach(server)

    assert "moved own to bin" in bob.call("mv", {"src": "own"}).content
    assert "moved" not in bob.call("mv", {"src": "other"}).content


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_rule_reads_an_argument_that_was_renamed_to_a_new_name(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server: Any = line.server("files")
    change = _fastmcp("tools.tool_transform", "ArgTransform")
    server.add_tool(_remade(transform_args={"src": change(name="path")}))
    guarding().protect(server, rules={"mv": requires_scopes("write.{path}")})
    bob = reach(server, "write.own")

    assert "moved own" in bob.call("mv", {"path": "own", "dst": "x"}).content
    assert "moved" not in bob.call("mv", {"path": "other", "dst": "x"}).content


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_function_in_front_of_a_tool_takes_no_caller_from_the_client(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    async def ban(*, user_id: str, **others: Any) -> str:
        return f"banned {user_id} {others}"

    def add(server: Any) -> None:
        server.add_tool(_remade(transform_fn=ban))

    early = line.server("early")
    add(early)
    with pytest.raises(ValueError, match="'mv' takes user_id by keyword only"):
        guarding().protect(early)

    late = guarding().protect(line.server("late"))
    mallory = reach(late)
    add(late)
    sent = {"user_id": "victim", "src": "1", "dst": "2"}
    assert "banned" not in mallory.call("mv", sent).content


# --- a middleware that calls others before a cache answers


def _open_note() -> str:
    return "open"


async def _call_open(server: Any) -> None:
    await server.call_tool("open_note", {})


async def _call_inside(server: Any) -> None:
    await server.call_tool("open_note", {}, run_middleware=False)


async def _run_the_tool(server: Any) -> None:
    await (await server.get_tool("open_note")).run({})


def _remembering(server: Any, before: Callable[[Any], Any]) -> None:
    """Call another operation before each message, and answer what was answered before."""
    kept: dict[str, Any] = {}

    class Remembering(_fastmcp("server.middleware", "Middleware")):  # type: ignore[misc]
        async def on_message(self, context: Any, call_next: Any) -> Any:
            name = str(getattr(context.message, "name", getattr(context.message, "uri", "")))
            if not name or name == "open_note":
                return await call_next(context)
            await before(server)
            if name not in kept:
                kept[name] = await call_next(context)
            return kept[name]

    server.add_middleware(Remembering())


@pytest.mark.parametrize("before", [_call_open, _call_inside, _run_the_tool])
@pytest.mark.parametrize("around", ["alone", "mounted", "guarded"])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_cache_answers_nobody_for_whom_something_else_was_permitted(
    line: Line, guarding: Guarding, reach: Callable[..., Caller], before: Any, around: str
) -> None:
    @requires_scopes("notes.delete")
    def deleted_too() -> str:
        return "deleted too"

    server: Any = _notes(line)
    server.tool("open_note")(_open_note)
    server.tool()(deleted_too)
    _remembering(server, before)
    rules, prefix = RULES, ""
    if around != "alone":
        inner, server, prefix = server, line.server("outer"), "n_"
        if around == "guarded":
            guarding().protect(inner, rules=RULES)
        server.mount(inner, namespace="n")
        rules = {"*delete_*": RULES["delete_*"], "resource:*": RULES["resource:notes://*"]}
    rules = {**rules, "prompt:*": RULES["prompt:*"]}
    guarding().protect(server, rules=rules)
    uri = "notes://private/1" if around == "alone" else "notes://n/private/1"
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", {"name": f"{prefix}deleted_too"}),
        ("prompts/get", {"name": f"{prefix}summary"}),
        ("resources/read", {"uri": uri}),
    ]
    alice = reach(server, "notes.delete", "notes.private", "notes.prompt", user="alice")
    mallory = reach(server)

    for method, params in asked:
        assert "deleted" in alice.send(method, params).content
        assert "deleted" in alice.send(method, params).content
        assert mallory.send(method, params).status == 403


@pytest.mark.parametrize("shown", ["show", "hide"])
@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_cache_answers_nobody_who_was_refused_before_something_else_was_permitted(
    line: Line, guarding: Guarding, reach: Callable[..., Caller], shown: UnauthorizedTools
) -> None:
    kept: list[Any] = []

    class FallingBack(_fastmcp("server.middleware", "Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if context.message.name == "open_note":
                return await call_next(context)
            try:
                kept.append(await call_next(context))
            except _fastmcp("exceptions", "ToolError"):
                await _call_open(server)
            return kept[0]

    server: Any = _notes(line)
    server.tool("open_note")(_open_note)
    server.add_middleware(FallingBack())
    rule = requires_scopes("notes.delete") if shown == "show" else requires_roles("boss")
    guarding(refusals=Refusals(unauthorized_tools=shown)).protect(
        server, rules={"delete_note": rule}
    )
    alice = reach(server, "notes.delete", roles=["boss"], user="alice")
    mallory = reach(server)

    assert "deleted" in alice.call("delete_note").content
    reply = mallory.call("delete_note")
    assert "deleted" not in reply.content
    if shown == "show":
        assert reply.body["missing_scopes"] == ["notes.delete"]
    else:
        assert "Unknown tool" in reply.content


@pytest.mark.parametrize("line", [line for line in LINES if line.name == "mcp2"], ids=str)
def test_a_middleware_of_the_sdk_answers_nobody_for_whom_something_else_was_permitted(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server: Any = _notes(line)
    server.tool("open_note")(_open_note)
    kept: dict[str, Any] = {}

    async def remembering(context: Any, call_next: Any) -> Any:
        if context.method != "tools/call":
            return await call_next(context)
        await server.call_tool("open_note", {})
        if "answer" not in kept:
            kept["answer"] = await call_next(context)
        return kept["answer"]

    server._lowlevel_server.middleware.append(remembering)
    guarding().protect(server, rules={"delete_note": requires_scopes("notes.delete")})
    alice = reach(server, "notes.delete", user="alice")

    assert "deleted" in alice.call("delete_note").content
    assert "deleted" in alice.call("delete_note").content
    assert "deleted" not in reach(server).call("delete_note").content


# --- what a stranger is told


def test_a_stranger_is_asked_for_what_a_scope_alone_can_open(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server = _notes(line)
    bosses = all_of(requires_roles("boss"), "secret")
    guarding(default="public").protect(server, rules={"delete_*": any_of(bosses, "pay")})
    stranger = reach(server)
    stranger.token = None

    assert 'scope="pay"' in str(stranger.call("delete_note").challenge)


# --- names that no operation has


def test_a_name_of_a_megabyte_is_refused_before_it_is_held_against_rules(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    server = guarding().protect(_notes(line), rules={"*a*a*a*b": requires_scopes("x")})
    mallory = reach(server)
    mallory.protocol = LEGACY_PROTOCOLS[-1]  # whose names are not repeated in a header

    assert mallory.call("a" * 1_000_000).status == 400


# --- 2026-07-28: caches, and questions before the call


def _cached(line: Line) -> Any:
    if line.family == "fastmcp":
        server = line.server("cached", cache_ttl=60, cache_scope="public")
    else:
        hint = importlib.import_module("mcp.server.caching").CacheHint(60_000, "public")
        hints = dict.fromkeys(("tools/list", "resources/read"), hint)
        server = line.server("cached", cache_hints=hints)

    @server.resource("notes://private")
    @requires_roles("boss")
    def private() -> str:
        return "private"

    @server.resource("notes://public")
    @public
    def published() -> str:
        return "public"

    return server


@pytest.mark.parametrize("line", MODERN_LINES, ids=str)
def test_what_not_everybody_is_told_is_kept_for_nobody_else(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    def scope(
        shown: UnauthorizedTools, method: str, params: dict[str, Any] | None = None
    ) -> object:
        server = guarding(refusals=Refusals(unauthorized_tools=shown)).protect(_cached(line))
        return reach(server, roles=["boss"]).send(method, params).result["cacheScope"]

    assert scope("show", "tools/list") == "public"
    assert scope("hide", "tools/list") == "private"
    assert scope("show", "resources/read", {"uri": "notes://private"}) == "private"
    assert scope("show", "resources/read", {"uri": "notes://public"}) == "public"


class Sure(BaseModel):
    sure: bool


@pytest.mark.parametrize("line", [line for line in SDK_LINES if line.modern], ids=str)
def test_only_who_may_make_a_call_is_asked_what_it_depends_on(
    line: Line, guarding: Guarding, reach: Callable[..., Caller]
) -> None:
    resolve = importlib.import_module("mcp.server.mcpserver.resolve")

    async def confirm(tenant_id: str) -> Any:
        return resolve.Elicit(f"close {tenant_id}?", Sure)

    confirm.__annotations__["return"] = resolve.Elicit[Sure]

    async def close(tenant_id: str, sure: Any) -> str:
        return f"closed {tenant_id}"

    close.__annotations__ = {
        "tenant_id": str,
        "sure": Annotated[Sure, resolve.Resolve(confirm)],
        "return": str,
    }
    server = line.server("tenants")
    server.tool()(requires_tenant(tenant_from="tenant_id")(close))
    caller = reach(guarding().protect(server), tenants={"own": {}})

    asked = caller.call("close", {"tenant_id": "own"})
    assert "close own?" in asked.content
    (key,) = asked.result["inputRequests"]
    answers = {key: {"action": "accept", "content": {"sure": True}}}

    def answered(tenant_id: str) -> Any:
        params = {"name": "close", "arguments": {"tenant_id": tenant_id}}
        state = {"requestState": asked.result["requestState"], "inputResponses": answers}
        return caller.send("tools/call", {**params, **state})

    assert answered("own").value == "closed own"
    assert "closed" not in answered("victim").content
    refused = caller.call("close", {"tenant_id": "victim"})
    assert (refused.status, "victim" in refused.content) == (403, False)


def test_a_tool_replaced_while_serving_is_checked(line: Line, guarding: Guarding) -> None:
    server: Any = line.server("replaced")
    server.tool("whoami")(requires_auth(_injected))
    server.tool("last")(_nobody)
    guarding().protect(server)
    assert call_as(server, "whoami").text == "alice"

    _replace(server, "whoami", _sent)
    answer = call_as(server, "whoami", {"caller": {"user_id": "victim", "issuer": "x"}})
    assert answer.error == "guard_not_configured"
    assert "victim" not in str(answer.body)


@pytest.mark.parametrize("line", SDK_LINES, ids=str)
@pytest.mark.parametrize(
    ("register", "ask"),
    [
        (lambda server: server.tool("slow"), ("tools/call", {"name": "slow"})),
        (lambda server: server.prompt("slow"), ("prompts/get", {"name": "slow"})),
        (lambda server: server.resource("d://slow"), ("resources/read", {"uri": "d://slow"})),
        (lambda server: server.resource("d://{at}"), ("resources/read", {"uri": "d://slow"})),
    ],
    ids=["tool", "prompt", "resource", "template"],
)
def test_a_function_replaced_during_the_decision_is_decided_on(
    line: Line,
    guarding: Guarding,
    register: Callable[[Any], Any],
    ask: Any,
    request: pytest.FixtureRequest,
) -> None:
    server: Any = line.server("replaced")

    def harmless() -> str:
        return "nothing"

    def harmless_at(at: str) -> str:
        return at

    def bare() -> str:
        return "a secret"

    def bare_at(at: str) -> str:
        return "a secret"

    at = "template" in request.node.name
    first, second = (harmless_at, bare_at) if at else (harmless, bare)
    requires_scopes("notes.private")(second)  # and registered without it
    register(server)(first)
    lists = (
        server._tool_manager.list_tools,
        server._prompt_manager.list_prompts,
        server._resource_manager.list_resources,
        server._resource_manager.list_templates,
    )

    async def swap(caller: Principal, call: OperationCall) -> bool:
        for each in (each for listed in lists for each in listed()):
            each.fn = second
        return True

    guarding().protect(server, rules={"*": requires(swap)})
    answer = GuardedClient(server).send(*ask)
    assert answer.error == "guard_not_configured"
    assert "a secret" not in str(answer.body)


async def _injected(*, user_id: str) -> str:
    return user_id


async def _nobody() -> str:
    return "nobody"


async def _sent(caller: Principal) -> str:
    return str(caller.user_id)


def _replace(server: Any, name: str, function: Any) -> None:
    """Put a function in the place of a tool, as a hot reload does."""
    manager = getattr(server, "_tool_manager", None)
    if manager is not None:
        manager._tools[name].fn = function
        return
    components = server._local_provider._components
    key = next(key for key in components if key.startswith(f"tool:{name}@"))
    components[key].fn = function


@pytest.mark.parametrize("mounted", [False, True], ids=["own", "mounted"])
@pytest.mark.parametrize("decorated", [True, False], ids=["decorator", "rule"])
def test_a_completion_needs_the_scopes_of_its_very_template(
    line: Line, guarding: Guarding, *, mounted: bool, decorated: bool
) -> None:
    if mounted and line.family == "sdk":
        pytest.skip("servers of the SDK mount no others")
    server = inner = line.server("notes")

    # Read as a URI, the text of the second template is one of the first.
    def shared(note: str) -> str:
        return note

    def private(note: str) -> str:
        return note

    guard = requires_scopes("notes.private") if decorated else lambda function: function
    inner.resource("notes://{note}")(requires_auth(shared) if decorated else shared)
    inner.resource("notes://private-{note}")(guard(private))
    uri = "notes://private-{note}"
    if mounted:
        server, uri = line.server("outer"), "notes://ns/private-{note}"
        cast("Any", server).mount(inner, namespace="ns")
    line.complete_with(server, "a secret")
    own = "resource:notes://private-{note}"
    guarding().protect(server, rules={} if decorated else {own: requires_scopes("notes.private")})

    sent = {"ref": {"type": "ref/resource", "uri": uri}, "argument": {"name": "note", "value": ""}}
    refused = GuardedClient(server, scopes=["base"]).send("completion/complete", sent)
    assert refused.missing_scopes == ("notes.private",)
    assert "a secret" not in str(refused.body)
    answer = GuardedClient(server, scopes=["notes.private"]).send("completion/complete", sent)
    assert "a secret" in str(answer.body)
