"""Make a guard accept the tokens of a test issuer.

The issuer exists in this process only. A real verifier for its tokens, and no others, replaces the
guard's own for the duration of a call, and for that call only.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

from toolguard.guard import ToolGuard
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.wiring import Wiring
from toolguard.tokens.jwt import JWTVerifier

__all__ = ["issuer_for", "trusting"]


def issuer_for(guard: ToolGuard) -> LocalIssuer:
    """Return the issuer that mints the tokens of a test of ``guard``; the same one each time."""
    verifier = guard.verifier
    audience = verifier.audiences[0] if isinstance(verifier, JWTVerifier) else guard.resource
    return _issuer(audience, guard.clock)


@functools.lru_cache(maxsize=32)
def _issuer(audience: str, clock: Callable[[], float]) -> LocalIssuer:
    return LocalIssuer(audience=audience, algorithm="ES256", clock=clock)


def trusting(guard: ToolGuard, issuer: LocalIssuer) -> AbstractContextManager[None]:
    """Let ``guard`` verify tokens of ``issuer``, for real, in this context."""
    return Wiring(guard, verifier=issuer.verifier()).used()
