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
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TypeAlias

from toolguard.errors import KeysUnavailableError
from toolguard.parts.figures import Figure
from toolguard.tokens.discovery import EndpointLocation, issuer_of
from toolguard.tokens.fetching import BusyError, Fetch, HttpFetch
from toolguard.tokens.keys import Key, KeySet, KeySetError, parse_json
from toolguard.tokens.network import DEFAULT_NETWORK, Network

__all__ = ["JWKS", "Fetch", "HttpFetch", "issuer_of"]

_log = logging.getLogger("toolguard.tokens.keys")

_FRESH_FOR = 300.0
_REFRESH_AFTER = 0.8 * _FRESH_FOR
# Extra fetches, for unknown keys and wrong signatures: three at once, one more each 30 s.
_EXTRA_FETCHES = 3
_EXTRA_EACH = 30.0
_MAX_BACKOFF = 60.0
# What an endpoint may ask for in Retry-After; the stale keys serve for an hour.
_MAX_RETRY_AFTER = 300.0
# Seconds that a call with a known key waits for newer ones after an idle time.
_PATIENCE = 0.3
# Unknown keys that one fetch answers for.
_MAX_WANTED = 1_000
# Seconds that a fetch may take beyond its time limit before the waiting calls give up.
_GRACE = 0.5
_Wanted: TypeAlias = "tuple[str | None, str]"
"""The ``kid`` and the algorithm of a key; no algorithm for a key that may have been replaced."""


@dataclass(frozen=True)
class _Fetched:
    """The results of the finished fetches; all times are those of the source's clock."""

    keys: KeySet | None = None
    refresh_at: float = -math.inf
    stale_at: float = -math.inf
    expires_at: float = -math.inf
    asked_at: float = -math.inf
    retry_at: float = -math.inf
    #: When all extra fetches are available again.
    refilled_at: float = -math.inf
    failures: int = 0
    #: The keys that were asked for before the last fetch, and that it did not bring.
    absent: frozenset[_Wanted] = frozenset()

    def usable(self, now: float) -> bool:
        return now < self.expires_at

    def lacks(self, wanted: _Wanted, now: float) -> bool:
        """Return whether the issuer has lately been asked for this key, in vain."""
        return wanted in self.absent and now < self.asked_at + _EXTRA_EACH

    def next_fetch_at(self, now: float) -> float:
        """Return when a fetch is allowed again; with fresh keys, it is an extra one."""
        if now < self.refresh_at:
            return max(self.retry_at, self.refilled_at - (_EXTRA_FETCHES - 1) * _EXTRA_EACH)
        return self.retry_at

    def fetched(self, keys: KeySet, running: _RunningFetch, max_stale: float) -> _Fetched:
        asked_at = running.started_at
        stale_at = asked_at + _FRESH_FOR
        return _Fetched(
            keys,
            asked_at + _REFRESH_AFTER,
            stale_at,
            stale_at + max_stale,
            asked_at,
            refilled_at=self._refilled_after(asked_at),
            absent=running.wanted,
        )

    def failed(self, asked_at: float, now: float, jitter: float, retry_after: float) -> _Fetched:
        delay = min(2.0**self.failures * (1 + jitter / 4), _MAX_BACKOFF)
        return replace(
            self,
            asked_at=asked_at,
            retry_at=now + max(delay, min(retry_after, _MAX_RETRY_AFTER)),
            refilled_at=self._refilled_after(asked_at),
            failures=min(self.failures + 1, 10),
            absent=frozenset(),
        )

    def _refilled_after(self, asked_at: float) -> float:
        if asked_at >= self.refresh_at:
            return self.refilled_at
        return max(self.refilled_at, asked_at) + _EXTRA_EACH


class _RunningFetch:
    """One running fetch, with any number of waiting calls in any event loops."""

    def __init__(self, started_at: float, overdue_at: float) -> None:
        self.started_at = started_at
        self.overdue_at = overdue_at
        #: The unknown keys that were asked for before it started.
        self.wanted: frozenset[_Wanted] = frozenset()
        #: Whether a call has waited for it in vain.
        self.is_slow = False
        self._landed: Future[None] = Future()

    def finish(self) -> None:
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
    time and serves all waiting calls. Unknown keys and signatures that do not verify cause extra
    fetches: three at once, and one more each 30 s. After a failure the next attempt comes
    1, 2, 4 ... 60 s later, or when the endpoint asks for it (``Retry-After``, at most 300 s). A
    failure never drops keys: they are used until ``max_stale``, and each such use is logged
    (``toolguard.tokens.keys``). A call with a stale key waits at most 300 ms for a newer one. A
    successful fetch replaces all keys.

    Args:
        url: the URL of the JWK set.
        issuer: the issuer, to find its JWK set by discovery; its metadata must name exactly this
            issuer (RFC 8414 §3.3).
        well_known_url: the URL of the issuer's metadata; the issuer is the one it names, and has
            to be ``issuer`` if that is given too.
        max_stale: seconds for which stale keys are used while the issuer cannot be reached; a
            withdrawn key stays valid that long in such an outage. 0 for never.
        timeout: seconds for a whole fetch, discovery included.
        fetch: the function that fetches a document; see :data:`Fetch`.
        network: the proxies, the certificates and the origins without TLS.
        clock: a monotonic clock, in seconds.
        jitter: returns numbers from 0 to 1, which spread the attempts of many processes.

    Raises:
        ValueError: if it is not clear where the keys are, or not with https (http only on this
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
        network: Network = DEFAULT_NETWORK,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        if not 0 <= max_stale < math.inf or not 0 < timeout < math.inf:
            raise ValueError("max_stale is 0 or more seconds, timeout is more than 0")
        self._location = EndpointLocation(
            url=url, issuer=issuer, well_known_url=well_known_url, admits=network.admits
        )
        self._max_stale = max_stale
        self._timeout = timeout
        self._fetch = HttpFetch(network=network) if fetch is None else fetch
        self._clock = clock
        self._jitter = jitter
        self._state = _Fetched()
        # Keyed by process id: a fetch that runs while the process forks does not run in the child.
        self._running: dict[int, _RunningFetch] = {}
        self._wanted: dict[_Wanted, None] = {}
        self._outcomes = {"success": 0, "failure": 0}

    @property
    def issuer(self) -> str | None:
        """The issuer, as given or from its metadata; None if it is not known (yet)."""
        return self._location.issuer

    @property
    def token_issuer(self) -> str | None:
        """The ``access_token_issuer`` of the metadata (AD FS); None without one, or not yet."""
        return self._location.token_issuer

    @property
    def is_fetched(self) -> bool:
        """Whether the keys, and with them the metadata, have been fetched."""
        return self._state.keys is not None

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        """Return the cached keys for a token; see :meth:`toolguard.tokens.keys.KeySource.find`.

        Raises:
            KeysUnavailableError: if there is no such key in the cache, and it is too early to ask
                the issuer.
        """
        state, now = self._state, self._clock()
        if state.keys is not None and now < state.expires_at:
            found = state.keys.find(kid, algorithm)
            if found:
                return found if now < state.refresh_at else self._find_old(found, state, now)
        return self._miss((kid, algorithm), state, now)

    async def refresh(self) -> None:
        """Wait for newer keys; see :meth:`toolguard.tokens.keys.KeySource.refresh`.

        Cancelling this wait does not cancel the fetch.

        Raises:
            KeysUnavailableError: if there are no usable keys afterwards.
        """
        now = self._clock()
        running = self._begin_fetch(now)
        if running is not None:
            if self._state.stale_at <= now < self._state.expires_at and not running.is_slow:
                await running.wait(running.started_at + _PATIENCE - now)
                running.is_slow = True
            else:
                await running.wait(running.overdue_at - now)
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

    def figures(self) -> Iterator[Figure]:
        """Return how often the keys were fetched, and how old they are."""
        about = {"issuer": self.issuer or self._location.address}
        for outcome, number in self._outcomes.items():
            yield Figure("keys.fetches", number, {**about, "outcome": outcome})
        if self._state.keys is not None:
            fetched_at = self._state.stale_at - _FRESH_FOR
            yield Figure("keys.age", self._clock() - fetched_at, about)

    def report_bad_signature(self, kid: str | None) -> bool:
        """Report a signature that did not verify; see :meth:`KeySource.report_bad_signature`."""
        worthwhile = self._can_change(self._state, self._clock())
        if worthwhile:
            self._want((kid, ""))
        _log.debug("%r: a signature fails with key %a; look again: %s", self, kid, worthwhile)
        return worthwhile

    def _find_old(
        self, found: tuple[Key, ...], state: _Fetched, now: float
    ) -> tuple[Key, ...] | None:
        if now >= state.stale_at:
            # Keys may be withdrawn while no call comes in: after such an idle time, fetch first.
            if now >= state.asked_at + _FRESH_FOR and self._is_worth_waiting(state, now):
                return None
            age = now - state.stale_at + _FRESH_FOR
            _log.warning("%r: using stale keys, fetched %.0f s ago", self, age)
        self._begin_fetch(now)
        return found

    def _is_worth_waiting(self, state: _Fetched, now: float) -> bool:
        running = self._running.get(os.getpid())
        if running is None:
            return now >= state.next_fetch_at(now)
        return not running.is_slow and now < running.started_at + _PATIENCE

    def _miss(self, wanted: _Wanted, state: _Fetched, now: float) -> tuple[Key, ...] | None:
        if state.usable(now) and state.lacks(wanted, now):
            return ()
        if not self._can_change(state, now):
            raise self._unavailable(state, now)
        self._want(wanted)
        return None

    def _want(self, wanted: _Wanted) -> None:
        if len(self._wanted) < _MAX_WANTED:
            self._wanted[wanted] = None

    def _can_change(self, state: _Fetched, now: float) -> bool:
        """Return whether a fetch that could bring other keys runs, or may start now."""
        running = self._running.get(os.getpid())
        return now >= state.next_fetch_at(now) if running is None else now < running.overdue_at

    def _unavailable(self, state: _Fetched, now: float) -> KeysUnavailableError:
        wait = max(state.next_fetch_at(now) - now, 1.0)
        return KeysUnavailableError(
            "The keys of the authorization server cannot be fetched", retry_after=math.ceil(wait)
        )

    def _begin_fetch(self, now: float) -> _RunningFetch | None:
        """Return the running fetch; start one if none runs and one is due."""
        process = os.getpid()
        if not self._is_due(now):
            return self._running.get(process)
        ours = _RunningFetch(now, now + self._timeout + _GRACE)
        # setdefault is atomic: of several threads that have come this far, one starts a fetch.
        running = self._running.setdefault(process, ours)
        if running is ours:
            self._start(ours)
        return running

    def _is_due(self, now: float) -> bool:
        state = self._state
        has_reason = now >= state.refresh_at or bool(self._wanted)
        return has_reason and now >= state.next_fetch_at(now)

    def _start(self, running: _RunningFetch) -> None:
        if not self._is_due(running.started_at):
            # Another fetch ended between the look at the state and the start of this one.
            self._end_fetch(running)
            return
        wanted, self._wanted = self._wanted, {}
        running.wanted = frozenset(tuple(wanted))
        thread = threading.Thread(
            target=self._run, args=(running,), name="toolguard-keys", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            self._settle(running, "no thread can be started")

    def _run(self, running: _RunningFetch) -> None:
        # The outcome after an unexpected exception of `fetch` is a failure as well.
        outcome: KeySet | str = "the fetch broke off"
        retry_after = [0.0]
        try:
            outcome = self._load(retry_after)
        except KeysUnavailableError as error:
            outcome = str(error)
        finally:
            self._settle(running, outcome, max(retry_after))

    def _load(self, retry_after: list[float]) -> KeySet:
        ends_at = self._clock() + self._timeout

        def get(url: str) -> bytes:
            try:
                return self._fetch(url, max(0.0, ends_at - self._clock()))
            except BusyError as busy:
                retry_after.append(busy.retry_after)
                raise

        url = self._location.find(get, self._clock())
        try:
            return KeySet.from_jwks(parse_json(get(url)))
        except (KeySetError, KeysUnavailableError, OSError) as error:
            raise KeysUnavailableError(f"{url}: {error}") from None

    def _settle(
        self, running: _RunningFetch, outcome: KeySet | str, retry_after: float = 0.0
    ) -> None:
        before = self._state
        try:
            self._outcomes["failure" if isinstance(outcome, str) else "success"] += 1
            if isinstance(outcome, str):
                self._location.forget()
                self._state = before.failed(
                    running.started_at, self._clock(), self._jitter(), retry_after
                )
                _log.warning("%r: no newer keys, try %d: %s", self, self._state.failures, outcome)
            else:
                self._state = before.fetched(outcome, running, self._max_stale)
                if outcome.skipped and (
                    before.keys is None or before.keys.skipped != outcome.skipped
                ):
                    _log.warning("%r: left out %s", self, "; ".join(outcome.skipped))
        finally:
            self._end_fetch(running)

    def _end_fetch(self, running: _RunningFetch) -> None:
        self._running.pop(os.getpid(), None)
        running.finish()

    def __repr__(self) -> str:
        return f"<JWKS: {self._location.address}>"
