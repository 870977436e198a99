"""The adapter for ``FastMCP`` of the official SDK, line 1.x.

The low-level server sets ``request_ctx`` for each message; its ``request`` is the request that
carried *this* message. The context variables of the auth middleware hold the request that opened
the session, and are not used.
"""

from __future__ import annotations

import functools
import inspect
import uuid
from collections.abc import Awaitable, Callable, Collection, Iterator, MutableMapping
from typing import Any

from mcp import types
from mcp.server.fastmcp import FastMCP
from mcp.server.fastmcp.exceptions import ResourceError, ToolError
from mcp.server.lowlevel.server import Server, request_ctx
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import McpError, UrlElicitationRequiredError
from pydantic import BaseModel
from starlette.applications import Starlette

from toolguard.calls.message import current_frame
from toolguard.errors import ToolGuardError
from toolguard.frameworks import internals
from toolguard.frameworks.adapter import (
    Adapter,
    can_open_urls,
    challenge_meta,
    code_of,
    page_to_open,
)
from toolguard.frameworks.apps import guard_builder, guard_endpoints
from toolguard.frameworks.sdk_server import SDKAdapter
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.serving import Incoming, serve
from toolguard.frameworks.task_owners import TaskOwners
from toolguard.policies.operations import Kind
from toolguard.principal import Principal

__all__ = ["GuardedHandlers", "adapter", "wrap_handlers"]

Handler = Callable[[Any], Awaitable[Any]]
_ABOUT_A_TASK = (types.GetTaskRequest, types.GetTaskPayloadRequest, types.CancelTaskRequest)


class _FastMCP(SDKAdapter):
    server: FastMCP[Any]
    error_types = (ToolError, ResourceError, ValueError)

    def install(self, guard: ServerGuard) -> None:
        wrap_handlers(internals.lowlevel_server(self.server), self, guard, TaskOwners())
        self.guard_managers()
        settings = self.server.settings

        def streamable(*_: Any) -> Collection[str]:
            return [settings.streamable_http_path]

        def sse(*_: Any) -> Collection[str]:
            return [settings.sse_path, settings.message_path]

        guard_builder(self, guard, "streamable_http_app", streamable)
        guard_builder(self, guard, "sse_app", sse)
        self.over_stdio(guard)

    def is_match(self, parameters: dict[str, Any] | None) -> bool:
        return bool(parameters)

    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> BaseException:
        return _NestedRefusalError(refusal) if nested else _RaisedRefusal(refusal)

    def unknown(self, kind: Kind, name: str) -> Exception:
        error = types.ErrorData(code=types.INVALID_PARAMS, message=f"Unknown {kind}: {name}")
        return McpError(error)

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        server, settings = self.server, self.server.settings
        manager = StreamableHTTPSessionManager(
            internals.lowlevel_server(server), json_response=json_response, stateless=True
        )
        kept, path = internals.serve_by(server, manager), settings.streamable_http_path
        settings.streamable_http_path = "/mcp"
        try:
            # The application that the framework builds, with its own auth, before it is guarded.
            app: Starlette = inspect.unwrap(server.streamable_http_app)()
        finally:
            internals.serve_by(server, kept)
            settings.streamable_http_path = path
        app.router.lifespan_context = lambda _: manager.run()
        if self.guard is not None:
            guard_endpoints(app, self.guard, ["/mcp"], self)
        return app


class _RaisedRefusal(BaseException):
    """A refusal that is raised through the SDK to :func:`serve`.

    The SDK logs every ``Exception`` of a resource or prompt with its traceback, and turns those of
    tools into results. Between the managers and :func:`serve` there is only code of the SDK.
    """

    def __init__(self, refusal: ToolGuardError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class _NestedRefusalError(ToolError, ResourceError):
    """The refusal of an operation that code of the user's called, for that code to catch."""

    def __init__(self, refusal: ToolGuardError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.__cause__ = refusal


def adapter(server: FastMCP[Any]) -> Adapter:
    """Return the adapter for a ``mcp.server.fastmcp.FastMCP``."""
    return _FastMCP(server)


def wrap_handlers(
    lowlevel: Server[Any, Any],
    served: Adapter,
    guard: ServerGuard,
    owners: TaskOwners | None = None,
) -> None:
    """Install ``guard`` around every request handler of the server, including later ones.

    Args:
        lowlevel: the server.
        served: the adapter of the server that it belongs to.
        guard: the guard around each handler.
        owners: the owners of the SDK's background tasks; None if the framework checks them.
    """
    guarded = GuardedHandlers(lowlevel.request_handlers, served, guard, owners)
    lowlevel.request_handlers = guarded  # type: ignore[assignment]


class GuardedHandlers(MutableMapping[Any, Handler]):
    """The handlers of a low-level server; each is wrapped by a guard when it is looked up.

    Args:
        handlers: the table, which other code may refer to as well.
        served: the server.
        guard: the guard around each handler.
        owners: the owners of the SDK's background tasks; None if the framework checks them.
    """

    def __init__(
        self,
        handlers: dict[Any, Handler],
        served: Adapter,
        guard: ServerGuard,
        owners: TaskOwners | None = None,
    ) -> None:
        self._handlers = handlers
        self._served = served
        self._guard = guard
        self._owners = owners
        self._guarded: dict[Any, tuple[Handler, Handler]] = {}

    def __getitem__(self, kind: Any) -> Handler:
        handler = self._handlers[kind]
        known = self._guarded.get(kind)
        if known is None or known[0] is not handler:
            known = (handler, functools.partial(self._serve, handler))
            self._guarded[kind] = known
        return known[1]

    def handler(self, kind: Any) -> Handler:
        """Return the unguarded handler, for requests of the guard to the server."""
        return self._handlers[kind]

    def __setitem__(self, kind: Any, handler: Handler) -> None:
        self._handlers[kind] = handler

    def __delitem__(self, kind: Any) -> None:
        del self._handlers[kind]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._handlers)

    def __len__(self) -> int:
        return len(self._handlers)

    async def _serve(self, handler: Handler, request: Any) -> Any:
        if request is None:  # the server lists its own tools, inside a guarded message
            return await handler(request)
        context = request_ctx.get()
        incoming = Incoming(
            context.request,
            request.method,
            _sent(request.params),
            functools.partial(_admitted, handler, self._owners, request),
            _is_error,
            _to_json,
            _from_json,
            context.request_id,
            # An in-process session runs in the context of the code that started it.
            lambda: request_ctx.get(None) is context,
            goes_on=lambda result: (
                self._owners is not None and isinstance(result.root, types.CreateTaskResult)
            ),
        )
        try:
            return await serve(self._served, self._guard, incoming)
        except ToolGuardError as refusal:
            return _said_no(request.method, refusal, self._guard)


async def _admitted(handler: Handler, owners: TaskOwners | None, request: Any) -> Any:
    """Serve an admitted message; of the background tasks, only those of the caller.

    Raises:
        ToolGuardError: the refusal of a guarded function that a tool's handler called and did not
            catch, and that the SDK turned into an error result.
    """
    if owners is not None and isinstance(request, _ABOUT_A_TASK):
        task_id = request.params.taskId
        if not owners.owns(await _caller(), task_id):
            message = f"Task not found: {task_id}"  # the text of the SDK
            raise McpError(types.ErrorData(code=types.INVALID_PARAMS, message=message))
    result = await handler(request)
    root = getattr(result, "root", None)
    if owners is not None and isinstance(root, types.CreateTaskResult):
        owners.note(root.task.taskId, await _caller())
    if owners is not None and isinstance(root, types.ListTasksResult):
        owned = owners.of(await _caller(), [each.taskId for each in root.tasks])
        root.tasks = [each for each in root.tasks if each.taskId in owned]
    if isinstance(root, types.CallToolResult) and root.isError:
        refusal = current_frame().message.nested_refusal
        texts = [getattr(each, "text", None) for each in root.content]
        if refusal is not None and texts == [str(refusal)]:
            raise refusal
    return result


async def _caller() -> Principal | None:
    frame = current_frame()
    return await frame.message.principal(frame.guard)


def _sent(params: Any) -> dict[str, Any]:
    """Return the parameters with their names in the message."""
    if params is None:
        return {}
    sent = dict(vars(params))
    for name in ("uri", "ref"):  # parsed by the SDK 1.x
        if name in sent:
            value = sent[name]
            is_model = isinstance(value, BaseModel)
            sent[name] = value.model_dump(mode="json") if is_model else str(value)
    sent["_meta"] = sent.pop("meta", None)
    return sent


def _is_error(result: types.ServerResult) -> bool:
    return isinstance(result.root, types.CallToolResult) and result.root.isError


def _to_json(result: types.ServerResult) -> dict[str, Any]:
    return result.root.model_dump(by_alias=True, mode="json", exclude_none=True)


def _from_json(result: types.ServerResult, as_json: dict[str, Any]) -> types.ServerResult:
    return types.ServerResult(type(result.root).model_validate(as_json))


def _said_no(method: str, refusal: ToolGuardError, guard: ServerGuard) -> types.ServerResult:
    if method != "tools/call":
        data = refusal.to_dict()
        raise McpError(types.ErrorData(code=code_of(refusal), message=str(refusal), data=data))
    page = page_to_open(refusal)
    if page is not None:
        _ask_to_open(refusal, page[1])
    meta = challenge_meta(guard, refusal)
    text = types.TextContent(type="text", text=refusal.to_json())
    return types.ServerResult(types.CallToolResult(content=[text], isError=True, _meta=meta))


def _ask_to_open(refusal: ToolGuardError, url: str) -> None:
    """Ask the client to open ``url`` (URL mode elicitation); return if it does not support that.

    Raises:
        UrlElicitationRequiredError: the request to the client (MCP 2025-11-25).
    """
    client = request_ctx.get().session.client_params
    if not can_open_urls(client.capabilities if client is not None else None):
        return
    question = types.ElicitRequestURLParams(
        message=str(refusal), url=url, elicitationId=uuid.uuid4().hex
    )
    raise UrlElicitationRequiredError([question])
