"""Fetch and cache the JWK set of an issuer (RFC 7517 §5).

:class:`JWKS` finds the set by discovery (RFC 8414, OpenID Connect Discovery) or at a given URL.
Its state is one immutable value that is replaced as a whole, and each fetch runs in a short-lived
thread with its own client and event loop. So no lock, client or event loop can be left behind in
another loop, thread or forked process, and a call whose key is fresh only looks it up.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

import httpx

from toolguard.errors import KeysUnavailableError
from toolguard.tokens.discovery import KeyLocation, issuer_of
from toolguard.tokens.keys import Key, KeySet, KeySetError, parse_json

__all__ = ["JWKS", "Fetch", "HttpFetch", "issuer_of"]

Fetch: TypeAlias = Callable[[str, float], bytes]
"""Fetches the document at a URL within a number of seconds; called in a separate thread.

Raises KeysUnavailableError or OSError if the document cannot be fetched.
"""

_log = logging.getLogger("toolguard.tokens.keys")

_FRESH_FOR = 300.0
_REFRESH_AFTER = 0.8 * _FRESH_FOR
_COOLDOWN = 30.0
_MAX_BACKOFF = 60.0
# Seconds that a fetch may take beyond its time limit before the waiting calls give up.
_GRACE = 0.5
_MAX_BYTES = 512 * 1024
_HEADERS = {
    "Accept": "application/json",
    # Without compression, a document cannot grow while it is decoded.
    "Accept-Encoding": "identity",
    "User-Agent": "toolguard-mcp",
}


@dataclass(frozen=True)
class _State:
    """The results of the finished fetches; all times are those of the source's clock."""

    keys: KeySet | None = None
    refresh_at: float = -math.inf
    stale_at: float = -math.inf
    expires_at: float = -math.inf
    asked_at: float = -math.inf
    retry_at: float = -math.inf
    failures: int = 0

    def usable(self, now: float) -> bool:
        return now < self.expires_at

    def next_fetch_at(self, now: float) -> float:
        """Return when a fetch is allowed again; with fresh keys, it is for an unknown ``kid``."""
        if now < self.refresh_at:
            return max(self.retry_at, self.asked_at + _COOLDOWN)
        return self.retry_at

    def fetched(self, keys: KeySet, asked_at: float, max_stale: float) -> _State:
        stale_at = asked_at + _FRESH_FOR
        return _State(keys, asked_at + _REFRESH_AFTER, stale_at, stale_at + max_stale, asked_at)

    def failed(self, asked_at: float, now: float, jitter: float) -> _State:
        delay = min(2.0**self.failures * (1 + jitter / 4), _MAX_BACKOFF)
        failures = min(self.failures + 1, 10)
        return replace(self, asked_at=asked_at, retry_at=now + delay, failures=failures)


class _Flight:
    """One running fetch, with any number of waiting calls in any event loops."""

    def __init__(self, started_at: float, overdue_at: float) -> None:
        self.started_at = started_at
        self.overdue_at = overdue_at
        self._landed: Future[None] = Future()

    def land(self) -> None:
        self._landed.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Wait until the fetch has ended, for at most ``timeout`` seconds."""
        loop = asyncio.get_running_loop()
        landed = asyncio.Event()

        def wake(_: object) -> None:
            # The loop may be closed by now; then no call waits in it.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(landed.set)

        self._landed.add_done_callback(wake)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(landed.wait(), timeout)


class JWKS:
    """The JWK set of one issuer, fetched when needed and cached (RFC 7517 §5).

    Keys are fresh for 300 s and are refreshed in the background after 240 s. One fetch runs at a
    time and serves all waiting calls. An unknown ``kid``, or a signature that does not verify,
    causes at most one fetch in 30 s. After a failure the next attempt comes 1, 2, 4 ... 60 s
    later. A failure never drops keys: they are used until ``max_stale``, and each such use is
    logged (``toolguard.tokens.keys``). A successful fetch replaces all of them.

    Args:
        url: the URL of the JWK set.
        issuer: the issuer, to find its JWK set by discovery; its metadata must name exactly this
            issuer (RFC 8414 §3.3).
        well_known_url: the URL of the issuer's metadata; the issuer is the one it names.
        max_stale: seconds for which stale keys are used while the issuer cannot be reached; a
            withdrawn key stays valid that long in such an outage. 0 for never.
        timeout: seconds for a whole fetch, discovery included.
        fetch: the function that fetches a document; see :data:`Fetch`.
        clock: a monotonic clock, in seconds.
        jitter: returns numbers from 0 to 1, which spread the attempts of many processes.

    Raises:
        ValueError: unless exactly one of the three URLs is given, with https (http only on this
            machine), or if a time is out of range.

    >>> JWKS(issuer="https://auth.example.com")
    <JWKS: https://auth.example.com>
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        *,
        url: str | None = None,
        issuer: str | None = None,
        well_known_url: str | None = None,
        max_stale: float = 3_600.0,
        timeout: float = 5.0,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= max_stale < math.inf or not 0 < timeout < math.inf:
            raise ValueError("max_stale is 0 or more seconds, timeout is more than 0")
        self._location = KeyLocation(url=url, issuer=issuer, well_known_url=well_known_url)
        self._max_stale = max_stale
        self._timeout = timeout
        self._fetch = HttpFetch() if fetch is None else fetch
        self._clock = clock
        self._jitter = jitter
        self._state = _State()
        # Keyed by process id: a fetch that runs while the process forks does not run in the child.
        self._flights: dict[int, _Flight] = {}

    @property
    def issuer(self) -> str | None:
        """The issuer, as given or from its metadata; None if it is not known (yet)."""
        return self._location.issuer

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        """Return the cached keys for a token; see :meth:`toolguard.tokens.keys.KeySource.find`.

        Stale keys are returned once an attempt to replace them has failed.

        Raises:
            KeysUnavailableError: if there is no such key in the cache, the last fetch has failed,
                and it is too early for another.
        """
        state, now = self._state, self._clock()
        if state.keys is not None and now < state.expires_at:
            found = state.keys.find(kid, algorithm)
            if found:
                return found if now < state.refresh_at else self._find_old(found, state, now)
        return self._miss(state, now)

    async def refresh(self) -> None:
        """Wait for newer keys; see :meth:`toolguard.tokens.keys.KeySource.refresh`.

        Cancelling this wait does not cancel the fetch.

        Raises:
            KeysUnavailableError: if there are no usable keys afterwards.
        """
        now = self._clock()
        flight = self._fly(now)
        if flight is not None:
            await flight.wait(flight.overdue_at - now)
            now = self._clock()
        if not self._state.usable(now):
            raise self._unavailable(self._state, now)

    async def warm_up(self) -> None:
        """Fetch the keys if there are none, or if they have to be refreshed.

        Raises:
            KeysUnavailableError: if there are no usable keys afterwards.
        """
        if self._clock() >= self._state.refresh_at:
            await self.refresh()

    def suspect(self, kid: str | None) -> bool:
        """Report a signature that did not verify; see :meth:`KeySource.suspect`."""
        worthwhile = self._can_change(self._state, self._clock())
        _log.debug("%r: a signature fails with key %a; look again: %s", self, kid, worthwhile)
        return worthwhile

    def _find_old(
        self, found: tuple[Key, ...], state: _State, now: float
    ) -> tuple[Key, ...] | None:
        if now >= state.stale_at:
            # Keys may be withdrawn while no call comes in: fetch first after such a long idle time.
            if now >= state.asked_at + _FRESH_FOR and self._can_change(state, now):
                return None
            age = now - state.stale_at + _FRESH_FOR
            _log.warning("%r: using stale keys, fetched %.0f s ago", self, age)
        self._fly(now)
        return found

    def _miss(self, state: _State, now: float) -> tuple[Key, ...] | None:
        if self._can_change(state, now):
            return None
        if state.usable(now) and not state.failures and os.getpid() not in self._flights:
            return ()
        raise self._unavailable(state, now)

    def _can_change(self, state: _State, now: float) -> bool:
        """Return whether a fetch that could bring other keys runs, or may start now."""
        flight = self._flights.get(os.getpid())
        return now >= state.next_fetch_at(now) if flight is None else now < flight.overdue_at

    def _unavailable(self, state: _State, now: float) -> KeysUnavailableError:
        wait = max(state.next_fetch_at(now) - now, 1.0)
        return KeysUnavailableError(
            "The keys of the authorization server cannot be fetched", retry_after=math.ceil(wait)
        )

    def _fly(self, now: float) -> _Flight | None:
        """Return the running fetch; start one if none runs and one is due."""
        process = os.getpid()
        if now < self._state.next_fetch_at(now):
            return self._flights.get(process)
        ours = _Flight(now, now + self._timeout + _GRACE)
        # setdefault is atomic: of several threads that have come this far, one starts a fetch.
        flight = self._flights.setdefault(process, ours)
        if flight is ours:
            self._start(ours)
        return flight

    def _start(self, flight: _Flight) -> None:
        if flight.started_at < self._state.next_fetch_at(flight.started_at):
            # Another fetch ended between the look at the state and the start of this one.
            self._land(flight)
            return
        thread = threading.Thread(
            target=self._run, args=(flight,), name="toolguard-keys", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._settle(flight, None, "no thread can be started")

    def _run(self, flight: _Flight) -> None:
        # The outcome after an unexpected exception of `fetch` is a failure as well.
        keys, reason = None, "the fetch broke off"
        try:
            keys = self._load()
        except KeysUnavailableError as error:
            reason = str(error)
        finally:
            self._settle(flight, keys, reason)

    def _load(self) -> KeySet:
        ends_at = self._clock() + self._timeout

        def get(url: str) -> bytes:
            return self._fetch(url, max(0.0, ends_at - self._clock()))

        url = self._location.find(get, self._clock())
        try:
            return KeySet.from_jwks(parse_json(get(url)))
        except (KeySetError, KeysUnavailableError, OSError) as error:
            raise KeysUnavailableError(f"{url}: {error}") from None

    def _settle(self, flight: _Flight, keys: KeySet | None, reason: str) -> None:
        before = self._state
        try:
            if keys is None:
                self._location.forget()
                self._state = before.failed(flight.started_at, self._clock(), self._jitter())
                _log.warning("%r: no newer keys, try %d: %s", self, self._state.failures, reason)
            else:
                self._state = before.fetched(keys, flight.started_at, self._max_stale)
                if keys.skipped and (before.keys is None or before.keys.skipped != keys.skipped):
                    _log.warning("%r: left out %s", self, "; ".join(keys.skipped))
        finally:
            self._land(flight)

    def _land(self, flight: _Flight) -> None:
        self._flights.pop(os.getpid(), None)
        flight.land()

    def __repr__(self) -> str:
        return f"<JWKS: {self._location.address}>"


class HttpFetch:
    """Fetches documents over HTTP: no redirects, no proxies or credentials from the environment.

    The time limit covers the whole exchange, from name resolution to the last byte: it is one
    task in an event loop of its own, which is cancelled when the time is up.

    Args:
        ssl_context: the TLS settings, for a private certificate authority; None for the default.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context

    def __call__(self, url: str, timeout: float) -> bytes:
        """Return the document at ``url``, of at most 512 KiB; call this in a separate thread.

        Raises:
            KeysUnavailableError: if there is no such document within ``timeout`` seconds.
        """
        loop = asyncio.new_event_loop()
        try:
            return loop.run_until_complete(asyncio.wait_for(self._get(url), timeout))
        except (asyncio.TimeoutError, httpx.HTTPError, OSError, UnicodeError) as error:
            raise KeysUnavailableError(f"no answer ({type(error).__name__})") from None
        finally:
            # A response that was cut off leaves suspended generators of the client.
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _get(self, url: str) -> bytes:
        body = bytearray()
        client = httpx.AsyncClient(
            verify=self._ssl_context or True,
            trust_env=False,
            follow_redirects=False,
            timeout=None,  # noqa: S113 - the caller's covers all of it
        )
        async with client, client.stream("GET", url, headers=_HEADERS) as response:
            _check_answer(response)
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > _MAX_BYTES:
                    raise KeysUnavailableError("the answer is too long")
        return bytes(body)


def _check_answer(response: httpx.Response) -> None:
    if response.status_code != httpx.codes.OK:
        # Redirects too: the trust in this URL does not extend to another one.
        raise KeysUnavailableError(f"HTTP {response.status_code}")
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise KeysUnavailableError("the answer is compressed, although no compression was accepted")
