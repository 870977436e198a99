"""What is served once something is put in place of what the guard stands in?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, cast

import anyio
import httpx
import pytest

from support.calendar_server import calendar
from support.lines import FASTMCP_LINES, LINES, Guarding, Line, Serve
from support.wire import Caller
from toolguard import requires_scopes
from toolguard.frameworks import internals
from toolguard.testing import GuardedClient, LocalIssuer

SDK = [line for line in LINES if line.family == "sdk"]


def no_call_tool(server: Any) -> None:
    del internals.tool_manager(server).call_tool


def no_get_resource(server: Any) -> None:
    del internals.resource_manager(server).get_resource


def no_get_prompt(server: Any) -> None:
    del internals.prompt_manager(server).get_prompt


def another(name: str, server: Any) -> None:
    setattr(server, name, type(getattr(server, name))())


def no_guarded_messages(server: Any) -> None:
    lowlevel = internals.lowlevel_server(server)
    if hasattr(lowlevel, "request_handlers"):
        handlers = lowlevel.request_handlers
        lowlevel.request_handlers = {kind: handlers.handler(kind) for kind in handlers}
    else:
        lowlevel.middleware = list(lowlevel.middleware)


ALTERATIONS: dict[str, Callable[[Any], None]] = {
    "tool look-up": no_call_tool,
    "resource look-up": no_get_resource,
    "prompt look-up": no_get_prompt,
    "tool manager": functools.partial(another, "_tool_manager"),
    "resource manager": functools.partial(another, "_resource_manager"),
    "prompt manager": functools.partial(another, "_prompt_manager"),
    "messages": no_guarded_messages,
}
over_http = pytest.mark.parametrize("alteration", ALTERATIONS)
# On mcp 1 nothing of ours sees a message any more, once its table of handlers is another one.
in_process = pytest.mark.parametrize(
    "alteration", [each for each in ALTERATIONS if each != "messages"]
)


@pytest.fixture(params=SDK, ids=str)
def sdk(request: pytest.FixtureRequest) -> Line:
    """The lines of the official SDK."""
    found = request.param
    assert isinstance(found, Line)
    return found


@over_http
def test_an_altered_server_is_not_served_over_http(
    sdk: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    alteration: str,
) -> None:
    server = guarding().protect(calendar(sdk))
    url = serve(sdk.http_app(server, stateless=True, json=True))
    caller = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))
    assert caller.call("whoami").value == "alice"

    ALTERATIONS[alteration](server)
    answers = [caller.call("whoami"), caller.send("tools/list"), caller.send("initialize")]

    assert [each.status for each in answers] == [500, 500, 500]
    assert "guard_not_configured" in answers[0].content
    assert "altered after protect()" in answers[0].content


@in_process
def test_an_altered_server_is_not_served_in_process(
    sdk: Line, guarding: Guarding, alteration: str
) -> None:
    server = guarding(default="public").protect(calendar(sdk))

    async def main() -> Any:
        async with sdk.in_memory(server) as call:
            ALTERATIONS[alteration](server)
            return await call("weather", {"city": "oslo"})

    result = anyio.run(main)
    assert "altered after protect()" in str(result)


# The methods through which the servers of a line look operations up and run them.
METHODS = {
    "sdk": ("call_tool", "read_resource", "get_prompt"),
    "fastmcp": ("call_tool", "read_resource", "render_prompt", "get_tool", "get_prompt"),
}
BY_METHOD = [(line, method) for line in LINES for method in METHODS[line.family]]


async def answering(*_: Any, **__: Any) -> Any:
    """Stand in for a method of a server, and answer without a look-up."""
    raise AssertionError("this ran past the guard")


@pytest.mark.parametrize(("line", "method"), BY_METHOD, ids=str)
def test_a_server_with_a_look_up_of_its_own_is_refused(
    line: Line, guarding: Guarding, method: str
) -> None:
    server: Any = type(line.server("plain"))
    own = type("Own", (server,), {method: answering})

    with pytest.raises(ValueError, match=rf"{method}\(\) of its own"):
        guarding().protect(own("own"))


@pytest.mark.parametrize(("line", "method"), BY_METHOD, ids=str)
def test_a_server_that_adds_to_its_look_up_is_served(
    line: Line, guarding: Guarding, method: str
) -> None:
    base: Any = type(line.server("plain"))
    scope = {"base": base}
    # As in a class statement: without one, super() has no class to begin at.
    exec(
        f"class Own(base):\n"
        f"    async def {method}(self, *args, **kwargs):\n"
        f"        return await super().{method}(*args, **kwargs)\n",
        scope,
    )
    server: Any = scope["Own"]("own")
    server.tool("visit")(requires_scopes("visit")(_visit))
    guarding().protect(server)

    assert GuardedClient(server, scopes=["visit"]).call("visit").text == "a visit"
    assert GuardedClient(server).call("visit").status == 403


async def _visit() -> str:
    return "a visit"


@pytest.mark.parametrize(("line", "method"), BY_METHOD, ids=str)
def test_a_look_up_that_is_replaced_later_serves_nothing(
    line: Line, guarding: Guarding, method: str
) -> None:
    server: Any = line.server("altered")
    server.tool("visit")(requires_scopes("visit")(_visit))
    guarding().protect(server)
    setattr(server, method, answering)

    answer = GuardedClient(server, scopes=["visit"]).call("visit")
    assert (answer.status, answer.error) == (500, "guard_not_configured")


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_mounted_look_up_that_is_replaced_later_serves_nothing(
    line: Line, guarding: Guarding
) -> None:
    outer, inner = cast("Any", line.server("outer")), cast("Any", line.server("inner"))
    inner.tool("visit")(requires_scopes("visit")(_visit))
    outer.mount(inner, namespace="in")
    guarding().protect(outer)
    inner.call_tool = answering

    answer = GuardedClient(outer, scopes=["visit"]).call("in_visit")
    assert (answer.status, answer.error) == (500, "guard_not_configured")
