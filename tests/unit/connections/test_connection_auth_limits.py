"""Where does a connection's token go, and how often is it fetched again and a request repeated?"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import pytest

from support.callers import NOW, Desk
from support.keeping import asked
from support.third_party import API, called, numbered
from toolguard import CachedConnections, Connection, with_connection
from toolguard.connections import ConnectionRequest
from toolguard.connections.renewal import RENEWAL_PAUSE
from toolguard.errors import ConnectionResponseError, ConnectionUnavailableError
from toolguard.testing import FrozenClock

API_URL = "https://api.example/events"


class Uploads(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """An API that refuses tokens but the good ones, and remembers the bodies it was sent.

    It reads them as a socket does: without keeping them in the request.
    """

    def __init__(self, *good: str) -> None:
        self._good = good
        self.bodies: list[bytes] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.SyncByteStream)
        self.bodies.append(b"".join(request.stream))
        return self._answer(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        self.bodies.append(b"".join([piece async for piece in request.stream]))
        return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        shown = request.headers["authorization"].removeprefix("Bearer ")
        return httpx.Response(200 if shown in self._good else 401)


def in_a_tool(
    vault: Any, use: Callable[[Connection], Any], *, desk: Desk | None = None, **facts: Any
) -> Any:
    @with_connection("calendar", as_="calendar")
    async def tool(*, calendar: Connection) -> Any:
        return await use(calendar)

    return called(tool, vault, desk=desk, **facts)


async def pieces() -> AsyncIterator[bytes]:
    yield b"pie"
    yield b"ces"


class Unseekable(io.RawIOBase):
    """A file that is read once, such as a pipe."""

    def __init__(self) -> None:
        self._left = [b"pieces"]

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._left.pop() if self._left else b""


BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "bytes": lambda: {"content": b"pieces"},
    "JSON": lambda: {"json": ["pieces"]},
    "a form": lambda: {"data": {"name": "pieces"}},
    "nothing": dict,
}
STREAMS: dict[str, Callable[[], dict[str, Any]]] = {
    "an async iterator": lambda: {"content": pieces()},
    "files": lambda: {"files": {"file": Unseekable()}},
}


@pytest.mark.parametrize("body", BODIES)
def test_a_body_that_is_at_hand_is_sent_again(body: str) -> None:
    uploads = Uploads("token-2")

    async def use(connection: Connection) -> int:
        async with httpx.AsyncClient(transport=uploads, auth=connection.auth) as client:
            return (await client.post(API_URL, **BODIES[body]())).status_code

    assert in_a_tool(numbered(), use) == 200
    assert len(uploads.bodies) == 2
    assert uploads.bodies[0] == uploads.bodies[1]


@pytest.mark.parametrize("body", STREAMS)
def test_a_body_that_is_read_once_is_not_sent_again(body: str) -> None:
    uploads = Uploads("token-2")

    async def use(connection: Connection) -> list[int]:
        async with httpx.AsyncClient(transport=uploads, auth=connection.auth) as client:
            return [(await client.post(API_URL, **STREAMS[body]())).status_code for _ in range(2)]

    # The fresh token is fetched nevertheless, and the next request is sent with it.
    assert in_a_tool(vault := numbered(), use) == [401, 200]
    assert all(b"pieces" in each for each in uploads.bodies)
    assert [each.fresh for each in vault.calls] == [False, True]


def test_a_file_is_not_sent_again_by_a_synchronous_client() -> None:
    uploads = Uploads("token-2")

    @with_connection("calendar", as_="calendar")
    def tool(*, calendar: Connection) -> int:
        with httpx.Client(transport=uploads, auth=calendar.auth) as client:
            return client.post(API_URL, content=io.BytesIO(b"pieces")).status_code

    assert called(tool, numbered()) == 401
    assert uploads.bodies == [b"pieces"]


@pytest.mark.parametrize("share", [True, False], ids=["one auth", "an auth each"])
@pytest.mark.parametrize("max_age", [60, 0])
def test_requests_refused_together_fetch_one_fresh_token(share: bool, max_age: float) -> None:
    api, vault = API("token-2"), numbered()

    async def use(connection: Connection) -> list[int]:
        auth = connection.auth
        async with httpx.AsyncClient(transport=httpx.MockTransport(api)) as client:
            answers = await asyncio.gather(
                *(client.get(API_URL, auth=auth if share else connection.auth) for _ in range(20))
            )
        return [answer.status_code for answer in answers]

    found = in_a_tool(CachedConnections(vault, max_age=max_age), use, desk=None)

    assert found == [200] * 20
    assert [each.fresh for each in vault.calls] == [False, True]


def test_requests_refused_one_after_the_other_fetch_one_fresh_token() -> None:
    api, vault = API("token-2"), numbered()

    async def use(connection: Connection) -> list[int]:
        return [await api.get(connection) for _ in range(20)]

    assert in_a_tool(vault, use) == [200] * 20
    assert [each.fresh for each in vault.calls] == [False, True]


def test_calls_refused_one_after_the_other_fetch_one_fresh_token() -> None:
    clock, vault = FrozenClock(NOW), numbered()
    cached = CachedConnections(vault, clock=clock, timer=clock)

    async def calls() -> list[str]:
        stale = await cached.fetch(asked())
        again = [await cached.fetch(asked(fresh=True, rejected=stale)) for _ in range(20)]
        return [each.token for each in again]

    vault.answer("google-calendar", "token-1", "token-2", "token-3")
    assert asyncio.run(calls()) == ["token-2"] * 20
    assert len(vault.calls) == 2


def test_a_rejected_fresh_token_is_not_fetched_again_at_once() -> None:
    clock, api, vault = FrozenClock(NOW), API(), numbered(missing_after=9)
    desk = Desk(connections=CachedConnections(vault, clock=clock, timer=clock), clock=clock)

    async def use(connection: Connection) -> list[int]:
        seen = [await api.get(connection) for _ in range(5)]
        fetched = len(vault.calls)
        clock.advance(RENEWAL_PAUSE)
        return [*seen, fetched, await api.get(connection), len(vault.calls)]

    assert in_a_tool(vault, use, desk=desk) == [401] * 5 + [2, 401, 3]


def test_other_calls_do_not_fetch_again_either_what_did_not_help() -> None:
    clock, vault = FrozenClock(NOW), numbered()
    cached = CachedConnections(vault, clock=clock, timer=clock)
    vault.answer("google-calendar", *(f"token-{n}" for n in range(1, 9)))

    async def calls() -> list[str]:
        rejected = await cached.fetch(asked())
        for _ in range(3):
            rejected = await cached.fetch(asked(fresh=True, rejected=rejected))
        clock.advance(RENEWAL_PAUSE)
        return [
            rejected.token,
            (await cached.fetch(asked(fresh=True, rejected=rejected))).token,
        ]

    assert asyncio.run(calls()) == ["token-2", "token-3"]


def test_a_fresh_token_that_is_asked_for_as_such_is_always_fetched() -> None:
    cached = CachedConnections(vault := numbered())
    vault.answer("google-calendar", *(f"token-{n}" for n in range(1, 9)))

    async def calls() -> list[str]:
        return [(await cached.fetch(asked(fresh=True))).token for _ in range(3)]

    assert asyncio.run(calls()) == ["token-1", "token-2", "token-3"]


def test_requests_refused_together_fail_alike_when_no_fresh_token_comes() -> None:
    vault = numbered()
    vault.answer("calendar", "token-1", ConnectionUnavailableError("Down", connection="calendar"))

    async def use(connection: Connection) -> list[str]:
        answers = await asyncio.gather(
            *(API().get(connection) for _ in range(20)), return_exceptions=True
        )
        return [type(answer).__name__ for answer in answers]

    uncached = CachedConnections(vault, max_age=0)
    assert in_a_tool(uncached, use) == ["ConnectionUnavailableError"] * 20
    assert len(vault.calls) == 2


def test_a_synchronous_client_in_a_coroutine_gets_the_401() -> None:
    async def use(connection: Connection) -> int:
        return API("token-2").get_in_thread(connection)

    assert in_a_tool(vault := numbered(), use) == 401
    assert len(vault.calls) == 1


def test_a_synchronous_client_in_a_thread_of_its_own_gets_the_401() -> None:
    found: list[int] = []

    async def use(connection: Connection) -> None:
        def ask() -> None:
            found.append(API("token-2").get_in_thread(connection))

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join(20)

    in_a_tool(numbered(), use)

    assert found == [401]


def test_a_runtime_error_of_the_provider_is_not_taken_for_a_401() -> None:
    async def broken(request: ConnectionRequest) -> Connection:
        if request.fresh:
            raise RuntimeError("a mistake in the provider")
        return Connection("token-1")

    @with_connection("calendar", as_="calendar")
    def tool(*, calendar: Connection) -> int:
        return API().get_in_thread(calendar)

    with pytest.raises(ConnectionResponseError, match="The provider of calendar failed"):
        called(tool, CachedConnections(broken))


def get(auth: httpx.Auth, url: str) -> list[str | None]:
    """Return the header that each request of one GET was sent with."""
    shown: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        shown.append(request.headers.get("authorization"))
        return httpx.Response(200)

    with httpx.Client(transport=httpx.MockTransport(handle), auth=auth) as client:
        client.get(url)
    return shown


@pytest.mark.parametrize(
    "url",
    [
        "https://www.googleapis.com/calendar/v3?fields=a|b",
        "https://bücher.example/",
        "http://localhost:8000/",
        "http://127.0.0.1/",
        "http://127.8.8.8:1/",
        "http://[::1]:8000/",
    ],
)
def test_a_token_goes_to_https_and_to_this_machine(url: str) -> None:
    assert get(Connection("token-1").auth, url) == ["Bearer token-1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://www.googleapis.com/",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "http://10.0.0.1/",
        "http://[::2]/",
        "http://user@localhost.evil.example/",
    ],
)
def test_a_token_does_not_go_out_unencrypted(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        get(Connection("token-1").auth, url)


GOOGLE = "https://www.googleapis.com"


@pytest.mark.parametrize(
    "url",
    [GOOGLE, f"{GOOGLE}/calendar", "https://WWW.googleapis.com:443/", "https://a.example:8443/x"],
)
def test_a_token_for_an_api_goes_to_its_host(url: str) -> None:
    auth = Connection("token-1").auth_for(GOOGLE, "https://a.example:8443")

    assert get(auth, url) == ["Bearer token-1"]


@pytest.mark.parametrize(
    "url",
    [
        "https://googleapis.com/",
        "https://www.googleapis.com.evil.example/",
        "https://www.googleapis.com@evil.example/",
        "https://www.googleapis.com:8443/",
        "http://www.googleapis.com/",
        "http://localhost/",
    ],
)
def test_a_token_for_an_api_goes_to_no_other_host(url: str) -> None:
    with pytest.raises(ValueError, match=r"www\.googleapis\.com") as caught:
        get(Connection("token-1").auth_for(GOOGLE), url)
    assert "token-1" not in str(caught.value)


@pytest.mark.parametrize(
    "origins",
    [
        (),
        ("www.googleapis.com",),
        ("http://www.googleapis.com",),
        ("https://www.googleapis.com/calendar",),
        ("https://www.googleapis.com?x",),
        ("https://user@www.googleapis.com",),
        ("",),
    ],
)
def test_an_auth_is_for_origins_only(origins: Sequence[str]) -> None:
    with pytest.raises(ValueError, match=r'auth_for\("https://api\.example\.com"\)'):
        Connection("token-1").auth_for(*origins)


def test_a_final_slash_makes_no_other_origin() -> None:
    auth = Connection("token-1").auth_for(f"{GOOGLE}/")

    assert get(auth, f"{GOOGLE}/calendar") == ["Bearer token-1"]


def test_a_redirect_to_another_host_leaves_the_token_behind() -> None:
    shown: list[str | None] = []

    def handle(request: httpx.Request) -> httpx.Response:
        shown.append(request.headers.get("authorization"))
        if request.url.host == "www.googleapis.com":
            return httpx.Response(302, headers={"location": "https://elsewhere.example/"})
        return httpx.Response(200)

    auth = Connection("token-1").auth_for(GOOGLE)
    with httpx.Client(
        transport=httpx.MockTransport(handle), auth=auth, follow_redirects=True
    ) as client:
        client.get(GOOGLE)

    assert shown == ["Bearer token-1", None]
