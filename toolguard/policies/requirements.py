"""The kinds of requirement other than scopes.

Most are opaque: they are evaluated before any scope is named, and a refusal does not say what
would have sufficed. Recent authentication is not opaque: the caller can act on it, so the
challenge names it (RFC 9470).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from re import Pattern
from typing import Any, ClassVar

import anyio.to_thread

from toolguard.parsing.wildcards import wildcard
from toolguard.policies.formulas import Attempt, Requirement
from toolguard.policies.operations import OperationCall
from toolguard.principal import Principal

__all__ = [
    "BelongsToTenant",
    "BelongsToTenantOf",
    "Check",
    "HasClaim",
    "HasPermission",
    "HasRole",
    "IsClient",
    "RecentAuthentication",
    "Requirement",
]

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
    """A function of the developer's returns True."""

    function: Callable[[Principal, OperationCall], bool | Awaitable[bool]]
    reads_arguments: ClassVar[bool] = True

    async def holds(self, attempt: Attempt) -> bool:
        """Return the result of the function; a synchronous one runs in a worker thread."""
        said: bool | Awaitable[bool]
        if inspect.iscoroutinefunction(self.function):
            said = self.function(attempt.principal, attempt.call)
        else:
            said = await anyio.to_thread.run_sync(self.function, attempt.principal, attempt.call)
        return await said if inspect.isawaitable(said) else said

    def __str__(self) -> str:
        return f"check {getattr(self.function, '__qualname__', type(self.function).__name__)}"


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
