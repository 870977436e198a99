"""Hand decision records to their consumers, beside the calls.

A bounded queue is emptied by one thread. A consumer that is slow or fails neither delays nor
changes a call: the records it does not get are counted, and their number is logged.
"""

from __future__ import annotations

import atexit
import functools
import hmac
import inspect
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from weakref import WeakSet

from toolguard.calls.records import DecisionRecord
from toolguard.connections.functions import takes
from toolguard.parsing.choice import one_of
from toolguard.parsing.kinds import of_kind
from toolguard.parts.figures import Figure

if TYPE_CHECKING:
    import asyncio

__all__ = ["OnDecision", "Recorder", "Records", "Subjects"]

OnDecision: TypeAlias = Callable[[DecisionRecord], Awaitable[None] | None]
"""A consumer of records: a function, or a coroutine function."""

Subjects: TypeAlias = Literal["clear", "hashed"]
"""How records name users: as the token does, or by a pseudonym."""

_log = logging.getLogger("toolguard")
_decisions = logging.getLogger("toolguard.decisions")

# Seconds for which records are collected, so that the thread wakes up a few times in a second only.
_LINGER = 0.05
# Seconds without a record after which the thread ends.
_IDLE = 5.0
_PATIENCE = 5.0


class Records:
    """What happens with the record of each decision.

    Args:
        consumers: functions that get each record, in a thread of their own; coroutine functions
            run in the event loop of that thread. A method ``during_call(record)`` is called in
            the call itself, for what depends on its context, and has to be quick.
        subjects: ``"hashed"``: users and actors are named by a pseudonym, an HMAC with the secret
            of the guard: the same for all replicas with the same ``TOOLGUARD_SECRET``.
        queue: how many records may wait; further ones are counted as lost.

    Raises:
        TypeError: if a consumer is not a function.
        ValueError: if a setting is invalid.

    >>> Records(print, subjects="hashed")
    Records(print, subjects='hashed', queue=10000)
    """

    def __init__(
        self, *consumers: OnDecision, subjects: Subjects = "clear", queue: int = 10_000
    ) -> None:
        for each in consumers:
            if not callable(each):
                raise TypeError(f"on_decision takes functions of a record, not {each!r}")
            if isinstance(each, type):
                raise TypeError(f"{each.__name__} is a class: write on_decision={each.__name__}()")
            if not takes(each, object()):
                raise TypeError(f"{_name(each)} does not take one argument: write def keep(record)")
        of_kind("queue", queue, int, "queue=10_000")
        if queue < 1:
            raise ValueError(f"queue={queue}: at least one record has to wait")
        self.consumers = consumers
        self.subjects: Subjects = one_of("subjects", subjects, ("clear", "hashed"))
        self.queue = queue

    @classmethod
    def of(cls, on_decision: Records | OnDecision | None) -> Records:
        """Return the setting of a guard as a value.

        Args:
            on_decision: the setting; None for no consumers.
        """
        if isinstance(on_decision, Records):
            return on_decision
        return cls() if on_decision is None else cls(on_decision)

    def __repr__(self) -> str:
        names = [*map(_name, self.consumers), f"subjects={self.subjects!r}", f"queue={self.queue}"]
        return f"Records({', '.join(names)})"


class Recorder:
    """The queue of one guard's records.

    Records are made only if there is a consumer, or if the log ``toolguard.decisions`` is enabled
    for INFO, where each is one line.

    Args:
        records: what happens with them.
        secret: the key of pseudonyms.
        figures: returns what the parts of the guard have counted.
    """

    def __init__(
        self,
        records: Records,
        secret: bytes,
        figures: Callable[[], Iterable[Figure]] = tuple,
    ) -> None:
        self._queue: deque[DecisionRecord] = deque()
        self._limit = records.queue
        self._consumers: list[OnDecision] = list(records.consumers)
        self._during = [
            each.during_call for each in records.consumers if hasattr(each, "during_call")
        ]
        self._key = secret if records.subjects == "hashed" else None
        #: Returns what the parts of the guard have counted, for metrics.
        self.figures = figures
        #: The records that a consumer did not get: they found the queue full, or it failed.
        self.lost = 0
        self._reported = 0
        self._renew()
        #: Returns whether records are made now.
        self.wanted = self._asked()
        _recorders.add(self)
        for each in records.consumers:
            if hasattr(each, "attach"):
                each.attach(self)

    @property
    def hashes(self) -> bool:
        """Whether records name users by pseudonyms."""
        return self._key is not None

    def _asked(self) -> Callable[[], bool]:
        if self._consumers:
            return lambda: True
        return functools.partial(_decisions.isEnabledFor, logging.INFO)

    def name_of(self, issuer: str, user: str) -> str:
        """Return how records name a user of an issuer."""
        if self._key is None:
            return user
        named = f"{len(issuer)}:{issuer}{user}".encode("utf-8", "surrogatepass")
        return hmac.new(self._key, named, sha256).hexdigest()[:32]

    def listen(self, consumer: OnDecision) -> Callable[[], None]:
        """Add a consumer; return a function that removes it."""
        self._consumers.append(consumer)
        self.wanted = self._asked()

        def remove() -> None:
            self._consumers.remove(consumer)
            self.wanted = self._asked()

        return remove

    def put(self, records: Iterable[DecisionRecord]) -> None:
        """Queue records; those that find the queue full are lost."""
        for record in records:
            self._tell_now(record)
            if len(self._queue) >= self._limit:
                self.lost += 1
            else:
                self._queue.append(record)
        if not self._filled.is_set():
            self._filled.set()
        if self._thread is None:
            self._start()

    def _tell_now(self, record: DecisionRecord) -> None:
        try:
            for tell in self._during:
                tell(record)
        except Exception as error:  # noqa: BLE001 - code of an SDK, which may be set up wrongly
            self.lost += 1
            _log.debug("a consumer failed in a call: %s", type(error).__name__)

    def flush(self, timeout: float = _PATIENCE) -> bool:
        """Wait until the consumers have got every record; return whether they have, in time.

        Args:
            timeout: the maximum number of seconds.
        """
        self._hurry.set()
        self._filled.set()
        ends_at = time.monotonic() + timeout
        with self._done:
            while self._queue or self._busy:
                left = ends_at - time.monotonic()
                if left <= 0:
                    return False
                if self._thread is None and not self._start():  # the interpreter is shutting down
                    self._hand_out(_Loop())
                self._done.wait(min(left, _LINGER))
        return True

    def close(self, timeout: float = _PATIENCE) -> None:
        """Hand out what is queued, for at most ``timeout`` seconds; what is left then is lost."""
        if not self.flush(timeout):
            self.lost += len(self._queue)
            self._queue.clear()
        self._report()

    def _renew(self) -> None:
        """Begin anew, as after a fork: the thread, and what it has yet to do, are the parent's."""
        self._queue.clear()
        self._filled, self._hurry = threading.Event(), threading.Event()
        self._done = threading.Condition()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._busy = False

    def _start(self) -> bool:
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="toolguard-records", daemon=True)
                with suppress(RuntimeError):  # no thread can be started now
                    thread.start()
                    self._thread = thread
        return self._thread is not None

    def _run(self) -> None:
        loop = _Loop()
        try:
            while self._filled.wait(_IDLE) or loop.is_used:
                self._hurry.wait(_LINGER)
                self._busy = True
                self._filled.clear()
                self._hurry.clear()
                self._hand_out(loop)
                self._report()
                with self._done:
                    self._busy = False
                    self._done.notify_all()
        finally:
            loop.close()
            self._thread, self._busy = None, False
            if self._queue:  # one came at the last moment, or the log failed
                self._filled.set()
                self._start()

    def _hand_out(self, loop: _Loop) -> None:
        while self._queue:
            record = self._queue.popleft()
            for consumer in (_write_line, *self._consumers):
                self._tell(consumer, record, loop)

    def _tell(self, consumer: OnDecision, record: DecisionRecord, loop: _Loop) -> None:
        try:
            answer = consumer(record)
            if inspect.isawaitable(answer):
                loop.run(answer)
        except BaseException as error:  # noqa: BLE001 - of the user's: it cannot end this thread
            self.lost += 1
            _log.debug("%s failed: %s", _name(consumer), type(error).__name__)

    def _report(self) -> None:
        new, self._reported = self.lost - self._reported, self.lost
        if new:
            _log.warning(
                "%d decision records were lost: their consumer failed, or is too slow for a queue "
                "of %d; lost since the start: %d",
                new,
                self._limit,
                self.lost,
            )

    def __repr__(self) -> str:
        return f"<Recorder: {len(self._queue)} of {self._limit} waiting, {self.lost} lost>"


class _Loop:
    """The event loop of a thread, for consumers that are coroutine functions."""

    def __init__(self) -> None:
        self._runner: asyncio.AbstractEventLoop | None = None

    @property
    def is_used(self) -> bool:
        return self._runner is not None

    def run(self, answer: Awaitable[None]) -> None:
        import asyncio  # noqa: PLC0415 - takes long to import

        if self._runner is None:
            self._runner = asyncio.new_event_loop()

        async def finish() -> None:
            await answer

        self._runner.run_until_complete(finish())

    def close(self) -> None:
        if self._runner is not None:
            self._runner.close()


_recorders: WeakSet[Recorder] = WeakSet()


def _close_all() -> None:
    for each in tuple(_recorders):
        each.close()


def _renew_all() -> None:
    for each in tuple(_recorders):
        each._renew()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)


def _write_line(record: DecisionRecord) -> None:
    if _decisions.isEnabledFor(logging.INFO):
        _decisions.info("%s", record, extra={"decision": record})


def _name(consumer: Any) -> str:
    return getattr(consumer, "__name__", None) or repr(consumer)
