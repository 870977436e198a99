"""The low-level ``mcp.server.Server`` of the official SDK, lines 1.x and 2.x.

It has handlers and no registry: one function answers every ``tools/call``. So decisions are made
by name. The known names come from the server's own list handlers and from the rules:

- A tool or prompt is known if the server lists it, or if a rule without ``*`` names it. If the
  server has no list of its tools (or prompts), every rule that matches makes a name known.
- A resource is known if the server lists it or a template that fits it, or if any rule matches.
- Everything else is refused as unknown, and its handler is not called.

Listed operations without a matching rule are guarded by ``ToolGuard(default=...)``. A rule for a
template applies to all URIs that could match it. Rules that read arguments get those that the
client sent, as the handler does.

Handlers have no decorators. ``toolguard.current_principal()`` returns their caller, and the guarded
functions that they call make their own decisions.

Notifications reach their handlers without a decision, as in all lines; on 1.x the SDK gives them no
request, so ``current_principal()`` has no caller there.
"""

from __future__ import annotations

import io
import sys
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mcp.server.lowlevel.server import Server
from typing_extensions import Self

from toolguard.calls.message import Frame
from toolguard.calls.waiting import wait_for
from toolguard.frameworks.adapter import PROTECTED, Adapter
from toolguard.frameworks.operation import Catalog, Operation, Revision
from toolguard.frameworks.resource_templates import templates_of
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.policies.by_name import HasPolicy
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy
from toolguard.policies.published import LISTS

__all__ = ["PROTECTED_WITHIN", "Capture", "LowLevelAdapter", "adapter", "adopting", "captured"]

PROTECTED_WITHIN = "this server is protected already, within the one that it belongs to"

_TEMPLATES = "resources/templates/list"
_LIST_OF: Mapping[Kind, str] = {
    "tool": "tools/list",
    "prompt": "prompts/list",
    "resource": "resources/list",
}
# More pages and names than any server has.
_MAX_PAGES = 100
_MAX_NOTED = 20_000


def adapter(server: Any) -> Adapter:
    """Return the adapter for a low-level server."""
    line = "lowlevel1" if hasattr(server, "request_handlers") else "lowlevel2"
    found: Adapter = import_module(f"toolguard.frameworks.{line}").adapter(server)
    return found


class LowLevelAdapter(Adapter):
    """One low-level server, whose operations are known by name only."""

    error_types = ()

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        # The names listed to any caller: a known name does not permit anything by itself.
        self._noted: dict[tuple[Kind, str], None] = {}
        self._templates: dict[str, None] = {}
        self._described: dict[str, Operation] = {}

    @abstractmethod
    def lists(self, method: str) -> bool:
        """Return whether the server has a handler for a list."""

    @abstractmethod
    async def ask(self, method: str, cursor: str | None) -> dict[str, Any]:
        """Return one page of a list, in JSON, from the server's own handler."""

    @abstractmethod
    def ask_all(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield the pages of all lists, with their methods, while no message is processed."""

    def operations(self) -> Iterator[Operation]:
        """Yield the operations that the server has listed so far."""
        for kind, name in tuple(self._noted):
            yield self._operation(kind, name)

    def revision(self) -> Revision:
        """Return a value that changes with the listed operations."""
        return Revision(self._noted)

    def policies(self) -> Iterator[Policy]:
        """Yield the policies of the rules: nothing else guards an operation."""
        yield from self.rules.policies

    def report_rules(self) -> None:
        """Do nothing: the operations of the rules are known only when clients request them."""

    def survey(self) -> Catalog:
        """Return the operations of the list handlers that work outside of a request."""
        return wait_for(self._survey)

    async def _survey(self) -> Catalog:
        unlisted = []
        try:
            async for method, page in self.ask_all():
                self._note(method, page)
        except Exception as error:  # noqa: BLE001 - code of the user's
            unlisted.append(f"the lists could not be asked for: {type(error).__name__}: {error}")
        return Catalog(tuple(self.operations()), tuple(unlisted))

    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation, if the server lists it or a rule without ``*`` names it."""
        del meta  # one name is one operation here
        if kind == "resource":
            return await self._find_resource(name)
        if (kind, name) in self._noted or self.rules.names(kind, name):
            return self._operation(kind, name)
        return self._operation(kind, name) if await self._is_listed(kind, name) else None

    async def _find_resource(self, uri: str) -> Operation | None:
        # Listed each time: a new template may have its own rule.
        if self.lists(_TEMPLATES):
            await self._is_listed("resource", "", _TEMPLATES)
        found = self._operation("resource", uri)
        if found.other_names or ("resource", uri) in self._noted:
            return found
        return found if await self._is_listed("resource", uri) else None

    def _operation(self, kind: Kind, name: str) -> Operation:
        if kind != "resource" or name in self._templates:
            return Operation(kind, name, None)
        is_listed = (kind, name) in self._noted
        known = self._described.get(name) if is_listed else None
        if known is None:
            fitting = templates_of(name, self._templates, is_listed=is_listed)
            known = Operation(kind, name, None, other_names=fitting)
            if is_listed:
                self._described[name] = known
        return known

    async def _is_listed(self, kind: Kind, name: str, method: str | None = None) -> bool:
        """Return whether the server lists a name now, and record what it lists."""
        asked = method or _LIST_OF[kind]
        if not self.lists(asked):
            return False
        async for page in self.pages(asked):
            if name in self._note(asked, page):
                return True
        return False

    async def pages(
        self, method: str, ask: Callable[[str | None], Awaitable[dict[str, Any]]] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the pages of a list; ``ask`` gets one, from the handler by default."""
        cursor = None
        for _ in range(_MAX_PAGES):
            page = await (self.ask(method, cursor) if ask is None else ask(cursor))
            yield page
            cursor = page.get("nextCursor")
            if not cursor:
                return

    def _note(self, method: str, page: Mapping[str, Any]) -> set[str]:
        """Record the operations on a page; return their names."""
        member, kind, key = LISTS[method]
        names = {str(each[key]) for each in page.get(member) or () if key in each}
        for name in names:
            if len(self._noted) < _MAX_NOTED:
                self._noted.setdefault((kind, name))
            if method == _TEMPLATES and name not in self._templates:
                self._templates[name] = None
                self._described.clear()
        return names

    def has_rule(self, kind: Kind, name: str, tags: Collection[str] = ()) -> bool:
        """Return whether a rule makes a name known that the server does not list."""
        if kind != "resource" and self.lists(_LIST_OF[kind]):
            return False  # names in rules without `*` have been found
        return super().has_rule(kind, name, tags)

    async def edit_list(self, door: Frame, method: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return a list with requirements, without the operations hidden from the caller."""
        self._note(method, result)
        return await super().edit_list(door, method, result)


class _CapturedError(BaseException):
    """Ends a function at the point where it would run its server."""

    def __init__(self, server: Any) -> None:
        super().__init__()
        self.server = server


async def captured(serve: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Return the server that ``serve`` would run, or its return value; the server does not run.

    The official reference servers create their server inside of such a function::

        server = await captured(mcp_server_time.server.serve)
        guard.protect(server, rules={"*": requires_scopes("time.read")})

    Args:
        serve: a function, or an async one, that ends in running a low-level server.
        args: the positional arguments for it.
        kwargs: the keyword arguments for it.
    """
    with Capture() as capture:
        made = serve(*args, **kwargs)
        return await made if isinstance(made, Awaitable) else made
    return capture.server


class Capture:
    """Ends the ``with`` block where it would run a server, and continues after the block.

    Inside the block no server of the process can run, and the standard streams are empty: use it
    in commands, and at the start of a process.

    Attributes:
        server: the server that was about to run.
    """

    def __init__(self) -> None:
        self.server: Any = None
        self._kept = (Server.run, sys.stdin, sys.stdout)

    def __enter__(self) -> Self:
        self._kept = (Server.run, sys.stdin, sys.stdout)
        Server.run = _stop  # type: ignore[method-assign,assignment]
        # A transport that reads standard input would wait for a line.
        sys.stdin, sys.stdout = io.TextIOWrapper(io.BytesIO()), io.TextIOWrapper(io.BytesIO())
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        Server.run, sys.stdin, sys.stdout = self._kept  # type: ignore[method-assign]
        found = None if error is None else _captured_in(error)
        if found is not None:
            self.server = found.server
        return found is not None


async def _stop(server: Any, *args: Any, **kwargs: Any) -> None:
    for each in (*args, *kwargs.values()):  # the streams, which a server would close
        if hasattr(each, "aclose"):
            await each.aclose()
    raise _CapturedError(server)


def _captured_in(error: BaseException) -> _CapturedError | None:
    if isinstance(error, _CapturedError):
        return error
    nested: tuple[BaseException, ...] = getattr(error, "exceptions", ())  # of a task group
    return next((found for each in nested if (found := _captured_in(each))), None)


@contextmanager
def adopting(guard: ServerGuard, rules: Mapping[str, HasPolicy] | None) -> Iterator[None]:
    """Have ``guard`` protect each low-level server when it starts to run, over stdio."""
    run = Server.run

    async def guarded(self: Any, *args: Any, **kwargs: Any) -> None:
        if getattr(self, PROTECTED, None) is None:
            guard.protect(self, rules=rules)
        try:
            await run(self, *args, **kwargs)
        finally:
            await guard.aclose()

    Server.run = guarded  # type: ignore[method-assign]
    try:
        with guard.serving_stdio():
            yield
    finally:
        Server.run = run  # type: ignore[method-assign]
