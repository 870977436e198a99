"""The caller of in-memory clients, such as ``Client(mcp)``.

No HTTP request carries a token there, so a test sets the caller. The token is minted and verified
as for :func:`toolguard.testing.call_as`: no decision is faked.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from toolguard.calls.request import Guard, RequestAuth
from toolguard.calls.request import signed_in as current_caller
from toolguard.errors import GuardNotConfiguredError, ToolGuardError
from toolguard.guard import ToolGuard
from toolguard.testing.issuer import LocalIssuer, checked_scopes
from toolguard.testing.trust import issuer_for
from toolguard.tokens.jwt import Verifier
from toolguard.tokens.proofs.presented import check_binding

__all__ = ["InMemoryCaller", "own_trust", "signed_in", "trust_in"]

Trust = Callable[[ToolGuard], tuple[LocalIssuer, Verifier]]
"""Returns the issuer of a caller's tokens for a guard, and the verifier of these tokens."""


@contextmanager
def signed_in(
    user: str | None = "alice",
    *,
    scopes: Sequence[str] = (),
    issuer: LocalIssuer | None = None,
    **claims: Any,
) -> Iterator[None]:
    """Sign in the caller of in-memory clients that are opened and used in this block.

    It is for clients that connect to a server object in this process:
    ``create_connected_server_and_client_session(mcp)`` of mcp 1, ``Client(mcp)`` of mcp 2 and of
    fastmcp. Requests over HTTP and stdio carry their own tokens, and are not affected.

    On mcp 1 and fastmcp 3 the block in which the client is opened counts: the client calls as this
    user until that block ends, also within another one. On mcp 2 and fastmcp 4 the block of the
    call counts. So open a client in the block in which it is used. After the block there is no
    caller.

    Args:
        user: the subject of the caller's tokens; None calls without a token.
        scopes: the scopes of the tokens.
        issuer: mints the tokens, for a guard that verifies them; by default an issuer of this
            process, as for :func:`call_as`, which guards trust only for these calls.
        claims: further claims of the tokens, as :meth:`LocalIssuer.mint` takes them.

    Raises:
        TypeError: if ``scopes`` is a string.

    Example::

        with signed_in("bob", scopes=["calendar.read"]):
            async with Client(mcp) as client:
                assert (await client.call_tool("list_events", {"day": "monday"})).data
    """
    trust = own_trust if issuer is None else trust_in(issuer)
    with InMemoryCaller(trust, user, scopes=scopes, **claims).signed_in():
        yield


def trust_in(issuer: LocalIssuer) -> Trust:
    """Return ``issuer`` for every guard, with the guard's own verifier."""
    return lambda guard: (issuer, guard.verifier)


def own_trust(guard: ToolGuard) -> tuple[LocalIssuer, Verifier]:
    """Return the test kit's own issuer for ``guard``, and the verifier of its tokens."""
    issuer = issuer_for(guard)
    return issuer, issuer.verifier()


class InMemoryCaller:
    """One caller of in-memory clients.

    Args:
        trust: returns the issuer and the verifier of the tokens.
        user: as for :func:`signed_in`.
        scopes: as for :func:`signed_in`.
        claims: as for :func:`signed_in`.

    Raises:
        TypeError: if ``scopes`` is a string.
    """

    def __init__(
        self, trust: Trust, user: str | None, *, scopes: Sequence[str], **claims: Any
    ) -> None:
        self._trust = trust
        self._user = user
        self._claims = {"scopes": checked_scopes(scopes), **claims}
        self._ended = False

    @contextmanager
    def signed_in(self) -> Iterator[None]:
        """Set this caller in the current context, once."""
        before = current_caller.get()
        current_caller.set(self)
        try:
            yield
        finally:
            self._ended = True  # also for a client that has been left open
            current_caller.set(before)

    async def auth_for(self, guard: Guard) -> RequestAuth:
        """Return this caller as ``guard`` verifies them; the token is new for each message."""
        failed = functools.partial(RequestAuth, None, None, guard, transport="memory")
        if self._ended:
            return failed(failure=_refusal("its `with signed_in(...)` block has ended"))
        if self._user is None:
            return failed()
        if not isinstance(guard, ToolGuard) or not guard.verifies_itself:
            return failed(failure=_refusal("the framework verifies here, so use call_as(token=)"))
        issuer, verifier = self._trust(guard)
        token = issuer.mint(self._user, **self._claims)
        try:
            principal = await verifier.verify(token)
            check_binding(principal.jkt, bound=False)
            return RequestAuth(token, principal, guard, transport="memory")
        except ToolGuardError as failure:
            return RequestAuth(token, None, guard, failure=failure, transport="memory")
        finally:
            del token  # the traceback of a failure is kept, and shows local variables


def _refusal(reason: str) -> GuardNotConfiguredError:
    return GuardNotConfiguredError(f"The caller of this in-memory client is not known: {reason}")
