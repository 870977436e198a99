"""Does a connection present itself through every HTTP client, over real sockets?"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import io
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from support.third_party import called, numbered
from toolguard import Connection, with_connection
from toolguard.testing import Loopback

CLIENTS = [name for name in ("httpx", "httpx2") if importlib.util.find_spec(name)]


class Shop:
    """An API that takes the second token only, and remembers each body with its status."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[tuple[bytes, int]] = []
        self.app = Starlette(routes=[Route("/orders", self.order, methods=["POST"])])

    async def order(self, request: Request) -> Response:
        body = await request.body()
        status = 200 if request.headers["authorization"] == "Bearer token-2" else 401
        self.seen.append((body, status))
        return Response(status_code=status)


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Loopback() as loopback:
        shop = Shop()
        shop.url = f"{loopback.url}/orders"
        loopback.start(shop.app)
        yield shop


@pytest.fixture(params=CLIENTS)
def library(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


def test_an_asynchronous_client_sends_a_fresh_token_after_a_401(library: Any, shop: Shop) -> None:
    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> int:
        async with library.AsyncClient(auth=calendar.auth, trust_env=False) as client:
            status: int = (await client.post(shop.url, json={"item": 1})).status_code
            return status

    assert called(tool, numbered()) == 200
    assert shop.seen == [(b'{"item":1}', 401), (b'{"item":1}', 200)]


def test_a_synchronous_client_sends_a_fresh_token_after_a_401(library: Any, shop: Shop) -> None:
    @with_connection("calendar", as_="calendar")
    def tool(*, calendar: Connection) -> int:
        with library.Client(auth=calendar.auth_for(shop.url[:-7]), trust_env=False) as client:
            status: int = client.post(shop.url, json={"item": 1}).status_code
            return status

    assert called(tool, numbered()) == 200
    assert shop.seen == [(b'{"item":1}', 401), (b'{"item":1}', 200)]


def test_an_upload_is_not_repeated_without_its_body(library: Any, shop: Shop) -> None:
    @with_connection("calendar", as_="calendar")
    def tool(*, calendar: Connection) -> list[int]:
        with library.Client(auth=calendar.auth, trust_env=False) as client:
            return [
                client.post(shop.url, content=io.BytesIO(b"order")).status_code for _ in range(2)
            ]

    assert called(tool, numbered()) == [401, 200]
    assert shop.seen == [(b"order", 401), (b"order", 200)]


def test_twenty_requests_at_once_fetch_one_fresh_token(library: Any, shop: Shop) -> None:
    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> list[int]:
        async with library.AsyncClient(auth=calendar.auth, trust_env=False) as client:
            orders = (client.post(shop.url, content=b"order") for _ in range(20))
            return [answer.status_code for answer in await asyncio.gather(*orders)]

    assert called(tool, vault := numbered()) == [200] * 20
    assert [asked.fresh for asked in vault.calls] == [False, True]
