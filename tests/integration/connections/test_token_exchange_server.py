"""Token exchange with a real authorization server, on this machine only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.client_keys import private_key
from support.token_endpoint import GOOD, Waits, asked
from toolguard.connections import Connection
from toolguard.connections.client_auth import PrivateKeyJWT
from toolguard.connections.exchange import TokenExchangeConnections
from toolguard.connections.exchange.settings import ExchangeSettings
from toolguard.connections.retries import Retries
from toolguard.errors import (
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    InvalidTokenError,
)
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer, Loopback

TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"


class AuthorizationServer:
    """Exchanges tokens for the calendar's, for clients that sign and users it knows.

    Args:
        url: its own origin.
    """

    def __init__(self, url: str) -> None:
        self.issuer = LocalIssuer(url, audience="https://mcp.example.com/mcp", algorithm="ES256")
        self.verifier = self.issuer.verifier()
        self.calendar = self.issuer.verifier(audience="https://calendar.example.com/")
        self.endpoint = f"{url}/token"
        self.seen: set[str] = set()
        self.outages = 0
        self.app = Starlette(routes=[Route("/token", self.token, methods=["POST"])])

    async def token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).multi_items()}
        if not self.is_client(form):
            return JSONResponse({"error": "invalid_client"}, 401)
        if self.outages:
            self.outages -= 1
            return Response(status_code=503)
        if form["grant_type"] != TOKEN_EXCHANGE or form["subject_token_type"] != ACCESS_TOKEN:
            return JSONResponse({"error": "invalid_request"}, 400)
        try:
            user = await self.verifier.verify(form["subject_token"])
        except InvalidTokenError:
            return JSONResponse({"error": "invalid_grant"}, 400)
        if form.get("resource") != "https://calendar.example.com/":
            return JSONResponse({"error": "invalid_target"}, 400)
        return JSONResponse(self.exchanged(user, form.get("scope", "").split()))

    def exchanged(self, user: Principal, scopes: list[str]) -> dict[str, Any]:
        granted = [scope for scope in scopes if scope in user.scopes]
        token = self.issuer.mint(
            user.user_id, scopes=granted, aud="https://calendar.example.com/", act={"sub": "mcp"}
        )
        return {**GOOD, "access_token": token, "scope": " ".join(granted)}

    def is_client(self, form: dict[str, str]) -> bool:
        """Check an assertion as RFC 7523 §3 and OpenID Connect Core §9 have it."""
        try:
            said = jwt.decode(
                form["client_assertion"],
                private_key().public_key(),
                algorithms=["ES256"],
                audience=self.endpoint,
                issuer="mcp-server",
                options={"require": ["iss", "sub", "aud", "exp", "iat", "jti"]},
            )
        except (KeyError, jwt.PyJWTError):
            return False
        fresh = said["jti"] not in self.seen and said["exp"] - said["iat"] <= 60
        self.seen.add(said["jti"])
        return fresh and said["sub"] == form["client_id"] == "mcp-server"


@pytest.fixture(scope="module")
def server() -> Iterator[AuthorizationServer]:
    with Loopback() as loopback:
        authorization_server = AuthorizationServer(loopback.url)
        loopback.start(authorization_server.app)
        yield authorization_server


def exchange_with(
    server: AuthorizationServer, token: str, *scopes: str, **settings: Any
) -> Connection:
    values = {
        "client_auth": PrivateKeyJWT("mcp-server", private_key(), key_id="client-key"),
        "connections": {"calendar": ExchangeSettings(resource=("https://calendar.example.com/",))},
        "retries": Retries(sleep=Waits()),
        **settings,
    }
    connections = TokenExchangeConnections(server.endpoint, **values)

    async def exchanged() -> Connection:
        try:
            return await connections.fetch(asked(*scopes, access_token=token))
        finally:
            await connections.aclose()

    return asyncio.run(exchanged())


def test_a_callers_token_becomes_one_for_the_service_behind(server: AuthorizationServer) -> None:
    token = server.issuer.mint("alice", scopes=["calendar.read", "mail.read"])

    connection = exchange_with(server, token, "calendar.read")

    verified = asyncio.run(server.calendar.verify(connection.token))
    assert (verified.user_id, verified.scopes) == ("alice", ("calendar.read",))
    assert verified.claims["act"] == {"sub": "mcp"}
    assert connection.scopes == ("calendar.read",)
    assert connection.expires_at is not None


def test_two_users_get_two_tokens(server: AuthorizationServer) -> None:
    tokens = {user: server.issuer.mint(user) for user in ("alice", "bob")}

    users = [
        asyncio.run(server.calendar.verify(exchange_with(server, token).token)).user_id
        for token in tokens.values()
    ]

    assert users == ["alice", "bob"]


def test_an_outage_is_got_over_with_an_assertion_that_is_not_a_replay(
    server: AuthorizationServer,
) -> None:
    server.outages = 1
    before = len(server.seen)

    assert exchange_with(server, server.issuer.mint("alice")).token
    assert len(server.seen) - before == 2


@pytest.mark.parametrize(
    ("token", "scopes", "settings", "kind"),
    [
        (lambda issuer: issuer.mint("alice", expires_in=-60), (), {}, ConnectionRequiredError),
        (lambda issuer: issuer.mint("alice", aud="other"), (), {}, ConnectionRequiredError),
        (lambda issuer: issuer.mint("alice"), ("calendar.read",), {}, ConnectionRequiredError),
        (
            lambda issuer: issuer.mint("alice"),
            (),
            {
                "connections": {
                    "calendar": ExchangeSettings(resource=("https://bank.example.com/",))
                }
            },
            ConnectionResponseError,
        ),
        (
            lambda issuer: issuer.mint("alice"),
            (),
            {"client_auth": PrivateKeyJWT("mcp-server", private_key(owner="thief"), key_id="k")},
            ConnectionResponseError,
        ),
        (
            lambda issuer: issuer.mint("alice"),
            (),
            {
                "client_auth": PrivateKeyJWT(
                    "mcp-server",
                    private_key(),
                    key_id="k",
                    audience="https://other.example.com/token",
                )
            },
            ConnectionResponseError,
        ),
    ],
    ids=["expired", "for another", "too few scopes", "other target", "other key", "other audience"],
)
def test_what_a_real_server_refuses_is_refused(
    server: AuthorizationServer,
    token: Callable[[LocalIssuer], str],
    scopes: tuple[str, ...],
    settings: dict[str, Any],
    kind: type[ConnectionTokenError],
) -> None:
    with pytest.raises(kind):
        exchange_with(server, token(server.issuer), *scopes, **settings)
