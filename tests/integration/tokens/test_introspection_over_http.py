"""Introspection over loopback: how this server proves itself, and the connections it keeps."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import gzip
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from toolguard import Issuer, ToolGuard
from toolguard.connections.client_auth import ClientSecretBasic, ClientSecretPost, PrivateKeyJWT
from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import LocalIssuer, Loopback
from toolguard.tokens.issuers import BasicClient, BearerClient, Introspection
from toolguard.tokens.keys import StaticKeys

SERVER = "https://mcp.test/mcp"
KEY = generate_private_key(SECP256R1())
ANSWER = b'{"active":true,"sub":"alice","aud":"https://mcp.test/mcp","exp":9000000000}'


class AuthorizationServer:
    """Knows one server, by any of four methods, and one opaque token."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.connections: set[Any] = set()
        self.assertions: set[str] = set()
        self.requests = 0
        self.moved = False
        self.app = Starlette(
            routes=[
                Route("/.well-known/oauth-authorization-server", self._metadata),
                Route("/introspect", self._introspect, methods=["POST"]),
            ]
        )

    async def _metadata(self, _: Request) -> Response:
        endpoint = f"{self.origin}/introspect"
        return JSONResponse({"issuer": self.origin, "introspection_endpoint": endpoint})

    async def _introspect(self, request: Request) -> Response:
        self.connections.add(request.scope["client"])
        self.requests += 1
        if self.moved:
            return RedirectResponse(f"{self.origin}/elsewhere", status_code=307)
        form = dict(await request.form())
        if not self._knows(request.headers.get("authorization"), form):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        if not str(form["token"]).startswith("opaque"):
            return JSONResponse({"active": False})
        answer = {"active": True, "sub": "alice", "aud": SERVER, "exp": 9_000_000_000}
        return JSONResponse(answer, headers={"Set-Cookie": "tracking=1"})

    def _knows(self, authorization: str | None, form: dict[str, Any]) -> bool:
        if authorization is not None:
            return authorization in ("Basic c2VydmVyOnNlY3JldA==", "Bearer own")
        if "client_assertion" not in form:
            return (form.get("client_id"), form.get("client_secret")) == ("server", "secret")
        claims = jwt.decode(
            form["client_assertion"],
            KEY.public_key(),
            algorithms=["ES256"],
            audience=f"{self.origin}/introspect",
            issuer="server",
        )
        is_new = claims["jti"] not in self.assertions
        self.assertions.add(claims["jti"])
        return is_new and claims["sub"] == "server"


@pytest.fixture
def server() -> Iterator[AuthorizationServer]:
    with Loopback() as loopback:
        made = AuthorizationServer(loopback.url)
        loopback.start(made.app)
        yield made


def guard_of(server: AuthorizationServer, client: Any, **settings: Any) -> ToolGuard:
    described = Issuer(server.origin, introspection=Introspection(client), **settings)
    return ToolGuard(issuer=described, audience=SERVER)


async def verified(guard: ToolGuard, *tokens: str) -> list[str | None]:
    try:
        return [(await guard.verifier.verify(token)).user_id for token in tokens]
    finally:
        await guard.aclose()


@pytest.mark.parametrize(
    "client",
    [
        BasicClient("server", "secret"),
        BearerClient("own"),
        ClientSecretBasic("server", "secret"),
        ClientSecretPost("server", "secret"),
        PrivateKeyJWT("server", KEY, key_id="one"),
    ],
    ids=lambda client: type(client).__name__,
)
def test_the_server_is_known_by_each_method(server: AuthorizationServer, client: Any) -> None:
    guard = guard_of(server, client)

    assert asyncio.run(verified(guard, "opaque-1", "opaque-1")) == ["alice", "alice"]
    with pytest.raises(InvalidTokenError, match="not active"):
        asyncio.run(verified(guard, "stranger"))


@pytest.mark.parametrize(
    "client",
    [
        BasicClient("server", "wrong"),
        BearerClient("wrong"),
        ClientSecretPost("server", "wrong"),
    ],
    ids=lambda client: type(client).__name__,
)
def test_a_server_that_is_not_known_is_no_fault_of_callers(
    server: AuthorizationServer, client: Any
) -> None:
    with pytest.raises(KeysUnavailableError, match="HTTP 401"):
        asyncio.run(verified(guard_of(server, client), "opaque-1"))


def test_one_connection_serves_an_event_loop_until_the_guard_closes(
    server: AuthorizationServer,
) -> None:
    guard = guard_of(server, BasicClient("server", "secret"))

    asyncio.run(verified(guard, *(f"opaque-{number}" for number in range(5))))
    assert len(server.connections) == 1
    asyncio.run(verified(guard, "opaque-1"))
    assert len(server.connections) == 2
    assert server.requests == 6


def test_all_issuers_of_a_guard_are_closed(server: AuthorizationServer) -> None:
    local = LocalIssuer(server.origin, algorithm="ES256", audience=SERVER)
    asking = Introspection(BasicClient("server", "secret"))
    confirmed = Issuer(
        server.origin, introspection=asking, confirm=True, keys=StaticKeys(local.jwks())
    )
    guard = ToolGuard(issuers=[Issuer("https://b.test"), confirmed], audience=SERVER)

    async def revoked() -> None:
        with pytest.raises(InvalidTokenError, match="not active"):
            await guard.verifier.verify(local.mint("alice"))
        await guard.aclose()

    asyncio.run(revoked())  # an open connection would be a warning
    assert server.requests == 1


def test_a_token_does_not_follow_a_redirect(server: AuthorizationServer) -> None:
    server.moved = True

    with pytest.raises(KeysUnavailableError, match="HTTP 307"):
        asyncio.run(verified(guard_of(server, BasicClient("server", "secret")), "opaque-1"))
    assert server.requests == 1


@pytest.mark.parametrize(
    ("body", "coding", "said"),
    [
        (lambda: codecs.BOM_UTF8 + ANSWER, "identity", None),
        (lambda: gzip.compress(codecs.BOM_UTF8 + ANSWER), "gzip", None),
        (lambda: ANSWER, "gzip", "not gzip, although it says so"),
        (lambda: ANSWER, "br", "no compression was accepted"),
        (lambda: gzip.compress(ANSWER + b" " * 50_000_000), "gzip", "cannot be read"),
    ],
    ids=["mark", "gzip", "not gzip", "other coding", "bomb"],
)
def test_an_answer_may_be_gzip_and_have_a_byte_order_mark(
    body: Callable[[], bytes], coding: str, said: str | None
) -> None:
    async def introspect(_: Request) -> Response:
        headers = {"Content-Encoding": coding}
        return Response(body(), media_type="application/json", headers=headers)

    app = Starlette(routes=[Route("/introspect", introspect, methods=["POST"])])
    with Loopback(app) as loopback:
        asking = Introspection(BasicClient("a", "b"), endpoint=f"{loopback.url}/introspect")
        issuer = Issuer("https://auth.example.com", introspection=asking)
        guard = ToolGuard(issuer=issuer, audience=SERVER)
        if said is None:
            assert asyncio.run(verified(guard, "opaque")) == ["alice"]
        else:
            with pytest.raises(KeysUnavailableError, match=said):
                asyncio.run(verified(guard, "opaque"))


@pytest.mark.parametrize(("answered", "is_served"), [(1, True), (0, False)])
def test_a_request_on_a_lost_connection_is_sent_once_more(answered: int, is_served: bool) -> None:
    """Each connection answers so many requests, and is closed by the next one."""
    requests: list[bytes] = []
    closed: asyncio.Queue[None] = asyncio.Queue()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the client has closed it
            for number in range(answered + 1):
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
                requests.append(await reader.readexactly(length))
                if number < answered:
                    size = str(len(ANSWER)).encode()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: " + size + b"\r\n\r\n")
                    writer.write(ANSWER)
        writer.close()
        await writer.wait_closed()
        closed.put_nowait(None)

    async def ask_twice() -> list[str | None]:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listening.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        asking = Introspection(BasicClient("a", "b"), endpoint=f"{url}/introspect")
        guard = ToolGuard(issuer=Issuer(url, introspection=asking), audience=SERVER)
        async with listening:
            try:
                return await verified(guard, "opaque-1", "opaque-2")
            finally:
                for _ in range(2):
                    await closed.get()

    if is_served:
        assert asyncio.run(ask_twice()) == ["alice", "alice"]
        assert len(requests) == 3
    else:
        with pytest.raises(KeysUnavailableError, match="RemoteProtocolError"):
            asyncio.run(ask_twice())
        assert len(requests) == 2
