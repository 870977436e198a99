"""Refuse requests that do not come from this machine, or are for another host."""

from __future__ import annotations

from ipaddress import ip_address

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["LoopbackOnly"]


class LoopbackOnly:
    """Refuses requests that arrive from or through anything but the loopback interface.

    It refuses another ``Host`` as well, so that a page whose name resolves to this machine (DNS
    rebinding) finds nothing here.

    Args:
        app: the application.
        host: the ``Host`` of every request, such as ``"127.0.0.1:8800"``.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve the request, or refuse it."""
        if scope["type"] == "http" and not self._is_ours(scope):
            text = f"This is a development server: it answers at http://{self._host} only.\n"
            await PlainTextResponse(text, 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if hosts != [self._host.encode()]:
            return False
        client = scope.get("client")
        return client is None or _is_loopback(client[0])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
