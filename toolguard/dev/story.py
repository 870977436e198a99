"""What does the demo tell?

Everything runs on loopback and for real: an issuer, a connection vault, a calendar API in the
shape of Google's, a guarded MCP server, and the client of the ``mcp`` package.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.routing import Mount

from toolguard.challenge import parse
from toolguard.descope import DescopeConnections
from toolguard.dev.calendar import SCOPE_HIERARCHY, calendar_server
from toolguard.dev.client import MCPClient
from toolguard.dev.connection_table import ConnectionTable, Owner, ProviderToken
from toolguard.dev.google import calendar_routes
from toolguard.dev.google_accounts import CALENDAR, Accounts
from toolguard.dev.narrator import Narrator
from toolguard.dev.vault import FETCH_SCOPE, Vault
from toolguard.guard import ToolGuard
from toolguard.testing import LocalIssuer, Loopback

__all__ = ["tell"]

_READ, _WRITE = "mcp:calendar.readonly", "mcp:calendar.write"
_PROJECT = "Plocal"
_APP = "google-calendar"
_DAY = {"time_min": "2030-01-07T00:00:00Z", "time_max": "2030-01-08T00:00:00Z"}
_EVENT = {
    "title": "Design review",
    "start": "2030-01-07T10:00:00Z",
    "end": "2030-01-07T11:00:00Z",
}
_TOOLS = {
    "list_calendar_events": ["time_min", "time_max"],
    "query_availability": ["time_min", "time_max"],
    "create_calendar_event": ["title", "start", "end"],
    "delete_calendar_event": ["event_id"],
}


@dataclass(frozen=True)
class _Stage:
    """What runs."""

    issuer: LocalIssuer
    google: Accounts
    google_url: str
    mcp_url: str

    def client(self, *scopes: str) -> MCPClient:
        """Return Alice's client with a token of these scopes."""
        token = self.issuer.mint("alice", scopes=[*scopes, FETCH_SCOPE])
        return MCPClient(self.mcp_url, token=token)


async def tell(narrator: Narrator) -> None:
    """Tell the story, checking each step.

    Raises:
        UnexpectedStepError: at the first step that is not as it should be.
    """
    with _stage() as stage:
        narrator.title("toolguard demo: everything runs on this machine, nothing leaves it")
        narrator.says(f"authorization server and vault  {stage.issuer.issuer}")
        narrator.says(f"calendar API, as Google's       {stage.google_url}")
        narrator.says(f"guarded MCP server              {stage.mcp_url}")
        await _without_a_token(narrator, stage)
        await _reading(narrator, stage)
        await _writing(narrator, stage)
        _in_the_calendar(narrator, stage)


async def _without_a_token(narrator: Narrator, stage: _Stage) -> None:
    narrator.step("A client without a token asks which tools there are.")
    refused = await MCPClient(stage.mcp_url).tools()
    narrator.exchange(refused.exchange, "WWW-Authenticate")
    narrator.expect(401, refused.exchange.status)
    narrator.says("The challenge says where to sign in, and for what to ask to begin with.")


async def _reading(narrator: Narrator, stage: _Stage) -> None:
    client = stage.client(_READ)
    narrator.step(f'Alice signs in; her client holds a token with "{_READ}" and lists the tools.')
    listed = await client.tools()
    narrator.exchange(listed.exchange, note="tools/list")
    narrator.expect(_TOOLS, listed.data)
    for tool, parameters in listed.data.items():
        narrator.says(f"{tool}({', '.join(parameters)})")
    narrator.says("The user and the Google token are no parameters: the guard injects them.")

    narrator.step("It lists the events of a day.")
    read = await client.call("list_calendar_events", **_DAY)
    narrator.exchange(read.exchange, note="tools/call list_calendar_events")
    narrator.expect((True, []), (read.ok, read.data))
    narrator.says(
        "Allowed. The guard exchanged Alice's token at the vault for her Google token, and the "
        "tool asked the calendar with that: the day is free."
    )

    narrator.step("It creates an event.")
    refused = await client.call("create_calendar_event", **_EVENT)
    narrator.exchange(refused.exchange, "WWW-Authenticate", note="tools/call create_calendar_event")
    narrator.expect(403, refused.exchange.status)
    narrator.expect((_WRITE,), parse(refused.exchange.headers["www-authenticate"]).scope)
    narrator.expect([], stage.google.events("alice@example.com"))
    narrator.says(
        "Refused before the tool ran: the token is good, and the challenge names the scope it "
        "lacks, so that the client can ask Alice for it and try again."
    )


async def _writing(narrator: Narrator, stage: _Stage) -> None:
    client = stage.client(_WRITE)
    narrator.step(f'Alice agrees; her client holds a token with "{_WRITE}" and tries again.')
    served = await client.call("create_calendar_event", **_EVENT)
    narrator.exchange(served.exchange, note="tools/call create_calendar_event")
    narrator.expect((True, "Design review"), (served.ok, served.data["title"]))
    narrator.says("Served: a real call, with Alice's own Google token, which the client never saw.")

    narrator.step("With the same token it asks when Alice is busy.")
    busy = await client.call("query_availability", **_DAY)
    narrator.exchange(busy.exchange, note="tools/call query_availability")
    narrator.expect([{"start": _EVENT["start"], "end": _EVENT["end"]}], busy.data)
    narrator.says(f'"{_WRITE}" includes "{_READ}": that is the scope hierarchy of this server.')


def _in_the_calendar(narrator: Narrator, stage: _Stage) -> None:
    narrator.step("And in the calendar?")
    [event] = stage.google.events("alice@example.com")
    narrator.expect("alice", event["extendedProperties"]["private"]["createdBy"])
    narrator.says(f"{event['start']['dateTime']}  {event['summary']}, created by alice.")


@contextmanager
def _stage() -> Iterator[_Stage]:
    with ExitStack() as running:
        authorization, google, mcp = (running.enter_context(Loopback()) for _ in range(3))
        mcp_url = f"{mcp.url}/mcp"
        issuer = LocalIssuer(f"{authorization.url}/{_PROJECT}", audience=mcp_url)
        accounts, table = Accounts(), ConnectionTable.in_memory()
        _connect_alice(accounts, table)
        vault = Vault(
            project_id=_PROJECT,
            connections=table,
            verifier=issuer.verifier(),
            providers={_APP: _NoRefresh()},
        )
        google.start(Starlette(routes=calendar_routes(accounts)))
        authorization.start(Starlette(routes=[*vault.routes(), Mount(f"/{_PROJECT}", issuer.app)]))
        well_known_url = f"{issuer.issuer}/.well-known/openid-configuration"
        connections = DescopeConnections(well_known_url)
        guard = ToolGuard(
            well_known_url=well_known_url,
            audience=mcp_url,
            connections=connections,
            scope_hierarchy=SCOPE_HIERARCHY,
        )
        app = guard.protect(calendar_server(google.url)).streamable_http_app()
        mcp.start(_closing(app, connections))
        yield _Stage(issuer, accounts, google.url, mcp_url)


def _closing(app: Starlette, connections: DescopeConnections) -> Starlette:
    """Close the pool of ``connections`` in the loop it belongs to, when ``app`` stops."""
    whole = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with whole(app):
            yield
        await connections.aclose()

    app.router.lifespan_context = lifespan
    return app


def _connect_alice(accounts: Accounts, table: ConnectionTable) -> None:
    given = accounts.grant("alice@example.com", [CALENDAR])
    token = ProviderToken("OT1", "alice", given.access_token, "", given.scopes, None)
    table.put(Owner("user", "alice"), _APP, token)


class _NoRefresh:
    async def refresh(self, _: ProviderToken) -> ProviderToken | None:
        return None
