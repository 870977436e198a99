"""Several applications that can be reached at their own origins, in process."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["Hosts"]


class Hosts(httpx.AsyncBaseTransport):
    """Carries a request to the application at its origin; anywhere else nothing answers."""

    def __init__(self, apps: dict[str, Any]) -> None:
        self.apps = apps

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        origin = f"{request.url.scheme}://{request.url.netloc.decode()}"
        if origin not in self.apps:
            raise httpx.ConnectError("nobody listens", request=request)
        return await httpx.ASGITransport(self.apps[origin]).handle_async_request(request)
