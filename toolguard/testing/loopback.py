"""Serve an ASGI application on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from functools import partial
from typing import Any

import uvicorn
from typing_extensions import Self

__all__ = ["Loopback"]


class Loopback:
    """Serves an ASGI application with uvicorn on a free loopback port, in a thread.

    The port is known before the application is created, so the application can use its own URL::

        with Loopback() as server:
            server.start(make_app(server.url))
            ...

    Args:
        app: the application, started on entry; None if :meth:`start` is called by hand.
        port: 0 for any free one.

    Raises:
        OSError: if the port is taken.
    """

    def __init__(self, app: Any = None, *, port: int = 0) -> None:
        self._app = app
        # asyncio turns Nagle's algorithm off only for sockets that say they are TCP.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        if port:  # one that was in use a moment ago can be taken again
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind(("127.0.0.1", port))
        except OSError as error:
            self._socket.close()
            raise OSError(
                error.errno, f"port {port} of 127.0.0.1: {error.strerror}; write another one"
            ) from None
        self._server: _SignallingServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The origin, such as ``http://127.0.0.1:49152``."""
        host, port = self._socket.getsockname()
        return f"http://{host}:{port}"

    def start(self, app: Any) -> None:
        """Serve ``app`` in the context of the caller; return when it accepts connections.

        Raises:
            RuntimeError: if it does not start.
        """
        config = uvicorn.Config(
            app,
            log_level="error",
            lifespan="on",
            ws="none",
            timeout_graceful_shutdown=1,
            # Longer than clients keep a connection: one that both ends give up at the same moment
            # fails the next request.
            timeout_keep_alive=60,
        )
        self._server = _SignallingServer(config)
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._server.run, [self._socket]), daemon=True
        )
        self._thread.start()
        self._server.ready.wait(timeout=10)
        if not self._server.started:
            raise RuntimeError("the application did not start")

    def stop(self) -> None:
        """Stop serving and free the port."""
        if self._server is not None and self._thread is not None:
            self._server.end()
            self._thread.join(timeout=10)
        self._socket.close()

    def __enter__(self) -> Self:
        if self._app is not None:
            self.start(self._app)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _SignallingServer(uvicorn.Server):
    """Signals when it has started, and is told when to end: neither side looks every moment."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()
        self._end: Callable[[], object] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        finally:
            self.ready.set()

    async def main_loop(self) -> None:
        """Tick once a second, for the Date header; uvicorn does ten times."""
        ending = asyncio.Event()
        self._end = partial(asyncio.get_running_loop().call_soon_threadsafe, ending.set)
        while not await self.on_tick(0):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(ending.wait(), timeout=1)

    def end(self) -> None:
        """Stop serving; called in any thread."""
        self.should_exit = True
        with suppress(RuntimeError):  # it has ended
            self._end()
