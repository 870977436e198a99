"""Which server stands behind the gateways of the tests?

Usage: ``python -m support.upstream_server LINE [TRANSPORT]``: over stdio, for the process that
started this one.
"""

import os
import sys
from typing import Any

import anyio

from support.lines import LINES, Line, Server

__all__ = ["upstream"]


def upstream(line: Line) -> Any:
    """Return a server with a tool for each thing that an upstream may do."""
    server = line.server("upstream")
    counted: list[str] = []

    @server.tool()
    def hour() -> str:
        """Say what time it is."""
        return "noon"

    @server.tool()
    def count() -> str:
        """Say how often this session was counted."""
        counted.append("once")
        return str(len(counted))

    @server.tool()
    def variables() -> str:
        """Return the names of the environment's variables, and the values that tests set."""
        told = [f"{name}={value}" for name, value in os.environ.items() if "TEST" in name]
        return " ".join([*sorted(os.environ), *told])

    @server.tool()
    def read(folder: str = "private", name: str | None = None) -> str:
        """Read a note."""
        return f"{folder}/{name}"

    @server.tool()
    def end() -> str:
        """End this process."""
        os._exit(3)

    @server.tool()
    def noise() -> str:
        """Write what is neither MCP nor UTF-8."""
        os.write(1, b"\xff\xfe\n{\n")
        return "heard"

    @server.tool()
    async def wait(ctx: line.context, path: str) -> str:  # type: ignore[name-defined]
        """Report progress, then wait; note in a file if the wait is cancelled."""
        await ctx.report_progress(1, 3, "begun")
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            with open(path, "w") as file:  # noqa: ASYNC230, PTH123 - it is short
                file.write("cancelled")
            raise
        return ""

    @server.tool()
    async def report(ctx: line.context) -> str:  # type: ignore[name-defined]
        """Report progress and log something."""
        await ctx.report_progress(1, 3, "begun")
        await ctx.report_progress(3, 3, "done")
        return "reported"

    _add_what_is_not_tools(line, server)
    return server


def _add_what_is_not_tools(line: Line, server: Server) -> None:
    @server.resource("notes://today")
    def today() -> str:
        return "buy milk"

    @server.resource("notes://{folder}/all")
    def notes(folder: str) -> str:
        return f"all of {folder}"

    @server.prompt()
    def plan(day: str) -> str:
        return f"Plan {day}"

    line.complete_with(server, "monday", "tuesday")


if __name__ == "__main__":
    upstream(next(line for line in LINES if line.name == sys.argv[1])).run(transport="stdio")
