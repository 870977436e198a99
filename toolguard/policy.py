"""What does an operation ask of its caller, and does this caller meet it?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolguard.errors import InsufficientScopeError, MissingTokenError
from toolguard.principal import Principal
from toolguard.scopes import Scope, ScopeHierarchy

__all__ = ["ConnectionNeed", "Policy"]


_PUBLIC_AND_GUARDED = "@public cannot be combined with another guard: remove one of them"


@dataclass(frozen=True)
class ConnectionNeed:
    """A third-party connection that an operation uses.

    Attributes:
        name: the connection's name at the provider, such as ``"google-calendar"``.
        scopes: third-party scopes the token has to carry; empty means "whatever there is".
        parameter: the keyword argument that receives it.
        tenant: whether it is the connection of the caller's tenant, instead of the caller's own.
        optional: whether the operation runs without it, too, where the user has not connected.
        fresh: whether a token that was kept will not do.
    """

    name: str
    scopes: tuple[str, ...]
    parameter: str
    tenant: bool = False
    optional: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Policy:
    """The rules of one operation. Immutable; stacked decorators merge theirs with ``&``.

    Attributes:
        scope: the scopes the caller has to hold; None asks for a valid token only.
        connections: what is fetched for the caller once the policy has allowed the call.
        public: whether a caller without a token is welcome.
    """

    scope: Scope | None = None
    connections: tuple[ConnectionNeed, ...] = ()
    public: bool = False

    def __post_init__(self) -> None:
        if self.public and (self.scope is not None or self.connections):
            raise ValueError(_PUBLIC_AND_GUARDED)
        parameters = [need.parameter for need in self.connections]
        for name in parameters:
            if parameters.count(name) > 1:
                raise ValueError(
                    f"two connections cannot both arrive as {name}: give each a parameter of its "
                    "own with with_connection(..., as_=...)"
                )

    def __and__(self, other: Policy) -> Policy:
        """Return the policy that asks for everything both ask for.

        Raises:
            ValueError: if one of the two is public and the other asks for something.
        """
        if self.public or other.public:
            if self != other:
                raise ValueError(_PUBLIC_AND_GUARDED)
            return self
        scopes = [scope for scope in (self.scope, other.scope) if scope is not None]
        return replace(
            self,
            scope=scopes[0] & scopes[1] if len(scopes) == 2 else next(iter(scopes), None),  # noqa: PLR2004
            connections=tuple(dict.fromkeys((*self.connections, *other.connections))),
        )

    def check(self, principal: Principal | None, hierarchy: ScopeHierarchy) -> None:
        """Return if the call is allowed. Pure: no I/O, no clock.

        Args:
            principal: the verified caller, None if no token was sent.
            hierarchy: which scopes stand for others.

        Raises:
            MissingTokenError: if there is no caller and the operation is not public.
            InsufficientScopeError: naming every scope of the alternative nearest to the grant.
        """
        if principal is None:
            if self.public:
                return
            raise MissingTokenError(scopes=self.first_scopes)
        if self.scope is None:
            return
        granted = hierarchy.expand(principal.scopes)
        if not self.scope.allows(granted):
            raise InsufficientScopeError(
                self.scope.nearest(granted),
                token_scopes=principal.scopes,
                missing_scopes=self.scope.missing(granted),
            )

    @property
    def first_scopes(self) -> tuple[str, ...]:
        """The scopes a caller with no grant at all needs for this operation."""
        return () if self.scope is None else self.scope.nearest(())

    def __str__(self) -> str:
        if self.public:
            return "public"
        parts = [str(self.scope) if self.scope is not None else "any authenticated caller"]
        parts += [f"connection {need.name}" for need in self.connections]
        return ", ".join(parts)
