"""Which call is being served here?

The frameworks' adapters open a call around each message; guarded functions find it and ask it to
admit the caller.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from toolguard.calls.context import Call
from toolguard.errors import GuardNotConfiguredError, MissingTokenError

__all__ = ["current_access_token", "current_call", "outer_call", "serving"]

_current: ContextVar[Call | None] = ContextVar("toolguard_call", default=None)


def current_call() -> Call:
    """Return the call that is being served.

    Raises:
        GuardNotConfiguredError: if there is none.
    """
    call = _current.get()
    if call is not None and not call.is_current():
        raise GuardNotConfiguredError(
            "This message came through a session that another caller may have started, so it is "
            "not known who calls: open the session inside the tool that uses it"
        )
    if call is None:
        raise GuardNotConfiguredError(
            "This function is guarded and no guard protects the server that calls it: write "
            "ToolGuard(...).protect(server) where the server is made, and call guarded functions "
            "through it (in tests: toolguard.testing.call_as)"
        )
    return call


def current_access_token() -> str:
    """Return the caller's access token of this message, inside a guarded function.

    For who still talks to a vault by hand. It is for the authorization server or vault that
    issued it, and for nobody else.

    Raises:
        MissingTokenError: if the caller sent none.
        GuardNotConfiguredError: if no call is being served.
    """
    call = current_call()
    if call.closed or call.state is None or call.state.token is None:
        raise MissingTokenError
    return call.state.token


@contextmanager
def serving(call: Call) -> Iterator[Call]:
    """Make ``call`` the current one for the duration of a message."""
    call.outer = outer_call()
    token = _current.set(call)
    try:
        yield call
    finally:
        _current.reset(token)
        call.close()


def outer_call() -> Call | None:
    """Return the open call around this one, where one server serves inside another."""
    call = _current.get()
    return None if call is None or call.closed or not call.is_current() else call
