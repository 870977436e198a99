"""Authorization servers of well-known vendors, imitated on this machine.

What is imitated is what clients and servers see: the path of the issuer, its metadata, the names of
scopes, whether clients can register, and the tokens, in the forms of :mod:`toolguard.testing`.
Every browser is signed in at once as the same user, who consents to everything.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from toolguard.parsing.pkce import s256_challenge
from toolguard.parsing.scope_names import OPENID_SCOPES, ScopeNames
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.more_providers import google_tokeninfo
from toolguard.testing.providers import ProviderName, provider_named
from toolguard.testing.token_content import TokenContent
from toolguard.tokens.issuers import Issuer, TokenInfo

__all__ = ["VendorServer"]

# RFC 7591: the other vendors know only the clients that somebody has entered.
_REGISTERS = frozenset({"auth0", "descope", "keycloak", "ory", "supabase", "workos"})
# Those that every vendor knows beside the scopes of an API.
_IDENTITY = OPENID_SCOPES - {"address", "phone"}
# Their metadata does not have it, and they refuse it.
_NOT_OFFLINE = frozenset({"cognito", "google"})
# These give a refresh token only to a client that asked for offline_access (OpenID Connect Core
# §11); Google for access_type=offline; the others to every client.
_BY_SCOPE = frozenset(
    {"auth0", "authentik", "azure-b2c", "dex", "entra", "okta", "ory", "workos", "zitadel"}
)


@dataclass(frozen=True)
class _IssuedCode:
    client_id: str
    redirect_uri: str
    challenge: str
    scopes: tuple[str, ...]
    is_refreshed: bool


class _ScopeError(Exception):
    pass


class VendorServer:
    """An authorization server that behaves as a vendor's does.

    Serve :attr:`app` at ``origin`` and trust :attr:`described`::

        with Loopback() as loopback:
            server = VendorServer("entra", origin=loopback.url, scopes=["notes.read"])
            loopback.start(server.app)
            ToolGuard(issuers=[server.described], audience="http://127.0.0.1:8000/mcp")

    Args:
        vendor: whose server it is.
        origin: where it is served, such as ``http://127.0.0.1:9000``.
        scopes: the scopes of the API, by their short names.
        user: the subject who is signed in.
        redirect_uri: the address of the client that is known without registration.
        scope_names: how clients have to ask for the scopes; None for the way of the vendor's
            example in :mod:`toolguard.testing.providers`.
    """

    def __init__(
        self,
        vendor: ProviderName,
        *,
        origin: str,
        scopes: tuple[str, ...] | list[str],
        user: str = "alice",
        redirect_uri: str = "http://127.0.0.1:3000/callback",
        scope_names: ScopeNames | None = None,
    ) -> None:
        provider = provider_named(vendor)
        self._vendor = vendor
        self._identity = _IDENTITY - ({"offline_access"} if vendor in _NOT_OFFLINE else set())
        if scope_names is not None and provider.described is not None:
            described = provider.described.with_settings(scope_names=scope_names)
            provider = replace(provider, described=described)
        self.issuer = LocalIssuer.like(provider, issuer=origin + urlsplit(provider.issuer).path)
        #: The description for ``ToolGuard(issuers=[...])``; its keys are discovered.
        self.described: Issuer = provider.description(self.issuer.issuer, self.issuer.audience)
        #: The id of the client that is known without registration.
        is_google = isinstance(self.described.introspection, TokenInfo)
        known = self.described.audiences if is_google else self.described.clients
        self.client_id = next(iter(known), "mcp-client")
        self.registers = vendor in _REGISTERS
        self._names: ScopeNames = self.described.scope_names
        self._known = {self._names.requested(scope): scope for scope in scopes}
        #: The answers about opaque access tokens, of the vendor that has them.
        self._opaque: dict[str, Mapping[str, Any]] | None = {} if is_google else None
        if is_google:
            asking = TokenInfo(f"{origin}/tokeninfo")
            self.described = self.described.with_settings(introspection=asking, may_carry=())
        self._user = user
        self._clients = {self.client_id: [redirect_uri]}
        self._codes: dict[str, _IssuedCode] = {}
        self._refresh_tokens: dict[str, _IssuedCode] = {}

    @property
    def app(self) -> Starlette:
        """The application: metadata, keys, and the endpoints that the metadata names."""
        path = urlsplit(self.issuer.issuer).path.removesuffix("/")
        metadata = [
            Route(route.path, self._metadata)
            for route in self.issuer.app.routes
            if isinstance(route, Route) and "/.well-known/" in route.path
        ]
        register = Route(f"{path}/register", self._register, methods=["POST"])
        tokeninfo = Route("/tokeninfo", self._tokeninfo, methods=["POST"])
        return Starlette(
            routes=[
                *metadata,
                *self.issuer.app.routes,
                Route(f"{path}/authorize", self._authorize),
                Route(f"{path}/token", self._token, methods=["POST"]),
                *([register] if self.registers else []),
                *([] if self._opaque is None else [tokeninfo]),
            ]
        )

    async def _metadata(self, _: Request) -> Response:
        base = self.issuer.issuer.removesuffix("/")
        registration = {"registration_endpoint": f"{base}/register"} if self.registers else {}
        return JSONResponse(
            {
                **self.issuer.metadata(),
                **registration,
                "grant_types_supported": ["authorization_code", "refresh_token"],
                "token_endpoint_auth_methods_supported": ["none"],
                "scopes_supported": sorted({*self._known, *self._identity}),
            }
        )

    async def _register(self, request: Request) -> Response:
        asked: dict[str, Any] = await request.json()
        client_id = f"client-{secrets.token_hex(8)}"
        self._clients[client_id] = asked["redirect_uris"]
        return JSONResponse({**asked, "client_id": client_id}, 201)

    async def _authorize(self, request: Request) -> Response:
        query = request.query_params
        redirect_uri = query.get("redirect_uri", "")
        client_id = query.get("client_id", "")
        if redirect_uri not in self._clients.get(client_id, ()):
            return PlainTextResponse("This client or address is not known here", 400)
        if query.get("code_challenge_method") != "S256":
            return _back(query, error="invalid_request", error_description="PKCE is required")
        try:
            scopes = self._short(query.get("scope", "").split())
        except _ScopeError as error:
            return _back(query, error="invalid_scope", error_description=str(error))
        code = secrets.token_urlsafe(24)
        offline = "offline_access" in scopes or self._vendor not in _BY_SCOPE
        if self._vendor == "google":
            offline = query.get("access_type") == "offline"
        challenge = query["code_challenge"]
        self._codes[code] = _IssuedCode(client_id, redirect_uri, challenge, scopes, offline)
        return _back(query, code=code)

    def _short(self, asked: list[str]) -> tuple[str, ...]:
        """Return the short names of the scopes that a client asks for.

        Entra answers a short name with AADSTS70011, Cognito and XSUAA with ``invalid_scope``.
        """
        unknown = [scope for scope in asked if scope not in {*self._known, *self._identity}]
        if unknown:
            raise _ScopeError(
                f"The scope {unknown[0]} is not valid: ask for one of {' '.join(self._known)}"
            )
        return tuple(self._known.get(scope, scope) for scope in asked)

    async def _token(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        if form.get("grant_type") == "refresh_token":
            grant = self._refresh_tokens.pop(form.get("refresh_token", ""), None)
            is_good = grant is not None and grant.client_id == form.get("client_id")
        else:
            grant = self._codes.pop(form.get("code", ""), None)
            is_good = grant is not None and _is_of(grant, form)
        if grant is None or not is_good:
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(self._tokens(grant))

    def _tokens(self, grant: _IssuedCode) -> dict[str, Any]:
        refresh_token = secrets.token_urlsafe(24)
        if grant.is_refreshed:
            self._refresh_tokens[refresh_token] = grant
        return {
            "access_token": self._access_token(grant),
            "token_type": "Bearer",
            "expires_in": 3_600,
            **({"refresh_token": refresh_token} if grant.is_refreshed else {}),
            "scope": " ".join(map(self._names.requested, grant.scopes)),
        }

    def _access_token(self, grant: _IssuedCode) -> str:
        if self._opaque is None:
            of_api = [scope for scope in grant.scopes if scope not in _IDENTITY]
            return self.issuer.mint(
                self._user, scopes=of_api, expires_in=3_600, client_id=grant.client_id
            )
        token = f"ya29.{secrets.token_urlsafe(24)}"
        now = int(time.time())
        granted = TokenContent(
            issuer=self.issuer.issuer,
            audience=grant.client_id,
            # Google names the user to clients that asked for it.
            user=self._user if "openid" in grant.scopes else None,
            scopes=[self._names.requested(scope) for scope in grant.scopes],
            issued_at=now,
            expires_at=now + 3_600,
            client_id=grant.client_id,
        )
        self._opaque[token] = google_tokeninfo(granted)
        return token

    async def _tokeninfo(self, request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode()))
        known = (self._opaque or {}).get(form.get("access_token", ""))
        if known is None:
            return JSONResponse({"error": "invalid_token"}, 400)
        return JSONResponse(dict(known))


def _is_of(grant: _IssuedCode, form: Mapping[str, str]) -> bool:
    challenge = s256_challenge(form.get("code_verifier", ""))
    return (
        grant.client_id == form.get("client_id")
        and grant.redirect_uri == form.get("redirect_uri")
        and hmac.compare_digest(challenge.encode(), grant.challenge.encode())
    )


def _back(query: Mapping[str, str], **answer: str) -> Response:
    state = {"state": query["state"]} if "state" in query else {}
    parameters = urlencode({**answer, **state})
    return RedirectResponse(f"{query['redirect_uri']}?{parameters}", 302)
