"""Does a mistake with an approval fail where it is made, and say what to write?"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.lines import Line
from toolguard import (
    ToolGuard,
    any_of,
    public,
    requires,
    requires_approval,
    requires_auth,
    requires_roles,
    requires_scopes,
)
from toolguard.approvals import Approvals
from toolguard.connections.http import VaultRequest
from toolguard.policies.by_name import PoliciesByName
from toolguard.vault import Person


async def nobody_signed_in(_: object) -> Person | None:
    return None


async def check(principal: Any, call: Any) -> bool:
    return bool(principal and call)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"summary": ""}, "say what is approved"),
        ({"summary": "Pay {}"}, "write an argument as {name}"),
        ({"summary": "Pay {a.b}"}, "write an argument as {name}"),
        ({"summary": "Pay {a!r}"}, "write an argument as {name}"),
        ({"summary": "Pay {a:>9}"}, "write an argument as {name}"),
        ({"summary": "Pay {"}, "expected '}'|Single"),
        ({"summary": "Pay", "within": 0}, "from 1 to 86400"),
        ({"summary": "Pay", "within": 1e9}, "from 1 to 86400"),
        ({"summary": "Pay", "within": float("nan")}, "from 1 to 86400"),
        ({"summary": "Pay", "by": requires_auth}, "says nothing about a person"),
        ({"summary": "Pay", "by": public}, "says nothing about a person"),
        ({"summary": "Pay", "by": requires(check)}, "reads the call"),
        ({"summary": "Pay", "by": requires_scopes("pay.{a}")}, "reads the call"),
        ({"summary": "Pay", "by": requires_approval(summary="x")}, "says nothing about a person"),
    ],
)
def test_a_setting_that_means_nothing_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        requires_approval(**settings)


@pytest.mark.parametrize(
    "settings",
    [{"summary": 1}, {"summary": "x", "within": "5"}, {"summary": "x", "by": "manager"}],
)
def test_a_setting_of_the_wrong_type_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="write"):
        requires_approval(**settings)


def test_a_summary_names_arguments_that_the_function_has() -> None:
    with pytest.raises(TypeError, match=r"names an argument that pay\(\) does not have.*amount"):

        @requires_approval(summary="Pay {amuont}")
        async def pay(amount: int) -> None: ...


def test_a_call_is_approved_once() -> None:
    with pytest.raises(ValueError, match="write one @requires_approval"):

        @requires_approval(summary="Pay")
        @requires_approval(summary="Pay twice")
        async def pay() -> None: ...


def test_a_public_function_cannot_need_an_approval() -> None:
    with pytest.raises(ValueError, match="@public cannot be combined"):

        @public
        @requires_approval(summary="Pay")
        async def pay() -> None: ...


def test_an_approval_is_no_alternative() -> None:
    with pytest.raises(ValueError, match="requires_approval"):
        any_of(requires_roles("a"), requires_approval(summary="Pay"))


def test_a_decorator_between_the_guards_is_refused() -> None:
    def other(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            return await function(*args, **kwargs)

        return wrapped

    with pytest.raises(ValueError, match="directly above each other"):

        @requires_scopes("pay")
        @other
        @requires_approval(summary="Pay")
        async def pay() -> None: ...


def test_a_rule_by_name_cannot_ask_for_an_approval() -> None:
    with pytest.raises(ValueError, match="goes above a function"):
        PoliciesByName({"pay": requires_approval(summary="Pay")})


def guard() -> ToolGuard:
    return ToolGuard(issuer="https://auth.example.com", audience="https://mcp.example.com/mcp")


def test_a_guard_that_cannot_ask_is_refused_when_it_protects(line: Line) -> None:
    server = line.server("office")

    @server.tool()
    @requires_approval(summary="Pay")
    async def pay() -> str:
        return "paid"

    with pytest.raises(ValueError, match=r"nowhere to ask for one: write guard\.protect"):
        guard().protect(server)
    guard().protect(server, approvals=Approvals(sign_in=nobody_signed_in))


def test_only_calls_of_tools_are_approved(line: Line) -> None:
    server = line.server("office")

    @server.resource("file://secret")
    @requires_approval(summary="Read")
    async def read() -> str:
        return "read"

    with pytest.raises(ValueError, match="only calls of tools are approved"):
        guard().protect(server, approvals=Approvals(sign_in=nobody_signed_in))


def test_approvals_belong_to_one_guard(line: Line) -> None:
    approvals = Approvals(sign_in=nobody_signed_in)
    guard().protect(line.server("one"), approvals=approvals)

    with pytest.raises(ValueError, match="another guard"):
        guard().protect(line.server("other"), approvals=approvals)


def test_the_origin_of_the_pages_is_an_origin() -> None:
    with pytest.raises(ValueError, match="public_url"):
        Approvals(sign_in=nobody_signed_in, public_url="https://mcp.example.com/path")


class Sockets(httpx.AsyncBaseTransport):
    is_closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={}, request=request)

    async def aclose(self) -> None:
        self.is_closed = True


@pytest.mark.anyio
async def test_a_guard_closes_the_client_of_its_approvals(line: Line) -> None:
    sockets, protecting = Sockets(), guard()
    approvals = Approvals(sign_in=nobody_signed_in, transport=sockets)
    protecting.protect(line.server("office"), approvals=approvals)
    await approvals.http.post(VaultRequest("bank", "https://bank.test/token", {}, None))

    await protecting.aclose()

    assert sockets.is_closed
