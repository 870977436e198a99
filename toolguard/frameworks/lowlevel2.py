"""The low-level ``mcp.server.Server``, line 2.x: a public look-up of handlers.

Its middlewares may change the name in a message, or answer it themselves. So calls are decided on
where the handler is looked up, inside of all middlewares, and an answer without a decision is
withheld outside of all of them.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, NamedTuple

from mcp import Client
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel.server import HandlerEntry, Server
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import BaseModel
from starlette.applications import Starlette

from toolguard.errors import AccessDeniedError, MalformedMessageError, ToolGuardError
from toolguard.frameworks.adapter import Adapter
from toolguard.frameworks.apps import guard_builder
from toolguard.frameworks.lowlevel import PROTECTED_WITHIN, LowLevelAdapter
from toolguard.frameworks.mcp2 import RefusedError, guard_middleware, to_json
from toolguard.frameworks.operation import Operation
from toolguard.frameworks.outermost import Outermost
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.frameworks.serving import run
from toolguard.policies.operations import CALLS, Kind, OperationCall, is_handshake, named_operations
from toolguard.policies.published import LISTS

__all__ = ["adapter"]

_Context = ServerRequestContext[Any, Any]
_Handler = Callable[[_Context, Any], Awaitable[HandlerResult]]


class _Sent(NamedTuple):
    """A message as sent, before any middleware, which may change the context in place."""

    context: _Context
    method: str
    asked: tuple[OperationCall, ...]


_sent: ContextVar[_Sent | None] = ContextVar("toolguard_sent", default=None)


class _Server(LowLevelAdapter):
    server: Server[Any]

    def __init__(self, server: Server[Any]) -> None:
        super().__init__(server)
        self._look_up: Callable[[str], HandlerEntry[Any] | None] = server.get_request_handler
        self._guarded: dict[str, tuple[HandlerEntry[Any], HandlerEntry[Any]]] = {}

    def install(self, guard: ServerGuard) -> None:
        if isinstance(self.server.middleware, Outermost):
            raise ValueError(PROTECTED_WITHIN)  # noqa: TRY004 - as for a server of one's own
        vars(self.server)["get_request_handler"] = self._guarded_entry
        self.server.middleware = Outermost(self.server.middleware, self._message_guard(guard))
        signature = inspect.signature(self.server.streamable_http_app)

        def paths(_: object, *args: Any, **kwargs: Any) -> Collection[str]:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return [bound.arguments["streamable_http_path"]]

        guard_builder(self, guard, "streamable_http_app", paths)

    def is_intact(self) -> bool:
        return (
            isinstance(self.server.middleware, Outermost)
            and self.server.get_request_handler == self._guarded_entry
        )

    def _message_guard(self, guard: ServerGuard) -> ServerMiddleware[Any]:
        guarded = guard_middleware(self, guard)

        async def outermost(ctx: _Context, call_next: CallNext) -> HandlerResult:
            token = _sent.set(_Sent(ctx, ctx.method, _asked(ctx)))
            try:
                return await guarded(ctx, call_next)
            finally:
                _sent.reset(token)

        return outermost

    def _guarded_entry(self, method: str) -> HandlerEntry[Any] | None:
        entry = self._look_up(method)
        if entry is None or is_handshake(method):
            return entry
        known = self._guarded.get(method)
        if known is None or known[0] is not entry:
            handler = self._guarded_call if method in CALLS else _guarded_other
            guarded = HandlerEntry(entry.params_type, functools.partial(handler, entry.handler))
            known = self._guarded[method] = (entry, guarded)
        return known[1]

    async def _guarded_call(self, handler: _Handler, ctx: _Context, params: Any) -> HandlerResult:
        call = named_operations(ctx.method, ctx.params or {})[0]
        kind, name = call.kind, call.name
        found = await self.find(kind, name, None)
        if found is None and not self.has_rule(kind, name):
            raise self.unknown(kind, name)

        async def unknown() -> HandlerResult:
            raise self.unknown(kind, name)

        operation = found or Operation(kind, name, None)
        proceed = functools.partial(handler, ctx, params)
        result: HandlerResult = await run(self, operation, call.arguments, proceed, unknown)
        return result

    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> BaseException:
        del nested  # the server calls only its handlers
        return RefusedError(refusal)

    def unknown(self, kind: Kind, name: str) -> Exception:
        return MCPError(code=INVALID_PARAMS, message=f"Unknown {kind}: {name}")

    def lists(self, method: str) -> bool:
        return self._look_up(method) is not None

    async def ask(self, method: str, cursor: str | None) -> dict[str, Any]:
        sent, entry = _sent.get(), self._look_up(method)
        if sent is None or entry is None:
            return {}
        given = {} if cursor is None else {"cursor": cursor}
        context = replace(sent.context, method=method, params=given)
        params: BaseModel = entry.params_type.model_validate(given, by_name=False)
        return to_json(await entry.handler(context, params))

    async def ask_all(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        # The same handlers on a server without a guard, since no message is processed.
        bare: Server[Any] = Server(self.server.name)
        for method in filter(self.lists, LISTS):
            entry = self._look_up(method)
            if entry is not None:
                bare.add_request_handler(method, entry.params_type, entry.handler)
        async with Client(bare, mode="legacy") as client:
            asking: dict[str, Callable[..., Awaitable[BaseModel]]] = {
                "tools/list": client.list_tools,
                "resources/list": client.list_resources,
                "resources/templates/list": client.list_resource_templates,
                "prompts/list": client.list_prompts,
            }
            for method in filter(self.lists, LISTS):
                ask = functools.partial(_page, asking[method])
                async for page in self.pages(method, ask):
                    yield method, page

    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        app: Starlette = self.server.streamable_http_app(
            json_response=json_response, stateless_http=True
        )
        return app


async def _guarded_other(handler: _Handler, ctx: _Context, params: Any) -> HandlerResult:
    """Serve a message that was decided on, unless a middleware has changed it since.

    Raises:
        RefusedError: if it was changed, or if no guard has processed it.
    """
    sent = _sent.get()
    if sent is None or (sent.method, sent.asked) != (ctx.method, _asked(ctx)):
        raise RefusedError(AccessDeniedError(rule="a message that a middleware has changed"))
    return await handler(ctx, params)


async def _page(ask: Callable[..., Awaitable[BaseModel]], cursor: str | None) -> dict[str, Any]:
    return to_json(await ask(cursor=cursor))


def _asked(ctx: _Context) -> tuple[OperationCall, ...]:
    try:
        return named_operations(ctx.method, ctx.params or {})
    except MalformedMessageError:
        return ()


def adapter(server: Server[Any]) -> Adapter:
    """Return the adapter for a low-level server of 2.x."""
    return _Server(server)
