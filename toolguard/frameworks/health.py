"""The routes by which an orchestrator asks whether a server lives, and is ready."""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.parts.readiness import Readiness

__all__ = ["health_routes"]

_HEADERS = {"cache-control": "no-store"}


class ProbedGuard(Protocol):
    """The part of a guard that the routes use."""

    async def ready(self) -> Readiness:
        """Return what is missing."""
        ...


def health_routes(guard: ProbedGuard) -> list[Route]:
    """Return ``/healthz`` and ``/readyz``, for the root of an application around the server's.

    ``/healthz`` answers 200 while the process serves. ``/readyz`` answers 200 when
    :meth:`ToolGuard.ready <toolguard.ToolGuard.ready>` is true and 503 otherwise, with the names
    of what is missing; each such probe tries again to get it. Both are open: they disclose no more
    than that::

        app = Starlette(routes=[*health_routes(guard), Mount("/", app=mcp.streamable_http_app())])

    Args:
        guard: the guard.

    Raises:
        TypeError: if it is not a guard.
    """
    if isinstance(guard, type) or not callable(getattr(guard, "ready", None)):
        raise TypeError(f"write health_routes(guard) with a ToolGuard(...), not {guard!r}")

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def readyz(_: Request) -> Response:
        readiness = await guard.ready()
        body = {"ready": bool(readiness), "missing": sorted(readiness.missing or ())}
        return JSONResponse(body, status_code=200 if readiness else 503, headers=_HEADERS)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]
