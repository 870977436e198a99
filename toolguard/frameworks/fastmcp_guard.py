"""Decide where fastmcp looks up operations: guarded copies, and a middleware in front of them.

A transform that is last on a server returns a copy of every component that a look-up finds; the
copy decides before it runs. Its name does not matter: whether renamed, mounted, found by a search
or swapped, the component that runs is the one decided on. The middleware in front keeps the
transform last, and decides on nested calls that are answered without a look-up, such as by a cache.
"""

from __future__ import annotations

import functools
import logging
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import fastmcp
from fastmcp.exceptions import NotFoundError, ToolError
from fastmcp.resources.template import FunctionResourceTemplate
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.server.transforms.visibility import Visibility

from toolguard.calls.message import Frame, MessageContext, as_current, here
from toolguard.decorators.wrapper import arguments_of, injected_parameters, owner_of
from toolguard.errors import GuardNotConfiguredError, InvalidInputError, ToolGuardError
from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.background import BackgroundTasks
from toolguard.frameworks.fastmcp_components import described, kind_of, name_of, parents, tags_of
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.overrides import check_overrides, own_methods
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.frameworks.serving import ALTERED, Incoming, outside, run, serve
from toolguard.policies.operations import CALLS, Kind, OperationCall, named_operations
from toolguard.policies.published import LISTS

__all__ = [
    "AttachableAdapter",
    "Attached",
    "MessagePath",
    "around",
    "attach",
    "by_names",
    "guarded",
    "on_path",
    "servers_below",
]

_ATTACHED = "__toolguard_attached__"
_MARK = "__toolguard_guard__"
_NOTHING = frozenset[str]()

# The methods that determine what a server serves, and how it looks operations up.
_LOOKUPS = (
    "get_tool",
    "get_resource",
    "get_resource_template",
    "get_prompt",
    "call_tool",
    "read_resource",
    "render_prompt",
)


class AttachableAdapter(Adapter):
    """A fastmcp server, as used by the guards attached to it and to the servers mounted on it.

    Attributes:
        tasks: the background tasks that were started through it.
    """

    tasks: BackgroundTasks

    @abstractmethod
    def at(self, server: FastMCPServer) -> AttachableAdapter:
        """Return the adapter for calls to ``server``, which is mounted below its own server."""

    @abstractmethod
    def listed_as(
        self, server: FastMCPServer, kind: Kind, name: str, reached_by: Sequence[str]
    ) -> Sequence[Operation]:
        """Return what an operation of a mounted server is to clients, for the rules.

        Args:
            server: the mounted server.
            kind: of the operation.
            name: what the operation is called there.
            reached_by: the names by which it has been reached; if a list has one of them, those
                of other lists, where the server is mounted once more, do not count.
        """

    @abstractmethod
    def names_below(self, kind: Kind, name: str) -> tuple[str, ...]:
        """Return the names on mounted servers of an operation that clients call ``name``."""

    @abstractmethod
    def attend_queue(self) -> None:
        """Have the queue of the server's background tasks decide by the guard."""

    @abstractmethod
    async def visible(self, door: Frame, method: str, listed: Sequence[Any]) -> Sequence[Any]:
        """Return the components of a list that are visible to the caller."""


class MessagePath:
    """The path of a message to the running code.

    Args:
        adapter: the protected server that the message belongs to.
        frame: the position in the message.
        names: the names of the operation to be found, on the servers it is mounted on.
        tags: its tags there.
        running: components that were decided on together with the running one.
        entering: the mounted server that the message itself is passed to; None once it is there.

    Attributes:
        named: what the message names on this server; None for the name that the client sent, and
            an empty name for a call that a middleware makes.
    """

    __slots__ = ("adapter", "entering", "frame", "named", "names", "running", "tags")

    def __init__(
        self,
        adapter: AttachableAdapter,
        frame: Frame,
        names: tuple[str, ...] = (),
        running: Sequence[Any] = (),
        entering: Any = None,
        tags: frozenset[str] = frozenset(),
    ) -> None:
        self.named: str | None = None
        self.tags = tags
        self.entering = entering
        self.adapter = adapter
        self.frame = frame
        self.names = names
        self.running = list(running)

    def takes(self, component: Any) -> bool:
        """Return whether a component has been decided on; True once for each component."""
        for at, each in enumerate(self.running):
            if each is component:
                del self.running[at]
                return True
        return False


_current: ContextVar[MessagePath | None] = ContextVar("toolguard_message_path", default=None)


@contextmanager
def on_path(path: MessagePath) -> Iterator[None]:
    """Make ``path`` the current one."""
    token = _current.set(path)
    try:
        yield
    finally:
        _current.reset(token)


def _find_path(frame: Frame | None) -> MessagePath | None:
    """Return the path of the message of ``frame``; None if no protected server serves it."""
    path = _current.get()
    if path is None or frame is None or path.frame.message is not frame.message:
        return None
    return path


class GuardTransform(Visibility):
    """The transform of one server that returns guarded copies.

    It is a ``Visibility``, because fastmcp 4.2 checks ``Mcp-Param`` headers only while a server
    has no other transforms.
    """

    def __init__(self, attached: Attached) -> None:
        super().__init__(enabled=True, match_all=True)
        self.attached = attached

    def __repr__(self) -> str:
        return "<toolguard>"

    async def list_tools(self, tools: Sequence[Any]) -> Sequence[Any]:
        """Return guarded copies."""
        return self._all(tools)

    async def get_tool(self, name: str, call_next: Any, *, version: Any = None) -> Any:
        """Return a guarded copy of the tool that is found."""
        return self._guarded(await call_next(name, version=version))

    async def list_resources(self, resources: Sequence[Any]) -> Sequence[Any]:
        """Return guarded copies."""
        return self._all(resources)

    async def get_resource(self, uri: str, call_next: Any, *, version: Any = None) -> Any:
        """Return a guarded copy of the resource that is found."""
        return self._guarded(await call_next(uri, version=version))

    async def list_resource_templates(self, templates: Sequence[Any]) -> Sequence[Any]:
        """Return guarded copies."""
        return self._all(templates)

    async def get_resource_template(self, uri: str, call_next: Any, *, version: Any = None) -> Any:
        """Return a guarded copy of the template that is found."""
        return self._guarded(await call_next(uri, version=version))

    async def list_prompts(self, prompts: Sequence[Any]) -> Sequence[Any]:
        """Return guarded copies."""
        return self._all(prompts)

    async def get_prompt(self, name: str, call_next: Any, *, version: Any = None) -> Any:
        """Return a guarded copy of the prompt that is found."""
        return self._guarded(await call_next(name, version=version))

    def _all(self, components: Sequence[Any]) -> Sequence[Any]:
        return [self._guarded(each) for each in components]

    def _guarded(self, component: Any) -> Any:
        attached = self.attached
        if component is None or attached.transform is not self or attached.deciding() is None:
            return component
        return guarded(component, attached)


def guarded(component: Any, attached: Attached) -> Any:
    """Return a copy of a component that decides before it runs."""
    copy = component.model_copy()
    if _MARK not in vars(copy):
        kind: Any = type(component)
        guarding = _guarding_class(kind)
        object.__setattr__(copy, "__class__", guarding)  # without pydantic's checks
    vars(copy)[_MARK] = attached
    return copy


@functools.cache
def _guarding_class(cls: Any) -> type[Any]:
    # Made once: what is known of a class is kept, and a call must not make one.
    return internals.guarding_class(cls, around)


class Attached:
    """The hooks on one server: a transform that is last, and a middleware that is first.

    Args:
        server: a protected server, or one that is mounted below one.

    Attributes:
        own: the adapter of the server, if it is protected itself.
    """

    def __init__(self, server: FastMCPServer) -> None:
        self._server = weakref.ref(server)
        self._methods = own_methods(server, _LOOKUPS)
        self._below: list[Any] = []
        self.own: AttachableAdapter | None = None
        self.transform = GuardTransform(self)
        self.front = _Front(self)

    @property
    def server(self) -> Any:
        """The server that has the hooks."""
        return self._server()

    def is_intact(self) -> bool:
        """Return whether the server still looks operations up as when this was attached."""
        return own_methods(self._server(), _LOOKUPS) == self._methods

    def deciding(self) -> AttachableAdapter | None:
        """Return the adapter of the protected server that decides here; None if there is none."""
        if self.own is not None:
            return self.own
        path = _find_path(here())
        return None if path is None else path.adapter

    def serves(self, method: str, frame: Frame, path: MessagePath | None) -> bool:
        """Return whether this is the message itself, and not a call from inside of it."""
        if method not in CALLS:
            return frame.message.sent is None
        if frame.message.sent is None or frame.row is not None:
            return False
        return path is None or path.entering is self.server

    def followed(self, add_transform: Callable[[Any], None]) -> Callable[[Any], None]:
        """Return a function that adds a transform and keeps this one last, during calls too."""

        @functools.wraps(add_transform)
        def followed(transform: Any) -> None:
            add_transform(transform)
            if transform is not self.transform:
                self.keep()

        return followed

    def keep(self) -> None:
        """Keep the transform last and the middleware first, here and on mounted servers."""
        server = self._server()
        assert server is not None  # noqa: S101 - it holds the hooks that lead here
        transforms = server.transforms
        if not transforms or transforms[-1] is not self.transform:
            self.transform = GuardTransform(self)  # a later one may swap guarded components
            server.add_transform(self.transform)
        if not isinstance(server.middleware, Outermost):
            server.middleware = Outermost(server.middleware, self.front)
        for middleware in server.middleware:
            if isinstance(middleware, ToolInjectionMiddleware):
                _guard_injected(middleware, self)
        if self.own is not None:
            self.own.attend_queue()
        if server.providers != self._below:
            self._below = list(server.providers)
            for each in servers_below(server):
                attach(each)


def attach(server: FastMCPServer) -> Attached:
    """Attach the hooks to a server and to those mounted below it; return those of the server.

    Raises:
        ValueError: if the server overrides fastmcp's look-up or execution of operations, or was
            altered after it was attached to.
    """
    attached: Attached | None = vars(server).get(_ATTACHED)
    if attached is None:
        check_overrides(server, _LOOKUPS, "fastmcp")
        attached = Attached(server)
        setattr(server, _ATTACHED, attached)
        vars(server)["add_transform"] = attached.followed(server.add_transform)
    if not attached.is_intact():
        raise ValueError(ALTERED)
    attached.keep()
    return attached


def _guard_injected(middleware: Any, attached: Attached) -> None:
    table = internals.injected_tools(middleware)
    for name, tool in table.items():
        if vars(tool).get(_MARK) is not attached:
            table[name] = guarded(tool, attached)


def servers_below(server: FastMCPServer) -> Iterator[FastMCPServer]:
    """Yield the servers that are mounted on a server, and on those in turn."""
    seen = {id(server)}
    todo = list(server.providers)
    while todo:
        provider = todo.pop(0)
        inner = internals.inner_provider(provider)
        todo += [] if inner is None else [inner]
        below = getattr(provider, "server", None)
        if isinstance(below, fastmcp.FastMCP):
            if id(below) not in seen:
                seen.add(id(below))
                yield below
                todo += below.providers
        else:
            todo += getattr(provider, "providers", ())


async def around(
    component: Any,
    entry: str,
    proceed: Callable[[], Awaitable[Any]],
    args: tuple[Any, ...],
    *,
    queued: bool = False,
) -> Any:
    """Run an entry of a guarded copy, if the caller is permitted.

    Args:
        component: the guarded copy.
        entry: the name of the entry.
        proceed: runs it.
        args: its arguments.
        queued: whether running it queues a task, for a worker to run it later.

    Raises:
        Exception: the refusal, or as raised by the component.
    """
    attached: Attached = vars(component)[_MARK]
    adapter = attached.deciding()
    # A template of functions reads its resources itself, and then decides.
    reads_later = entry == "create_resource" and isinstance(component, FunctionResourceTemplate)
    if adapter is None or reads_later:
        return await proceed()
    frame = here()
    path = _find_path(frame)
    if path is not None and path.frame.row is not frame.row:  # type: ignore[union-attr]
        path = None  # a call from in here has not been reached by another name
    if path is not None and path.takes(component):
        return await proceed()
    tasks = adapter.tasks
    if tasks.line.asked_for is not None and tasks.line.asked_for(args):
        queued, proceed = True, functools.partial(tasks.queue, adapter.required_guard, proceed)
    chain = parents(component)
    is_reached = path is not None and path.adapter is adapter
    names, tags = (path.names, path.tags) if path is not None and is_reached else ((), _NOTHING)
    if attached.own is not adapter:  # which may have been called by no name that is listed
        names, tags = _listed_as(attached, adapter, chain[0], names, tags)
    # An entry that starts with an underscore calls the one without.
    running = chain if entry.startswith("_") else chain[1:]
    below = internals.mounted(chain[-1])
    if below is not None:
        _check_in_front(adapter, chain, names)
        known = [*map(name_of, chain)]
        reached = (*names, *known), tags | tags_of(chain)
        uri = _arguments(kind_of(component), known[0], entry, args).get("uri")
        named = below[1] if _is_own(path, frame, *known, uri) else ""
        return await _pass_on(adapter, (below[0], named), reached, running, proceed)

    async def decided() -> Any:
        inside = here()
        assert inside is not None  # noqa: S101 - this runs inside of the frame that decided
        if queued:
            await tasks.check_user(adapter.required_guard)
            _check_sent(chain, arguments)
        if path is not None and path.named is not None:
            inside.entered.own = _is_own(path, frame, *map(name_of, chain), arguments.get("uri"))
        before = _current.set(MessagePath(adapter, inside, (), running))
        try:
            return await proceed()
        finally:
            _current.reset(before)

    operation = described(chain, names, tags)
    arguments = _arguments(operation.kind, operation.name, entry, args)
    unknown = functools.partial(_unknown, operation.kind, operation.name)
    validated = functools.partial(_validated, adapter, chain, args) if queued else None
    return await run(adapter, operation, arguments, decided, unknown, validated)


def _listed_as(
    attached: Attached,
    adapter: AttachableAdapter,
    component: Any,
    names: tuple[str, ...],
    tags: frozenset[str],
) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names and tags of a component, with those it has in lists of other servers."""
    here_named = (attached.server, kind_of(component), name_of(component))
    for listed in adapter.listed_as(*here_named, reached_by=names):
        names, tags = (*names, *listed.names), tags | listed.tags
    return names, tags


def _check_in_front(adapter: AttachableAdapter, chain: Sequence[Any], names: Sequence[str]) -> None:
    """Check a tool that is made from one of a mounted server, which decides without knowing it.

    Raises:
        Exception: the refusal of every call, if it cannot be guarded as registered.
    """
    if len(chain) == 1:
        return
    listed = names[0] if names else name_of(chain[0])
    fault = adapter.resolve(described(chain, (*names, *adapter.names_below("tool", listed)))).fault
    if fault is not None:
        refusal = GuardNotConfiguredError(fault)
        frame = here()
        if frame is not None:
            frame.enter(None, OperationCall("tool", listed)).entered.ended(refusal)
        raise adapter.refusal_error(refusal, nested=False)


def _check_sent(chain: Sequence[Any], arguments: Mapping[str, Any]) -> None:
    """Check that a client sends no argument of a task that the guard of its function injects.

    fastmcp 3 queues arguments that the function does not declare, and dependencies can read them.

    Raises:
        InvalidInputError: if it does.
    """
    function = getattr(chain[-1], "fn", None)
    injected = () if function is None else injected_parameters(function)
    if not arguments.keys().isdisjoint(injected):
        raise InvalidInputError("Send only arguments that the tool lists")


def _validated(
    adapter: AttachableAdapter, chain: Sequence[Any], args: tuple[Any, ...]
) -> Mapping[str, Any]:
    """Return the arguments of an entry as the wrapper of its function will read them.

    Raises:
        GuardNotConfiguredError: if they are known only when the function runs.
    """
    if len(chain) > 1:
        raise GuardNotConfiguredError(
            f"{name_of(chain[0])!r} is made from a tool whose rule reads arguments, which are "
            "known only when it runs: put the rule on a tool that is not made from another"
        )
    given = next((each for each in args if isinstance(each, Mapping)), {})
    owner = owner_of(chain[0].fn)
    assert owner is not None  # noqa: S101 - a wrapper has left it open
    return arguments_of(owner, adapter.tasks.line.validated(chain[0], dict(given)))


def _arguments(kind: Kind, name: str, entry: str, args: tuple[Any, ...]) -> Mapping[str, Any]:
    if kind == "resource":
        is_given = entry in ("_read", "create_resource") and args and isinstance(args[0], str)
        return {"uri": args[0] if is_given else name}
    return (args[0] if args else None) or {}


class _UnknownOperationError(ToolError, NotFoundError):
    """The error that fastmcp treats as an unknown operation, raised from within a known one."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.log_level = logging.DEBUG


async def _unknown(kind: Kind, name: str) -> Any:
    """Raise fastmcp's error for an unknown operation."""
    frame = here()
    sent = frame.message.sent if frame is not None and frame.row is None else None
    raise _UnknownOperationError(f"Unknown {kind}: {(sent.name if sent else name)!r}")


async def _pass_on(
    adapter: AttachableAdapter,
    below: tuple[FastMCPServer, str],
    reached: tuple[tuple[str, ...], frozenset[str]],
    running: Sequence[Any],
    proceed: Callable[[], Awaitable[Any]],
) -> Any:
    """Let a mounted server look up the operation; it decides there, by all its names and tags.

    Raises:
        Exception: the refusal, or as raised by the operation.
    """
    frame, (names, tags), (server, named) = here(), reached, below
    try:
        attach(server)
    except ValueError as error:  # mounted or altered while serving
        refusal = GuardNotConfiguredError(str(error))
        if frame is not None:
            frame.enter(None, OperationCall("tool", names[-1])).entered.ended(refusal)
        raise adapter.refusal_error(refusal, nested=False) from None
    if frame is None:  # called by code of the user's, outside of a message
        frame = await outside(adapter.required_guard)
    path = MessagePath(adapter, frame, names, running, server, tags)
    path.named = named
    with as_current(frame), on_path(path):
        return await proceed()


class _Front(Middleware):
    """The middleware in front of all other middleware of a server."""

    def __init__(self, attached: Attached) -> None:
        self._attached = attached

    async def __call__(self, context: MiddlewareContext[Any], call_next: Any) -> Any:
        """Serve a message, or a call from inside of one.

        Raises:
            Exception: the refusal that it ended in, or what the server raised.
        """
        attached = self._attached
        attached.keep()
        frame = here()
        path = _find_path(frame)
        adapter = attached.own or (None if path is None else path.adapter)
        method = context.method or ""
        if adapter is None or (frame is None and method not in CALLS):
            return await call_next(context)
        nested = functools.partial(_nested, attached, adapter, context, call_next)
        if frame is None:  # called by code of the user's, outside of a message
            with as_current(await outside(adapter.required_guard)):
                return await nested()
        if (path is None or path.adapter is adapter) and attached.serves(method, frame, path):
            # `serve` has decided or will decide, for this server and for those below.
            path = path or MessagePath(adapter, frame)
            path.entering = None  # the next call here is one from inside
            before = _current.set(path)
            try:
                return await call_next(context)
            finally:
                _current.reset(before)
        if method in CALLS:
            return (
                await _nested_by_names(path, context, nested)
                if path is not None
                else await nested()
            )
        result = await call_next(context)
        return await _visible(adapter, frame, method, result) if method in LISTS else result


async def _visible(
    adapter: AttachableAdapter, frame: Frame, method: str, result: Any
) -> Sequence[Any]:
    """Return the part of a list result, inside of a message, that is visible to the caller."""
    door = Frame(adapter.required_guard, frame.message, frame.row)
    try:
        return await adapter.visible(door, method, result)
    except ToolGuardError as refusal:
        raise adapter.refusal_error(refusal, nested=True) from None


async def _nested_by_names(
    path: MessagePath, context: MiddlewareContext[Any], nested: Callable[[], Awaitable[Any]]
) -> Any:
    """Apply the rules of a server to a call to another protected server mounted on it.

    Raises:
        Exception: the refusal that it ended in, or what the server raised.
    """
    frame = here()
    if not path.names or frame is None or path.frame.row is not frame.row:
        return await nested()
    call = named_operations(context.method or "", _params(context))[0]
    named = OperationCall.sent(call.kind, path.names[0], call.arguments)
    names = (*path.names, call.name)
    return await by_names(path.adapter, names, named, nested, path.tags)


async def by_names(
    adapter: AttachableAdapter,
    names: tuple[str, ...],
    call: OperationCall,
    proceed: Callable[[], Awaitable[Any]],
    tags: frozenset[str] = frozenset(),
) -> Any:
    """Run what another guard decides on, if the rules for its names and tags let the caller.

    Raises:
        Exception: the refusal that it ended in, or what the operation raised.
    """
    frame = here()
    sent = frame.message.sent if frame is not None and frame.row is None else None
    known = (*names, sent.name) if sent is not None else names
    if not any(adapter.has_rule(call.kind, name, tags) for name in known):
        return await proceed()
    operation = Operation(call.kind, names[0], None, other_names=names[1:], tags=tags)
    unknown = functools.partial(_unknown, call.kind, names[0])

    async def decided() -> Any:
        inside = here()
        assert inside is not None  # noqa: S101 - this runs inside of the frame that decided
        inside.entered.own = False  # the other guard decides on it
        return await proceed()

    return await run(adapter, operation, call.arguments, decided, unknown)


async def _nested(
    attached: Attached, adapter: AttachableAdapter, context: MiddlewareContext[Any], call_next: Any
) -> Any:
    """Serve a call from inside of a message as a separate message, under this server's guard.

    Raises:
        Exception: the refusal that it ended in, or what the server raised.
    """
    frame = here()
    assert frame is not None  # noqa: S101 - only a call from inside of a message is nested
    path, inner = _find_path(frame), list[MessageContext]()

    async def served() -> Any:
        door = here()
        assert door is not None  # noqa: S101 - this runs inside of the frame of the message
        inner.append(door.message)
        with on_path(MessagePath(adapter, door)):
            return await call_next(context)

    method, params = context.method or "", _params(context)
    incoming = Incoming(None, method, params, served, _is_error, _to_json, lambda result, _: result)
    try:
        return await serve(adapter.at(attached.server), adapter.required_guard, incoming)
    except ToolGuardError as refusal:
        for row in (row for each in inner for row in each.rows[-1:]):
            row.ended(row.refusal or refusal)
        raise adapter.refusal_error(refusal, nested=frame.row is not None) from None
    finally:
        if frame.row is None:  # the operation of the message
            for row in (row for each in inner for row in each.rows):
                row.own = row.own and _is_own(path, frame, params.get("name"), params.get("uri"))
                frame.message.rows.append(row)


def _is_own(path: MessagePath | None, frame: Frame | None, *names: object) -> bool:
    """Return whether a call, by one of these names, is known to be what the message names."""
    sent = None if frame is None else frame.message.sent
    named = path.named if path is not None and path.named is not None else sent and sent.name
    return named is None or named in names


def _params(context: MiddlewareContext[Any]) -> dict[str, Any]:
    """Return the parameters of a call as JSON values."""
    params = dict(vars(context.message))
    params["_meta"] = params.pop("meta", None)
    if "uri" in params:
        params["uri"] = str(params["uri"])  # parsed by fastmcp 3.x
    return params


def _is_error(result: Any) -> bool:
    return getattr(result, "is_error", False) is True


def _to_json(result: Any) -> dict[str, Any]:
    return {"resultType": "input_required"} if hasattr(result, "input_required") else {}
