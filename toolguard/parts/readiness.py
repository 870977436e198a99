"""Whether a server can serve its first call without waiting for anything.

A part of a guard (its verifier, its connection provider) may have a coroutine method ``warm_up``:
it fetches what the part needs, returns at once if it has that, and raises if it cannot get it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

import anyio

from toolguard.parts.lifecycle import warm_up

__all__ = ["Readiness", "warmed_up"]

_log = logging.getLogger("toolguard")

# A probe gives up sooner or later: kubelet waits for 1 s by default, load balancers for 5.
_PATIENCE = 5.0


@dataclass(frozen=True)
class Readiness:
    """Whether a server is ready; true if nothing is missing.

    Attributes:
        missing: the parts of its guard that are not ready, with the kind of fault.

    >>> bool(Readiness()), bool(Readiness({"keys": "KeysUnavailableError"}))
    (True, False)
    """

    missing: Mapping[str, str] | None = None

    def __bool__(self) -> bool:
        return not self.missing


async def warmed_up(parts: Mapping[str, object], before: Readiness) -> Readiness:
    """Warm up the parts of a guard one after the other; a failure is logged, never raised.

    Args:
        parts: the parts by what they are for.
        before: what was found the last time: what has not changed is not logged again, because
            strangers may ask as often as they like.
    """
    missing: dict[str, str] = {}
    for name, part in parts.items():
        fault = "no answer in time"
        with anyio.move_on_after(_PATIENCE):
            fault = await _fault_of(part)
        if fault:
            missing[name] = fault
    _log_changes(before.missing or {}, missing)
    return Readiness(missing)


def _log_changes(before: Mapping[str, str], missing: Mapping[str, str]) -> None:
    for name, fault in missing.items():
        if before.get(name) != fault:
            _log.warning("not ready: %s: %s", name, fault)
    for name in before:
        if name not in missing:
            _log.info("ready again: %s", name)


async def _fault_of(part: object) -> str:
    try:
        await warm_up(part)
    except Exception as error:  # noqa: BLE001 - a part of the user's; its text may hold a secret
        return type(error).__name__
    return ""
