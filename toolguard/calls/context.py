"""What is known about one message on one server, and whom does it admit?

One :class:`RequestAuth` belongs to one HTTP request (or to one message where there is no HTTP);
one :class:`Call` to one message on one server.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import anyio

from toolguard.calls.request import Guard, RequestAuth
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    GuardNotConfiguredError,
    InvalidTokenError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.policies.decision import decide
from toolguard.policies.formulas import Rule
from toolguard.policies.operations import Invocation
from toolguard.policies.policy import DEFAULT_POLICIES, ConnectionNeed, Grant, Policy
from toolguard.policies.published import LISTS
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal

__all__ = [
    "Admission",
    "Call",
    "grant_of",
]

_log = logging.getLogger("toolguard")

# What a client does before it can ask for anything.
_HANDSHAKE = frozenset({"initialize", "ping", "server/discover"})


def grant_of(guard: Guard, principal: Principal) -> Grant:
    """Return what ``guard`` takes ``principal`` to hold now."""
    scopes = guard.scope_hierarchy.expand(principal.scopes)
    return Grant(principal, scopes, guard.clock(), guard.leeway)


@dataclass(frozen=True)
class Admission:
    """A caller who was let in, and the connections fetched for the call, by parameter name."""

    principal: Principal | None
    connections: Mapping[str, Connection | None]


class Call:
    """One message on one server.

    Args:
        guard: the guard that protects the server.
        state: the request that brought the message; None if none could be found.
        refuse_with: makes the exception with which this framework's handlers say no.
        is_current: whether the message at hand is still this one. A session inside the process
            may have been started by one caller and be used by another.
        meta: the ``_meta`` of the message.
    """

    def __init__(
        self,
        guard: Guard,
        state: RequestAuth | None,
        refuse_with: Callable[[ToolGuardError], Exception] = lambda refusal: refusal,
        *,
        is_current: Callable[[], bool] = lambda: True,
        meta: object = None,
    ) -> None:
        self.guard = guard
        self.state = state
        self.is_current = is_current
        self.meta = meta
        #: What the message asks for, with the arguments that the client sent.
        self.operation: Invocation | None = None
        #: Whose message it is: the adapter of the server.
        self.served: object = None
        #: The call of the server around this one.
        self.outer: Call | None = None
        #: The rule that only the function's own guard can decide on, until it has.
        self._undecided: Rule | None = None
        self._refuse_with = refuse_with
        self._noted: ToolGuardError | None = None
        self.closed = False

    async def admit(self, policy: Policy, arguments: Mapping[str, Any] | None = None) -> Admission:
        """Return who calls, with what the policy fetches for them.

        Args:
            policy: what the operation asks for.
            arguments: what it is called with, for a rule that reads that.

        Raises:
            ToolGuardError: the one refusal that names everything missing.
        """
        invocation = self.operation or Invocation("tool", "")
        if arguments is not None:
            invocation = replace(invocation, arguments=MappingProxyType(dict(arguments)))
        principal = await self.authorize(policy, invocation)
        return Admission(principal, await self._connect(policy.connections, principal))

    async def authorize(
        self, policy: Policy, invocation: Invocation | None = None
    ) -> Principal | None:
        """Return who calls, None for nobody in particular; fetch nothing for them.

        Args:
            policy: what the operation asks for.
            invocation: the call; None while only its framework knows the arguments. What depends
                on them is then left to the function's own guard, and without its decision the
                message is refused in the end, whatever answered it.

        Raises:
            ToolGuardError: the one refusal that names everything missing.
        """
        principal, decided = await self._judge(policy, invocation)
        if not decided:
            self._undecided = policy.rule
        elif invocation is not None:
            self._has_decided(policy.rule)
        return principal

    async def _judge(
        self, policy: Policy, invocation: Invocation | None
    ) -> tuple[Principal | None, bool]:
        principal = await self._principal()
        if principal is not None:
            self._check_open(principal)
        elif self.state is not None and not policy.public:
            raise MissingTokenError(self.state.on_missing, scopes=policy.first_scopes)
        if principal is None or policy.rule is None or isinstance(policy.rule, Scope):
            policy.check(principal, self.guard.scope_hierarchy)
            return principal, True
        decided = await decide(policy.rule, grant_of(self.guard, principal), invocation)
        self._check_open(principal)  # a check of the user's may have taken long
        return principal, decided

    def _has_decided(self, rule: Rule | None) -> None:
        call: Call | None = self
        while call is not None and rule is not None:
            if call._undecided == rule:
                call._undecided = None
            call = call.outer

    async def admit_undeclared(self, method: str) -> None:
        """Hold an operation that carries no guard against the server's default.

        Raises:
            ToolGuardError: if the default does not let this caller do it.
        """
        if method in _HANDSHAKE or method.startswith("notifications/"):
            return
        if method in LISTS:  # open to all where something is
            await self.authorize(Policy(public=self.guard.admits_anonymous))
            return
        await self.authorize(self._default())

    @property
    def default_policy(self) -> Policy | None:
        """What an operation without a guard asks for; None if nobody may do it."""
        return DEFAULT_POLICIES[self.guard.default]

    def _default(self) -> Policy:
        if self.default_policy is None:
            raise AccessDeniedError(rule="default=deny")
        return self.default_policy

    @property
    def is_undecided(self) -> bool:
        """Whether it is left to the function's own guard to decide."""
        return self._undecided is not None

    async def forecast(self, policy: Policy | None) -> None:
        """Return if the caller could do something, as far as that can be told beforehand.

        Args:
            policy: what guards it; None for the default.

        Raises:
            ToolGuardError: if not; :class:`AccessDeniedError` if they could not get it either.
        """
        await self._judge(policy or self._default(), None)

    @contextmanager
    def noting_refusals(self) -> Iterator[None]:
        """Run a guarded function: note the refusal it ends in, from its guard or from its body."""
        try:
            yield
        except ToolGuardError as refusal:
            raise self.refuse(refusal) from None
        except Exception as error:
            wrapped = _refusal_in(error)
            if wrapped is not None:
                raise self.refuse(wrapped) from None
            self._note(None)  # it caught a refusal, and failed by itself
            raise

    def refuse(self, refusal: ToolGuardError) -> Exception:
        """Note ``refusal``, in case it is what the message ends in; return what to raise here."""
        rule = getattr(refusal, "rule", None)
        _log.info("refused: %s%s", type(refusal).__name__, f" by {rule}" if rule else "")
        self._note(refusal)
        return self._refuse_with(refusal)

    def _note(self, refusal: ToolGuardError | None) -> None:
        if self.closed:
            return
        self._noted = refusal
        if self.state is not None:  # shared with the server around this one
            self.state.noted = refusal

    def settle(self, *, failed: bool) -> ToolGuardError | None:
        """End the message: return the refusal it ended in, and record it for who answers.

        A function may have caught the refusal of a guarded helper and gone on; so a refusal
        counts only if the message failed.
        """
        if not failed and self._undecided is None:
            return None
        if not failed:
            self._note(AccessDeniedError(rule="something answered before the guard could decide"))
        if self.state is None:
            return self._noted
        self.state.refusal = self.state.noted
        return self.state.noted

    def close(self) -> None:
        """End the call: a task that outlives it finds no caller (there is no snapshot)."""
        self.closed = True

    async def _principal(self) -> Principal | None:
        if self.closed or self.state is None:
            raise GuardNotConfiguredError(
                "No request is being served here, so there is no caller; a task that outlives "
                "its call has none either"
            )
        if self.state.failure is not None:
            raise self.state.failure
        if self.state.guard is self.guard:
            return self.state.principal
        # A mounted or nested server: the token was verified for the outer server's audience, and
        # whom that server trusts without one is nobody here.
        token = self.state.token
        return None if token is None else await self.guard.verifier.verify(token)

    async def _connect(
        self, needs: tuple[ConnectionNeed, ...], principal: Principal | None
    ) -> dict[str, Connection | None]:
        if not needs or principal is None:
            return {}
        outcomes: dict[str, Connection | ToolGuardError] = {}

        async def fetch(need: ConnectionNeed) -> None:
            outcomes[need.parameter] = await self._outcome(need, principal)

        async with anyio.create_task_group() as group:
            for need in needs:
                group.start_soon(fetch, need)
        connections: dict[str, Connection | None] = {}
        for need in needs:
            outcome = outcomes[need.parameter]
            if isinstance(outcome, ConnectionRequiredError) and need.optional:
                connections[need.parameter] = None
            elif isinstance(outcome, ToolGuardError):
                raise outcome
            else:
                connections[need.parameter] = outcome
        return connections

    async def _outcome(
        self, need: ConnectionNeed, principal: Principal
    ) -> Connection | ToolGuardError:
        """Return the connection, or why there is none: one failure must not cancel the others."""
        try:
            return await self._fetch(need, principal, fresh=need.fresh)
        except ToolGuardError as error:
            return error
        except Exception as error:  # noqa: BLE001 - fail closed: its text may hold a token
            _log.error("connection %s: %s", need.name, type(error).__name__)
            return ConnectionResponseError(
                f"The provider of {need.name} failed", connection=need.name
            )

    async def _fetch(
        self, need: ConnectionNeed, principal: Principal, *, fresh: bool
    ) -> Connection:
        provider = self.guard.connections
        if provider is None:
            raise GuardNotConfiguredError(
                "This operation uses a connection and the guard has no provider: "
                "write ToolGuard(..., connections=...)"
            )
        if need.tenant and principal.tenant_id is None:
            raise AccessDeniedError("This operation needs a tenant, and the token names none")
        request = ConnectionRequest(
            need.name,
            need.scopes,
            principal,
            self.state.token if self.state is not None else None,
            tenant_id=principal.tenant_id if need.tenant else None,
            fresh=fresh,
        )
        connection = await provider.fetch(request)
        if connection.is_expired(self.guard.clock()):
            raise ConnectionRequiredError(
                f"Connect {need.name} again: its token has expired", connection=need.name
            )

        async def refetch() -> Connection:
            self._check_open(principal)
            return await self._fetch(need, principal, fresh=True)

        return connection.with_refetch(refetch)

    def _check_open(self, principal: Principal) -> None:
        """Make sure that the caller may still be acted for: the tool may have run for long."""
        if self.closed:
            raise GuardNotConfiguredError("The call has ended; there is no caller any more")
        if principal.is_expired(self.guard.clock() - self.guard.leeway):
            raise InvalidTokenError("expired", "The access token has expired")


def _refusal_in(error: Exception) -> ToolGuardError | None:
    """Return the refusal of a guarded helper in a task group, which wraps what its tasks raise."""
    nested: Sequence[Exception] = getattr(error, "exceptions", ())
    refusals = [each for each in nested if isinstance(each, ToolGuardError)]
    return refusals[0] if len(refusals) == len(nested) == 1 else None
