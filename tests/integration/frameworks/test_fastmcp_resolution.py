"""What runs on a fastmcp server is what was decided on, whatever lies between a name and a body."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from support.lines import FASTMCP_LINES, Guarding, Line
from toolguard import requires_scopes
from toolguard.testing import GuardedClient, ServerAnswer

pytestmark = pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)

SECRET = requires_scopes("secret")


def fastmcp(path: str) -> Any:
    """Return what fastmcp has under a dotted path; imported here, as there may be no fastmcp."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"fastmcp.{module}"), name)


@dataclass
class House:
    """A server, what its body left behind, and how the body is guarded.

    Attributes:
        server: what is protected.
        line: the line of fastmcp.
        guard: what stands on the body: a decorator, or nothing if a rule does.
        ran: what the body noted.
    """

    server: Any
    line: Line
    guard: Callable[[Any], Any]
    ran: list[str] = field(default_factory=list)

    def body(self) -> Any:
        """Return a new function that notes that it has run."""

        async def secret() -> str:
            self.ran.append("secret")
            return "the secret"

        return self.guard(secret)

    def template_body(self) -> Any:
        """Return a new function for a template."""

        async def secret(at: str) -> str:
            self.ran.append(at)
            return "the secret"

        return self.guard(secret)

    def new(self, name: str = "inner") -> Any:
        """Return another server."""
        return self.line.server(name)


Ask = tuple[str, dict[str, Any]]
Situation = Callable[[House], Ask]


def call(name: str, /, **arguments: Any) -> Ask:
    """Return the message that calls a tool."""
    return "tools/call", {"name": name, "arguments": arguments}


def read(uri: str) -> Ask:
    """Return the message that reads a resource."""
    return "resources/read", {"uri": uri}


# --- by its decorator or by a rule for its own name


def tool(house: House) -> Ask:
    house.server.tool("secret")(house.body())
    return call("secret")


def resource(house: House) -> Ask:
    house.server.resource("data://secret")(house.body())
    return read("data://secret")


def template(house: House) -> Ask:
    house.server.resource("data://secret/{at}")(house.template_body())
    return read("data://secret/1")


def prompt(house: House) -> Ask:
    house.server.prompt("secret")(house.body())
    return "prompts/get", {"name": "secret", "arguments": {}}


def _replacing(house: House, replacement: Any) -> None:
    house.server.local_provider.remove_tool("secret")
    house.server.tool("secret")(replacement)


def replaced(house: House) -> Ask:
    async def harmless() -> str:
        return "nothing"

    house.server.tool("secret")(harmless)
    _replacing(house, house.body())
    return call("secret")


def mounted(house: House) -> Ask:
    inner = house.new()
    inner.tool("secret")(house.body())
    house.server.mount(inner)
    return call("secret")


def mounted_in_a_namespace(house: House) -> Ask:
    inner = house.new()
    inner.tool("secret")(house.body())
    house.server.mount(inner, namespace="ns")
    return call("ns_secret")


def mounted_two_deep(house: House) -> Ask:
    middle, inner = house.new("middle"), house.new()
    inner.tool("secret")(house.body())
    house.server.mount(middle, namespace="out")
    middle.mount(inner, namespace="in")
    return call("out_in_secret")


def mounted_resource(house: House) -> Ask:
    inner = house.new()
    inner.resource("data://secret")(house.body())
    house.server.mount(inner, namespace="ns")
    return read("data://ns/secret")


def mounted_template(house: House) -> Ask:
    inner = house.new()
    inner.resource("data://secret/{at}")(house.template_body())
    house.server.mount(inner, namespace="ns")
    return read("data://ns/secret/1")


def mounted_prompt(house: House) -> Ask:
    inner = house.new()
    inner.prompt("secret")(house.body())
    house.server.mount(inner, namespace="ns")
    return "prompts/get", {"name": "ns_secret", "arguments": {}}


def versioned(house: House) -> Ask:
    async def harmless() -> str:
        return "nothing"

    house.server.tool("secret", version="1")(house.body())
    house.server.tool("secret", version="2")(harmless if house.guard is SECRET else house.body())
    ask = call("secret")
    ask[1]["_meta"] = {"fastmcp": {"version": "1"}}
    return ask


def falling_back_to_an_older_version(house: House) -> Ask:
    house.server.tool("secret", version="1")(house.body())
    house.server.tool("secret", version="2")(house.body())
    house.server.disable(keys={"tool:secret@2"})
    return call("secret")


def made_from_a_function(house: House) -> Ask:
    house.server.add_tool(fastmcp("tools.Tool").from_tool(house.body(), name="renamed"))
    return call("renamed")


def made_from_a_tool(house: House) -> Ask:
    made = fastmcp("tools.Tool").from_function(house.body(), name="secret")
    house.server.add_tool(fastmcp("tools.Tool").from_tool(made, name="renamed"))
    return call("renamed")


def renamed_by_a_transform(house: House) -> Ask:
    house.server.tool("secret")(house.body())
    config = fastmcp("tools.tool_transform.ToolTransformConfig")
    transform = fastmcp("server.transforms.ToolTransform")
    house.server.add_transform(transform({"secret": config(name="renamed")}))
    return call("renamed")


def renamed_while_mounted(house: House) -> Ask:
    inner = house.new()
    inner.tool("secret")(house.body())
    house.server.mount(inner, namespace="ns")
    config = fastmcp("tools.tool_transform.ToolTransformConfig")
    transform = fastmcp("server.transforms.ToolTransform")
    house.server.add_transform(transform({"ns_secret": config(name="renamed")}))
    return call("renamed")


def renamed_in_front_of_a_server_that_has_other_names_for_it(house: House) -> Ask:
    async def harmless() -> str:
        return "nothing"

    inner = house.new()
    inner.tool("secret")(house.body())
    inner.tool("other")(harmless)
    inner.add_middleware(_renaming(in_place=False))
    house.server.mount(inner, namespace="ns")
    config = fastmcp("tools.tool_transform.ToolTransformConfig")
    transform = fastmcp("server.transforms.ToolTransform")
    house.server.add_transform(transform({"ns_secret": config(name="renamed")}))
    return call("ns_other")


def searched(house: House) -> Ask:
    house.server.tool("secret")(house.body())
    house.server.add_transform(fastmcp("server.transforms.search.RegexSearchTransform")())
    return call("call_tool", name="secret", arguments={})


def searched_on_a_mounted_server(house: House) -> Ask:
    inner = house.new()
    inner.tool("secret")(house.body())
    inner.add_transform(fastmcp("server.transforms.search.RegexSearchTransform")())
    house.server.mount(inner, namespace="ns")
    return call("ns_call_tool", name="secret", arguments={})


def resources_as_tools(house: House) -> Ask:
    house.server.resource("data://secret")(house.body())
    house.server.add_transform(fastmcp("server.transforms.ResourcesAsTools")(house.server))
    return call("read_resource", uri="data://secret")


def prompts_as_tools(house: House) -> Ask:
    house.server.prompt("secret")(house.body())
    house.server.add_transform(fastmcp("server.transforms.PromptsAsTools")(house.server))
    return call("get_prompt", name="secret", arguments={})


def _renaming(in_place: bool) -> Any:
    class Renaming(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if context.message.name != "other":
                return await call_next(context)
            if in_place:
                context.message.name = "secret"
                return await call_next(context)
            message = context.message.model_copy(update={"name": "secret"})
            return await call_next(context.copy(message=message))

    return Renaming()


def _with_other(house: House) -> None:
    async def harmless() -> str:
        return "nothing"

    house.server.tool("secret")(house.body())
    house.server.tool("other")(harmless)


def renamed_by_a_middleware(house: House) -> Ask:
    _with_other(house)
    house.server.add_middleware(_renaming(in_place=False))
    return call("other")


def renamed_in_place_by_a_middleware(house: House) -> Ask:
    _with_other(house)
    house.server.middleware.insert(0, _renaming(in_place=True))
    return call("other")


def run_past_all_middleware(house: House) -> Ask:
    class Calling(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if context.message.name == "secret":
                return await call_next(context)
            return await house.server.call_tool("secret", {}, run_middleware=False)

    _with_other(house)
    house.server.add_middleware(Calling())
    return call("other")


def run_by_a_middleware(house: House) -> Ask:
    class Running(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if context.message.name == "secret":
                return await call_next(context)
            return await (await house.server.get_tool("secret")).run({})

    _with_other(house)
    house.server.add_middleware(Running())
    return call("other")


def called_by_a_tool(house: House) -> Ask:
    async def calling(ctx: Any) -> str:
        return str((await ctx.fastmcp.call_tool("secret")).content[0].text)

    calling.__annotations__["ctx"] = house.line.context
    house.server.tool("secret")(house.body())
    house.server.tool("calling")(calling)
    return call("calling")


def injected(house: House) -> Ask:
    made = fastmcp("tools.Tool").from_function(house.body(), name="secret")
    injection = fastmcp("server.middleware.tool_injection.ToolInjectionMiddleware")
    house.server.add_middleware(injection([made]))
    return call("secret")


def injected_on_a_mounted_server(house: House) -> Ask:
    inner = house.new()
    made = fastmcp("tools.Tool").from_function(house.body(), name="secret")
    injection = fastmcp("server.middleware.tool_injection.ToolInjectionMiddleware")
    inner.add_middleware(injection([made]))
    house.server.mount(inner, namespace="ns")
    return call("ns_secret")


def injected_after_a_middleware_that_renames(house: House) -> Ask:
    async def harmless() -> str:
        return "nothing"

    house.server.tool("other")(harmless)
    house.server.add_middleware(_renaming(in_place=False))
    injected(house)
    return call("other")


def swapped_by_a_transform(house: House) -> Ask:
    swapped = fastmcp("tools.Tool").from_function(house.body(), name="secret")

    class Swapping(fastmcp("server.transforms.Transform")):  # type: ignore[misc]
        async def list_tools(self, tools: Any) -> Any:
            return [swapped if each.name == "other" else each for each in tools]

        async def get_tool(self, name: str, call_next: Any, *, version: Any = None) -> Any:
            return swapped if name == "other" else await call_next(name, version=version)

    async def harmless() -> str:
        return "nothing"

    house.server.tool("other")(harmless)
    house.server.add_transform(Swapping())
    return call("other")


def provided_anew_for_each_call(house: House) -> Ask:
    class Providing(fastmcp("server.providers.Provider")):  # type: ignore[misc]
        async def _list_tools(self) -> Any:
            return [fastmcp("tools.Tool").from_function(house.body(), name="secret")]

    house.server.add_provider(Providing())
    return call("secret")


def of_a_class_of_its_own(house: House) -> Ask:
    body = house.body()

    class Own(fastmcp("tools.function_tool.FunctionTool")):  # type: ignore[misc]
        async def _run(self, arguments: Any, **kwargs: Any) -> Any:
            return await fastmcp("tools.function_tool.FunctionTool").run(self, arguments)

    house.server.add_tool(Own.from_function(body, name="secret"))
    return call("secret")


def _address(app: str, name: str) -> str:
    return str(fastmcp("server.providers.addressing.hashed_backend_name")(app, name))


def _app(house: House) -> Any:
    app = fastmcp("apps.app.FastMCPApp")("shop")
    app.tool("secret")(house.body())
    return app


def at_an_address(house: House) -> Ask:
    house.server.add_provider(_app(house))
    return call(_address("shop", "secret"))


def at_an_address_in_a_namespace(house: House) -> Ask:
    house.server.add_provider(_app(house), namespace="ns")
    return call(_address("shop", "secret"))


def at_an_address_of_a_mounted_server(house: House) -> Ask:
    inner = house.new()
    inner.add_provider(_app(house))
    house.server.mount(inner, namespace="ns")
    return call(_address("shop", "secret"))


BY_OWN_NAME: list[Situation] = [
    tool,
    resource,
    template,
    prompt,
    replaced,
    mounted,
    mounted_in_a_namespace,
    mounted_two_deep,
    mounted_resource,
    mounted_template,
    mounted_prompt,
    versioned,
    falling_back_to_an_older_version,
    made_from_a_tool,
    renamed_by_a_transform,
    renamed_while_mounted,
    searched,
    searched_on_a_mounted_server,
    resources_as_tools,
    prompts_as_tools,
    renamed_by_a_middleware,
    renamed_in_place_by_a_middleware,
    run_past_all_middleware,
    run_by_a_middleware,
    called_by_a_tool,
    injected,
    injected_on_a_mounted_server,
    injected_after_a_middleware_that_renames,
    provided_anew_for_each_call,
    of_a_class_of_its_own,
    at_an_address,
    at_an_address_of_a_mounted_server,
]
OWN_NAMES = {
    "secret": SECRET,
    "resource:data://secret": SECRET,
    "resource:data://secret/*": SECRET,
    "prompt:secret": SECRET,
}
BY_LISTED_NAME: list[tuple[Situation, str]] = [
    (mounted_in_a_namespace, "ns_secret"),
    (mounted_two_deep, "out_in_secret"),
    (mounted_two_deep, "in_secret"),
    (mounted_resource, "resource:data://ns/secret"),
    (mounted_template, "resource:data://ns/secret/*"),
    (mounted_prompt, "prompt:ns_secret"),
    (made_from_a_function, "renamed"),
    (made_from_a_tool, "renamed"),
    (renamed_by_a_transform, "renamed"),
    (renamed_while_mounted, "renamed"),
    (renamed_while_mounted, "ns_secret"),
    (renamed_in_front_of_a_server_that_has_other_names_for_it, "renamed"),
    (renamed_in_front_of_a_server_that_has_other_names_for_it, "ns_secret"),
    (swapped_by_a_transform, "other"),
    (renamed_by_a_middleware, "other"),
    (injected_on_a_mounted_server, "ns_secret"),
    (searched_on_a_mounted_server, "ns_secret"),
    (at_an_address_in_a_namespace, "ns_secret"),
    (at_an_address_of_a_mounted_server, "ns_secret"),
]
ALL = [
    *BY_OWN_NAME,
    made_from_a_function,
    swapped_by_a_transform,
    at_an_address_in_a_namespace,
]


def send(server: Any, ask: Ask, scope: str) -> ServerAnswer:
    """Send a message as someone who has one scope."""
    return GuardedClient(server, user="alice", scopes=[scope]).send(*ask)


def hold(
    house: House, situation: Situation, guarding: Guarding, rules: Any, *, first: bool
) -> None:
    """Hold that the body runs for those who may, and for no others."""
    if first:
        guarding().protect(house.server, rules=rules)
        ask = situation(house)
    else:
        ask = situation(house)
        guarding().protect(house.server, rules=rules)

    assert send(house.server, ask, "base").status == 403
    assert house.ran == []
    answer = send(house.server, ask, "secret")
    assert answer.ok, answer
    assert "the secret" in str(answer.body)
    assert len(house.ran) == 1
    assert send(house.server, ask, "base").status == 403
    assert len(house.ran) == 1


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("situation", ALL, ids=lambda each: each.__name__)
def test_a_decorated_body_runs_with_its_scope_only(
    line: Line, guarding: Guarding, situation: Situation, *, first: bool
) -> None:
    hold(House(line.server("outer"), line, SECRET), situation, guarding, {}, first=first)


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize("situation", BY_OWN_NAME, ids=lambda each: each.__name__)
def test_a_rule_for_its_own_name_guards_a_body(
    line: Line, guarding: Guarding, situation: Situation, *, first: bool
) -> None:
    house = House(line.server("outer"), line, lambda body: body)
    hold(house, situation, guarding, OWN_NAMES, first=first)


@pytest.mark.parametrize("first", [True, False], ids=["guard first", "guard last"])
@pytest.mark.parametrize(
    ("situation", "name"), BY_LISTED_NAME, ids=lambda each: getattr(each, "__name__", each)
)
def test_a_rule_for_another_of_its_names_guards_a_body(
    line: Line, guarding: Guarding, situation: Situation, name: str, *, first: bool
) -> None:
    house = House(line.server("outer"), line, lambda body: body)
    hold(house, situation, guarding, {name: SECRET}, first=first)


def _caching() -> Any:
    return fastmcp("server.middleware.caching.ResponseCachingMiddleware")()


CACHED: Mapping[str, Situation] = {
    "tool": tool,
    "resource": resource,
    "prompt": prompt,
    "mounted": mounted_in_a_namespace,
    "searched": searched,
}


@pytest.mark.parametrize("situation", CACHED.values(), ids=CACHED)
@pytest.mark.parametrize("decorated", [True, False], ids=["decorator", "rule"])
def test_a_cached_answer_is_given_to_those_who_may(
    line: Line, guarding: Guarding, situation: Situation, *, decorated: bool
) -> None:
    house = House(line.server("outer"), line, SECRET if decorated else lambda body: body)
    ask = situation(house)
    house.server.add_middleware(_caching())
    guarding().protect(house.server, rules={} if decorated else OWN_NAMES)

    assert send(house.server, ask, "secret").ok
    refused = send(house.server, ask, "base")
    assert refused.status == 403
    assert "the secret" not in str(refused.body)


def test_a_cache_of_a_mounted_server_answers_those_who_may(line: Line, guarding: Guarding) -> None:
    house = House(line.server("outer"), line, SECRET)
    inner = house.new()
    inner.tool("secret")(house.body())
    inner.add_middleware(_caching())
    house.server.mount(inner, namespace="ns")
    guarding().protect(house.server, rules={"ns_*": requires_scopes("base")})

    both = GuardedClient(house.server, user="alice", scopes=["base", "secret"])
    assert both.call("ns_secret").ok
    assert send(house.server, call("ns_secret"), "base").status == 403
    assert send(house.server, call("ns_secret"), "secret").status == 403


def _keeping() -> Any:
    """Return a cache that knows of no callers."""
    kept: dict[str, Any] = {}

    class Keeping(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            name = context.message.name
            if name not in kept:
                kept[name] = await call_next(context)
            return kept[name]

    return Keeping()


def _fetching(server: Any, name: str, at: str, got: list[str]) -> Any:
    """Return a middleware that calls a tool while a message of some method is served."""

    class Fetching(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_message(self, context: Any, call_next: Any) -> Any:
            if context.method == at and getattr(context.message, "name", "other") == "other":
                try:
                    got.append((await server.call_tool(name)).content[0].text)
                except fastmcp("exceptions.ToolError") as error:
                    got.append(str(error))
            return await call_next(context)

    return Fetching()


@pytest.mark.parametrize("mounted", [False, True], ids=["own", "mounted"])
@pytest.mark.parametrize("at", ["initialize", "tools/list", "tools/call", "resources/read"])
def test_a_cached_answer_to_a_middleware_is_decided_on(
    line: Line, guarding: Guarding, at: str, *, mounted: bool
) -> None:
    house = House(line.server("outer"), line, SECRET)
    inner = house.new() if mounted else house.server
    inner.tool("secret")(house.body())
    inner.add_middleware(_keeping())

    async def other() -> str:
        return "nothing"

    house.server.tool("other")(other)
    house.server.resource("data://other")(other)
    name = "secret"
    if mounted:
        house.server.mount(inner, namespace="ns")
        name = "ns_secret"
    got: list[str] = []
    house.server.middleware.insert(0, _fetching(house.server, name, at, got))
    guarding().protect(house.server)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}}
    asks: dict[str, Ask] = {
        "initialize": (at, {**hello, "clientInfo": {"name": "x", "version": "1"}}),
        "tools/list": (at, {}),
        "tools/call": call("other"),
        "resources/read": read("data://other"),
    }

    assert send(house.server, call(name), "secret").ok
    got.clear()
    assert send(house.server, asks[at], "base").ok
    assert len(got) == 1
    assert "the secret" not in got[0]


def test_a_cached_answer_to_code_outside_of_a_message_is_refused(
    line: Line, guarding: Guarding
) -> None:
    house = House(line.server("outer"), line, SECRET)
    ask = tool(house)
    house.server.add_middleware(_keeping())
    guarding().protect(house.server)

    assert send(house.server, ask, "secret").ok
    with pytest.raises(fastmcp("exceptions.ToolError"), match="No request is being served here"):
        anyio.run(house.server.call_tool, "secret")


def test_a_transform_that_is_added_during_a_call_swaps_nothing(
    line: Line, guarding: Guarding
) -> None:
    house = House(line.server("outer"), line, lambda body: body)
    added: list[str] = []

    class Adding(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if not added:
                added.append("now")
                swapped_by_a_transform(house)
            return await call_next(context)

    house.server.add_middleware(Adding())
    guarding().protect(house.server, rules={"secret": SECRET})

    assert send(house.server, call("other"), "base").status == 403
    assert house.ran == []
    assert send(house.server, call("other"), "secret").ok
