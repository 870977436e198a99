"""The ``auth`` of an HTTP client that sends the token of a connection: for httpx and httpx2."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Generator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol

import anyio.from_thread
import httpx

from toolguard.parsing.secure_urls import secure_origin

__all__ = ["ConnectionAuth", "api_origins"]

# httpx2 comes with mcp 2.x.
if TYPE_CHECKING or find_spec("httpx2") is not None:
    import httpx2

    class _HTTPAuth(httpx.Auth, httpx2.Auth):  # type: ignore[misc] # of Any without httpx2
        """What both clients accept; every flow of it is overridden."""

else:
    _HTTPAuth = httpx.Auth


# What another request of the call has fetched meanwhile may be refused as well, once.
_MAX_RENEWALS = 2


class Presentable(Protocol):
    """The part of a connection that :class:`ConnectionAuth` uses."""

    @property
    def token(self) -> str:
        """The access token."""
        ...

    @property
    def token_type(self) -> str:
        """The authentication scheme, nearly always ``"Bearer"``."""
        ...

    @property
    def refetch(self) -> Callable[[], Coroutine[Any, Any, Presentable]] | None:
        """The function that fetches the connection again; None outside of a call."""
        ...


class ConnectionAuth(_HTTPAuth):
    """Sends the token of a connection; after a 401, fetches a fresh one and tries again.

    The token is sent over https, and over http to this machine. The client removes the header when
    it follows a redirect to another origin. Proxies are the client's: for http to this machine it
    takes that of ``HTTP_PROXY`` or ``ALL_PROXY``, which could read the token, unless it is made
    with ``trust_env=False`` or ``NO_PROXY`` names the host.

    A request is repeated only if its body is at hand: a file or an iterator may be read once, so
    its 401 is returned, and the next request is sent with the fresh token. Fetching again works in
    a coroutine and in the worker thread that a synchronous tool runs in; in other threads, and for
    a synchronous client in a coroutine, the 401 is returned.

    Args:
        connection: the connection to present.
        origins: where the token may be sent; empty for every secure origin.
    """

    def __init__(self, connection: Presentable, origins: Collection[str] = ()) -> None:
        self._connection = connection
        self._origins = origins

    async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
        """Drive one request of an asynchronous client (see ``httpx.Auth``)."""
        for _ in range(_MAX_RENEWALS):
            shown = self._connection
            response = yield self._signed(request, shown)
            if response.status_code != httpx.codes.UNAUTHORIZED or shown.refetch is None:
                return
            if not self._helps(await shown.refetch(), shown, request):
                return
        yield self._signed(request, self._connection)

    def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
        """Drive one request of a synchronous client (see ``httpx.Auth``)."""
        for _ in range(_MAX_RENEWALS):
            shown = self._connection
            response = yield self._signed(request, shown)
            if response.status_code != httpx.codes.UNAUTHORIZED or shown.refetch is None:
                return
            fresh = _from_event_loop(shown.refetch)
            if fresh is None or not self._helps(fresh, shown, request):
                return
        yield self._signed(request, self._connection)

    def _helps(self, fresh: Presentable, shown: Presentable, request: Any) -> bool:
        """Present ``fresh`` from now on; return whether ``request`` can be repeated with it."""
        self._connection = fresh
        return fresh.token != shown.token and _is_at_hand(request)

    def _signed(self, request: Any, connection: Presentable) -> Any:
        self._check_destination(request.url)
        # RFC 6750 §2.1: written "Bearer"; some providers return "bearer" and expect "Bearer".
        scheme = connection.token_type
        scheme = "Bearer" if scheme.lower() == "bearer" else scheme
        request.headers["Authorization"] = f"{scheme} {connection.token}"
        return request

    def _check_destination(self, url: Any) -> None:
        found = f"{url.scheme}://{url.netloc.decode('ascii')}"
        origin = secure_origin(found)
        if origin is None:
            raise ValueError(
                f"a connection's token is sent over https (http only to this machine), not to "
                f"{found}"
            )
        if self._origins and origin not in self._origins:
            raise ValueError(
                f"this connection's token is for {', '.join(sorted(self._origins))}, not for "
                f"{found}: name each origin of the API in auth_for(...)"
            )

    def __repr__(self) -> str:
        return f"<ConnectionAuth: {self._connection!r}>"


def api_origins(urls: Collection[str]) -> frozenset[str]:
    """Return the origins that ``urls`` are, as :class:`ConnectionAuth` compares them.

    Raises:
        ValueError: if there is none, or one is not a secure origin.
    """
    found = {url: secure_origin(url) for url in urls}
    if not found or any(
        origin is None or url.lower() not in (origin, f"{origin}/") for url, origin in found.items()
    ):
        raise ValueError(
            f'write auth_for("https://api.example.com"): the origin of the API, not {urls!r}'
        )
    return frozenset(map(_without_default_port, filter(None, found.values())))


def _without_default_port(origin: str) -> str:
    default = ":443" if origin.startswith("https:") else ":80"
    return origin.removesuffix(default)


def _is_at_hand(request: Any) -> bool:
    """Return whether the body can be sent again: reading a stream once more may find nothing."""
    try:
        request.content  # noqa: B018 - raises if it was not read into memory
    except (RuntimeError, AttributeError):
        return False
    return True


def _from_event_loop(
    refetch: Callable[[], Coroutine[Any, Any, Presentable]],
) -> Presentable | None:
    """Return the fresh connection; None in a thread that no event loop has started."""
    reached = False

    async def fetch() -> Presentable:
        nonlocal reached
        reached = True
        return await refetch()

    try:
        return anyio.from_thread.run(fetch)
    except RuntimeError:
        if reached:
            raise
        return None
