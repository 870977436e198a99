"""One message on its way through a server, and the table of what was decided for it.

A :class:`Message` is one JSON-RPC message; it has a row for each guarded operation that is entered.
A :class:`Frame` is where in it the running code stands: under which guard, inside which row.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

from toolguard.calls.request import Guard, RequestAuth
from toolguard.calls.rows import Row, State
from toolguard.connections.fetching import Connecting
from toolguard.connections.protocol import Connection
from toolguard.errors import (
    GuardNotConfiguredError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.decision import Caller, Decision, Verdict, decide, decide_now
from toolguard.policies.operations import Invocation
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal

__all__ = [
    "Frame",
    "Message",
    "caller_of",
    "current_access_token",
    "current_frame",
    "current_principal",
    "here",
    "leave",
    "refusal_in",
    "stand",
    "standing",
]

_log = logging.getLogger("toolguard")


@dataclass(slots=True, eq=False, repr=False)
class Message:
    """One JSON-RPC message.

    Attributes:
        auth: the request that brought it; None if none could be found.
        outer: the frame around it, where one server talks to another inside a call.
        is_current: whether the message at hand is still this one. A session inside the process
            may have been started by one caller and be used by another.
        sent: the operation that the message names, with the arguments that the client sent.
        rows: what was decided, for each operation that was entered and not inside another one.
        nested_refusal: the last refusal of a guarded function that code of the user's called. It
            decides nothing; it tells what a framework made an error result of.
        closed: whether it has been served, so that there is no caller any more.
    """

    auth: RequestAuth | None
    outer: Frame | None = None
    is_current: Callable[[], bool] = lambda: True
    sent: Invocation | None = None
    rows: list[Row] = field(default_factory=list)
    nested_refusal: ToolGuardError | None = None
    closed: bool = False
    _principals: dict[int, tuple[Guard, Principal | None]] = field(default_factory=dict)

    async def principal(self, guard: Guard) -> Principal | None:
        """Return the caller as ``guard`` knows them; None for a caller without a token.

        Raises:
            ToolGuardError: if the caller cannot be told, or their token is not good.
        """
        auth = self.auth
        if self.closed or auth is None:
            raise GuardNotConfiguredError(
                "No request is being served here, so there is no caller; a task that outlives "
                "its call has none either. In tests of a server in memory write "
                '`with toolguard.testing.signed_in("alice", scopes=[...])` around the client'
            )
        if auth.failure is not None and not auth.opens_public:
            raise auth.failure
        if auth.guard is guard:
            return auth.principal
        # A mounted or nested server: the token was verified for the outer server's audience, and
        # a caller whom that server trusts without one is a stranger here.
        known = self._principals.get(id(guard))
        if known is None:
            token = auth.token
            principal = None if token is None else await guard.verifier.verify(token)
            known = self._principals[id(guard)] = (guard, principal)
        return known[1]

    @property
    def refusal(self) -> ToolGuardError | None:
        """The refusal that the last operation of its own ended in."""
        return self.rows[-1].refusal if self.rows else None

    @property
    def is_permitted(self) -> bool:
        """Whether what it led to was decided on, in favour of the caller."""
        states = [row.state for row in self.rows]
        return states[-1:] == [State.PERMITTED] and State.NEEDS_ARGUMENTS not in states

    @property
    def needs_arguments(self) -> bool:
        """Whether it is still left to a function's own wrapper to decide."""
        return any(row.state is State.NEEDS_ARGUMENTS for row in self.rows)


@dataclass(slots=True, eq=False, repr=False)
class Frame:
    """Where in a message the running code stands.

    Attributes:
        guard: the guard that protects the server which runs it.
        message: the message.
        row: the innermost operation that has been entered; None at the door.
    """

    guard: Guard
    message: Message
    row: Row | None = None

    def enter(
        self, policy: Policy | None, call: Invocation, owner: Callable[..., Any] | None = None
    ) -> Frame:
        """Return the frame inside an operation that the message led to, or that one in turn."""
        row = Row(policy, call, owner, nested=self.row is not None)
        if not row.nested:
            self.message.rows.append(row)
        return Frame(self.guard, self.message, row)

    @property
    def entered(self) -> Row:
        """The row of the operation that the code stands in.

        Raises:
            GuardNotConfiguredError: at the door, where there is nothing to decide on.
        """
        if self.row is None:
            raise GuardNotConfiguredError("No operation has been entered here")
        return self.row

    def within(self, policy: Policy, owner: Callable[..., Any]) -> Frame:
        """Return the frame inside a guarded function that code of the user's calls.

        It is never what the message led to, wherever it is called: its decision is its own.
        """
        call = self.row.call if self.row is not None else self.message.sent
        row = Row(policy, call or Invocation("tool", ""), owner, nested=True)
        return Frame(self.guard, self.message, row)

    async def connect(
        self, needs: Sequence[ConnectionNeed], principal: Principal | None
    ) -> dict[str, Connection | None]:
        """Return the connections that the caller needs, by parameter.

        Raises:
            ToolGuardError: why one could not be had.
        """
        auth = self.message.auth
        if principal is None or auth is None:
            return {}
        connecting = Connecting(
            self.guard.connections, principal, auth.token, self.guard.clock, self.check_open
        )
        return await connecting.connect(needs)

    async def authorize(self, call: Invocation | None) -> Principal | None:
        """Decide on the operation and return the caller, None for a caller without a token.

        Args:
            call: the call; None while only the framework knows the arguments. What depends on
                them is then left to the wrapper that owns the row.

        Raises:
            ToolGuardError: the one refusal that names everything missing.
        """
        row, auth = self.entered, self.message.auth
        try:
            principal = await self.message.principal(self.guard)
            caller = caller_of(self.guard, principal, auth)
            decision = decide_now(row.policy, caller)
            if decision is None or auth is None or auth.guard is not self.guard:
                decision = decision or await decide(row.policy, caller, call)
                self.check_open(principal)  # what was waited for may have taken long
        except ToolGuardError as refusal:
            decision, principal = Decision(Verdict.REFUSE, refusal), None
        row.decided(decision, principal)
        if decision.refusal is not None:
            rule = getattr(decision.refusal, "rule", None)
            by = f" by {rule}" if rule else ""
            _log.info("refused: %s%s", type(decision.refusal).__name__, by)
            raise decision.refusal
        message = self.message
        is_own = row.state is State.PERMITTED and not row.nested and message.outer is None
        if is_own and message.auth is not None:
            message.auth.permit()  # the door lets go of what it holds back
        return principal

    def check_open(self, principal: Principal | None) -> None:
        """Make sure that the caller may still be acted for: the tool may have run for long.

        Raises:
            GuardNotConfiguredError: if the message has ended.
            InvalidTokenError: if the token has expired.
        """
        if self.message.closed:
            raise GuardNotConfiguredError("The call has ended; there is no caller any more")
        now = self.guard.clock() - self.guard.leeway
        if principal is not None and principal.expires_at <= now:
            raise InvalidTokenError("expired", "The access token has expired")


def caller_of(guard: Guard, principal: Principal | None, auth: RequestAuth | None = None) -> Caller:
    """Return ``principal`` with what ``guard`` takes them to hold now."""
    if principal is None:
        if auth is None:
            return Caller(None)
        return Caller(None, on_missing=auth.on_missing, failure=auth.failure)
    scopes = guard.scope_hierarchy.expand(principal.scopes)
    return Caller(principal, scopes, guard.clock(), guard.leeway)


_current: ContextVar[Frame | None] = ContextVar("toolguard_frame", default=None)


stand: Callable[[Frame], Token[Frame | None]] = _current.set
"""Make a frame the current one; return what :func:`leave` takes. For the path of every call."""

leave: Callable[[Token[Frame | None]], None] = _current.reset
"""Make the frame the current one that was it before."""


@contextmanager
def standing(frame: Frame) -> Iterator[Frame]:
    """Make ``frame`` the current one."""
    token = _current.set(frame)
    try:
        yield frame
    finally:
        _current.reset(token)


def here() -> Frame | None:
    """Return the frame that the running code stands in; None outside of a message."""
    frame = _current.get()
    if frame is None or frame.message.closed or not frame.message.is_current():
        return None
    return frame


def current_frame() -> Frame:
    """Return the frame that the running code stands in.

    Raises:
        GuardNotConfiguredError: if there is none.
    """
    frame = _current.get()
    if frame is None:
        raise GuardNotConfiguredError(
            "This function is guarded and no guard protects the server that calls it: write "
            "ToolGuard(...).protect(server) where the server is made, and call guarded functions "
            "through it (in tests: toolguard.testing.call_as, or signed_in around a client)"
        )
    if not frame.message.is_current():
        raise GuardNotConfiguredError(
            "This message came through a session that another caller may have started, so it is "
            "not known who calls: open the session inside the tool that uses it"
        )
    return frame


def current_principal() -> Principal:
    """Return the verified caller of the message that is being served.

    For code that is not guarded itself and wants to know the caller, such as a handler of the
    low-level server. It is the caller as the guard of the server that runs this code knows them.

    Raises:
        MissingTokenError: if the caller sent no token.
        GuardNotConfiguredError: if no message is being served.
    """
    frame = current_frame()
    if not frame.message.closed and frame.row is not None and frame.row.principal is not None:
        return frame.row.principal
    auth = frame.message.auth
    if frame.message.closed or auth is None:
        raise GuardNotConfiguredError("The call has ended; there is no caller any more")
    if auth.principal is None or auth.guard is not frame.guard:
        raise MissingTokenError
    return auth.principal


def current_access_token() -> str:
    """Return the caller's access token of this message, inside a guarded function.

    For code that calls a vault directly. The token is for the authorization server or vault that
    issued it, and for no other party.

    Raises:
        MissingTokenError: if the caller sent none.
        GuardNotConfiguredError: if no message is being served.
    """
    message = current_frame().message
    if message.closed or message.auth is None or message.auth.token is None:
        raise MissingTokenError
    return message.auth.token


def refusal_in(
    error: BaseException, wrapped_by: tuple[type[Exception], ...] = ()
) -> ToolGuardError | None:
    """Return the refusal that ``error`` is, or that it was made of; None if there is none.

    Args:
        error: what an operation ended in.
        wrapped_by: the errors that a framework raises from what a function raised.
    """
    carried = error if isinstance(error, ToolGuardError) else getattr(error, "refusal", None)
    if isinstance(carried, ToolGuardError):
        return carried
    if isinstance(error, wrapped_by) and (inner := error.__cause__ or error.__context__):
        return refusal_in(inner, wrapped_by)
    # A task group wraps what its tasks raise.
    nested: Sequence[BaseException] = getattr(error, "exceptions", ())
    return refusal_in(nested[0], wrapped_by) if len(nested) == 1 else None
