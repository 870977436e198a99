"""A vault with one connected user, and those who ask it."""

from __future__ import annotations

import asyncio
import shutil
import weakref
from collections.abc import Awaitable, Callable
from tempfile import mkdtemp
from typing import Any, Literal, TypeVar

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.connections import Connection, ConnectionRequest
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE, OutboundApps
from toolguard.testing import LocalIssuer
from toolguard.vault import Endpoints, OAuthProvider, Person, Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

T = TypeVar("T")

NOW = 1_800_000_000.0
MCP = "https://mcp.test/mcp"
ROOT = "/v1/mgmt/outbound/app"
READ = "https://www.googleapis.com/auth/calendar.readonly"
WRITE = "https://www.googleapis.com/auth/calendar"
KEY = "K-management"
APP = "google-calendar"
ORIGIN = "http://127.0.0.1:1"
ISSUER = LocalIssuer(f"{ORIGIN}/Plocal", audience=MCP, clock=lambda: NOW)
GOOGLE = OAuthProvider(
    title="Google Calendar",
    client_id="vault",
    client_secret="secret",
    endpoints=Endpoints("https://google.test/authorize", "https://google.test/token"),
)


def grant(*scopes: str, expires_at: float | None = NOW + 600) -> Grant:
    return Grant("ya29.alice", "1//alice", "Bearer", scopes, expires_at, "alice@gmail")


class Google:
    """Refreshes every token, or none once its owner has revoked the consent."""

    def __init__(self) -> None:
        self.revoked = False
        self.away = False
        self.asked = 0
        self.app = Starlette(routes=[Route("/token", self.token, methods=["POST"])])

    async def token(self, request: Request) -> Response:
        self.asked += 1
        if self.away:
            return Response(status_code=503)
        if self.revoked:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(
            {"access_token": "ya29.fresh", "expires_in": 3_600, "token_type": "Bearer"}
        )


async def no_one(_: Request) -> Person | None:
    return None


class Room:
    """A vault with one connected user, and what stands around it."""

    def __init__(self, *, has_pages: bool = True, **settings: Any) -> None:
        directory = mkdtemp(prefix="toolguard-room-")
        weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self.google = Google()
        self._vault_settings: dict[str, Any] = {
            "keys": [b"k" * 32],
            "connections": {APP: GOOGLE},
            "transport": httpx.ASGITransport(self.google.app),
            "clock": lambda: NOW,
        }
        if has_pages:
            self._vault_settings |= {"sign_in": no_one, "public_url": ORIGIN}
        self._url = f"sqlite:///{directory}/vault.db"
        self._settings: dict[str, Any] = {
            "issuer": ISSUER.issuer,
            "project_id": "Plocal",
            "verifier": ISSUER.verifier(),
            "management_key": KEY,
            **settings,
        }
        self.put(grant(READ, WRITE))

    def put(
        self, given: Grant, owner: str = "alice", kind: Literal["user", "tenant"] = "user"
    ) -> None:
        key = GrantKey(Owner(ISSUER.issuer, owner, kind), APP)
        self.run(lambda vault: vault.store.put(key, given, NOW))

    def kept(self) -> Grant | None:
        key = GrantKey(Owner(ISSUER.issuer, "alice"), APP)
        found = self.run(lambda vault: vault.store.get(key))
        return found.grant if found is not None else None

    def run(self, use: Callable[[Vault], Awaitable[T]]) -> T:
        """Run something on the vault, in an event loop of its own."""

        async def once() -> T:
            vault = Vault(self._url, **self._vault_settings)
            try:
                return await use(vault)
            finally:
                await vault.aclose()

        return asyncio.run(once())

    def apps(self, vault: Vault) -> OutboundApps:
        return OutboundApps(vault, **self._settings)

    def transport(self, vault: Vault) -> httpx.ASGITransport:
        return httpx.ASGITransport(Starlette(routes=self.apps(vault).routes()))

    def post(self, path: str, credential: str, body: Any = None, **more: Any) -> httpx.Response:
        async def once(vault: Vault) -> httpx.Response:
            headers = {"authorization": credential, **more.pop("headers", {})}
            content = more or {"json": body}
            transport = self.transport(vault)
            async with httpx.AsyncClient(transport=transport, base_url="http://v") as client:
                return await client.post(ROOT + path, headers=headers, **content)

        return self.run(once)

    def link_of(self, answer: httpx.Response) -> tuple[str, str, list[str]]:
        """Return for whom and what the connect URL in an answer is."""
        path, _, ticket = answer.json()["url"].rpartition("/")
        assert path == f"{ORIGIN}/connections/link"
        slip = self.run(lambda vault: vault.slips.peek("ticket", ticket))
        assert slip is not None
        return slip.owner.id, slip.facts["connection"], slip.facts["scopes"]

    def fetch(self, request: ConnectionRequest) -> Connection:
        """Fetch a connection as a server in the same process does."""
        return self.run(lambda vault: self.apps(vault).fetch(request))


def token(user: str | None = "alice", *scopes: str, **claims: Any) -> str:
    return ISSUER.mint(user, scopes=scopes or (FETCH_SCOPE,), **claims)


def bearer(credential: str) -> str:
    return f"Bearer Plocal:{credential}"


def body(owner: str = "alice", **more: Any) -> dict[str, Any]:
    return {"appId": APP, "userId": owner, **more}


def error(response: httpx.Response) -> tuple[int, str]:
    assert set(response.json()) == {"errorCode", "errorDescription", "errorMessage"}
    return response.status_code, response.json()["errorCode"]
