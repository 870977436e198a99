"""How a scope is called on this server, in a token, and when a client asks for it.

Some issuers have two names for one scope: Entra writes ``notes.read`` into tokens for the scope
that a client has to ask for as ``api://APP/notes.read``. Tools use the short name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from toolguard.parsing.scope_token import check_requestable

__all__ = ["OPENID_SCOPES", "SAME", "ScopeNames"]

OPENID_SCOPES = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})
"""The scopes of OpenID Connect, which no resource server owns (Core §5.4, §11)."""


@dataclass(frozen=True)
class ScopeNames:
    """The two names of every scope: a bijection between short and requestable names.

    Args:
        prefix: what a client writes before the short name: ``"api://APP/"``. Scopes of OpenID
            Connect, and those that are URLs, have one name only.
        named: the requestable names of single scopes, which come before the prefix.
        in_tokens: whether tokens have the requestable names too (Cognito, XSUAA); then scopes
            that are not of this server are left out.
        always: the scopes that every client has to ask for beside others: ``openid``, where a
            token names its user only then (Google).

    Raises:
        ValueError: if two scopes would have the same name, or one cannot be asked for.

    >>> names = ScopeNames("api://APP/")
    >>> names.requested("notes.read"), names.requested("openid")
    ('api://APP/notes.read', 'openid')
    >>> ScopeNames("notes!t1.", in_tokens=True).read(["notes!t1.Read", "other!t2.Read", "openid"])
    ('Read', 'openid')
    """

    prefix: str = ""
    named: Mapping[str, str] = field(default_factory=dict)
    in_tokens: bool = False
    always: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_requestable(
            [*([self.prefix] if self.prefix else []), *self.named.values(), *self.always]
        )
        requestable = list(self.named.values())
        if len(set(requestable)) < len(requestable):
            raise ValueError("two scopes have the same requestable name: give each its own")
        for short, name in self.named.items():
            if name in self.named and name != short:
                raise ValueError(f"{name!r} is the short name of another scope than {short!r}")
            if self.prefix and name.startswith(self.prefix) and name != self.prefix + short:
                raise ValueError(
                    f"{name!r} is the name that the prefix gives another scope than {short!r}"
                )

    def requested(self, short: str) -> str:
        """Return the name by which a client asks for a scope.

        Args:
            short: its name on this server.
        """
        if short in self.named:
            return self.named[short]
        is_foreign = short in OPENID_SCOPES or "://" in short
        return short if not self.prefix or is_foreign else self.prefix + short

    def read(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Return the short names of the scopes of a token; others are left out.

        Args:
            scopes: the scopes, as the token has them.
        """
        if not self.in_tokens or self == SAME:
            return tuple(scopes)
        shorts = (self._short(name) for name in scopes)
        return tuple(dict.fromkeys(short for short in shorts if short is not None))

    def check(self, shorts: Iterable[str]) -> None:
        """Check that scopes are declared by their short names.

        Args:
            shorts: the scopes, as they are declared.

        Raises:
            ValueError: naming the first one that is declared by its requestable name.
        """
        names = {name: short for short, name in self.named.items() if name != short}
        for short in shorts:
            declared = names.get(short)
            if declared is None and self.prefix and short.startswith(self.prefix):
                declared = short.removeprefix(self.prefix)
            if declared is not None:
                raise ValueError(
                    f"{short!r} is the name by which clients request the scope: write "
                    f"{declared!r}, its name on this server"
                )

    def _short(self, name: str) -> str | None:
        candidates = [
            *(short for short, known in self.named.items() if known == name),
            name.removeprefix(self.prefix),
            name,
        ]
        return next(
            (short for short in candidates if short and self.requested(short) == name), None
        )


SAME = ScopeNames()
"""One name for each scope."""
