"""Can an orchestrator tell whether a server is ready, and do its calls survive a stop?"""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from support.asgi import exchange, http_scope
from support.lines import Guarding, Line
from toolguard import (
    Connection,
    ConnectionRequest,
    ToolGuard,
    health_routes,
    requires_auth,
    with_connection,
)
from toolguard.connections import ConnectionRouter
from toolguard.errors import KeysUnavailableError
from toolguard.testing import LocalIssuer, signed_in
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.jwt import JWTVerifier


class Shop:
    """A provider of connections that is not always there, and knows when it was closed."""

    def __init__(self, *, down: bool = False) -> None:
        self.down, self.closed, self.warmed = down, False, 0

    async def warm_up(self) -> None:
        self.warmed += 1
        if self.down:
            raise OSError("the password of the database is hunter2")

    async def fetch(self, request: ConnectionRequest) -> Connection:
        return Connection(request.name)

    async def aclose(self) -> None:
        self.closed = True


class Issuer:
    """The documents of an issuer that may be down; counts what was fetched."""

    def __init__(self, issuer: LocalIssuer) -> None:
        self.issuer, self.down, self.fetched = issuer, False, 0

    def __call__(self, url: str, timeout: float) -> bytes:
        self.fetched += 1
        if self.down:
            raise KeysUnavailableError("down")
        return httpx.Response(200, json=self.issuer.jwks()).content


def probe(guard: ToolGuard, path: str) -> tuple[int, Any]:
    app: Any = Starlette(routes=health_routes(guard))
    answer = exchange(app, http_scope("GET", path=path))
    assert answer.header("cache-control") == "no-store"
    return answer.status, answer.json


def test_a_server_is_ready_once_its_keys_are_there(
    guarding: Guarding, issuer: LocalIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    documents, now = Issuer(issuer), [0.0]
    keys = JWKS(
        url="https://issuer.test/jwks", fetch=documents, clock=lambda: now[0], jitter=lambda: 0.0
    )
    verifier = JWTVerifier(issuer=issuer.issuer, audience=issuer.audience, keys=keys)
    guard = guarding(verifier=verifier, connections=None)
    documents.down = True
    asyncio.run(guard.warm_up())
    assert "not ready: keys: KeysUnavailableError" in caplog.text
    assert probe(guard, "/readyz") == (503, {"ready": False, "missing": ["keys"]})
    assert documents.fetched == 1, "probes respect the back-off of the keys"

    documents.down, now[0] = False, 2.0
    assert probe(guard, "/readyz") == (200, {"ready": True, "missing": []})
    now[0] = 200.0
    assert probe(guard, "/readyz") == (200, {"ready": True, "missing": []})
    assert documents.fetched == 2, "nothing is fetched while all is there"
    assert probe(guard, "/healthz") == (200, {"status": "ok"})


@pytest.mark.parametrize(("down", "is_ready"), [("", True), ("one", True), ("one two", False)])
def test_a_server_of_several_issuers_is_ready_with_one_of_them(
    down: str, *, is_ready: bool
) -> None:
    described = []
    for name in ("one", "two"):
        local = LocalIssuer(f"https://{name}.test", algorithm="ES256")
        documents = Issuer(local)
        documents.down = name in down
        keys = JWKS(url=f"https://{name}.test/jwks", fetch=documents, jitter=lambda: 0.0)
        described.append(local.described.with_settings(keys=keys))
    guard = ToolGuard(issuers=described, audience="https://mcp.test/mcp")

    status, body = probe(guard, "/readyz")
    assert (status, body["missing"]) == ((200, []) if is_ready else (503, ["keys"]))


def test_a_provider_is_warmed_up_behind_issuers_and_a_router() -> None:
    shop = Shop(down=True)
    issuers = [LocalIssuer(f"https://{name}.test", algorithm="ES256") for name in ("one", "two")]
    guard = ToolGuard(
        issuers=[each.described for each in issuers],
        audience="https://mcp.test/mcp",
        connections=ConnectionRouter({"mail": shop}),
    )

    assert probe(guard, "/readyz") == (503, {"ready": False, "missing": ["connections"]})
    shop.down = False
    assert probe(guard, "/readyz")[0] == 200
    assert shop.warmed == 2


def test_what_a_provider_lacks_is_named_without_its_text(
    guarding: Guarding, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(down=True)
    guard = guarding(connections=shop)

    assert probe(guard, "/readyz") == (503, {"ready": False, "missing": ["connections"]})
    probe(guard, "/readyz")
    assert caplog.messages.count("not ready: connections: OSError") == 1, "strangers fill no log"
    assert "hunter2" not in caplog.text
    assert probe(guard, "/healthz")[0] == 200
    shop.down = False
    assert probe(guard, "/readyz")[0] == 200


def test_a_guard_that_is_closed_lets_running_calls_end_first(
    line: Line, guarding: Guarding
) -> None:
    shop, log = Shop(), list[str]()
    guard = guarding(connections=shop)
    server = line.server("slow")

    async def main() -> None:
        entered, go_on = anyio.Event(), anyio.Event()

        @server.tool()
        @requires_auth
        @with_connection("mail")
        async def slow(*, connection_token: str) -> str:
            entered.set()
            await go_on.wait()
            log.append(f"the call has ended, closed: {shop.closed}")
            return connection_token

        guard.protect(server)

        async def close() -> None:
            await entered.wait()
            async with anyio.create_task_group() as group:
                group.start_soon(guard.aclose)
                await anyio.lowlevel.checkpoint()
                assert not shop.closed
                go_on.set()

        with signed_in("alice"):
            async with line.in_memory(server) as call_tool, anyio.create_task_group() as group:
                group.start_soon(close)
                await call_tool("slow", {})

    anyio.run(main)
    assert log == ["the call has ended, closed: False"]
    assert shop.closed


def test_a_guard_that_is_closed_does_not_wait_for_ever(line: Line, guarding: Guarding) -> None:
    shop = Shop()
    guard = guarding(connections=shop)
    server = line.server("slow")

    async def main() -> None:
        entered, go_on = anyio.Event(), anyio.Event()

        @server.tool()
        @requires_auth
        async def slow() -> str:
            entered.set()
            await go_on.wait()
            return "done"

        guard.protect(server)

        async def close() -> None:
            await entered.wait()
            await guard.aclose(grace=0)
            go_on.set()

        with signed_in("alice"):
            async with line.in_memory(server) as call_tool, anyio.create_task_group() as group:
                group.start_soon(close)
                await call_tool("slow", {})

    anyio.run(main)
    assert shop.closed


def test_the_last_app_of_a_guard_closes_its_clients(line: Line, guarding: Guarding) -> None:
    shop = Shop()
    guard = guarding(connections=shop)
    outer, inner = (
        line.http_app(guard.protect(line.server(name)), stateless=True, json=True)
        for name in ("outer", "inner")
    )

    async def main() -> None:
        async with outer.router.lifespan_context(outer):
            async with inner.router.lifespan_context(inner):
                assert not shop.closed
            assert not shop.closed, "the outer one still serves"

    anyio.run(main)
    assert shop.closed
