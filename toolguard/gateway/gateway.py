"""A gateway: somebody else's server, served at an endpoint of its own with your rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from starlette.applications import Starlette

from toolguard.gateway.configuration import Configuration
from toolguard.gateway.forwarding import Forwarding
from toolguard.gateway.lines import endpoint, make_server
from toolguard.gateway.survey import Survey

__all__ = ["Gateway"]

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Gateway:
    """A guarded server that passes permitted messages on to its upstream.

    The guard protects it as any low-level server: all decisions are made where they always are.

    Args:
        configuration: the guard, the rules and the upstream.
        surveyed: what the upstream offers.

    Attributes:
        server: the protected server.
    """

    def __init__(self, configuration: Configuration, surveyed: Survey) -> None:
        self._configuration = configuration
        self._forwarding = Forwarding(configuration.upstream, surveyed)
        guard = configuration.guard
        # A message that names no operation is decided on by the default.
        refused = "logging/setLevel" if guard.default == "deny" else None
        methods = tuple(method for method in surveyed.methods if method != refused)
        server = make_server(self._forwarding, replace(surveyed, methods=methods))
        self.server: Any = guard.protect(server, rules=configuration.rules)

    @property
    def path(self) -> str:
        """The path of the endpoint."""
        return urlsplit(self._configuration.guard.resource).path.rstrip("/") or "/mcp"

    @property
    def local_port(self) -> int | None:
        """The port that clients connect to, if that is on this machine; else None."""
        parts = urlsplit(self._configuration.guard.resource)
        is_here = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
        return parts.port if is_here else None

    def described(self, host: str, port: int) -> str:
        """Return a sentence about what is served where, for the log of the operator."""
        guard, upstream = self._configuration.guard, self._configuration.upstream
        return (
            f"{upstream} is guarded at http://{host}:{port}{self.path}; clients connect to "
            f"{guard.resource} with tokens of {', '.join(guard.issuers)}"
        )

    def app(self) -> Starlette:
        """Return the application, with the endpoint at the path of the guard's resource."""
        guard, path = self._configuration.guard, self.path
        hosts = [
            urlsplit(guard.resource).netloc,
            *self._configuration.hosts,
            *(each for host in _LOOPBACK for each in (host, f"{host}:*")),
        ]
        app = endpoint(
            self.server,
            path,
            hosts,
            lambda app: guard.protect_app(app, self.server, paths=[path]),
        )
        app.router.routes.extend(self._configuration.pages())
        inner = app.router.lifespan_context

        @asynccontextmanager
        async def around(app: Any) -> AsyncIterator[Any]:
            async with self._forwarding.sessions.running(), inner(app) as state:
                yield state

        app.router.lifespan_context = around
        return app
