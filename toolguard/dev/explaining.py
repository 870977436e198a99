"""What ``toolguard dev`` prints: where things are, and what a server and a client need."""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from toolguard.dev.fitting import Fit
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.policies import decide
from toolguard.dev.services import APP, Services
from toolguard.parts.environment import RECORDS

__all__ = ["DevSettings", "explained"]


@dataclass(frozen=True)
class DevSettings:
    """What ``toolguard dev`` was told.

    Attributes:
        world: a TOML file; None for the built-in world.
        state: a file that keeps the state; None to forget it at the end.
        port: where the authorization server listens; the calendar provider takes the next one.
            0 for free ones.
        calendar: whether to run the guarded calendar server as well.
        server: the server that the world is made for, as ``module:attribute``; None for none.
    """

    world: Path | None = None
    state: Path | None = None
    port: int = 8800
    calendar: bool = False
    server: str | None = None


def explained(on: Services, settings: DevSettings, fit: Fit | None = None) -> str:
    """Return what is printed when the servers run."""
    return "\n".join(_lines(on, settings, fit))


def _server_variables(on: Services, connections: Collection[str]) -> dict[str, str]:
    """Return the environment of a server that uses the development servers.

    Args:
        on: the development servers.
        connections: the names of the connections that it uses.
    """
    variables = {
        "DESCOPE_MCP_WELL_KNOWN_URL": on.server.well_known_url,
        "MCP_SERVER_URL": on.server.world.resources[0].url,
    }
    if on.decisions.file is not None:
        variables[RECORDS] = str(on.decisions.file)
    if connections:
        variables["DESCOPE_MANAGEMENT_KEY"] = on.management_key
    if APP in connections:
        variables["GOOGLE_API_URL"] = on.google_url
    return variables


def _lines(on: Services, settings: DevSettings, fit: Fit | None) -> Iterator[str]:
    world = on.server.world
    url = world.resources[0].url
    yield "toolguard dev: for development only. It asks for no passwords and protects nothing."
    yield ""
    yield f"  authorization server, vault  {on.server.issuer} (open it in a browser)"
    connections = world.connections
    if APP in connections:
        revoking = f"(take access back: {on.google_url}/connections)"
        yield f"  calendar, in Google's shape  {on.google_url} {revoking}"
    if fit is None:
        yield f"  people                       {', '.join(user.email for user in world.users)}"
    else:
        yield from _fitting(on, fit)
    yield ""
    state = "The guarded calendar runs" if settings.calendar else "Your guarded server is to be"
    yield f"{state} at {url}. Environment of a server of your own:"
    yield ""
    for name, value in _server_variables(on, connections).items():
        yield f"  export {name}={shlex.quote(value)}"
    yield ""
    yield "For an MCP client:"
    yield ""
    name = "calendar" if fit is None else fit.report.server or "server"
    yield "  " + json.dumps({"mcpServers": {name: {"type": "http", "url": url}}})
    yield ""
    if fit is not None:
        yield f"To see a call: toolguard call {url} TOOL '{{}}' --as {world.users[0].id}"
    if settings.state is None:
        yield "Clients, keys and connections are forgotten when it stops; --state FILE keeps them."
    yield "Stop with Ctrl-C."


def _fitting(on: Services, fit: Fit) -> Iterator[str]:
    world = fit.world
    yield f"  scopes                       {', '.join(world.scopes)}"
    for user in world.users:
        granted = decide(world.rules, collect_facts(world, user), tuple(world.scopes)).granted
        may = f"may grant {', '.join(granted)}" if granted else "may grant nothing"
        yield f"  {user.email:28} {may}"
    for name, scopes in world.connections.items():
        asked = f" ({', '.join(scopes)})" if scopes else ""
        yield f"  connection                   {name}{asked}, imitated at {on.google_url}"
    for note in fit.notes:
        yield f"  attention: {note}"
