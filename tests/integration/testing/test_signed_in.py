"""Who calls through an in-memory client of each framework?"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import anyio
import httpx
import pytest

from support.calendar_server import calendar
from support.lines import Guarding, Line, Serve, Server
from support.own_auth import Issued, authenticated
from support.wire import Caller
from toolguard import ToolGuard, public, requires_auth, requires_roles
from toolguard.calls.request import signed_in as caller_in_process
from toolguard.frameworks import adapter_for
from toolguard.testing import LocalIssuer, signed_in
from toolguard.testing.trust import issuer_for

LEGACY = ("mcp1", "fastmcp3")
OWN = LocalIssuer(algorithm="ES256")

Call = Callable[..., Awaitable[Any]]


def text(result: Any) -> str:
    content = result.content[0].text
    assert isinstance(content, str)
    return content


def refusal(result: Any) -> Any:
    assert result.model_dump(by_alias=True)["isError"] is True
    return json.loads(text(result))


def run(line: Line, server: Server, use: Callable[[Call], Awaitable[Any]]) -> Any:
    """Use an in-memory client of ``server``."""

    async def main() -> Any:
        async with line.in_memory(server) as call:
            return await use(call)

    return anyio.run(main)


def calling(tool: str, **arguments: Any) -> Callable[[Call], Awaitable[Any]]:
    return lambda call: call(tool, arguments)


@pytest.fixture
def server(line: Line, guarding: Guarding) -> Server:
    return guarding(verifier=OWN.verifier(), audience=OWN.audience).protect(calendar(line))


# --- who calls


def test_a_signed_in_caller_is_known_to_the_tool(line: Line, server: Server) -> None:
    with signed_in("bob", scopes=["calendar.read"], client_id="desktop"):
        result = run(line, server, calling("describe", note="hi"))

    assert text(result) == "hi: bob via desktop"


def test_a_missing_scope_is_refused_as_over_http(line: Line, server: Server) -> None:
    with signed_in("bob", scopes=["calendar.write"]):
        result = run(line, server, calling("list_events", day="monday"))

    assert refusal(result)["error"] == "insufficient_scope"


def test_connections_are_those_of_the_signed_in_caller(line: Line, server: Server) -> None:
    scopes = ["calendar.read", "calendar.write", "contacts.read"]
    with signed_in("bob", scopes=scopes):
        result = run(line, server, calling("create_event", title="tea"))

    assert text(result) == "tea by bob with google-calendar token of bob"


def test_claims_reach_the_policy(line: Line, guarding: Guarding) -> None:
    server = line.server("roles")
    server.tool("edit")(requires_roles("editor")(edit))
    guarding().protect(server)

    with signed_in(roles=["editor"]):
        assert text(run(line, server, calling("edit"))) == "edited"
    with signed_in():
        assert refusal(run(line, server, calling("edit")))["error"] == "access_denied"


async def edit() -> str:
    return "edited"


def test_a_caller_without_a_token_reaches_what_is_public(line: Line, guarding: Guarding) -> None:
    server = line.server("hours")
    server.tool("hours")(public(edit))
    server.tool("edit")(requires_auth(edit))
    guarding().protect(server)

    with signed_in(None):
        assert text(run(line, server, calling("hours"))) == "edited"
        assert refusal(run(line, server, calling("edit")))["error"] == "missing_token"


def test_an_expired_token_is_refused(line: Line, server: Server) -> None:
    with signed_in(expires_in=-60):
        assert refusal(run(line, server, calling("whoami")))["error"] == "invalid_token"


def test_a_token_of_the_guards_own_issuer_is_verified_by_the_guard(
    line: Line, server: Server
) -> None:
    with signed_in("bob", issuer=OWN):
        assert text(run(line, server, calling("whoami"))) == "bob"
    with signed_in("bob", issuer=LocalIssuer(algorithm="ES256")):
        assert refusal(run(line, server, calling("whoami")))["error"] == "invalid_token"


# --- when


def test_without_a_block_the_error_names_the_way_to_sign_in(line: Line, server: Server) -> None:
    error = refusal(run(line, server, calling("whoami")))

    assert error["error"] == "guard_not_configured"
    assert "toolguard.testing.signed_in" in error["error_description"]


def test_a_client_left_open_after_its_block_has_no_caller(line: Line, server: Server) -> None:
    async def main() -> Any:
        async with AsyncExitStack() as stack:
            with signed_in("bob"):
                call = await stack.enter_async_context(line.in_memory(server))
                assert text(await call("whoami", {})) == "bob"
            return await call("whoami", {})

    assert refusal(anyio.run(main))["error"] == "guard_not_configured"


def test_a_client_opened_before_the_block_calls_where_messages_carry_context(
    line: Line, server: Server
) -> None:
    async def use(call: Call) -> Any:
        with signed_in("bob"):
            return await call("whoami", {})

    result = run(line, server, use)

    if line.name in LEGACY:
        assert refusal(result)["error"] == "guard_not_configured"
    else:
        assert text(result) == "bob"


def test_of_two_blocks_the_one_counts_that_the_line_says(line: Line, server: Server) -> None:
    async def use(call: Call) -> Any:
        with signed_in("alice"):
            return await call("whoami", {})

    with signed_in("bob"):
        result = run(line, server, use)

    assert text(result) == ("bob" if line.name in LEGACY else "alice")


def test_a_client_opened_in_the_inner_block_calls_as_its_user(line: Line, server: Server) -> None:
    with signed_in("bob"):
        with signed_in("alice"):
            assert text(run(line, server, calling("whoami"))) == "alice"
        assert text(run(line, server, calling("whoami"))) == "bob"


def test_clients_of_several_users_do_not_meet(line: Line, server: Server) -> None:
    seen: dict[str, str] = {}

    async def visit(user: str) -> None:
        with signed_in(user):
            async with line.in_memory(server) as call:
                for _ in range(5):
                    seen[user] = seen.get(user, "") + text(await call("whoami", {}))

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for number in range(4):
                group.start_soon(visit, f"user-{number}")

    anyio.run(main)
    assert seen == {f"user-{n}": f"user-{n}" * 5 for n in range(4)}


# --- and nowhere else


def test_a_block_lets_nobody_in_over_http(
    line: Line, server: Server, serve: Serve, http: httpx.Client
) -> None:
    with signed_in("bob"):  # the server, too, is started inside of the block
        endpoint = serve(line.http_app(server, stateless=True, json=True)) + "/mcp"
        guard = adapter_for(server).guard
        assert isinstance(guard, ToolGuard)
        for token in (None, issuer_for(guard).mint("bob")):
            assert Caller(http, endpoint, token=token).call("whoami").status == 401


def test_a_block_lets_nobody_in_over_stdio(server: Server) -> None:
    guard = adapter_for(server).guard
    assert guard is not None

    with signed_in("bob"), guard.serving_stdio():
        state = anyio.run(guard.stdio_auth)
        assert caller_in_process.get() is None
    assert state is not None
    assert state.principal is None


def test_a_server_whose_framework_verifies_says_what_to_use(line: Line) -> None:
    server = authenticated(line, Issued(OWN))
    ToolGuard(verifier="framework", audience=OWN.audience).protect(server)
    with signed_in("bob"):
        error = refusal(run(line, server, calling("whoami")))
    assert "use call_as(token=)" in error["error_description"]


def test_scopes_in_one_string_are_refused_at_once() -> None:
    with pytest.raises(TypeError, match="scopes are a list"), signed_in(scopes="a b"):
        pass
