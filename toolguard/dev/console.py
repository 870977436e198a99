"""The console of a development server: a page that shows its world, and gives out tokens.

It is for this machine only, as the whole server is (``loopback_only.py`` checks the ``Host``, which
stops DNS rebinding). A token is shown to a form of this page only: it carries the CSRF token of the
browser's session, and the browser says that the form came from here.
"""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from toolguard.dev.decisions import Decisions
from toolguard.dev.oauth.clients import all_clients
from toolguard.dev.oauth.config import User
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.direct import PersonTokenRequest, token_for_person
from toolguard.dev.oauth.identity import collect_facts
from toolguard.dev.oauth.notes import noting
from toolguard.dev.oauth.parameters import read_form
from toolguard.dev.oauth.policies import decide
from toolguard.dev.oauth.refusals import Refusal, answering_pages
from toolguard.dev.oauth.sessions import (
    BrowserSession,
    check_csrf,
    csrf_token,
    open_session,
    session_of,
)
from toolguard.pages.layout import Form, page
from toolguard.parts.environment import RECORDS

if TYPE_CHECKING:
    from toolguard.audit import AuditedOperation

__all__ = ["Console", "paste_lines"]

_PURPOSE = "console token"
_CLIENT = "toolguard-console"


@dataclass(frozen=True)
class _PersonView:
    """A person of the world, with the form for a token."""

    user: User
    permissions: tuple[str, ...]
    may: tuple[str, ...]
    connected: tuple[str, ...]
    form: Form


class Console:
    """The console of one server.

    Args:
        context: the server.
        connections: the scopes of the connections, by their names.
        connected: returns the names of what a user has connected.
        operations: returns the operations of the server that the world was made for.
        decisions: what the guarded servers decided.
    """

    def __init__(
        self,
        context: ServerContext,
        *,
        connections: Mapping[str, Sequence[str]],
        connected: Callable[[str], Any],
        operations: Callable[[], tuple[str, tuple[AuditedOperation, ...]]],
        decisions: Decisions,
    ) -> None:
        self._context = context
        self._connections = connections
        self._connected = connected
        self._operations = operations
        self._decisions = decisions

    def routes(self) -> list[Route]:
        """Return the page at the address of the issuer, and what leads to it."""
        context = self._context
        give = noting(context.notes, "a token of the console", self._give)
        return [
            Route("/", self._lead, methods=["GET"]),
            Route(context.path, answering_pages(self._show, context.issuer), methods=["GET"]),
            Route(
                f"{context.path}/console-token",
                answering_pages(give, context.issuer),
                methods=["POST"],
            ),
        ]

    async def _lead(self, request: Request) -> Response:  # noqa: ARG002 - an endpoint
        return RedirectResponse(self._context.issuer, 303)

    async def _show(self, request: Request) -> Response:
        context, world = self._context, self._context.world
        session = session_of(context, request)
        opened = Response()
        if session is None:
            session = open_session(context, opened, user_id=None, instead_of=None)
        server, operations = self._operations()
        url = world.resources[0].url
        clients = all_clients(context)
        names = {each.client_id: each.name for each in clients}
        shown = page(
            "console.html",
            issuer=context.issuer,
            resources=[each.url for each in world.resources],
            people=[await self._person(user, session) for user in world.users],
            scopes=world.scopes,
            first=world.default_scopes,
            rules=world.rules,
            operations=operations,
            connections=self._connections,
            clients=clients,
            calls=[(_clock(call.at), call) for call in self._decisions.last(names)],
            to_see_calls=_record_lines(self._decisions.file),
            notes=[(_clock(note.at), note) for note in context.notes.last],
            lines=paste_lines(server or "server", url),
        )
        for cookie in opened.headers.getlist("set-cookie"):
            shown.headers.append("set-cookie", cookie)
        return shown

    async def _person(self, user: User, session: BrowserSession) -> _PersonView:
        world = self._context.world
        facts = collect_facts(world, user)
        return _PersonView(
            user,
            facts.permissions,
            decide(world.rules, facts, tuple(world.scopes)).granted,
            tuple(await self._connected(user.id)),
            Form(
                self._context.url("console-token"),
                {"csrf": csrf_token(session, _PURPOSE), "person": user.id},
            ),
        )

    async def _give(self, request: Request) -> Response:
        form = await read_form(request)
        session = session_of(self._context, request)
        if session is None:
            raise Refusal("access_denied", "Open the console first, in this browser", status=403)
        check_csrf(request, session, _PURPOSE, form.get("csrf"))
        asked = PersonTokenRequest(
            form.require("person"), form.every("scope"), form.get("resource"), _CLIENT
        )
        answer = token_for_person(self._context, asked)
        return page("console_token.html", issuer=self._context.issuer, answer=answer)


def _record_lines(file: Path | None) -> tuple[str, str] | None:
    """Return what has a server write its records to ``file``: a variable, or code."""
    if file is None:
        return None
    code = f"""\
from toolguard.telemetry import JSONLines

ToolGuard(..., on_decision=JSONLines({str(file)!r}))"""
    return f"export {RECORDS}={shlex.quote(str(file))}", code


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S UTC", time.gmtime(at))


def paste_lines(name: str, url: str) -> dict[str, str]:
    """Return what to paste into each client to use the server at ``url``, by its name."""
    plain = "".join(char if char.isalnum() else "-" for char in name.lower()).strip("-")
    plain = plain or "server"
    place, command = shlex.quote(url), json.dumps({"name": plain, "type": "http", "url": url})
    initialize = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25",
            "capabilities": {},
            "clientInfo": {"name": "curl", "version": "1"},
        },
    }
    return {
        "Claude Code": f"claude mcp add --transport http {plain} {place}",
        "Cursor, .cursor/mcp.json": json.dumps({"mcpServers": {plain: {"url": url}}}),
        "VS Code": f"code --add-mcp {shlex.quote(command)}",
        "MCP inspector": (
            f"npx @modelcontextprotocol/inspector --transport http --server-url {place}"
        ),
        "toolguard": f"toolguard call {place} TOOL '{{}}' --as alice",
        "curl": (
            f"curl -si {place} -H 'content-type: application/json' "
            "-H 'accept: application/json, text/event-stream' "
            '-H "authorization: Bearer $(toolguard token)" '
            f"-d {shlex.quote(json.dumps(initialize))}"
        ),
    }
