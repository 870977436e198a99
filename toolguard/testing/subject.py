"""The server under test, and its operations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from toolguard.frameworks import Operation, adapter_for
from toolguard.guard import ToolGuard
from toolguard.policies.policy import DEFAULT_POLICIES, Policy

__all__ = ["Subject", "headers_for", "visiting"]

# Loopback, because the frameworks by default accept only loopback in Host.
_ORIGIN = "http://127.0.0.1:8000"


class Subject:
    """A protected server under test.

    Attributes:
        adapter: the server.
        guard: the guard of the server.

    Args:
        server: the server, after ``guard.protect(server)``.

    Raises:
        ValueError: if it is not protected.
    """

    def __init__(self, server: object) -> None:
        self.adapter = adapter_for(server)
        if not isinstance(self.adapter.guard, ToolGuard):
            raise ValueError("protect the server first: ToolGuard(...).protect(server)")  # noqa: TRY004
        self.guard = self.adapter.guard

    def operations(self, named: Iterable[str]) -> dict[str, Operation]:
        """Return the operations of the server by their keys.

        Args:
            named: the keys that a test names.

        Raises:
            ValueError: if there is no operation of a named key.
        """
        found = {each.key: each for each in self.adapter.survey().operations}
        unknown = sorted({*named} - found.keys())
        if unknown:
            known = ", ".join(sorted(found))
            raise ValueError(f"no operation is called {', '.join(unknown)}: write one of {known}")
        return found

    def policy(self, operation: Operation) -> Policy | None:
        """Return the whole policy of an operation; None if every caller is refused."""
        return self.adapter.policy(operation) or DEFAULT_POLICIES[self.guard.default]


@asynccontextmanager
async def visiting(
    app: Any, transport: httpx.ASGITransport | None = None
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve ``app`` in process, and yield a client of it.

    Args:
        app: the application, whose lifespan begins and ends with the visit.
        transport: what requests go through instead of straight to ``app``.
    """
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport or httpx.ASGITransport(app), base_url=_ORIGIN
        ) as client,
    ):
        yield client


def headers_for(token: str | None, proof: str | None = None) -> dict[str, str]:
    """Return the headers of a message from a caller with ``token``.

    Args:
        token: the access token; None for none.
        proof: the proof that goes with a token that is bound to a key.
    """
    headers = {
        "accept": "application/json, text/event-stream",
        "content-type": "application/json",
    }
    if token is None:
        return headers
    if proof is None:
        return {**headers, "authorization": f"Bearer {token}"}
    return {**headers, "authorization": f"DPoP {token}", "dpop": proof}
