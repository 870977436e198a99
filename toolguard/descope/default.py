"""The default :class:`DescopeMCP` of the module's functions."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from toolguard.errors import GuardNotConfiguredError
from toolguard.policies.scopes import ScopeHierarchy


class _DefaultClient(Protocol):
    scope_hierarchy: ScopeHierarchy


ClientT = TypeVar("ClientT", bound=_DefaultClient)

__all__ = ["Default", "default"]


class Default(Generic[ClientT]):
    """The client that was named; else the only one that was created.

    With several clients, a token might be checked against the audience of another server. So
    there is no default then, rather than the first or the last client.
    """

    def __init__(self) -> None:
        self._named: ClientT | None = None
        self._only: ClientT | None = None
        self._made = 0

    def offer(self, client: ClientT) -> None:
        """Make ``client`` the default, as long as it is the only one."""
        self._made += 1
        self._only = client if self._made == 1 else None

    def name(self, client: ClientT) -> None:
        """Make ``client`` the default, even if there are others."""
        self._named = client

    def get(self) -> ClientT:
        """Return the default client.

        Raises:
            GuardNotConfiguredError: if there is no client, or there are several and none was named.
        """
        client = self._named or self._only
        if client is None:
            problem = "There are several DescopeMCP" if self._made else "There is no DescopeMCP yet"
            raise GuardNotConfiguredError(
                f"{problem}: call init_descope_mcp(...) where the server is made, or the method "
                "of the one that is meant"
            )
        return client

    @property
    def scope_hierarchy(self) -> ScopeHierarchy:
        """The scope hierarchy of the default client; empty if there is no client."""
        client = self._named or self._only
        return ScopeHierarchy() if client is None else client.scope_hierarchy


default: Default[Any] = Default()
"""The default client of this process."""
