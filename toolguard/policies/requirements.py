"""The kinds of requirement other than scopes.

Most are opaque: they are evaluated before any scope is named, and a refusal does not say what
would have sufficed. Recent authentication is not opaque: the caller can act on it, so the
challenge names it (RFC 9470).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from re import Pattern
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import anyio

from toolguard.parsing.wildcards import wildcard
from toolguard.parts.contained import contained_in_thread
from toolguard.policies.answers import Answer
from toolguard.policies.formulas import Attempt, Requirement
from toolguard.policies.operations import OperationCall
from toolguard.principal import Principal

__all__ = [
    "CHECK_TIMEOUT",
    "ActsThrough",
    "AnswersLists",
    "BelongsToTenant",
    "BelongsToTenantOf",
    "Check",
    "CheckByName",
    "CheckFunction",
    "HasClaim",
    "HasPermission",
    "HasRole",
    "IsClient",
    "IsMachine",
    "IsUser",
    "RecentAuthentication",
    "Requirement",
]

CHECK_TIMEOUT = 10.0
"""The seconds in which a check answers, unless it is given another time."""

CheckFunction: TypeAlias = Callable[
    [Principal, OperationCall], "bool | Answer | Awaitable[bool | Answer]"
]
"""A check: a function of the caller and the call, async or not."""


class AnswersLists(Protocol):
    """The part of a check by which lists are filtered without asking it for each operation."""

    async def answer_each(
        self, principal: Principal, calls: Sequence[OperationCall], /
    ) -> Sequence[bool | Answer | None]:
        """Return one answer for each operation; None where the arguments decide."""
        ...


# One character of `*`: RFC 3986 §2.3, unreserved characters. So a pattern for the host of a URL
# does not match into its path, query or userinfo.
_WILD = r"[A-Za-z0-9._~-]"


@dataclass(frozen=True)
class HasPermission(Requirement):
    """The token names this permission."""

    permission: str

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token names the permission."""
        return self.permission in attempt.principal.permissions

    def __str__(self) -> str:
        return f"permission {self.permission}"


@dataclass(frozen=True)
class HasRole(Requirement):
    """The token names this role."""

    role: str

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token names the role."""
        return self.role in attempt.principal.roles

    def __str__(self) -> str:
        return f"role {self.role}"


@dataclass(frozen=True)
class BelongsToTenant(Requirement):
    """The user belongs to this tenant, according to the token."""

    tenant_id: str

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token names the tenant."""
        return self.tenant_id in attempt.principal.tenant_ids

    def __str__(self) -> str:
        return f"tenant {self.tenant_id}"


@dataclass(frozen=True)
class BelongsToTenantOf(Requirement):
    """The user belongs to the tenant that an argument of the call names."""

    parameter: str
    reads_arguments: ClassVar[bool] = True

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token names the tenant in the argument, which must be a string."""
        tenant_id = attempt.call.arguments.get(self.parameter)
        return isinstance(tenant_id, str) and tenant_id in attempt.principal.tenant_ids

    @property
    def arguments(self) -> tuple[str, ...]:
        """The argument that names the tenant."""
        return (self.parameter,)

    def __str__(self) -> str:
        return f"tenant in {self.parameter}"


@dataclass(frozen=True)
class IsClient(Requirement):
    """The token was issued to this OAuth client; ``*`` stands for letters, digits and ``._~-``."""

    pattern: str

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the client id of the token matches the pattern."""
        client_id = attempt.principal.client_id
        return client_id is not None and _clients(self.pattern).fullmatch(client_id) is not None

    def __str__(self) -> str:
        return f"client {self.pattern}"


@dataclass(frozen=True)
class IsUser(Requirement):
    """The caller is a user, not an application on its own."""

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token has a user, as far as it tells."""
        principal = attempt.principal
        return principal.user_id is not None and not principal.is_machine

    def __str__(self) -> str:
        return "a user"


@dataclass(frozen=True)
class IsMachine(Requirement):
    """The caller is an application on its own."""

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the token says that no user takes part."""
        return attempt.principal.is_machine

    def __str__(self) -> str:
        return "a machine"


@dataclass(frozen=True)
class ActsThrough(Requirement):
    """The current actor is this one; ``*`` stands for letters, digits and ``._~-``."""

    pattern: str

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the current actor, known to the token's issuer, matches the pattern."""
        principal = attempt.principal
        actor = principal.actor
        return (
            actor is not None
            and actor.issuer == principal.issuer
            and _clients(self.pattern).fullmatch(actor.subject) is not None
        )

    def __str__(self) -> str:
        return f"actor {self.pattern}"


@functools.lru_cache(maxsize=256)
def _clients(pattern: str) -> Pattern[str]:
    return wildcard(pattern, _WILD)


@dataclass(frozen=True)
class HasClaim(Requirement):
    """The token has a claim that satisfies a predicate."""

    name: str
    predicate: Callable[[Any], bool]

    def holds(self, attempt: Attempt) -> bool:
        """Return the result of the predicate; False if the claim is absent."""
        claims = attempt.principal.claims
        return self.name in claims and self.predicate(claims[self.name])

    def __str__(self) -> str:
        return f"claim {self.name}"


@dataclass(frozen=True)
class Check(Requirement):
    """A check of the developer's, or of a decision point, permits the call.

    Attributes:
        function: the check.
        timeout: seconds for one answer; without one in that time, it cannot be told now.
    """

    function: CheckFunction
    timeout: float = CHECK_TIMEOUT
    reads_arguments: ClassVar[bool] = True

    async def holds(self, attempt: Attempt) -> bool | Answer:
        """Return the answer of the function; a synchronous one runs in a worker thread."""
        with anyio.move_on_after(self.timeout):
            return await self._said(attempt)
        return self._late

    async def _said(self, attempt: Attempt) -> bool | Answer:
        if _is_async(self.function):
            said = self.function(attempt.principal, attempt.call)
        else:
            said = await contained_in_thread(self.function, attempt.principal, attempt.call)
        return await said if inspect.isawaitable(said) else said

    @property
    def reads_call(self) -> bool:
        """Whether the answer depends on the call: always, at least on its name."""
        return True

    @property
    def answers_lists(self) -> bool:
        """Whether the check answers for all operations of a list at once."""
        return hasattr(self.function, "answer_each")

    async def hold_each(
        self, attempt: Attempt, calls: Sequence[OperationCall]
    ) -> Sequence[bool | Answer | None]:
        """Return the answers for the operations of a list; None where arguments decide.

        Raises:
            TypeError: if there is not one answer for each.
        """
        said: object = [self._late] * len(calls)
        with anyio.move_on_after(self.timeout):
            said = await cast("AnswersLists", self.function).answer_each(attempt.principal, calls)
        if not isinstance(said, (list, tuple)) or len(said) != len(calls):
            raise TypeError("answer_each() must return one answer for each operation")
        return said

    @property
    def _late(self) -> Answer:
        return Answer.try_again(f"no answer in {self.timeout:g} s")

    def __str__(self) -> str:
        return f"check {getattr(self.function, '__qualname__', type(self.function).__name__)}"


@dataclass(frozen=True)
class CheckByName(Check):
    """A check that reads the name and the method of the call, and no argument."""

    reads_arguments: ClassVar[bool] = False


def _is_async(function: object) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - whether calling it gives a coroutine
    )


@dataclass(frozen=True)
class RecentAuthentication(Requirement):
    """The user has authenticated recently enough, or strongly enough (RFC 9470).

    Attributes:
        max_age: the maximum age of the sign-in in seconds; None for any.
        acr_values: the accepted authentication context class references, in the order of
            preference; empty for any.
    """

    max_age: int | None = None
    acr_values: tuple[str, ...] = field(default=())
    opaque: ClassVar[bool] = False

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the claims ``auth_time`` and ``acr`` satisfy it (RFC 9470 §6.1)."""
        principal = attempt.principal
        if self.acr_values and principal.acr not in self.acr_values:
            return False
        if self.max_age is None:
            return True
        if principal.auth_time is None:
            return False
        # An `auth_time` in the future proves nothing.
        age = attempt.now - principal.auth_time
        return -attempt.leeway <= age <= self.max_age + attempt.leeway

    def __str__(self) -> str:
        age = [f"authenticated within {self.max_age} s"] if self.max_age is not None else []
        acr = [f"authenticated as {' or '.join(self.acr_values)}"] if self.acr_values else []
        return ", ".join(age + acr)
