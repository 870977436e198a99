"""Descope: whom do the checks for fastmcp's ``auth=`` admit?"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastmcp import FastMCP
from fastmcp.server.auth import AccessToken, TokenVerifier

from support.projects import KEY, Project, call, sdk
from toolguard.descope import DescopeMCP
from toolguard.errors import ToolGuardError


@pytest.mark.parametrize(
    ("scopes", "required", "admitted"),
    [
        (["read"], None, True),
        (["read"], ["read"], True),
        (["read", "write"], ["write", "read"], True),
        (["read"], ["read", "write"], False),
        ([], ["read"], False),
    ],
)
def test_a_check_admits_who_holds_the_scopes(
    project: Project, scopes: list[str], required: list[str] | None, admitted: bool
) -> None:
    check = sdk(project).create_auth_check(required)
    token = project.issuer.mint("alice", scopes=scopes)

    assert asyncio.run(run_check(check, SimpleNamespace(token=token))) is admitted
    as_object = SimpleNamespace(token=SimpleNamespace(token=token, scopes=["read", "write"]))
    assert asyncio.run(run_check(check, as_object)) is admitted


def test_a_check_admits_by_the_scopes_that_others_include(project: Project) -> None:
    made = sdk(project, scope_hierarchy={"write": ["read"]})
    context = SimpleNamespace(token=project.issuer.mint("alice", scopes=["write"]))

    assert asyncio.run(run_check(made.create_auth_check(["read"]), context)) is True
    assert asyncio.run(run_check(made.create_auth_check(["admin"]), context)) is False


async def run_check(check: Any, context: Any) -> Any:
    return await check(context)


@pytest.mark.parametrize(
    "context",
    [
        None,
        SimpleNamespace(),
        SimpleNamespace(token=None),
        SimpleNamespace(token=""),
        SimpleNamespace(token="a.b.c"),
        SimpleNamespace(token=SimpleNamespace(token=None)),
        SimpleNamespace(token=SimpleNamespace(scopes=["read"])),
    ],
)
def test_a_check_admits_nobody_without_a_good_token(project: Project, context: Any) -> None:
    assert asyncio.run(run_check(sdk(project).create_auth_check(), context)) is False


def test_a_check_holds_a_token_against_the_audience(project: Project) -> None:
    check = sdk(project).create_auth_check()
    context = SimpleNamespace(token=project.token(aud="https://other.test/mcp"))

    assert asyncio.run(run_check(check, context)) is False


# fastmcp itself --------------------------------------------------------------------------------


class Verified(TokenVerifier):
    """Lets fastmcp's own authorization ask the SDK's object."""

    def __init__(self, descope_mcp: DescopeMCP) -> None:
        super().__init__()
        self.descope_mcp = descope_mcp

    async def verify_token(self, token: str) -> AccessToken | None:
        try:
            result = await self.descope_mcp.avalidate_token(token)
        except ToolGuardError:
            return None
        return AccessToken(token=token, client_id="client", scopes=result["scopes"])


def diary(descope_mcp: DescopeMCP, **settings: Any) -> Any:
    server: Any = FastMCP("diary", **settings)

    @server.tool(auth=descope_mcp.create_auth_check(["diary.read"]))  # type: ignore[untyped-decorator]
    def read_diary() -> str:
        return "dear diary"

    return server


def answer(server: Any, token: str) -> tuple[int, str]:
    """Return what a client of fastmcp's own application gets."""
    app = server.http_app("/mcp", json_response=True, stateless_http=True)
    headers = {
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {token}",
    }
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "read_diary", "arguments": {}},
    }

    async def once() -> httpx.Response:
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:8000"
        )
        async with app.router.lifespan_context(app), client:
            return await client.post("/mcp", headers=headers, json=message)

    response = asyncio.run(once())
    return response.status_code, response.text


def test_fastmcp_admits_whom_the_check_admits(project: Project) -> None:
    descope_mcp = sdk(project)
    server = diary(descope_mcp, auth=Verified(descope_mcp))

    status, text = answer(server, project.token("alice", "diary.read"))

    assert (status, "dear diary" in text) == (200, True)


def test_fastmcp_refuses_whom_the_check_refuses(project: Project) -> None:
    descope_mcp = sdk(project)
    server = diary(descope_mcp, auth=Verified(descope_mcp))

    assert "dear diary" not in answer(server, project.token("alice", "diary.write"))[1]
    assert answer(server, project.token(aud="https://other.test/mcp"))[0] == 401


def test_behind_a_guard_the_check_sees_the_token_of_the_message(project: Project) -> None:
    descope_mcp = sdk(project, management_key=KEY)
    server = descope_mcp.guard().protect(diary(descope_mcp))

    assert call(server, "read_diary", token=project.token("alice", "diary.read")).ok
    assert not call(server, "read_diary", token=project.token("alice", "diary.write")).ok
    assert call(server, "read_diary", token=None).status == 401
