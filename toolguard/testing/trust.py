"""Which tokens does a guard accept while it is tested?

Those of an issuer that exists in this process alone, beside nothing else: a real verifier takes
the place of the guard's own for the duration of a call.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from toolguard.guard import ToolGuard
from toolguard.testing.issuer import LocalIssuer
from toolguard.tokens.jwt import JWTVerifier, Verifier

__all__ = ["issuer_for", "trusting"]

_lock = threading.Lock()
#: What each guard verified with before, and how many calls are under way that replace it.
_replaced: WeakKeyDictionary[ToolGuard, tuple[Verifier, int]] = WeakKeyDictionary()


def issuer_for(guard: ToolGuard) -> LocalIssuer:
    """Return the issuer that mints the tokens of a test of ``guard``; the same one each time."""
    verifier = guard.verifier
    audience = verifier.audiences[0] if isinstance(verifier, JWTVerifier) else guard.resource
    return _issuer(audience, guard.clock)


@functools.lru_cache(maxsize=32)
def _issuer(audience: str, clock: Callable[[], float]) -> LocalIssuer:
    return LocalIssuer(audience=audience, algorithm="ES256", clock=clock)


@contextmanager
def trusting(guard: ToolGuard, issuer: LocalIssuer) -> Iterator[None]:
    """Let ``guard`` verify tokens of ``issuer``, for real; calls may overlap."""
    with _lock:
        original, users = _replaced.get(guard, (guard.verifier, 0))
        _replaced[guard] = (original, users + 1)
        if users == 0:
            guard.verifier = issuer.verifier()
    try:
        yield
    finally:
        with _lock:
            original, users = _replaced.pop(guard)
            if users > 1:
                _replaced[guard] = (original, users - 1)
            else:
                guard.verifier = original
