"""The endpoints that issue credentials to a server: a token endpoint, and GitHub's for apps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import jwt
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from support.client_keys import private_key

__all__ = ["NOW", "Endpoints"]

NOW = 1_800_000_000.0


class Endpoints:
    """Answers as RFC 6749, Google and GitHub document it; remembers what it was sent.

    Args:
        url: its own origin.
    """

    def __init__(self, url: str = "https://auth.test") -> None:
        self.url = url
        self.now = NOW
        self.forms: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.claims: list[dict[str, Any]] = []
        self.faults: list[Callable[[], Response]] = []
        self.changed: dict[str, Any] = {}
        self.lifetime = 3_600
        self.gate: asyncio.Event | None = None
        self.asked = asyncio.Event()
        routes = [
            Route("/token", self.token, methods=["POST"]),
            Route("/app/installations/{id}/access_tokens", self.installation, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    @property
    def count(self) -> int:
        return len(self.headers)

    def clock(self) -> float:
        return self.now

    async def token(self, request: Request) -> Response:
        form = {name: str(value) for name, value in (await request.form()).items()}
        self.forms.append(form)
        fault = await self.begin(request)
        if fault is not None:
            return fault
        if "assertion" in form:
            self.verify(form["assertion"], audience=f"{self.url}/token")
        scope = {"scope": form["scope"]} if "scope" in form else {}
        return self.answer(
            {
                "access_token": f"token-{self.count}",
                "token_type": "Bearer",
                "expires_in": self.lifetime,
                **scope,
            }
        )

    async def installation(self, request: Request) -> Response:
        body = await request.json()
        self.bodies.append(body)
        fault = await self.begin(request)
        if fault is not None:
            return fault
        self.verify(request.headers["authorization"].removeprefix("Bearer "))
        until = datetime.fromtimestamp(self.now + self.lifetime, timezone.utc)
        answer = {
            "token": f"ghs_{self.count}",
            "expires_at": until.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "permissions": body.get("permissions", {"contents": "write", "metadata": "read"}),
            "repository_selection": "selected",
        }
        return self.answer(answer, 201)

    async def begin(self, request: Request) -> Response | None:
        self.headers.append(dict(request.headers))
        self.asked.set()
        if self.gate is not None:
            await self.gate.wait()
        return self.faults.pop(0)() if self.faults else None

    def verify(self, assertion: str, **more: Any) -> None:
        key = private_key("RS256").public_key()
        # Its times are those of the test's clock.
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(assertion, key, algorithms=["RS256"], options=options, **more)
        assert claims["iat"] <= self.now < claims["exp"] <= self.now + 600
        self.claims.append(claims)

    def answer(self, members: dict[str, Any], status: int = 200) -> Response:
        merged = {**members, **self.changed}
        return JSONResponse({k: v for k, v in merged.items() if v is not None}, status)
