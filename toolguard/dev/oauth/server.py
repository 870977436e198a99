"""The development authorization server as one ASGI application.

For the vault, the provider and the command line, which mount themselves here::

    server = DevServer(builtin_world(), Store(), origin="http://127.0.0.1:8800")
    vault = Vault(verifier=server.verifier(), db=server.store.db, ...)
    server.extend(extra_routes=vault.routes(), connect_url=..., vault=...)
    app = server.app                     # Starlette; from here on nothing can be added

- ``server.issuer``, ``.well_known_url``, ``.project_id``, ``.origin``, ``.world``, ``.store``.
- ``server.verifier(audience=None)`` verifies access tokens that this server issued, knows which
  were revoked, and returns a ``Principal``; without an audience: for any resource of the world.
- ``server.sign_in_user(request)`` is the ``User`` signed in in this browser, or None. Endpoints
  find the server itself at ``request.app.state.dev_server``.
- ``server.sign_in_url(return_to)`` is where a browser signs in first and then comes back to
  ``return_to``, a URL of this server.
- ``server.credentials(resource)`` is the client id and secret with which the server at that URL
  introspects and exchanges tokens.
- ``extra_routes`` are added after the server's own.
- ``connect_url(user, return_to)`` is the link "Connect ..." on the consent page, None for no link
  (connected already). ``return_to`` is a URL of this server: check it with ``server.owns(url)``
  before a browser is sent back to it.
- ``vault`` is a ``ConnectionProvider``: RFC 8693 exchanges at ``/token`` whose ``audience`` is no
  resource of the world are answered with the connection of that name. It is warmed up and closed
  with the application.
- ``server.rotate_keys()`` signs with a new key from now on.
- Pages look alike with ``toolguard.pages.layout.page``, forms are checked with
  ``toolguard.dev.oauth.sessions.csrf_token`` and ``.check_csrf``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cached_property, partial
from typing import Any
from urllib.parse import urlsplit

from mcp.server.transport_security import RequestBodyLimitMiddleware
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from toolguard.connections.protocol import ConnectionProvider
from toolguard.dev.loopback_only import LoopbackOnly
from toolguard.dev.oauth import discovery
from toolguard.dev.oauth.authorize import authorize
from toolguard.dev.oauth.config import User, World
from toolguard.dev.oauth.consent import ConnectURL, ConsentPages
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.direct import person_token_route
from toolguard.dev.oauth.introspection import introspect, revoke
from toolguard.dev.oauth.metadata_documents import MetadataDocuments
from toolguard.dev.oauth.notes import noting
from toolguard.dev.oauth.redirects import with_parameters
from toolguard.dev.oauth.refusals import Endpoint, answering_json, answering_pages
from toolguard.dev.oauth.registration import register
from toolguard.dev.oauth.sessions import session_of
from toolguard.dev.oauth.sign_in import SignInPages
from toolguard.dev.oauth.token_endpoint import answer_token_request
from toolguard.dev.oauth.tokens import IssuedTokenVerifier
from toolguard.dev.store import Store
from toolguard.pages.layout import load_templates, stylesheet
from toolguard.parts.lifecycle import close, warm_up

__all__ = ["ConnectURL", "DevServer"]

_log = logging.getLogger("toolguard.dev")
_MAX_BODY = 64 * 1024


class DevServer:
    """A development authorization server; see the top of this file for what it offers.

    Args:
        world: who and what there is.
        store: its memory.
        origin: where it listens, on this machine: ``"http://127.0.0.1:8800"``.
        clock: the time in seconds since the epoch.
        documents: fetches clients' metadata documents.

    Raises:
        ValueError: if ``origin`` is not of this machine, or the world has no resource.
        ModuleNotFoundError: if Jinja2 is not installed.
    """

    def __init__(
        self,
        world: World,
        store: Store,
        *,
        origin: str,
        clock: Callable[[], float] = time.time,
        documents: MetadataDocuments | None = None,
    ) -> None:
        load_templates()
        self._context = ServerContext(world, store, origin, clock)
        self._documents = documents or MetadataDocuments()
        self._extra_routes: list[BaseRoute] = []
        self._connect_url: ConnectURL | None = None
        self._vault: ConnectionProvider | None = None

    @property
    def world(self) -> World:
        """Who and what there is."""
        return self._context.world

    @property
    def store(self) -> Store:
        """Its memory."""
        return self._context.store

    @property
    def origin(self) -> str:
        """Where it listens, such as ``"http://127.0.0.1:8800"``."""
        return self._context.origin

    @property
    def issuer(self) -> str:
        """Its issuer URL, such as ``"http://127.0.0.1:8800/P2dev"``."""
        return self._context.issuer

    @property
    def project_id(self) -> str:
        """The project, in the sense of Descope."""
        return self.world.project_id

    @property
    def well_known_url(self) -> str:
        """Its metadata URL, in the form of Descope."""
        return f"{self.issuer}/.well-known/openid-configuration"

    @property
    def context(self) -> ServerContext:
        """What its parts share."""
        return self._context

    def owns(self, url: str) -> bool:
        """Return whether ``url`` is one of this server."""
        return self._context.owns(url)

    def verifier(self, audience: str | None = None) -> IssuedTokenVerifier:
        """Return a verifier of the access tokens this server issued.

        Args:
            audience: whom they must be for; None for any resource of the world.
        """
        known = [resource.url for resource in self.world.resources]
        return IssuedTokenVerifier(self._context, [audience] if audience else known)

    def rotate_keys(self, *, keep_old: bool = True) -> str:
        """Sign with a new key from now on; return its ``kid``."""
        return self._context.keys.rotate(keep_old=keep_old)

    def credentials(self, resource: str) -> tuple[str, str]:
        """Return the client id and secret with which a protected server authenticates here.

        Args:
            resource: its URL.

        Raises:
            ValueError: if the world does not know it.
        """
        known = self.world.resource(resource)
        if known is None:
            raise ValueError(
                f"{resource!r} is not a resource of the world: add it under [[resources]]"
            )
        return known.client_id, self._context.server_secrets[known.client_id]

    def sign_in_url(self, return_to: str) -> str:
        """Return where a browser signs in first and then comes back to ``return_to``.

        Raises:
            ValueError: if ``return_to`` is not a URL of this server.
        """
        if not self.owns(return_to):
            raise ValueError(
                f"{return_to!r} is not an address of this server: write server.origin/..."
            )
        return with_parameters(self._context.url("sign-in"), [("return_to", return_to)])

    def sign_in_user(self, request: Request) -> User | None:
        """Return who is signed in in the browser that sent ``request``."""
        session = session_of(self._context, request)
        if session is None or session.user_id is None:
            return None
        return self.world.user(session.user_id)

    def extend(
        self,
        *,
        extra_routes: Sequence[BaseRoute] = (),
        connect_url: ConnectURL | None = None,
        vault: ConnectionProvider | None = None,
    ) -> None:
        """Add what the application is to have, before it is used.

        Raises:
            RuntimeError: if it has been built.
        """
        if "app" in vars(self):
            raise RuntimeError("extend the server before its app is used")
        self._extra_routes.extend(extra_routes)
        self._connect_url = connect_url or self._connect_url
        self._vault = vault or self._vault

    @cached_property
    def app(self) -> Starlette:
        """The application; built once, for one event loop at a time."""
        app = Starlette(
            routes=[*self._routes(), *self._extra_routes],
            middleware=[
                Middleware(LoopbackOnly, host=urlsplit(self.origin).netloc),
                Middleware(RequestBodyLimitMiddleware, max_body_size=_MAX_BODY),
            ],
            lifespan=self._announced,
        )
        app.state.dev_server = self
        return app

    @asynccontextmanager
    async def _announced(self, app: Starlette) -> AsyncIterator[None]:  # noqa: ARG002 - a lifespan
        _log.warning(
            "development authorization server at %s: it asks for no passwords; never use it for "
            "anything real",
            self.issuer,
        )
        await warm_up(self._vault)
        yield
        await close(self._vault)

    def _routes(self) -> list[BaseRoute]:
        context, prefix = self._context, self._context.path
        answers: dict[str, Endpoint] = {
            "register": noting(context.notes, "registration", partial(register, context)),
            "token": noting(
                context.notes, "token", partial(answer_token_request, context, self._vault)
            ),
            "revoke": partial(revoke, context),
        }
        documents = discovery.metadata_paths(context)
        return [
            *(_open_to_browsers(path, self._discovery, "GET") for path in documents),
            _open_to_browsers(f"{prefix}/jwks", self._jwks, "GET"),
            *(_open_to_browsers(f"{prefix}/{name}", answers[name], "POST") for name in answers),
            Route(
                f"{prefix}/introspect",
                answering_json(partial(introspect, context)),
                methods=["POST"],
            ),
            person_token_route(context),
            *self._pages(),
        ]

    def _pages(self) -> list[BaseRoute]:
        context, prefix = self._context, self._context.path
        sign_in, consent = SignInPages(context), ConsentPages(context, self._connect_url)
        pages: list[tuple[str, str, Endpoint]] = [
            (
                "GET",
                "authorize",
                noting(
                    context.notes, "authorization", partial(authorize, context, self._documents)
                ),
            ),
            ("GET", "sign-in", sign_in.ask),
            ("POST", "sign-in", sign_in.select),
            ("GET", "provider", sign_in.provider),
            ("POST", "provider", sign_in.vouch),
            ("GET", "callback", sign_in.callback),
            ("POST", "sign-out", sign_in.sign_out),
            ("GET", "consent", consent.show),
            ("POST", "consent", consent.answer),
            ("GET", "done", sign_in.done),
        ]
        return [
            Route(f"{prefix}/style.css", stylesheet, methods=["GET"]),
            *(
                Route(f"{prefix}/{name}", answering_pages(page, context.issuer), methods=[method])
                for method, name, page in pages
            ),
        ]

    async def _discovery(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint
        return _document(discovery.metadata(self._context))

    async def _jwks(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint
        return _document(self._context.keys.jwks())

    def __repr__(self) -> str:
        return f"<DevServer: {self.issuer}>"


def _document(content: dict[str, Any]) -> Response:
    return JSONResponse(content, headers={"cache-control": "no-cache"})


def _open_to_browsers(path: str, endpoint: Endpoint, *methods: str) -> Route:
    """Return a route that scripts of any origin may ask; cookies mean nothing to it."""
    inner = Route(path, answering_json(endpoint), methods=[*methods])
    return Route(
        path,
        CORSMiddleware(
            inner.app,
            allow_origins=["*"],
            allow_methods=[*methods],
            allow_headers=["Authorization", "Content-Type", "MCP-Protocol-Version"],
            max_age=600,
        ),
        methods=[*methods, "OPTIONS"],
    )
