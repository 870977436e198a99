"""How is an audit held against what calls on the server get?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from support.lines import Line
from support.wire import Caller
from toolguard import public, requires_scopes
from toolguard.audit import AuditedOperation, Report
from toolguard.audit.report import Access
from toolguard.testing import LocalIssuer

__all__ = ["Callers", "bare", "done", "notes", "row", "wrong"]


def row(report: Report, name: str) -> AuditedOperation:
    """Return the only operation of that name."""
    (found,) = (each for each in report.operations if each.name == name)
    return found


def wrong(report: Report) -> set[tuple[str, str]]:
    """Return what is found, and about what."""
    return {(each.code, each.name) for each in report.findings}


def bare(line: Line) -> Any:
    """Return a server without anything on it."""
    return line.server("server")


def done() -> Callable[[], Awaitable[str]]:
    """Return a new function: a guard marks what it is put on."""

    async def tool() -> str:
        return "done"

    return tool


def notes(line: Line) -> Any:
    """Return a server with a guarded tool, a tool without a guard, a template and a prompt."""
    server = line.server("notes")

    @server.tool()
    @requires_scopes("read")
    async def read(*, user_id: str) -> str:
        return "done"

    @server.tool()
    async def wipe() -> str:
        return "done"

    @server.resource("notes://{user}/all")
    @requires_scopes("read")
    async def all_of(user: str) -> str:
        return user

    @server.prompt()
    @public
    async def plan() -> str:
        return "plan"

    return server


@dataclass(frozen=True)
class Callers:
    """Callers of one server: without a token, with one, with one that has scopes.

    Every tool of the server answers "done".
    """

    http: httpx.Client
    url: str
    issuer: LocalIssuer
    scopes: Sequence[str]

    def access(self, tool: str) -> Access:
        """Return who gets in, found out by calling."""
        if self._gets_in(tool, None):
            return "everybody"
        if self._gets_in(tool, self.issuer.mint("alice")):
            return "authenticated"
        token = self.issuer.mint("alice", scopes=self.scopes)
        return "restricted" if self._gets_in(tool, token) else "nobody"

    def _gets_in(self, tool: str, token: str | None) -> bool:
        reply = Caller(self.http, self.url, token=token).call(tool)
        return reply.status == 200 and '"done"' in reply.content
