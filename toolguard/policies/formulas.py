"""Requirements, and boolean formulas over them, combined with "and" and "or".

A :class:`Formula` is positive, over conditions, and kept in normal form: a set of
alternatives, each a set of conditions, none containing another. Two formulas are equal exactly when
they are met by the same conditions. There is no "not": challenges cannot request it, and a larger
grant would permit less.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias, Union

from typing_extensions import Self

from toolguard.policies.answers import Answer
from toolguard.policies.operations import OperationCall
from toolguard.principal import Principal

__all__ = ["Alternative", "Attempt", "Condition", "Formula", "Requirement", "requirements_in"]


@dataclass(frozen=True)
class Attempt:
    """One caller's attempt to do one operation, as requirements see it.

    Attributes:
        principal: the verified caller.
        scopes: the granted scopes, with those that they include.
        call: the call, with its arguments.
        now: the time, in seconds since the epoch.
        leeway: seconds by which the issuer's clock may differ.
    """

    principal: Principal
    scopes: frozenset[str]
    call: OperationCall
    now: float
    leeway: float = 0.0


class Requirement(ABC):
    """One condition on the caller other than a scope-token. Immutable, compared by value."""

    #: Whether it is evaluated before any scope is named; a refusal does not say what would have
    #: sufficed.
    opaque: ClassVar[bool] = True
    #: Whether the answer depends on the arguments of the call, and not only on the caller.
    reads_arguments: ClassVar[bool] = False

    @abstractmethod
    def holds(self, attempt: Attempt) -> bool | Answer | Awaitable[bool | Answer]:
        """Return whether the caller meets the requirement; only True and a permit count."""

    @property
    def reads_call(self) -> bool:
        """Whether the answer depends on the call: on its name, or on its arguments."""
        return self.reads_arguments

    @property
    def arguments(self) -> tuple[str, ...]:
        """The names of the arguments that it is known to read."""
        return ()

    @property
    def names_scopes(self) -> bool:
        """Whether :meth:`scope` replaces it by scopes once the call is known."""
        return self.reads_arguments and not self.opaque

    def scope(self, call: OperationCall) -> Formula | None:  # noqa: ARG002 - of those that name scopes
        """Return the scopes that ``call`` needs; None if it is not a requirement of scopes.

        Raises:
            InvalidInputError: if they would not be scopes that a challenge can request.
        """
        return None


Condition: TypeAlias = Union[str, Requirement]  # noqa: UP007 - evaluated by Python 3.10
"""One condition that a caller must meet: a scope-token, or a requirement of another kind."""

Alternative: TypeAlias = tuple[Condition, ...]
"""Conditions that suffice together, in the declared order."""


def requirements_in(conditions: Iterable[Condition]) -> tuple[Requirement, ...]:
    """Return the conditions that are not scope-tokens."""
    return tuple(each for each in conditions if not isinstance(each, str))


# The conjunction of n and m alternatives has up to n*m alternatives.
_MAX_ALTERNATIVES = 1_000


class Formula:
    """Conditions combined with ``&`` (both) and ``|`` (either).

    Immutable, hashable, and equal exactly when the permission is the same.

    Args:
        condition: the one condition of the formula, to be combined with others.
    """

    __slots__ = ("_alternatives", "_canonical")

    _alternatives: tuple[Alternative, ...]
    _canonical: frozenset[frozenset[Condition]]

    def __init__(self, condition: Condition) -> None:
        self._set(((condition,),))

    def _set(self, alternatives: tuple[Alternative, ...]) -> None:
        object.__setattr__(self, "_alternatives", alternatives)
        object.__setattr__(self, "_canonical", frozenset(map(frozenset, alternatives)))

    @classmethod
    def of(cls, alternatives: Iterable[Alternative]) -> Self:
        """Return the formula that any one of ``alternatives`` meets, in normal form.

        An alternative without conditions makes a formula that is always met; a formula without
        alternatives is never met.
        """
        formula = cls.__new__(cls)
        formula._set(_minimal(alternatives))
        return formula

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot set {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable; cannot delete {name!r}")

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The minimal sets of conditions of which one has to be met, in the declared order."""
        return self._alternatives

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Every condition the formula mentions, in the declared order."""
        return tuple(dict.fromkeys(each for group in self._alternatives for each in group))

    @property
    def scopes(self) -> tuple[str, ...]:
        """The conditions that are scope-tokens."""
        return tuple(each for each in self.conditions if isinstance(each, str))

    @property
    def requirements(self) -> tuple[Requirement, ...]:
        """The conditions that are not scope-tokens."""
        return requirements_in(self.conditions)

    @property
    def grants(self) -> tuple[tuple[str, ...], ...]:
        """The scope-tokens of each alternative, without its other conditions."""
        return tuple(tuple(c for c in each if isinstance(c, str)) for each in self._alternatives)

    def substitute(self, replacement: Callable[[Condition], Formula]) -> Formula:
        """Return this formula with a formula in place of each condition."""
        whole: Formula = Formula.of(())
        for group in self._alternatives:
            part: Formula = Formula.of(((),))
            for condition in group:
                part = Formula.__and__(part, replacement(condition))
            whole = Formula.__or__(whole, part)
        return whole

    def __and__(self, other: Formula | str) -> Formula:
        if not isinstance(other, Formula):
            return NotImplemented
        if len(self._alternatives) * len(other._alternatives) > _MAX_ALTERNATIVES:
            raise ValueError(f"this rule has more than {_MAX_ALTERNATIVES} alternatives; split it")
        both = ((*a, *b) for a in self._alternatives for b in other._alternatives)
        return self._kind(other).of(both)

    def __or__(self, other: Formula | str) -> Formula:
        if not isinstance(other, Formula):
            return NotImplemented
        return self._kind(other).of((*self._alternatives, *other._alternatives))

    def _kind(self, other: Formula) -> type[Formula]:
        return type(self) if type(self) is type(other) else Formula

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Formula):
            return NotImplemented
        return self._canonical == other._canonical

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __bool__(self) -> bool:
        raise TypeError(
            f"a {type(self).__name__} has no truth value: combine rules with & and | (not `and` "
            "and `or`), and decide with .allows(granted)"
        )

    def __str__(self) -> str:
        return " | ".join(" & ".join(map(str, group)) for group in self._alternatives)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self}>"

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).of, (self._alternatives,)


def _minimal(alternatives: Iterable[Alternative]) -> tuple[Alternative, ...]:
    """Drop repeated conditions, repeated alternatives, and those that contain another."""
    unique: dict[frozenset[Condition], Alternative] = {}
    for group in alternatives:
        unique.setdefault(frozenset(group), tuple(dict.fromkeys(group)))
    return tuple(group for key, group in unique.items() if not any(each < key for each in unique))
