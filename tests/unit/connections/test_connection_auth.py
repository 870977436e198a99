"""How does a connection present itself, and what if its token is no longer good?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import httpx
import pytest

from support.callers import NOW, Desk
from support.third_party import API, called, numbered
from toolguard import requires_auth, with_connection
from toolguard.connections import Connection, ConnectionRequest
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    InvalidTokenError,
    ToolGuardError,
)
from toolguard.testing import FrozenClock


def asking(api: API) -> Callable[..., Awaitable[int]]:
    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> int:
        return await api.get(calendar)

    return tool


def test_a_good_token_is_sent_once_and_as_a_bearer_token() -> None:
    api, vault = API("token-1"), numbered()

    assert called(asking(api), vault) == 200
    assert api.shown == ["Bearer token-1"]


def test_a_401_has_the_request_repeated_with_a_fresh_token() -> None:
    api, vault = API("token-2"), numbered()

    assert called(asking(api), vault) == 200
    assert api.shown == ["Bearer token-1", "Bearer token-2"]
    assert [asked.fresh for asked in vault.calls] == [False, True]


def test_a_second_401_is_the_answer() -> None:
    api, vault = API(), numbered()

    assert called(asking(api), vault) == 401
    assert len(vault.calls) == 2


def test_a_synchronous_tool_gets_a_fresh_token_as_well() -> None:
    api, vault = API("token-2"), numbered()

    @with_connection("calendar", as_="calendar")
    def tool(*, calendar: Connection) -> int:
        return api.get_in_thread(calendar)

    assert called(tool, vault) == 200
    assert api.shown == ["Bearer token-1", "Bearer token-2"]


def test_another_scheme_is_sent_as_the_provider_named_it() -> None:
    api, vault = API(), numbered(token_type="DPoP")

    called(asking(api), vault)

    assert api.shown[0] == "DPoP token-1"


def test_a_tool_without_a_fresh_token_ends_in_that_refusal() -> None:
    with pytest.raises(ConnectionRequiredError):
        called(asking(API()), numbered(missing_after=1))


def test_the_token_does_not_follow_a_redirect_to_another_origin() -> None:
    shown: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        shown.append(request.headers.get("authorization"))
        if request.url.host == "api.example":
            return httpx.Response(302, headers={"location": "https://elsewhere.example/"})
        return httpx.Response(200)

    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> None:
        async with httpx.AsyncClient(
            transport=httpx.MockTransport(handle), auth=calendar.auth, follow_redirects=True
        ) as client:
            await client.get("https://api.example/")

    called(tool, numbered())

    assert shown == ["Bearer token-1", None]


def test_once_the_call_has_ended_no_fresh_token_is_fetched() -> None:
    kept: list[Connection] = []

    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> None:
        kept.append(calendar)

    called(tool, vault := numbered())

    with pytest.raises(GuardNotConfiguredError):
        asyncio.run(API().get(kept[0]))
    assert len(vault.calls) == 1


def test_for_a_caller_whose_token_has_expired_no_fresh_token_is_fetched() -> None:
    clock = FrozenClock(NOW)
    vault = numbered()
    desk = Desk(connections=vault, clock=clock)

    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> int:
        clock.advance(3_600)
        return await API().get(calendar)

    with pytest.raises(InvalidTokenError):
        called(tool, vault, desk=desk)
    assert len(vault.calls) == 1


def test_no_representation_shows_the_token() -> None:
    connection = Connection("ya29.secret")

    assert "ya29" not in repr(connection.auth)


def test_an_optional_connection_is_none_where_the_user_has_not_connected() -> None:
    @with_connection("calendar", as_="calendar", optional=True)
    async def tool(*, calendar: str | None) -> str | None:
        return calendar

    assert called(tool, numbered(missing_after=0)) is None
    assert called(tool, numbered()) == "token-1"


def test_an_optional_connection_needs_a_parameter_that_may_be_none() -> None:
    with pytest.raises(TypeError, match=r"write `calendar: str \| None`"):

        @with_connection("calendar", as_="calendar", optional=True)
        async def tool(*, calendar: str) -> None: ...


def test_another_failure_of_an_optional_connection_is_a_failure() -> None:
    class Broken:
        async def fetch(self, _: ConnectionRequest) -> Connection:
            raise RuntimeError

    @with_connection("calendar", as_="calendar", optional=True)
    async def tool(*, calendar: str | None) -> None: ...

    with pytest.raises(ToolGuardError):
        called(tool, Broken())


def test_a_tenants_connection_is_asked_for_by_the_tenant_of_the_token() -> None:
    @requires_auth
    @with_connection("crm", as_="crm", tenant=True)
    async def tool(*, crm: str) -> str:
        return crm

    called(tool, vault := numbered(), tenant_id="acme")

    assert [asked.tenant_id for asked in vault.calls] == ["acme"]


def test_without_a_tenant_in_the_token_there_is_no_tenants_connection() -> None:
    @with_connection("crm", as_="crm", tenant=True)
    async def tool(*, crm: str) -> None: ...

    with pytest.raises(AccessDeniedError):
        called(tool, vault := numbered())
    assert vault.calls == []


def test_a_users_connection_names_no_tenant() -> None:
    called(asking(API("token-1")), vault := numbered(), tenant_id="acme")

    assert [asked.tenant_id for asked in vault.calls] == [None]


def test_a_fresh_connection_is_asked_for_as_such() -> None:
    @with_connection("calendar", as_="calendar", fresh=True)
    async def tool(*, calendar: str) -> None: ...

    called(tool, vault := numbered())

    assert [asked.fresh for asked in vault.calls] == [True]
