"""Imitations of vendors' vaults, in the shapes that their documentation shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.connections.kit import VaultProvider
from toolguard.connections.vendors import Arcade, Nango, Scalekit, WorkOSPipes

__all__ = ["EXPIRES", "KEY", "NOW", "VENDORS", "Vendor"]

NOW = 1_800_000_000.0
KEY = "sk_example_123456789"
EXPIRES = "2027-01-15T09:00:00.000Z"  # an hour after NOW


class Vendor:
    """What every imitation has: accounts by user, a key, and what it was asked."""

    #: For each state of an account: whether a caller gets a token, or has to connect.
    states: tuple[str, ...] = ()
    route = ""
    method = "POST"
    says_expiry = True
    says_account = True

    def __init__(self, url: str = "https://vault.test") -> None:
        self.url = url
        self.state = "connected"
        self.scopes = ["repo", "user:email"]
        self.expires_at: str | None = EXPIRES
        self.asked: list[dict[str, Any]] = []
        self.faults: list[Callable[[], Response]] = []
        self.token = "gho_16C7e42F292c6912E7710c838347Ae178B4a"
        self.other_account: str | None = None
        self.app = Starlette(routes=[Route(self.route, self.serve, methods=[self.method])])

    def provider(self, **settings: Any) -> VaultProvider:
        raise NotImplementedError

    async def serve(self, request: Request) -> Response:
        body = await request.json() if self.method == "POST" else {}
        asked = {**request.path_params, **request.query_params, **body}
        self.asked.append(asked)
        if self.faults:
            return self.faults.pop(0)()
        if request.headers["authorization"] != f"Bearer {KEY}":
            return JSONResponse({"message": f"Unauthorized {KEY}"}, 401)
        return self.answer(asked)

    def answer(self, asked: dict[str, Any]) -> Response:
        raise NotImplementedError


class NangoVault(Vendor):
    """As https://nango.dev/docs/reference/backend/http-api/connections/get has it."""

    route, method = "/connections/{connection_id}", "GET"
    states = ("absent",)

    def provider(self, **settings: Any) -> VaultProvider:
        settings.setdefault("account_of", lambda request: request.principal.user_id)
        return Nango(KEY, base_url=self.url, **settings)

    def answer(self, asked: dict[str, Any]) -> Response:
        if self.state == "absent":
            error = {"code": "not_found", "message": "Failed to find connection"}
            return JSONResponse({"error": error}, 404)
        raw = {"access_token": self.token, "scope": ",".join(self.scopes), "token_type": "bearer"}
        credentials = {"type": "OAUTH2", "access_token": self.token, "raw": raw}
        if self.expires_at:
            credentials["expires_at"] = self.expires_at
        return JSONResponse(
            {
                "id": 18393,
                "connection_id": self.other_account or asked["connection_id"],
                "provider_config_key": asked["provider_config_key"],
                "credentials": credentials,
                "connection_config": {},
                "metadata": {},
            }
        )


class WorkOSVault(Vendor):
    """As https://workos.com/docs/reference/pipes/access-token has it."""

    route = "/data-integrations/{slug}/token"
    states = ("not_installed", "needs_reauthorization")
    says_account = False

    def provider(self, **settings: Any) -> VaultProvider:
        return WorkOSPipes(KEY, base_url=self.url, **settings)

    def answer(self, asked: dict[str, Any]) -> Response:
        if self.state != "connected":
            return JSONResponse({"active": False, "error": self.state})
        token = {
            "object": "access_token",
            "access_token": self.token,
            "expires_at": self.expires_at,
            "scopes": self.scopes,
            "missing_scopes": [],
        }
        return JSONResponse({"active": True, "access_token": token})


class ArcadeVault(Vendor):
    """As https://docs.arcade.dev/en/guides/tool-calling/call-third-party-apis has it."""

    route = "/v1/auth/authorize"
    states = ("not_started", "pending", "failed")
    says_expiry = False
    link = "https://cloud.arcade.dev/oauth/authorize/1"

    def provider(self, **settings: Any) -> VaultProvider:
        return Arcade(KEY, base_url=self.url, **settings)

    def answer(self, asked: dict[str, Any]) -> Response:
        members: dict[str, Any] = {
            "id": "ac_1",
            "user_id": self.other_account or asked["user_id"],
            "provider_id": asked["auth_requirement"]["provider_id"],
            "scopes": self.scopes,
        }
        if self.state == "connected":
            context = {"token": self.token, "user_info": {}}
            return JSONResponse({**members, "status": "completed", "context": context})
        return JSONResponse({**members, "status": self.state, "url": self.link})


class ScalekitVault(Vendor):
    """As https://docs.scalekit.com/agentkit/apis/ has it."""

    route, method = "/api/v1/connected_accounts/auth", "GET"
    states = ("absent", "EXPIRED", "PENDING_AUTH", "PENDING_VERIFICATION")

    def __init__(self, url: str = "https://vault.test") -> None:
        super().__init__(url)
        self.tokens = 0
        self.app.routes.append(Route("/oauth/token", self.issue, methods=["POST"]))

    async def issue(self, request: Request) -> Response:
        form = await request.form()
        self.tokens += 1
        if (form["grant_type"], form["client_secret"]) != ("client_credentials", "s3cret"):
            return JSONResponse({"error": "invalid_client"}, 401)
        return JSONResponse({"access_token": KEY, "token_type": "Bearer", "expires_in": 86_399})

    def provider(self, **settings: Any) -> VaultProvider:
        return Scalekit(self.url, "skc_1", "s3cret", **settings)

    def answer(self, asked: dict[str, Any]) -> Response:
        if self.state == "absent":
            return JSONResponse({"code": 5, "message": "connected account not found"}, 404)
        oauth = {"access_token": self.token, "refresh_token": "r", "scopes": self.scopes}
        account = {
            "id": "ca_24834495392086178",
            "connector": asked["connector"],
            "identifier": self.other_account or asked["identifier"],
            "authorization_type": "OAUTH",
            "authorization_details": {"oauth_token": oauth},
            "status": "ACTIVE" if self.state == "connected" else self.state,
            "token_expires_at": self.expires_at,
        }
        return JSONResponse({"connected_account": account})


VENDORS: tuple[type[Vendor], ...] = (ArcadeVault, NangoVault, ScalekitVault, WorkOSVault)
