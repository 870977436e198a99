"""The services that run behind the demo and ``toolguard dev``.

They are an authorization server with a vault, a Google-like calendar, and guarded MCP servers, each
on its own loopback port, and they communicate only by HTTP.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.applications import Starlette
from starlette.middleware import Middleware

from toolguard.approvals import Approvals
from toolguard.audit import AuditedOperation, Report
from toolguard.connections import Connection, ConnectionProvider, ConnectionRequest
from toolguard.connections.client_auth import ClientSecretBasic
from toolguard.connections.exchange import (
    ExchangeSettings,
    TokenExchangeConnections,
    connect_url_from,
)
from toolguard.descope import DescopeConnections
from toolguard.dev.calendar import SCOPE_HIERARCHY
from toolguard.dev.console import Console
from toolguard.dev.decisions import Decisions
from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, Accounts
from toolguard.dev.google.calendar_api import calendar_routes
from toolguard.dev.google.consent import ConsentScreen, RegisteredClient
from toolguard.dev.loopback_only import LoopbackOnly
from toolguard.dev.oauth.clients import Client, save_client
from toolguard.dev.oauth.config import World
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.dev.vault.of_server import ServerVault
from toolguard.dev.vault.outbound_apps import OutboundApps
from toolguard.guard import ToolGuard
from toolguard.testing.loopback import Loopback
from toolguard.tokens.proofs import DPoP, Mode
from toolguard.vault import Endpoints, OAuthProvider, OpenIDSignIn, connect_routes

__all__ = ["APP", "Origins", "Services", "run_services"]

APP = "google-calendar"
"""The app id of the calendar, in the vault and in tools."""

_VAULT = "development-vault"
# Asked for where a connection names no scope.
_ANY_ACCESS = "account"


@dataclass(frozen=True)
class Origins:
    """Where things listen, such as ``"http://127.0.0.1:8800"``."""

    authorization: str
    google: str


class Services:
    """What runs; made by :func:`run_services`.

    Attributes:
        server: the authorization server.
        connected: what its users have connected, and the links with which they do.
        management_key: lets its holder name any user at the vault.
        google: the accounts of the calendar provider.
        google_url: its origin.
    """

    def __init__(
        self, world: World, store: Store, origins: Origins, clock: Callable[[], float]
    ) -> None:
        self.server = DevServer(world, store, origin=origins.authorization, clock=clock)
        self.management_key = store.secret("management key")
        self.google = Accounts(store.db, lock=store.lock, clock=clock)
        self.google_url = origins.google
        self._google_secret = store.secret("client of the provider")
        self._clock = clock
        #: The approvals of the guarded servers, by their URLs.
        self.approvals: dict[str, Approvals] = {}
        #: The audit of the server that the world was made for.
        self.report: Report | None = None
        #: What the guarded servers decided.
        self.decisions = Decisions()
        #: The scopes of the connections, by their names.
        self.connections = world.connections
        # A vault keeps one at least; what a world does not have is offered to none of its people.
        self._kept = world.connections or {APP: (CALENDAR, CALENDAR_READONLY)}
        providers = {name: self._provider(name) for name in self._kept}
        self.connected = ServerVault(self.server, providers, clock=clock)

    def guarded(self, mcp_server: Any, url: str, *, dpop: Mode | DPoP = "off") -> Starlette:
        """Return the application of ``mcp_server``, guarded, to be served at ``url``.

        Args:
            mcp_server: the server.
            url: where it is served; a resource of the world.
            dpop: whether it accepts tokens that are bound to a key.
        """
        guard = ToolGuard(
            well_known_url=self.server.well_known_url,
            audience=url,
            connections=self._connections(url),
            dpop=dpop,
            scope_hierarchy=SCOPE_HIERARCHY,
            clock=self._clock,
            on_decision=self.decisions.note,
        )
        self.approvals[url] = approvals = self._approvals(url)
        app: Starlette = guard.protect(mcp_server, approvals=approvals).streamable_http_app()
        return app

    def _approvals(self, url: str) -> Approvals:
        """Return approvals whose pages are served at the origin of ``url``, with our sign-in."""
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        pages = Client(
            client_id=f"approvals-{origin}",
            name="the page of approvals",
            redirect_uris=(f"{origin}/connections/signed-in",),
            grant_types=("authorization_code",),
        )
        save_client(self.server.context, pages)
        return Approvals(sign_in=OpenIDSignIn(pages.client_id), clock=self._clock)

    def _connections(self, url: str) -> ConnectionProvider:
        exchange = TokenExchangeConnections(
            f"{self.server.issuer}/token",
            client_auth=ClientSecretBasic(*self.server.credentials(url)),
            connections={APP: ExchangeSettings(audience=(APP,))},
            connect_url=connect_url_from("connect_url"),
            clock=self._clock,
        )
        return _ByToken(DescopeConnections(self.server.well_known_url, clock=self._clock), exchange)

    def google_app(self) -> Starlette:
        """Return the application of the calendar provider."""
        clients = [
            RegisteredClient(
                _client_of(name),
                self._google_secret,
                f"{self.server.origin}/connections/callback/{name}",
                "The development vault",
                scopes or (_ANY_ACCESS,),
            )
            for name, scopes in self._kept.items()
        ]
        screen = ConsentScreen(self.google, clients, origin=self.google_url)
        return Starlette(
            routes=[*calendar_routes(self.google), *screen.routes()],
            middleware=[Middleware(LoopbackOnly, host=urlsplit(self.google_url).netloc)],
        )

    def authorization_app(self) -> Starlette:
        """Return the application of the authorization server, with its vault."""
        self._mount_vault()
        return self.server.app

    def _provider(self, name: str) -> OAuthProvider:
        scopes = self._kept[name] or (_ANY_ACCESS,)
        return OAuthProvider(
            title=" ".join(word[:1].upper() + word[1:] for word in name.split("-")),
            client_id=_client_of(name),
            client_secret=self._google_secret,
            endpoints=Endpoints(f"{self.google_url}/o/oauth2/v2/auth", f"{self.google_url}/token"),
            # Of Google's the wider scope includes the other.
            scopes=[scope for scope in scopes if scope != CALENDAR_READONLY] or scopes,
            includes={CALENDAR: (CALENDAR_READONLY,)},
            # Google: without these two there is no refresh token.
            parameters={"access_type": "offline", "prompt": "consent"},
            login_hint=True,
        )

    def _operations(self) -> tuple[str, tuple[AuditedOperation, ...]]:
        report = self.report
        return ("", ()) if report is None else (report.server, report.operations)

    def _mount_vault(self) -> None:
        vault = self.connected.vault
        apps = OutboundApps(
            vault,
            issuer=self.server.issuer,
            project_id=self.server.project_id,
            verifier=self.server.verifier(),
            management_key=self.management_key,
        )
        console = Console(
            self.server.context,
            connections=self.connections,
            connected=self.connected.names,
            operations=self._operations,
            decisions=self.decisions,
        )
        self.server.extend(
            extra_routes=[*apps.routes(), *connect_routes(vault), *console.routes()],
            connect_url=self.connected.link_for_consent if self.connections else None,
            vault=apps,
        )


def _client_of(name: str) -> str:
    return _VAULT if name == APP else f"{_VAULT}-{quote(name, safe='')}"


@dataclass(frozen=True)
class _ByToken:
    """The vault's API for bearer tokens, and token exchange for those that are bound to a key.

    The API would need a proof of the key. For an exchange, the server authenticates.
    """

    of_bearer: DescopeConnections
    of_bound: TokenExchangeConnections

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection of this caller."""
        is_bearer = request.principal.jkt is None
        return await (self.of_bearer if is_bearer else self.of_bound).fetch(request)

    async def aclose(self) -> None:
        """Close what both hold open in the running event loop."""
        await self.of_bearer.aclose()
        await self.of_bound.aclose()


@contextmanager
def run_services(
    world: World | Callable[[Origins], World],
    store: Store,
    *,
    ports: tuple[int, int] = (0, 0),
    clock: Callable[[], float] = time.time,
) -> Iterator[Services]:
    """Run everything but the MCP servers, which :meth:`Services.guarded` is for.

    Args:
        world: who and what there is; or a function of where things listen that returns it.
        store: the memory of all of it.
        ports: where authorization server and calendar provider listen; 0 for a free port.
        clock: the time in seconds since the epoch, for everybody.

    Raises:
        OSError: if a port is taken.
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    with Loopback(port=ports[0]) as authorization, Loopback(port=ports[1]) as google:
        origins = Origins(authorization.url, google.url)
        known = world if isinstance(world, World) else world(origins)
        running = Services(known, store, origins, clock)
        google.start(running.google_app())
        authorization.start(running.authorization_app())
        yield running
