"""The process of one arm: ``python -m tests.benchmarks.serving LINE ARM MODES TOOLS CORE``.

It reads whose tokens it accepts from its standard input, writes its port, and serves until that
input ends. ``/cpu`` tells the CPU time it has used.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import uvicorn

from .arms import Trust, doors

__all__: list[str] = []


class _Doors:
    def __init__(self, apps: dict[str, Any]) -> None:
        self._apps = apps

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        app = self._apps.get(scope["path"])
        if app is not None:
            await app({**scope, "path": "/mcp", "raw_path": b"/mcp"}, receive, send)
            return
        body = str(time.process_time_ns()).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


async def _serve(apps: dict[str, Any]) -> None:
    # Named as TCP, so that asyncio does not let small writes wait for an acknowledgement.
    with socket.socket(proto=socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(
            _Doors(apps), lifespan="off", log_level="critical", access_log=False, ws="none"
        )
        async with AsyncExitStack() as stack:
            for app in apps.values():
                await stack.enter_async_context(app.router.lifespan_context(app))
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve([listening]))
            print(listening.getsockname()[1], flush=True)
            await asyncio.to_thread(sys.stdin.read)
            server.should_exit = server.force_exit = True
            await serving


if __name__ == "__main__":
    line, arm, modes, tools, core = sys.argv[1:]
    if core != "-":
        os.sched_setaffinity(0, {int(core)})
    logging.disable(logging.CRITICAL)
    trusts = [Trust(**each) for each in json.loads(sys.stdin.readline())]
    asyncio.run(_serve(doors(line, arm, trusts, modes.split(","), int(tools))))
