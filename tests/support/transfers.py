"""A server whose tool asks the user before it acts (2026-07-28: requestState)."""

from __future__ import annotations

import importlib
from typing import Any

from support.lines import Line, Server

__all__ = ["transfers"]


def transfers(line: Line, told: str = "transferred from {state}") -> Server:
    """Return a server with a tool that asks before it acts, and remembers for whom in the state.

    Args:
        line: the framework line.
        told: what the tool returns in the end.
    """
    types: Any = importlib.import_module("mcp_types")
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}}
    question = types.ElicitRequest(
        params=types.ElicitRequestFormParams(message="sure?", requested_schema=schema)
    )
    server = line.server("transfers")

    async def transfer(ctx: Any) -> Any:
        if ctx.request_state is None:
            return types.InputRequiredResult(
                input_requests={"ok": question}, request_state="alices-account"
            )
        return told.format(state=ctx.request_state)

    transfer.__annotations__ = {"ctx": line.context, "return": str | types.InputRequiredResult}
    server.tool()(transfer)
    return server
