"""What does Descope's vault answer over HTTP, and what is it sent? It opens no socket.

For tests of the provider itself, which the kit's ``ScriptedConnections`` stands in for.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from toolguard.connections import Connection, ConnectionRequest
from toolguard.descope import DescopeConnections, DescopeProject
from toolguard.principal import Principal

NOW = 1_800_000_000.0
WELL_KNOWN = "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration"
READ = "https://www.googleapis.com/auth/calendar.readonly"
WRITE = "https://www.googleapis.com/auth/calendar"
TOKEN: dict[str, Any] = {
    "id": "OT1",
    "appId": "google-calendar",
    "userId": "U1",
    "tokenSub": "1234",
    "accessToken": "ya29.third-party",
    "accessTokenType": "Bearer",
    "accessTokenExpiry": "1800003600",
    "hasRefreshToken": True,
    "refreshToken": "",
    "scopes": [READ, WRITE],
}
USER_TOKEN = "/v1/mgmt/outbound/app/user/token"
LATEST = "/v1/mgmt/outbound/app/user/token/latest"
CONNECT = "/v1/mgmt/outbound/app/connect"
NOT_CONNECTED = httpx.Response(404, json={"errorCode": "E111504"})
GOOD = {"token": {"accessToken": "ya29.third-party", "accessTokenExpiry": "1800003600"}}


class Vault:
    """A vault that answers each path with one prepared response, and remembers what it was sent.

    A path without a response answers 500.
    """

    def __init__(self, answers: dict[str, httpx.Response]) -> None:
        self.answers = answers
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answers.get(request.url.path, httpx.Response(500))

    @property
    def sent(self) -> list[tuple[str, Any]]:
        return [(sent.url.path, json.loads(sent.content)) for sent in self.requests]


def asked(
    *scopes: str, user_id: str | None = "U1", access_token: str | None = "ey.caller"
) -> ConnectionRequest:
    principal = Principal(user_id=user_id, issuer="https://api.descope.com/v1/apps/P2abc")
    return ConnectionRequest("google-calendar", scopes, principal, access_token)


def provider(base_url: str = "https://api.descope.com", **settings: Any) -> DescopeConnections:
    well_known_url = f"{base_url}/P2abc/.well-known/openid-configuration"
    project = DescopeProject(base_url, "P2abc", None, well_known_url)
    return DescopeConnections(project, clock=lambda: NOW, **settings)


async def fetch_from(
    connections: DescopeConnections, request: ConnectionRequest, times: int = 1
) -> Connection:
    try:
        for _ in range(times):
            connection = await connections.fetch(request)
        return connection
    finally:
        await connections.aclose()


def fetch(vault: Vault, request: ConnectionRequest, **settings: Any) -> Connection:
    """Return what a provider makes of the vault's answers."""
    connections = provider(transport=httpx.MockTransport(vault), **settings)
    return asyncio.run(fetch_from(connections, request))


def answering(*, status: int = 200, token: object = None, **members: object) -> Vault:
    body = {"token": token} if token is not None else members
    response = httpx.Response(status, json=body)
    return Vault({USER_TOKEN: response, LATEST: response})
