"""The command ``toolguard dev``."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TextIO
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from toolguard.audit.loading import LoadError, load_server
from toolguard.dev.calendar import calendar_server
from toolguard.dev.decisions import records_file
from toolguard.dev.explaining import DevSettings, explained
from toolguard.dev.fitting import Fit, fitted, read_server
from toolguard.dev.oauth.config import World, WorldError, builtin_world, load_world
from toolguard.dev.services import Origins, run_services
from toolguard.dev.store import Store
from toolguard.testing.loopback import Loopback

__all__ = ["DevSettings", "run_dev"]

_LOOPBACK = ("127.0.0.1", "localhost")


def _until_interrupted() -> None:
    threading.Event().wait()


def run_dev(
    settings: DevSettings,
    out: TextIO,
    wait: Callable[[], None] = _until_interrupted,
    load: Callable[[str], Any] = load_server,
) -> int:
    """Run the development servers.

    Args:
        settings: what to run.
        out: where to say what to do with them.
        wait: returns, or raises KeyboardInterrupt, when they are to be stopped.
        load: returns the server that ``settings.server`` names.

    Returns:
        The exit code: 0, or 1 if they cannot run, with a sentence that says why.
    """
    # The frameworks would set up a log of their own.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with ExitStack() as running:
            making = _Making(settings, load)
            store = running.enter_context(Store(str(settings.state or ":memory:")))
            ports = (settings.port, settings.port + 1) if settings.port else (0, 0)
            on = running.enter_context(run_services(making.world, store, ports=ports))
            on.report = making.fit.report if making.fit is not None else None
            url = on.server.world.resources[0].url
            listens_at = str(urlsplit(on.server.origin).port)
            on.decisions.file = running.enter_context(records_file(listens_at))
            if settings.calendar:
                listener = running.enter_context(Loopback(port=_port_of(url)))
                guarded = on.guarded(calendar_server(on.google_url), url, dpop="optional")
                listener.start(_for_browsers(guarded))
            print(explained(on, settings, making.fit), file=out, flush=True)
            wait()
    except KeyboardInterrupt:
        return 0
    except sqlite3.DatabaseError as error:
        print(f"toolguard dev: --state {settings.state}: {error}; write a new file", file=out)
        return 1
    except (WorldError, LoadError, OSError) as error:
        print(f"toolguard dev: {_sentence(error)}", file=out)
        return 1
    return 0


class _Making:
    """Makes the world, once it is known where the servers listen.

    Raises:
        WorldError: if the world file cannot be used.
        OSError: if it cannot be read.

    Attributes:
        fit: how the world fits the server that it is made for; None if there is none.
    """

    def __init__(self, settings: DevSettings, load: Callable[[str], Any]) -> None:
        file = settings.world
        self._base = load_world(file) if file is not None else builtin_world()
        self._server = settings.server
        self._load = load
        self.fit: Fit | None = None

    def world(self, origins: Origins) -> World:
        """Return the world.

        Raises:
            LoadError: if the server cannot be loaded.
        """
        if self._server is None:
            return self._base
        issuer = f"{origins.authorization}/{self._base.project_id}"
        variables = {
            "DESCOPE_MCP_WELL_KNOWN_URL": f"{issuer}/.well-known/openid-configuration",
            "GOOGLE_API_URL": origins.google,
        }
        report = read_server(self._server, variables, self._load)
        self.fit = fitted(self._base, report, issuer=issuer)
        return self.fit.world


def _sentence(error: Exception) -> str:
    """Return the text of an error, without the number of an operating system's."""
    if not isinstance(error, OSError) or error.strerror is None:
        return str(error)
    if error.errno == errno.EADDRINUSE:
        return f"{error.strerror}, such as --port 8810"
    return error.strerror if error.filename is None else f"{error.filename}: {error.strerror}"


def _for_browsers(app: Starlette) -> Starlette:
    """Let clients that run in a browser on this machine use ``app``."""
    app.add_middleware(
        CORSMiddleware,
        allow_origin_regex=r"http://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?",
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["Mcp-Session-Id"],
    )
    return app


def _port_of(url: str) -> int:
    """Return where the guarded calendar has to listen.

    Raises:
        WorldError: if that is not on this machine, or not at ``/mcp``.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in _LOOPBACK or parts.path != "/mcp":
        raise WorldError(
            f"--calendar listens at the first resource, and cannot at {url}: put "
            '[[resources]] url = "http://127.0.0.1:8000/mcp" first'
        )
    return parts.port or 80
