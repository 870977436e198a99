"""Which :class:`DescopeMCP` do the module's functions use?"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from toolguard.errors import GuardNotConfiguredError
from toolguard.policies.scopes import ScopeHierarchy


class _Client(Protocol):
    scope_hierarchy: ScopeHierarchy


ClientT = TypeVar("ClientT", bound=_Client)

__all__ = ["Default", "default"]


class Default(Generic[ClientT]):
    """The one that was named; else the one that was made, if there is only one.

    With several to choose from, a token might be held against the audience of another server. So
    there is no default then, rather than the first or the last.
    """

    def __init__(self) -> None:
        self._named: ClientT | None = None
        self._only: ClientT | None = None
        self._made = 0

    def offer(self, client: ClientT) -> None:
        """Take ``client``, if it stays the only one."""
        self._made += 1
        self._only = client if self._made == 1 else None

    def name(self, client: ClientT) -> None:
        """Take ``client``, whatever else there is."""
        self._named = client

    def get(self) -> ClientT:
        """Return it.

        Raises:
            GuardNotConfiguredError: if there is none, or several and none was named.
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
        """Which scopes include which; none do where there is no client to say so."""
        client = self._named or self._only
        return ScopeHierarchy() if client is None else client.scope_hierarchy


default: Default[Any] = Default()
"""What this process has made and named."""
