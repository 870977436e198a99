"""The requests to a provider that are under way, shared by the calls that wait for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import ConnectionUnavailableError
from toolguard.tokens.per_loop import PerLoop, running_loop

if TYPE_CHECKING:
    import asyncio

__all__ = ["InFlight", "RequestsInFlight", "caller_of"]

# In one event loop, also if the calls that began them have ended; further ones fail at once.
_MAX_OF_ONE_CONNECTION = 2_000
_MAX_OF_ONE_CALLER = 100


def caller_of(request: ConnectionRequest) -> tuple[str | None, ...]:
    """Return what tells the caller of ``request`` from others."""
    return request.principal.issuer, request.principal.user_id, request.tenant_id


@dataclass(eq=False)
class InFlight:
    """One running request to the provider, for all waiting calls in one event loop."""

    fresh: bool
    task: asyncio.Task[Connection] = field(init=False)


@dataclass
class _Running:
    """The running requests of one event loop.

    Attributes:
        by_key: those that a further call joins.
        numbers: how many there are, by connection and by caller; with those that were overtaken.
    """

    by_key: dict[str, InFlight] = field(default_factory=dict)
    numbers: Counter[Hashable] = field(default_factory=Counter)


class RequestsInFlight:
    """The running requests by key; each event loop has its own, as tasks belong to a loop."""

    def __init__(self) -> None:
        self._by_loop: PerLoop[_Running] = PerLoop(_Running)

    def join(
        self,
        key: str,
        request: ConnectionRequest,
        start: Callable[[InFlight], Coroutine[Any, Any, Connection]],
    ) -> asyncio.Task[Connection]:
        """Return the running request for ``key``; start one if there is none, or none is fresh.

        Raises:
            ConnectionUnavailableError: if too many are running, of this connection or caller.
        """
        running = self._by_loop.get()
        current = running.by_key.get(key)
        if current is None or (request.fresh and not current.fresh):
            counted = request.name, caller_of(request)
            _check_room(running.numbers, *counted)
            current = running.by_key[key] = InFlight(request.fresh)
            current.task = running_loop().create_task(start(current))
            running.numbers.update(counted)
            current.task.add_done_callback(partial(_forget, running, key, counted, current))
        return current.task

    def is_latest(self, key: str, current: InFlight) -> bool:
        """Return whether no fresh request overtook this one, whose connection may be older."""
        return self._by_loop.get().by_key.get(key) is current


def _check_room(numbers: Counter[Hashable], name: str, caller: Hashable) -> None:
    if numbers[name] >= _MAX_OF_ONE_CONNECTION or numbers[caller] >= _MAX_OF_ONE_CALLER:
        raise ConnectionUnavailableError(
            f"Too many requests for {name} are under way: try again", connection=name
        )


def _forget(
    running: _Running,
    key: str,
    counted: tuple[Hashable, ...],
    current: InFlight,
    task: asyncio.Task[Connection],
) -> None:
    if running.by_key.get(key) is current:
        del running.by_key[key]
    for each in counted:
        running.numbers[each] -= 1
        if not running.numbers[each]:
            del running.numbers[each]
    if not task.cancelled():
        # Retrieved, or asyncio logs it with its traceback if all waiting calls are gone.
        task.exception()
