"""Connections of the server from endpoints on loopback that answer, fail and hang."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from support.client_keys import private_key
from support.server_endpoints import Endpoints
from toolguard import ToolGuard, requires_scopes, with_connection
from toolguard.connections import ClientSecretBasic, ConnectionRequest, PrivateKeyJWT
from toolguard.connections.server import (
    ClientCredentialsGrant,
    GitHubInstallation,
    ServerConnections,
    ServerSource,
    ServiceAccount,
)
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.principal import Principal
from toolguard.testing import AsyncGuardedClient, Loopback

REQUEST = ConnectionRequest("crm", (), Principal(None, "https://issuer.test", client_id="r"), None)
RSA = private_key("RS256")

SOURCES: dict[str, Callable[[str], ServerSource]] = {
    "client_secret_basic": lambda url: ClientCredentialsGrant(
        f"{url}/token", ClientSecretBasic("mcp", "s3cret")
    ),
    "private_key_jwt": lambda url: ClientCredentialsGrant(
        f"{url}/token", PrivateKeyJWT("mcp", RSA, key_id="k")
    ),
    "service account": lambda url: ServiceAccount(
        "robot@p", RSA, scopes=["drive"], token_endpoint=f"{url}/token"
    ),
    "GitHub App": lambda url: GitHubInstallation("Iv23li", RSA, 7, api_url=url),
}


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    with Loopback() as server:
        served = Endpoints(server.url)
        server.start(served.app)
        yield served


def provider(endpoints: Endpoints, source: str, **settings: float) -> ServerConnections:
    made = SOURCES[source](endpoints.url)
    return ServerConnections({"crm": made}, clock=endpoints.clock, **settings)  # type: ignore[arg-type]


def outcomes(connections: ServerConnections, times: int) -> list[str | ConnectionTokenError]:
    """Fetch so many times at once; return the tokens, or the errors."""

    async def one() -> str | ConnectionTokenError:
        try:
            return (await connections.fetch(REQUEST)).token
        except ConnectionTokenError as error:
            return error

    async def main() -> Sequence[str | ConnectionTokenError]:
        try:
            return await asyncio.gather(*(one() for _ in range(times)))
        finally:
            await connections.aclose()

    return list(asyncio.run(main()))


@pytest.mark.parametrize("source", SOURCES)
def test_a_thousand_calls_at_the_expiry_cause_one_fetch(source: str, endpoints: Endpoints) -> None:
    connections = provider(endpoints, source)
    before = outcomes(connections, 1)
    endpoints.now += 3_600

    tokens = outcomes(connections, 1_000)

    assert len({*tokens}) == 1
    assert not {*tokens} & {*before}
    assert endpoints.count == 2


FAULTS: dict[str, tuple[Callable[[], Response], type[ConnectionTokenError]]] = {
    "500": (lambda: Response(status_code=500), ConnectionUnavailableError),
    "503 each time": (lambda: Response(status_code=503), ConnectionUnavailableError),
    "429": (
        lambda: Response(status_code=429, headers={"Retry-After": "60"}),
        ConnectionRateLimitedError,
    ),
    "401": (lambda: JSONResponse({"error": "invalid_client"}, 401), ConnectionResponseError),
    "a page": (lambda: PlainTextResponse("<html>"), ConnectionResponseError),
    "a list": (lambda: JSONResponse([]), ConnectionResponseError),
    "no token": (lambda: JSONResponse({}), ConnectionResponseError),
    "too long": (lambda: JSONResponse({"a": "x" * 300_000}), ConnectionResponseError),
    "a redirect": (
        lambda: Response(status_code=302, headers={"Location": "https://evil.test"}),
        ConnectionResponseError,
    ),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_reaches_all_callers_and_costs_few_requests(
    source: str, fault: str, endpoints: Endpoints
) -> None:
    answer, kind = FAULTS[fault]
    endpoints.faults = [answer] * 9
    connections = provider(endpoints, source)

    found = outcomes(connections, 50)

    assert {type(each) for each in found} == {kind}
    assert endpoints.count <= 3
    endpoints.faults = []
    endpoints.now += 60
    assert all(isinstance(each, str) for each in outcomes(connections, 2))


@pytest.mark.parametrize("source", SOURCES)
def test_an_endpoint_that_hangs_is_given_up(source: str, endpoints: Endpoints) -> None:
    endpoints.gate = asyncio.Event()

    found = outcomes(provider(endpoints, source, timeout=0.3), 20)

    assert {type(each) for each in found} == {ConnectionUnavailableError}


@pytest.mark.parametrize("source", SOURCES)
def test_an_endpoint_that_is_not_there_is_unavailable(source: str) -> None:
    with Loopback() as server:
        absent = Endpoints(server.url)

    found = outcomes(provider(absent, source), 5)

    assert {type(each) for each in found} == {ConnectionUnavailableError}


@pytest.mark.parametrize("caller", ["alice", "robot"])
def test_a_tool_gets_the_server_s_token_for_users_and_machines(
    caller: str, endpoints: Endpoints
) -> None:
    fastmcp = pytest.importorskip("fastmcp")
    mcp = fastmcp.FastMCP("crm")

    @mcp.tool  # type: ignore[untyped-decorator]
    @requires_scopes("crm.read")
    @with_connection("crm")
    async def count(*, principal: Principal, connection_token: str) -> str:
        return f"{principal.is_machine} {connection_token.partition('-')[2]}"

    # Cached by the guard too: its clock is that of today.
    connections = ServerConnections({"crm": SOURCES["client_secret_basic"](endpoints.url)})
    guard = ToolGuard(
        issuer="https://issuer.test",
        audience="https://mcp.test/mcp",
        connections=connections,
    )
    guard.protect(mcp)

    async def main() -> None:
        allowed = AsyncGuardedClient(mcp, user=caller, scopes=["crm.read"], client_id="robot")
        denied = AsyncGuardedClient(mcp, user=caller, client_id="robot")

        answers = [await allowed.call("count") for _ in range(3)]
        refused = await denied.call("count")
        await guard.aclose()

        assert {answer.text for answer in answers} == {f"{caller == 'robot'} 1"}
        assert refused.status == 403
        assert endpoints.count == 1

    asyncio.run(main())
