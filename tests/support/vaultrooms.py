"""A vault with one connected user, and those who ask it."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from starlette.applications import Starlette

from toolguard.dev.vault.connection_table import ConnectionTable, Owner, ProviderToken
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE, Vault
from toolguard.testing import LocalIssuer

NOW = 1_800_000_000.0
MCP = "https://mcp.test/mcp"
ROOT = "/v1/mgmt/outbound/app"
READ = "https://www.googleapis.com/auth/calendar.readonly"
WRITE = "https://www.googleapis.com/auth/calendar"
KEY = "K-management"
APP = "google-calendar"
ALICE = Owner("user", "alice")
ISSUER = LocalIssuer("http://127.0.0.1:1/Plocal", audience=MCP, clock=lambda: NOW)


def provider_token(*scopes: str, expires_at: float | None = NOW + 60) -> ProviderToken:
    return ProviderToken("OT1", "alice@gmail", "ya29.alice", "1//alice", scopes, expires_at)


class Google:
    """Refreshes every token, or none once its owner has revoked the consent."""

    def __init__(self) -> None:
        self.revoked = False
        self.away = False
        self.asked = 0

    async def refresh(self, token: ProviderToken) -> ProviderToken | None:
        self.asked += 1
        if self.away:
            raise ConnectionError("nobody there")
        if self.revoked:
            return None
        fresh = ("ya29.fresh", token.refresh_token, token.scopes, NOW + 3_600)
        return ProviderToken(token.id, token.subject, *fresh)


class Links:
    """Makes URLs that say for whom they are."""

    def new(self, user_id: str, app: str, scopes: tuple[str, ...]) -> str:
        return f"http://127.0.0.1:1/connect/{user_id}/{app}/{len(scopes)}"


class Room:
    """A vault with one connected user, and what stands around it."""

    def __init__(self, **settings: Any) -> None:
        self.google = Google()
        self.table = ConnectionTable.in_memory()
        self.table.put(ALICE, APP, provider_token(READ, WRITE))
        self.vault = Vault(
            **{
                "project_id": "Plocal",
                "connections": self.table,
                "verifier": ISSUER.verifier(),
                "providers": {APP: self.google},
                "links": Links(),
                "management_key": KEY,
                "clock": lambda: NOW,
                **settings,
            }
        )
        self.transport = httpx.ASGITransport(Starlette(routes=self.vault.routes()))

    def post(self, path: str, credential: str, body: Any = None, **more: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            headers = {"authorization": credential, **more.pop("headers", {})}
            content = more or {"json": body}
            async with httpx.AsyncClient(transport=self.transport, base_url="http://v") as client:
                return await client.post(ROOT + path, headers=headers, **content)

        return asyncio.run(once())


def token(user: str | None = "alice", *scopes: str, **claims: Any) -> str:
    return ISSUER.mint(user, scopes=scopes or (FETCH_SCOPE,), **claims)


def bearer(credential: str) -> str:
    return f"Bearer Plocal:{credential}"


def body(owner: str = "alice", **more: Any) -> dict[str, Any]:
    return {"appId": APP, "userId": owner, **more}


def error(response: httpx.Response) -> tuple[int, str]:
    assert set(response.json()) == {"errorCode", "errorDescription", "errorMessage"}
    return response.status_code, response.json()["errorCode"]
