"""Can servers be guarded that are made where their user cannot reach them?

The official reference servers are, as they are installed from the package index; and one of the
same shape, for both lines.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import sys
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from support.forked import Forked
from support.lines import Guarding, Serve
from support.lowlevel_servers import streamable_app
from support.wire import Caller
from toolguard import requires_scopes
from toolguard.audit import audit
from toolguard.audit.command import AuditSettings, run_audit
from toolguard.frameworks.lowlevel import captured
from toolguard.testing import LocalIssuer


@dataclass(frozen=True)
class Made:
    """A server that a function makes.

    Attributes:
        module: where the function ``serve`` is.
        tool: a tool of it that needs nothing from outside.
        arguments: what the tool is called with.
        said: something of what it answers.
        served: what ``serve`` is called with.
    """

    module: str
    tool: str
    said: str
    arguments: dict[str, Any] = field(default_factory=dict)
    served: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.module

    @property
    def serve(self) -> Any:
        return importlib.import_module(self.module).serve


MADE = (
    Made("support.served_by_function", "hour", "noon"),
    Made("mcp_server_time.server", "get_current_time", "Etc/UTC", {"timezone": "Etc/UTC"}),
    # An address in this machine, which the server says it does not fetch.
    Made("mcp_server_fetch.server", "fetch", "127.0.0.1", {"url": "http://127.0.0.1:9/"}),
    Made("mcp_server_git.server", "git_status", "/none", {"repo_path": "/none"}, (None,)),
)


@pytest.fixture(params=MADE, ids=str)
def made(request: pytest.FixtureRequest) -> Made:
    """Every server of this environment that a function makes."""
    found = request.param
    assert isinstance(found, Made)
    package = found.module.partition(".")[0]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package.replace('_', '-')} is not installed here; it requires mcp<2")
    return found


def capture(made: Made) -> Any:
    async def main() -> Any:
        return await captured(made.serve, *made.served)

    return anyio.run(main)


def test_a_server_is_captured_and_guarded_over_http(
    made: Made, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    streams, guard = (sys.stdin, sys.stdout), guarding()
    server = guard.protect(capture(made), rules={made.tool: requires_scopes("use")})
    caller = Caller(http, f"{serve(streamable_app(guard, server))}/mcp", token=issuer.mint("alice"))

    refused = caller.call(made.tool, made.arguments)
    caller.token = issuer.mint("alice", scopes=["use"])
    served = caller.call(made.tool, made.arguments)

    assert (sys.stdin, sys.stdout) == streams
    assert refused.status == 403
    assert served.status == 200
    assert made.said in served.text
    assert caller.call("not_there").body["error"]["code"] == -32602
    caller.token = None
    assert caller.call(made.tool, made.arguments).status == 401


def test_its_operations_are_audited(made: Made, guarding: Guarding) -> None:
    server = guarding().protect(capture(made), rules={made.tool: requires_scopes("use")})

    report = audit(server)

    (found,) = (each for each in report.operations if (each.kind, each.name) == ("tool", made.tool))
    assert found.rule == "use"


def test_the_command_audits_what_a_function_would_serve(made: Made) -> None:
    if made.served:
        pytest.skip("the command calls functions without arguments")
    out, err = io.StringIO(), io.StringIO()

    code = run_audit(AuditSettings(f"{made.module}:serve", check=True), out, err)

    assert code == 1, err.getvalue()
    assert made.tool in out.getvalue()
    assert f"unguarded: tool '{made.tool}'" in err.getvalue()


@pytest.mark.parametrize(
    ("subject", "scopes", "is_served"),
    [("alice", ["use"], True), ("bob", [], False), (None, [], False)],
)
def test_a_server_is_adopted_over_stdio(
    made: Made,
    forked: Forked,
    issuer: LocalIssuer,
    subject: str | None,
    scopes: list[str],
    *,
    is_served: bool,
) -> None:
    if made.served:
        pytest.skip("the script calls functions without arguments")
    env = {"TEST_JWKS": json.dumps(issuer.jwks())}
    if subject is not None:
        env["TOOLGUARD_ACCESS_TOKEN"] = issuer.mint(subject, scopes=scopes)
    rules = json.dumps({made.tool: "use"})
    python, *arguments = forked.command("-m", "support.served_by_function", made.module, rules)
    command = StdioServerParameters(command=python, args=arguments, env=env)

    async def main() -> Any:
        with anyio.fail_after(120):
            async with stdio_client(command) as streams, ClientSession(*streams) as session:
                await session.initialize()
                return await session.call_tool(made.tool, made.arguments)

    result = anyio.run(main).model_dump(mode="json", by_alias=True)
    text = result["content"][0]["text"]
    assert (made.said in text) is is_served
    if not is_served:
        wanted = "insufficient_scope" if subject else "missing_token"
        assert json.loads(text)["error"] == wanted


def test_what_runs_nothing_is_returned() -> None:
    async def make() -> str:
        return "made"

    async def main() -> Any:
        return await captured(make)

    assert anyio.run(main) == "made"


def test_an_error_of_the_function_is_its_own() -> None:
    async def make() -> None:
        raise ValueError("out of luck")

    async def main() -> Any:
        return await captured(make)

    with pytest.raises(ValueError, match="out of luck"):
        anyio.run(main)


def test_a_server_outside_of_the_block_is_left_alone(guarding: Guarding) -> None:
    lowlevel = importlib.import_module("mcp.server.lowlevel")
    run = lowlevel.Server.run

    with guarding().adopting():
        assert lowlevel.Server.run is not run

    assert lowlevel.Server.run is run
