"""The command ``toolguard dev``."""

from __future__ import annotations

import errno
import json
import logging
import sqlite3
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from toolguard.dev.calendar import calendar_server
from toolguard.dev.oauth.config import World, WorldError, builtin_world, load_world
from toolguard.dev.services import Services, run_services
from toolguard.dev.store import Store
from toolguard.pages.layout import MissingTemplatesError
from toolguard.testing.loopback import Loopback

__all__ = ["DevSettings", "run_dev"]

_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True)
class DevSettings:
    """What ``toolguard dev`` was told.

    Attributes:
        world: a TOML file; None for the built-in world.
        state: a file that keeps the state; None to forget it at the end.
        port: where the authorization server listens; the calendar provider takes the next one.
            0 for free ones.
        calendar: whether to run the guarded calendar server as well.
    """

    world: Path | None = None
    state: Path | None = None
    port: int = 8800
    calendar: bool = False


def _until_interrupted() -> None:
    threading.Event().wait()


def run_dev(
    settings: DevSettings, out: TextIO, wait: Callable[[], None] = _until_interrupted
) -> int:
    """Run the development servers.

    Args:
        settings: what to run.
        out: where to say what to do with them.
        wait: returns, or raises KeyboardInterrupt, when they are to be stopped.

    Returns:
        The exit code: 0, or 1 if they cannot run, with a sentence that says why.
    """
    # The frameworks would set up a log of their own.
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        with ExitStack() as running:
            world = load_world(settings.world) if settings.world else builtin_world()
            store = running.enter_context(Store(str(settings.state or ":memory:")))
            ports = (settings.port, settings.port + 1) if settings.port else (0, 0)
            on = running.enter_context(run_services(world, store, ports=ports))
            url = world.resources[0].url
            if settings.calendar:
                listener = running.enter_context(Loopback(port=_port_of(url)))
                guarded = on.guarded(calendar_server(on.google_url), url, dpop="optional")
                listener.start(_for_browsers(guarded))
            _explain(on, url, out, calendar=settings.calendar)
            wait()
    except KeyboardInterrupt:
        return 0
    except sqlite3.DatabaseError as error:
        print(f"toolguard dev: --state {settings.state}: {error}; write a new file", file=out)
        return 1
    except (WorldError, MissingTemplatesError, OSError) as error:
        print(f"toolguard dev: {_sentence(error)}", file=out)
        return 1
    return 0


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


def _explain(on: Services, url: str, out: TextIO, *, calendar: bool) -> None:
    world: World = on.server.world
    people = ", ".join(user.email for user in world.users)
    client = {"mcpServers": {"calendar": {"type": "http", "url": url}}}
    state = "The guarded calendar runs" if calendar else "Your guarded server is to be"
    print(
        f"""toolguard dev: for development only. It asks for no passwords and protects nothing.

  authorization server, vault  {on.server.issuer}
  calendar, in Google's shape  {on.google_url} (take access back: {on.google_url}/connections)
  people                       {people}

{state} at {url}. Environment of a server of your own:

  export DESCOPE_MCP_WELL_KNOWN_URL={on.server.well_known_url}
  export MCP_SERVER_URL={url}
  export DESCOPE_MANAGEMENT_KEY={on.management_key}
  export GOOGLE_API_URL={on.google_url}

For an MCP client:

  {json.dumps(client)}

Stop with Ctrl-C.""",
        file=out,
        flush=True,
    )
