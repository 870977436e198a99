"""A vault, its pages, the guard's issuer and a third-party service, each as it is documented."""

from __future__ import annotations

import asyncio
import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import jwt
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from toolguard.connections import Connection, ConnectionRequest
from toolguard.errors import ConnectionRequiredError
from toolguard.principal import Principal
from toolguard.vault import Endpoints, OAuthProvider, OpenIDSignIn, Vault, connect_routes

__all__ = ["ISSUER", "ORIGIN", "Service", "World", "in_world"]

ORIGIN = "http://127.0.0.1:8000"
ISSUER = "https://auth.test"
SERVICE = "https://service.test"
KEY = b"k" * 32


@dataclass
class Service:
    """An OAuth server with PKCE and rotating refresh tokens; each is good for one refresh."""

    now: Callable[[], float]
    account: str = "alice@service"
    user: str = "alice"
    issuer: str | None = None
    fault: Callable[[], Response] | None = None
    grants_scopes: str | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    refresh_tokens: set[str] = field(default_factory=set)
    revoked: list[str] = field(default_factory=list)
    owners: dict[str, str] = field(default_factory=dict)
    refused: int = 0
    lifetime: int = 3_600
    count: int = 0
    delay: float = 0.0
    meanwhile: Callable[[], Awaitable[Any]] | None = None

    @property
    def refreshes(self) -> int:
        return sum(each["grant_type"] == "refresh_token" for each in self.asked)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/revoke", self.revoke, methods=["POST"]),
                Route("/.well-known/openid-configuration", self.metadata),
            ]
        )

    async def metadata(self, request: Request) -> Response:
        urls = {f"{each}_endpoint": f"{self.issuer}/{each}" for each in ("token", "revoke")}
        authorize = f"{self.issuer}/authorize"
        return JSONResponse({"issuer": self.issuer, "authorization_endpoint": authorize, **urls})

    async def authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        assert query["code_challenge_method"] == "S256"
        self.count += 1
        code = f"code{self.count}"
        self.codes[code] = {**query, "user": self.user}
        answer = {"code": code, "state": query["state"]}
        if self.issuer:
            answer["iss"] = self.issuer
        return RedirectResponse(f"{query['redirect_uri']}?{urlencode(answer)}", 302)

    async def token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        self.asked.append(form)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            await happens()
        if self.fault is not None:
            return self.fault()
        if form["grant_type"] == "refresh_token":
            if form["refresh_token"] not in self.refresh_tokens:
                self.refused += 1
                return JSONResponse({"error": "invalid_grant"}, 400)
            self.refresh_tokens.remove(form["refresh_token"])
            return JSONResponse(self.tokens({}, self.owners[form["refresh_token"]]))
        asked = self.codes.pop(form["code"], None)
        challenge = urlsafe_b64encode(sha256(form["code_verifier"].encode()).digest())
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        assert challenge.rstrip(b"=").decode() == asked["code_challenge"]
        return JSONResponse(self.tokens(asked, asked["user"]))

    def tokens(self, asked: dict[str, str], owner: str) -> dict[str, Any]:
        self.count += 1
        access_token, refresh_token = f"access-{self.count}", f"refresh-{self.count}"
        self.refresh_tokens.add(refresh_token)
        self.owners |= {access_token: owner, refresh_token: owner}
        answer: dict[str, Any] = {
            "access_token": access_token,
            "refresh_token": refresh_token,
            "token_type": "Bearer",
            "expires_in": self.lifetime,
        }
        if asked:
            answer["scope"] = self.grants_scopes or asked.get("scope", "")
            claims = {
                "iss": self.issuer or SERVICE,
                "aud": asked["client_id"],
                "sub": asked["user"],
                "email": self.account,
                "nonce": asked.get("nonce"),
                "exp": self.now() + 60,
            }
            answer["id_token"] = jwt.encode(claims, "s" * 32)
        return answer

    async def revoke(self, request: Request) -> Response:
        self.revoked.append(dict(parse_qsl((await request.body()).decode()))["token"])
        return PlainTextResponse("")


class ByHost(httpx.AsyncBaseTransport):
    """Leads requests to the application of their host."""

    def __init__(self, apps: dict[str, Starlette]) -> None:
        self.apps = apps

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        app = self.apps[request.url.host]
        return await httpx.ASGITransport(app).handle_async_request(request)


class World:
    """A vault and what stands around it; the clock stands still unless it is moved.

    Args:
        database: the URL of the vault's database.
        settings: further settings of the vault.
    """

    def __init__(self, database: str, **settings: Any) -> None:
        self.now = 1_800_000_000.0
        self.issuer = Service(self.clock, account="alice@corp.test", issuer=ISSUER)
        self.service = Service(self.clock)
        self.transport = ByHost(
            {"auth.test": self.issuer.app(), "service.test": self.service.app()}
        )
        provider = OAuthProvider(
            title="Service",
            client_id="vault",
            client_secret="s3cret",
            endpoints=Endpoints(
                f"{SERVICE}/authorize", f"{SERVICE}/token", revoke=f"{SERVICE}/revoke"
            ),
            scopes=("read",),
        )
        settings.setdefault("sign_in", OpenIDSignIn("vault-at-issuer", issuer=ISSUER))
        settings.setdefault("connections", {"service": provider})
        self.settings: dict[str, Any] = {"keys": [KEY], "public_url": ORIGIN, **settings}
        self.database = database
        self.vaults: list[Vault] = []
        self.vault = self.replica()
        self.transport.apps["127.0.0.1"] = Starlette(routes=connect_routes(self.vault))

    def clock(self) -> float:
        return self.now

    def replica(self, **changed: Any) -> Vault:
        """Return a further vault on the same database."""
        settings = {**self.settings, **changed}
        vault = Vault(self.database, transport=self.transport, clock=self.clock, **settings)
        self.vaults.append(vault)
        return vault

    def browser(self) -> httpx.AsyncClient:
        """Return a browser without cookies."""
        return httpx.AsyncClient(transport=self.transport, follow_redirects=True, base_url=ORIGIN)

    def request(self, user: str = "alice", *scopes: str, **more: Any) -> ConnectionRequest:
        caller = Principal(
            user, ISSUER, scopes=("mcp:use",), tenant_id=more.get("tenant_id"), expires_at=2e9
        )
        return ConnectionRequest("service", scopes, caller, None, **more)

    async def link(self, user: str = "alice", *scopes: str, **more: Any) -> str:
        """Return the link that a caller is given."""
        with pytest.raises(ConnectionRequiredError) as caught:
            await self.vault.fetch(self.request(user, *scopes, **more))
        assert caught.value.connect_url is not None
        return caught.value.connect_url

    async def connect(self, user: str = "alice", *scopes: str, **more: Any) -> httpx.Response:
        """Open the caller's link as that user, and go on to the end."""
        self.issuer.user = user
        async with self.browser() as browser:
            return await follow(browser, await self.link(user, *scopes, **more))

    async def sql(self, statement: str) -> list[Any]:
        """Run a statement as one who can write to the database, and has no keys."""
        engine = create_async_engine(
            self.database.replace("sqlite:", "sqlite+aiosqlite:").replace(
                "postgresql:", "postgresql+asyncpg:"
            )
        )
        async with engine.begin() as db:
            done = await db.execute(text(statement))
            rows = [tuple(row) for row in done] if done.returns_rows else []
        await engine.dispose()
        return rows

    async def fetch(self, user: str = "alice", *scopes: str, **more: Any) -> Connection:
        return await self.vault.fetch(self.request(user, *scopes, **more))


async def follow(browser: httpx.AsyncClient, link: str) -> httpx.Response:
    """Open a link, and click on "Continue"."""
    page = await browser.get(link)
    button = re.search(r'class="button" href="([^"]+)"', page.text)
    return await browser.get(button[1]) if button else page


def in_world(database: str, test: Callable[[World], Awaitable[None]], **settings: Any) -> None:
    """Run a test against a vault on this database."""

    async def main() -> None:
        world = World(database, **settings)
        try:
            await test(world)
        finally:
            for vault in world.vaults:
                await vault.aclose()

    asyncio.run(main())
