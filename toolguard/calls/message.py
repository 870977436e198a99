"""One message that a server processes, and the table of the decisions for it.

A :class:`MessageContext` belongs to one JSON-RPC message; each guarded operation that is entered
has a row in it.
A :class:`Frame` is the position of the running code in it: under which guard, inside which row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from typing import Any

from toolguard.calls.request import Guard, RequestAuth
from toolguard.calls.rows import Row, State
from toolguard.connections.fetching import ConnectionFetcher
from toolguard.connections.protocol import Connection
from toolguard.errors import (
    GuardNotConfiguredError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.parts.contained import contained
from toolguard.policies.approval import Approving, CallToApprove
from toolguard.policies.decision import (
    NEEDS_ARGUMENTS,
    PERMIT,
    Caller,
    Decision,
    Verdict,
    decide,
    decide_now,
)
from toolguard.policies.operations import Kind, OperationCall
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal
from toolguard.tokens.proofs.presented import verified
from toolguard.tokens.verifier import scope_names_of

__all__ = [
    "Frame",
    "MessageContext",
    "as_current",
    "caller_of",
    "current_access_token",
    "current_frame",
    "current_principal",
    "here",
    "make_current",
    "name_scopes",
    "refusal_in",
    "restore",
    "scope_names_for",
]


@dataclass(slots=True, eq=False, repr=False)
class MessageContext:
    """One JSON-RPC message.

    Attributes:
        auth: the request that carried it; None if no request was found.
        outer: the frame around it, if one server calls another inside a call.
        is_current: returns whether the message being processed is still this one; None if no other
            can be. An in-process session may have been started by one caller and be used by
            another.
        sent: the operation that the message names, with the arguments that the client sent.
        rows: the decisions, one for each operation that was entered and is not nested.
        nested_refusal: the last refusal of a guarded function that code of the user's called. It
            decides nothing; it shows which refusal a framework turned into an error result.
        task: the id of the background task that runs as this message; None for a message that a
            client sent.
        closed: whether the message has been served, so that it has no caller any more.
        method: its JSON-RPC method.
        request_id: its JSON-RPC id.
        started: when it came, by ``time.perf_counter``.
        failure: the class of the error that it ended in, if that is no refusal.
        hidden: the operations that were left out of a list.
        listed: whether the operations of a list are hidden, as far as that has been decided: by
            the server that lists them, their kind and their name.
    """

    auth: RequestAuth | None
    outer: Frame | None = None
    is_current: Callable[[], bool] | None = None
    sent: OperationCall | None = None
    rows: list[Row] = field(default_factory=list)
    nested_refusal: ToolGuardError | None = None
    task: str | None = None
    closed: bool = False
    method: str | None = None
    request_id: str | int | None = None
    started: float = field(default_factory=time.perf_counter)
    failure: str | None = None
    hidden: list[str] = field(default_factory=list)
    listed: dict[tuple[int, Kind, str], bool] = field(default_factory=dict)
    _principals: dict[int, tuple[Guard, Principal | None]] = field(default_factory=dict)

    async def principal(self, guard: Guard) -> Principal | None:
        """Return the caller as ``guard`` knows them; None for a caller without a token.

        Raises:
            ToolGuardError: if the caller is not known, or their token is invalid.
        """
        auth = self.auth
        if self.closed or auth is None:
            raise GuardNotConfiguredError(
                "No request is being served here, so there is no caller; a task that outlives "
                "its call has none either. In tests of a server in memory write "
                '`with toolguard.testing.signed_in("alice", scopes=[...])` around the client; on a '
                "low-level server over stdio, `with guard.serving_stdio():` around its transport"
            )
        if auth.failure is not None and not auth.opens_public:
            raise auth.failure
        if auth.guard is guard:
            return auth.principal
        # A mounted or nested server: the token was verified for the outer server's audience, and
        # a caller that server trusts without a token is anonymous here.
        known = self._principals.get(id(guard))
        if known is None:
            principal = None
            if auth.token is not None:
                # The proof for this request was checked, if the token is bound to a key.
                bound = auth.principal is not None and auth.principal.jkt is not None
                with contained():
                    principal = await verified(guard, auth.token, bound=bound)
            known = self._principals[id(guard)] = (guard, principal)
        return known[1]

    def in_background(self, task: str, *, outlives_token: bool) -> MessageContext:
        """Return a message of the same caller for the background task that it has started."""
        auth = self.auth
        message = MessageContext(auth and auth.in_background(outlives_token=outlives_token))
        message.task, message.sent, message.method = task, self.sent, self.method
        message._principals.update(self._principals)
        return message

    def again(self) -> MessageContext:
        """Return a message of the same caller, for a task that may run more than once."""
        is_outliving = self.auth is not None and self.auth.outlives_token
        return self.in_background(self.task or "", outlives_token=is_outliving)

    @property
    def refusal(self) -> ToolGuardError | None:
        """The refusal that the last operation of the message ended in; None if it did not."""
        return self.rows[-1].refusal if self.rows else None

    @property
    def is_permitted(self) -> bool:
        """Whether the operation of the message was decided on and permitted."""
        last = self.rows[-1] if self.rows else None
        is_permitted = last is not None and last.own and last.state is State.PERMITTED
        return is_permitted and not self.needs_arguments

    @property
    def own_row(self) -> Row | None:
        """The last row of what the message names; None if no row is known to be that."""
        return next((row for row in reversed(self.rows) if row.own), None)

    @property
    def needs_arguments(self) -> bool:
        """Whether the decision still has to be made by the function's own wrapper."""
        return State.NEEDS_ARGUMENTS in [row.state for row in self.rows]


@dataclass(slots=True, eq=False, repr=False)
class Frame:
    """The position of the running code in a message.

    Attributes:
        guard: the guard that protects the server which runs it.
        message: the message.
        row: the innermost operation that has been entered; None outside of operations.
    """

    guard: Guard
    message: MessageContext
    row: Row | None = None

    def enter(
        self, policy: Policy | None, call: OperationCall, owner: Callable[..., Any] | None = None
    ) -> Frame:
        """Return the frame inside an operation that the message, or an entered operation, calls."""
        row = Row(policy, call, owner, nested=self.row is not None)
        if not row.nested:
            self.message.rows.append(row)
        return Frame(self.guard, self.message, row)

    @property
    def entered(self) -> Row:
        """The row of the operation that the code runs in.

        Raises:
            GuardNotConfiguredError: if no operation has been entered.
        """
        if self.row is None:
            raise GuardNotConfiguredError("No operation has been entered here")
        return self.row

    def inside(self, policy: Policy, owner: Callable[..., Any]) -> Frame:
        """Return the frame inside the function that ``owner`` guards.

        Its row is that of the operation which the framework entered, if this is the wrapper of that
        operation; a guarded function that is called by code of the user's has its own row.
        """
        row = self.row
        is_own = row is not None and row.owner is owner and not row.running
        return self if is_own else self.within(policy, owner)

    def within(self, policy: Policy, owner: Callable[..., Any]) -> Frame:
        """Return the frame inside a guarded function that code of the user's calls.

        It is never the operation of the message, wherever it is called: it has its own decision.
        """
        call = self.row.call if self.row is not None else self.message.sent
        row = Row(policy, call or OperationCall("tool", ""), owner, nested=True)
        row.label = owner.__name__
        return Frame(self.guard, self.message, row)

    async def connect(
        self, needs: Sequence[ConnectionNeed], principal: Principal | None, call: OperationCall
    ) -> dict[str, Connection | None]:
        """Return the connections that the caller needs, by parameter.

        Only now an approval of the call is used up, so that one without a connection leaves it.

        Raises:
            ToolGuardError: if a connection cannot be fetched.
        """
        auth = self.message.auth
        if principal is None or auth is None:
            return {}
        connecting = ConnectionFetcher(
            self.guard.connections, principal, auth.token, self.guard.clock, self.check_valid
        )
        self.check_valid(principal)
        found = await connecting.connect(needs)
        policy, is_permitted = None if self.row is None else self.row.policy, False
        try:
            if policy is not None and policy.approval is not None:
                await self.authorize(call, approving="use")
            is_permitted = True
        finally:
            if not is_permitted:  # a traceback shows local variables, and none may hold a token
                found.clear()
        return found

    async def authorize(
        self, call: OperationCall | None, *, approving: Approving = "later"
    ) -> Principal | None:
        """Decide on the operation and return the caller, None for a caller without a token.

        Args:
            call: the call; None while only the framework knows the arguments. Requirements that
                depend on them are then left to the wrapper that owns the row.
            approving: how far to go if the operation needs an approval.

        Raises:
            ToolGuardError: a refusal that names everything that is missing.
        """
        row, auth = self.entered, self.message.auth
        try:
            principal = await self.message.principal(self.guard)
            caller = caller_of(self.guard, principal, auth)
            decision = decide_now(row.policy, caller)
            if decision is None or auth is None or auth.guard is not self.guard:
                decision = decision or await decide(row.policy, caller, call)
                self.check_open(principal)  # a requirement or a verifier may take long
            policy = row.policy
            if policy is not None and policy.approval is not None and decision.refusal is None:
                decision = await self._approve(decision, call, principal, approving)
        except ToolGuardError as refusal:
            decision, principal = Decision(Verdict.REFUSE, refusal), None
        row.decided(decision, principal)
        if decision.refusal is not None:
            name_scopes(decision.refusal, self.guard, self.message.auth)
            raise decision.refusal
        message = self.message
        is_own = row.state is State.PERMITTED and not row.nested and message.outer is None
        if is_own and message.auth is not None:
            message.auth.permit()  # the middleware releases the response that it holds back
        return principal

    async def _approve(
        self,
        decision: Decision,
        call: OperationCall | None,
        principal: Principal | None,
        approving: Approving,
    ) -> Decision:
        """Return the decision about a call that also needs the approval of a person.

        Raises:
            ToolGuardError: if the call is not approved.
        """
        row, approver = self.entered, self.guard.approvals
        need = None if row.policy is None else row.policy.approval
        if approver is None or need is None or row.owner is None or principal is None:
            raise GuardNotConfiguredError(
                "This call needs an approval and nothing asks for one: write protect(server, "
                "approvals=...), and @requires_approval directly above the function"
            )
        if approving == "skip":
            return decision
        if approving == "later" or call is None or decision.verdict is not Verdict.PERMIT:
            return NEEDS_ARGUMENTS
        function = f"{row.owner.__module__}.{row.owner.__qualname__}"
        asked = CallToApprove(need, principal, call.name, function, call.arguments)
        await approver.require(asked, use=approving == "use")
        self.check_open(principal)
        return PERMIT

    def check_open(self, principal: Principal | None) -> None:
        """Check that the caller is still permitted: the tool may have run for a long time.

        Raises:
            GuardNotConfiguredError: if the message has ended.
            InvalidTokenError: if the token has expired.
        """
        auth = self.message.auth
        if self.message.closed or auth is None or not auth.outlives_token:
            self.check_valid(principal)

    def check_valid(self, principal: Principal | None) -> None:
        """Check that the caller's token may still be used, such as for a connection.

        Raises:
            GuardNotConfiguredError: if the message has ended.
            InvalidTokenError: if the token has expired.
        """
        if self.message.closed:
            raise GuardNotConfiguredError("The call has ended; there is no caller any more")
        now = self.guard.clock() - self.guard.leeway
        if principal is not None and principal.expires_at <= now:
            raise InvalidTokenError("expired", "The access token has expired")


def scope_names_for(guard: Guard, auth: RequestAuth | None) -> ScopeNames:
    """Return how scopes are called at the caller's issuer; without a caller, at the first one."""
    principal = None if auth is None else auth.principal
    return scope_names_of(guard.verifier, None if principal is None else principal.issuer)


def name_scopes(refusal: ToolGuardError, guard: Guard, auth: RequestAuth | None) -> None:
    """Have ``refusal`` name scopes to clients as the caller's issuer has them asked for."""
    names = scope_names_for(guard, auth)
    if names is not SAME:
        refusal.request_name = names.requested


def caller_of(guard: Guard, principal: Principal | None, auth: RequestAuth | None = None) -> Caller:
    """Return ``principal`` with the scopes and the time by which ``guard`` decides now."""
    if principal is None:
        if auth is None:
            return Caller(None)
        return Caller(None, on_missing=auth.on_missing, failure=auth.failure)
    scopes = guard.scope_hierarchy.expand(principal.scopes)
    outlives = auth is not None and auth.outlives_token
    return Caller(principal, scopes, guard.clock(), guard.leeway, outlives_token=outlives)


_current: ContextVar[Frame | None] = ContextVar("toolguard_frame", default=None)


make_current: Callable[[Frame], Token[Frame | None]] = _current.set
"""Make a frame the current one; return the token for :func:`restore`. Cheaper than a block."""

restore: Callable[[Token[Frame | None]], None] = _current.reset
"""Make the previous frame the current one again."""


@contextmanager
def as_current(frame: Frame) -> Iterator[Frame]:
    """Make ``frame`` the current one."""
    token = _current.set(frame)
    try:
        yield frame
    finally:
        _current.reset(token)


def here() -> Frame | None:
    """Return the frame of the running code; None outside of a message."""
    frame = _current.get()
    if frame is None or frame.message.closed:
        return None
    is_current = frame.message.is_current
    return frame if is_current is None or is_current() else None


def current_frame() -> Frame:
    """Return the frame of the running code.

    Raises:
        GuardNotConfiguredError: if no message is being processed.
    """
    frame = _current.get()
    if frame is None:
        raise GuardNotConfiguredError(
            "This function is guarded and no guard protects the server that calls it: write "
            "ToolGuard(...).protect(server) where the server is made, and call guarded functions "
            "through it (in tests: toolguard.testing.call_as, or signed_in around a client)"
        )
    is_current = frame.message.is_current
    if is_current is not None and not is_current():
        raise GuardNotConfiguredError(
            "This message came through a session that another caller may have started, so its "
            "caller is not known: open the session inside the tool that uses it"
        )
    return frame


def current_principal() -> Principal:
    """Return the verified caller of the message that is being served.

    For code that is not guarded itself, such as a handler of the low-level server. The caller is
    the one that the guard of the server which runs this code has verified.

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

    For code that calls a vault directly. Send the token only to the authorization server or vault
    that issued it.

    Raises:
        MissingTokenError: if the caller sent no token.
        InvalidTokenError: if a background task runs longer than the token is valid.
        GuardNotConfiguredError: if no message is being served.
    """
    frame = current_frame()
    auth = frame.message.auth
    if frame.message.closed or auth is None or auth.token is None:
        raise MissingTokenError
    if auth.outlives_token:
        frame.check_valid(auth.principal)
    return auth.token


def refusal_in(
    error: BaseException, wrapped_by: tuple[type[Exception], ...] = ()
) -> ToolGuardError | None:
    """Return the refusal in ``error``: itself or its cause; None if there is no refusal.

    Args:
        error: the exception that an operation ended in.
        wrapped_by: the error classes that a framework wraps around exceptions of a function.
    """
    carried = error if isinstance(error, ToolGuardError) else getattr(error, "refusal", None)
    if isinstance(carried, ToolGuardError):
        return carried
    if isinstance(error, wrapped_by) and (inner := error.__cause__ or error.__context__):
        return refusal_in(inner, wrapped_by)
    # A task group wraps what its tasks raise.
    nested: Sequence[BaseException] = getattr(error, "exceptions", ())
    return refusal_in(nested[0], wrapped_by) if len(nested) == 1 else None
