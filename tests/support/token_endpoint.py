"""A token endpoint that answers from a list, and what is asked of it. It opens no socket."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import httpx

from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.client_auth import ClientSecretBasic
from toolguard.connections.exchange import TokenExchangeConnections
from toolguard.connections.exchange.settings import ACCESS_TOKEN, ExchangeSettings
from toolguard.connections.retries import Retries
from toolguard.principal import Principal

NOW = 1_800_000_000.0
ENDPOINT = "https://auth.example.com/token"
GOOD: dict[str, Any] = {
    "access_token": "ya29.downstream",
    "issued_token_type": ACCESS_TOKEN,
    "token_type": "Bearer",
    "expires_in": 300,
}
CALENDAR = ExchangeSettings(audience=("calendar-api",))


class TokenEndpoint:
    """Answers one request after the other, the last answer for ever, and remembers what it got."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        # A response is read once, and sent as often as it takes.
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    @property
    def forms(self) -> list[dict[str, str | list[str]]]:
        """The parameters of each request; a list where one was repeated."""
        return [
            {
                name: values if len(values) > 1 else values[0]
                for name, values in parse_qs(
                    sent.content.decode("ascii"), keep_blank_values=True, strict_parsing=True
                ).items()
            }
            for sent in self.requests
        ]

    @property
    def form(self) -> dict[str, str | list[str]]:
        """The parameters of the only request."""
        (form,) = self.forms
        return form


class Waits:
    """Stands in for waiting, and remembers for how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


def giving(**members: object) -> TokenEndpoint:
    """Return an endpoint that gives the usual answer with changes; None leaves a member out."""
    answer = {name: value for name, value in {**GOOD, **members}.items() if value is not None}
    return TokenEndpoint(httpx.Response(200, json=answer))


def refusing(error: object, status: int = 400, **members: object) -> TokenEndpoint:
    return TokenEndpoint(httpx.Response(status, json={"error": error, **members}))


def asked(
    *scopes: str,
    name: str = "calendar",
    access_token: str | None = "ey.caller",
    tenant_id: str | None = None,
) -> ConnectionRequest:
    principal = Principal(user_id="U1", issuer="https://auth.example.com", tenant_id="acme")
    return ConnectionRequest(name, scopes, principal, access_token, tenant_id=tenant_id)


def provider(
    endpoint: TokenEndpoint, exchange: ExchangeSettings = CALENDAR, **settings: Any
) -> TokenExchangeConnections:
    values = {
        "client_auth": ClientSecretBasic("mcp-server", "secret"),
        "connections": {"calendar": exchange},
        "retries": Retries(sleep=Waits(), jitter=lambda: 0.0),
        "clock": lambda: NOW,
        **settings,
    }
    return TokenExchangeConnections(ENDPOINT, transport=httpx.MockTransport(endpoint), **values)


def fetch(
    endpoint: TokenEndpoint,
    request: ConnectionRequest | None = None,
    exchange: ExchangeSettings = CALENDAR,
    **settings: Any,
) -> Connection:
    """Return what a provider makes of the endpoint's answer."""
    connections = provider(endpoint, exchange, **settings)

    async def fetched() -> Connection:
        try:
            return await connections.fetch(request or asked())
        finally:
            await connections.aclose()

    return asyncio.run(fetched())
