"""Decisions where fastmcp finds an operation: guarded copies, and a middleware in front of them.

A transform that is last on a server hands out a copy of every component that a look-up finds; the
copy decides before it runs. What it is called by then does not matter: renamed, mounted, searched
or swapped, what runs is what was decided on. The middleware in front keeps the transform last, and
decides on nested calls that something answers by itself, such as a cache.
"""

from __future__ import annotations

import functools
import logging
import weakref
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import fastmcp
from fastmcp.exceptions import NotFoundError, ToolError
from fastmcp.resources.template import FunctionResourceTemplate
from fastmcp.server.middleware import Middleware, MiddlewareContext
from fastmcp.server.middleware.tool_injection import ToolInjectionMiddleware
from fastmcp.server.transforms.visibility import Visibility

from toolguard.calls.message import Frame, Message, here, standing
from toolguard.errors import GuardNotConfiguredError, ToolGuardError
from toolguard.frameworks import internals
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.serving import Incoming, outside, run, serve
from toolguard.policies.operations import CALLS, Invocation, Kind, asked_of
from toolguard.policies.published import LISTS

__all__ = ["AttachableAdapter", "attach", "described", "name_of", "parents", "servers_below"]

_ATTACHED = "__toolguard_attached__"
_MARK = "__toolguard_guard__"

# What decides what a server serves, and how it is looked up there.
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
    """A fastmcp server, as the guards see it that are attached to it and to what is below it."""

    @abstractmethod
    def at(self, server: Any) -> AttachableAdapter:
        """Return the adapter as it is for calls to ``server``, which is mounted below its own."""

    @abstractmethod
    def names_of(self, server: Any, kind: Kind, name: str) -> tuple[str, ...]:
        """Return what an operation of a mounted server is called by clients, for the rules."""

    @abstractmethod
    async def visible(self, door: Frame, method: str, listed: Sequence[Any]) -> Sequence[Any]:
        """Return what the caller may see of the components in a list."""


class _Way:
    """How a message has come to where the running code stands.

    Args:
        adapter: the protected server that the message is under.
        frame: where in the message that is.
        names: what the operation to be found was called on the servers it is mounted on.
        running: components that have been decided on together with what runs now.
    """

    __slots__ = ("adapter", "frame", "names", "running")

    def __init__(
        self,
        adapter: AttachableAdapter,
        frame: Frame,
        names: tuple[str, ...] = (),
        running: Sequence[Any] = (),
    ) -> None:
        self.adapter = adapter
        self.frame = frame
        self.names = names
        self.running = list(running)

    def takes(self, component: Any) -> bool:
        """Return whether a component has been decided on; once for each."""
        for at, each in enumerate(self.running):
            if each is component:
                del self.running[at]
                return True
        return False


_current: ContextVar[_Way | None] = ContextVar("toolguard_way", default=None)


@contextmanager
def _on(way: _Way) -> Iterator[None]:
    token = _current.set(way)
    try:
        yield
    finally:
        _current.reset(token)


def _way(frame: Frame | None) -> _Way | None:
    """Return how the message of ``frame`` came here; None if it came under no protected server."""
    way = _current.get()
    if way is None or frame is None or way.frame.message is not frame.message:
        return None
    return way


class Guard(Visibility):
    """The transform of one server that hands out guarded copies.

    It is a ``Visibility`` since fastmcp 4.2 checks ``Mcp-Param`` headers only as long as a server
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
        object.__setattr__(copy, "__class__", _class(kind))  # past what pydantic would look for
    vars(copy)[_MARK] = attached
    return copy


@functools.cache
def _class(cls: Any) -> type[Any]:
    return internals.guarding_class(cls, _around)


class Attached:
    """What stands on one server: a transform that is last, and a middleware that is first.

    Args:
        server: a protected server, or one that is mounted below one.

    Attributes:
        own: the adapter of the server, if it is protected itself.
    """

    def __init__(self, server: Any) -> None:
        self._server = weakref.ref(server)
        self._below: object = None
        self.own: AttachableAdapter | None = None
        self.transform = Guard(self)
        self.front = _Front(self)

    @property
    def server(self) -> Any:
        """The server that this stands on."""
        return self._server()

    def deciding(self) -> AttachableAdapter | None:
        """Return the protected server that decides on what is found here; None if none does."""
        if self.own is not None:
            return self.own
        way = _way(here())
        return None if way is None else way.adapter

    def keep(self) -> None:
        """See to it that the transform is last and the middleware first, here and below."""
        server = self.server
        transforms = server.transforms
        if not transforms or transforms[-1] is not self.transform:
            self.transform = Guard(self)  # a later one may swap what was guarded
            server.add_transform(self.transform)
        if not isinstance(server.middleware, Outermost):
            server.middleware = Outermost(server.middleware, self.front)
        for middleware in server.middleware:
            if isinstance(middleware, ToolInjectionMiddleware):
                _guard_injected(middleware, self)
        below = (len(server.providers), server.providers[-1])
        if below != self._below:
            self._below = below
            for each in servers_below(server):
                attach(each)


def attach(server: Any) -> Attached:
    """Stand on a server and on those mounted below it; return what stands there.

    Raises:
        ValueError: if the server looks operations up or runs them in a way of its own.
    """
    attached: Attached | None = vars(server).get(_ATTACHED)
    if attached is None:
        _check_overrides(server)
        attached = Attached(server)
        setattr(server, _ATTACHED, attached)
    attached.keep()
    return attached


def _guard_injected(middleware: Any, attached: Attached) -> None:
    table = internals.injected_tools(middleware)
    for name, tool in table.items():
        if vars(tool).get(_MARK) is not attached:
            table[name] = guarded(tool, attached)


def _check_overrides(server: Any) -> None:
    """Make sure that what a server finds is what fastmcp's look-up finds.

    Raises:
        ValueError: if the class or the server has a method of its own that does not call
            fastmcp's.
    """
    for name in _LOOKUPS:
        method = vars(server).get(name) or getattr(type(server), name)
        function = getattr(method, "__func__", method)
        if str(getattr(function, "__module__", "")).partition(".")[0] == "fastmcp":
            continue
        code = getattr(function, "__code__", None)
        if code is None or "__class__" not in code.co_freevars or name not in code.co_names:
            raise ValueError(
                f"{server!r} has a {name}() of its own that does not call super().{name}(), so "
                "what it runs would not be decided on: use a transform or a provider instead"
            )


def servers_below(server: Any) -> Iterator[Any]:
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


def parents(component: Any) -> list[Any]:
    """Return a component, then the tools it was transformed from."""
    chain = []
    while component is not None:
        chain.append(component)
        component = component.parent_tool if _facts(component.__class__).is_transformed else None
    return chain


class _Facts(NamedTuple):
    """What the components of one class are: pydantic takes long to say that there is no field."""

    kind: Kind
    named_by: str
    is_transformed: bool


@functools.cache
def _facts(cls: Any) -> _Facts:
    fields = [name for name in ("uri_template", "uri") if name in {*cls.model_fields, *dir(cls)}]
    kind: Kind = "resource" if fields else "prompt" if hasattr(cls, "render") else "tool"
    return _Facts(kind, [*fields, "name"][0], "parent_tool" in cls.model_fields)


def name_of(component: Any) -> str:
    """Return the name or the URI (template) of a component."""
    return str(getattr(component, _facts(component.__class__).named_by) or component.name)


def kind_of(component: Any) -> Kind:
    """Return which kind of operation a component is."""
    return _facts(component.__class__).kind


def described(chain: Sequence[Any], more_names: Sequence[str] = ()) -> Operation:
    """Return what a component is, with all the names and tags it has.

    Args:
        chain: the component, and what it was transformed from.
        more_names: what it is called on the servers that it is mounted on.
    """
    listed = name_of(chain[0])
    names = dict.fromkeys((*(name_of(each) for each in chain), *more_names))
    del names[listed]
    return Operation(
        kind_of(chain[0]),
        listed,
        getattr(chain[-1], "fn", None),
        other_names=tuple(names),
        tags=frozenset(tag for each in chain for tag in each.tags),
    )


async def _around(
    component: Any, entry: str, proceed: Callable[[], Awaitable[Any]], args: tuple[Any, ...]
) -> Any:
    """Run an entry of a guarded copy, if the caller may.

    Raises:
        Exception: the refusal, or what the component raised.
    """
    attached: Attached = vars(component)[_MARK]
    adapter = attached.deciding()
    if adapter is None or (entry == "create_resource" and _reads_itself(component)):
        return await proceed()
    frame = here()
    way = _way(frame)
    if way is not None and way.frame.row is not frame.row:  # type: ignore[union-attr]
        way = None  # what is asked for in here has been reached by no other name
    if way is not None and way.takes(component):
        return await proceed()
    chain = parents(component)
    names = way.names if way is not None and way.adapter is adapter else ()
    if not names and attached.own is not adapter:  # called by name on a mounted server
        names = adapter.names_of(attached.server, kind_of(component), name_of(chain[0]))
    # An entry that starts with an underscore calls the one without.
    running = chain if entry.startswith("_") else chain[1:]
    below = internals.mounted(chain[-1])
    if below is not None:
        return await _pass_on(adapter, below[0], (*names, *map(name_of, chain)), running, proceed)

    async def decided() -> Any:
        inside = here()
        assert inside is not None  # noqa: S101 - this runs inside of the frame that decided
        with _on(_Way(adapter, inside, (), running)):
            return await proceed()

    kind = kind_of(component)
    arguments = _arguments(kind, entry, component, args)
    unknown = functools.partial(_unknown, kind, name_of(component))
    return await run(adapter, described(chain, names), arguments, decided, unknown)


def _reads_itself(template: Any) -> bool:
    """Return whether what a template creates reads by the template, which decides then."""
    return isinstance(template, FunctionResourceTemplate)


def _arguments(kind: Kind, entry: str, component: Any, args: tuple[Any, ...]) -> Mapping[str, Any]:
    if kind == "resource":
        is_given = entry in ("_read", "create_resource") and args and isinstance(args[0], str)
        return {"uri": args[0] if is_given else name_of(component)}
    return (args[0] if args else None) or {}


class _NotFoundError(ToolError, NotFoundError):
    """What fastmcp takes for an operation that is not there, from within one that is."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.log_level = logging.DEBUG


async def _unknown(kind: Kind, name: str) -> Any:
    """Raise what fastmcp raises for an operation that is not there."""
    frame = here()
    sent = frame.message.sent if frame is not None and frame.row is None else None
    raise _NotFoundError(f"Unknown {kind}: {(sent.name if sent else name)!r}")


async def _pass_on(
    adapter: AttachableAdapter,
    server: Any,
    names: tuple[str, ...],
    running: Sequence[Any],
    proceed: Callable[[], Awaitable[Any]],
) -> Any:
    """Let a mounted server find what runs; it is decided on there, by all of its names.

    Raises:
        Exception: the refusal, or what the operation raised.
    """
    try:
        attach(server)
    except ValueError as error:  # mounted while serving
        refusal = GuardNotConfiguredError(str(error))
        raise adapter.refusal_error(refusal, nested=False) from None
    frame = here()
    if frame is None:  # called by code of the user's, outside of a message
        frame = await outside(adapter.required_guard)
    with standing(frame), _on(_Way(adapter, frame, names, running)):
        return await proceed()


class _Front(Middleware):
    """What is in front of all other middleware of a server."""

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
        way = _way(frame)
        adapter = attached.own or (None if way is None else way.adapter)
        if frame is None or adapter is None:
            return await call_next(context)
        is_own = way is None or way.adapter is adapter
        method = context.method or ""
        if is_own and (frame.message.sent is None or (frame.row is None and method in CALLS)):
            # The door has decided or will see to it, for this server and for those below.
            with _on(way or _Way(adapter, frame)):
                return await call_next(context)
        if method in CALLS:
            nested = functools.partial(_nested, attached, adapter, context, call_next)
            return await _by_names(way, context, nested) if way is not None else await nested()
        result = await call_next(context)
        return await _visible(adapter, frame, method, result) if method in LISTS else result


async def _visible(
    adapter: AttachableAdapter, frame: Frame, method: str, result: Any
) -> Sequence[Any]:
    """Return what the caller may see of what a list says inside of a message."""
    door = Frame(adapter.required_guard, frame.message, frame.row)
    try:
        return await adapter.visible(door, method, result)
    except ToolGuardError as refusal:
        raise adapter.refusal_error(refusal, nested=True) from None


async def _by_names(
    way: _Way, context: MiddlewareContext[Any], nested: Callable[[], Awaitable[Any]]
) -> Any:
    """Hold a call to another protected server against the rules of the one it is mounted on.

    Raises:
        Exception: the refusal that it ended in, or what the server raised.
    """
    frame = here()
    if not way.names or frame is None or way.frame.row is not frame.row:
        return await nested()
    kind = asked_of(context.method or "", _params(context))[0].kind
    sent = frame.message.sent if frame.row is None else None
    names = (*way.names, sent.name) if sent is not None else way.names
    if not any(way.adapter.has_rule(kind, name) for name in names):
        return await nested()
    operation = Operation(kind, way.names[0], None, other_names=way.names[1:])
    arguments = Invocation.sent(kind, way.names[0], _params(context).get("arguments")).arguments
    unknown = functools.partial(_unknown, kind, way.names[0])
    return await run(way.adapter, operation, arguments, nested, unknown)


async def _nested(
    attached: Attached, adapter: AttachableAdapter, context: MiddlewareContext[Any], call_next: Any
) -> Any:
    """Serve a call from inside of a message as one of its own, under the guard of this server.

    Raises:
        Exception: the refusal that it ended in, or what the server raised.
    """
    frame = here()
    assert frame is not None  # noqa: S101 - only a call from inside of a message is nested
    inner: list[Message] = []

    async def served() -> Any:
        door = here()
        assert door is not None  # noqa: S101 - this runs inside of the frame of the message
        inner.append(door.message)
        with _on(_Way(adapter, door)):
            return await call_next(context)

    method, params = context.method or "", _params(context)
    incoming = Incoming(None, method, params, served, _is_error, _to_json, lambda result, _: result)
    try:
        return await serve(adapter.at(attached.server), adapter.required_guard, incoming)
    except ToolGuardError as refusal:
        raise adapter.refusal_error(refusal, nested=frame.row is not None) from None
    finally:
        if frame.row is None:  # what the message led to
            frame.message.rows += [row for each in inner for row in each.rows]


def _params(context: MiddlewareContext[Any]) -> dict[str, Any]:
    """Return the parameters of a call as JSON has them."""
    message = context.message
    params = {**vars(message), "_meta": getattr(message, "meta", None)}
    if "uri" in params:
        params["uri"] = str(params["uri"])  # which 3.x has parsed
    return params


def _is_error(result: Any) -> bool:
    return getattr(result, "is_error", False) is True


def _to_json(result: Any) -> dict[str, Any]:
    return {"resultType": "input_required"} if hasattr(result, "input_required") else {}
