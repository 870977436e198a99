"""Scopes that depend on the arguments of a call."""

from __future__ import annotations

import itertools
import math
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from string import Formatter
from typing import Any, ClassVar, TypeAlias

from toolguard.errors import InvalidInputError
from toolguard.parsing.scope_token import check_requestable
from toolguard.policies.formulas import Attempt, Condition, Formula, Requirement
from toolguard.policies.operations import OperationCall
from toolguard.policies.scopes import Scope, ScopeLike, all_of

__all__ = [
    "ArgumentScope",
    "ScopeFunction",
    "ScopeTemplate",
    "ScopesForCall",
    "bounded_scopes",
    "resolve_argument_scopes",
]

# The maximum number of scopes that the arguments of one call may name.
_MAX_SCOPES = 100
# Long enough for a URL with an identifier in it, short enough for a header of many.
_MAX_LENGTH = 256
# A challenge contains them twice, and some clients refuse lines of more than 8 KiB.
_MAX_TOTAL = 3_072

ScopesForCall: TypeAlias = Callable[[OperationCall], "ScopeLike | Iterable[ScopeLike]"]
"""A function that returns the scopes a call needs, all of them if it returns several."""


class ArgumentScope(Requirement):
    """A scope that is known once the arguments of the call are known."""

    opaque: ClassVar[bool] = False
    reads_arguments: ClassVar[bool] = True

    @abstractmethod
    def scope(self, call: OperationCall) -> Scope:
        """Return the scopes that this call needs; see :meth:`Requirement.scope`."""

    def holds(self, attempt: Attempt) -> bool:
        """Return whether the caller was granted the scopes that this call needs."""
        return self.scope(attempt.call).allows(attempt.scopes)


def resolve_argument_scopes(formula: Formula, call: OperationCall) -> Formula:
    """Return ``formula`` with its argument scopes replaced by the scopes of this call.

    Raises:
        InvalidInputError: if a scope cannot be made of these arguments, or they name more scopes
            than one challenge can request.
    """
    named = {each: each.scope(call) for each in formula.requirements}
    _check_bounds([scopes for scopes in named.values() if scopes is not None])

    def known(condition: Condition) -> Formula:
        scopes = None if isinstance(condition, str) else named[condition]
        return Formula(condition) if scopes is None else scopes

    return formula.substitute(known)


def bounded_scopes(named: ScopeLike | Iterable[ScopeLike]) -> list[Scope]:
    """Return the scopes named for one call; of an endless iterable, at most the limit is read.

    Raises:
        InvalidInputError: if one of them is not a scope, or there are too many.
    """
    each = (named,) if isinstance(named, (str, Scope)) else named
    first = list(itertools.islice(each, _MAX_SCOPES + 1))
    if len(first) > _MAX_SCOPES:
        raise _too_many()
    try:
        scopes = [all_of(scope) for scope in first]
    except ValueError:
        raise InvalidInputError("No scope can be named for these arguments") from None
    if any(len(token) > _MAX_LENGTH for scope in scopes for token in scope.tokens):
        raise InvalidInputError("No scope can be named for these arguments")
    _check_bounds(scopes)
    return scopes


def _check_bounds(scopes: Sequence[Formula]) -> None:
    """Check that the number and the length of the scopes of one call are bounded.

    Raises:
        InvalidInputError: if there are too many scopes, or they are too long together.
    """
    tokens = {token for scope in scopes for token in scope.scopes}
    mentions = sum(len(group) for scope in scopes for group in scope.alternatives)
    ways = math.prod(len(scope.alternatives) for scope in scopes)
    if max(mentions, ways) > _MAX_SCOPES:
        raise _too_many()
    if sum(len(token) + 1 for token in tokens) > _MAX_TOTAL:
        raise InvalidInputError(
            f"These arguments name scopes of more than {_MAX_TOTAL:,} characters: ask for fewer "
            "at once"
        )


def _too_many() -> InvalidInputError:
    return InvalidInputError(
        f"These arguments name more than {_MAX_SCOPES} scopes: ask for fewer at once"
    )


@dataclass(frozen=True)
class ScopeTemplate(ArgumentScope):
    """A scope with fields for arguments, such as ``"calendar.{calendar_id}.write"``.

    ``{{`` and ``}}`` stand for literal braces. No two calls with different arguments need the same
    scope: a value that would make the field boundaries ambiguous is refused.

    Args:
        text: the template.

    Raises:
        ValueError: if it is not a valid template: a field is not just a name, two fields are
            adjacent, or no argument can make it a scope.

    >>> template = ScopeTemplate("calendar.{calendar_id}.write")
    >>> template.scope(OperationCall("tool", "add", {"calendar_id": "work"}))
    <Scope: calendar.work.write>
    """

    text: str

    def __post_init__(self) -> None:
        parts = self._parts
        if any(not text for text, name in parts[1:] if name is not None):
            raise ValueError(f"{self.text!r}: put a separator between two arguments")
        _sendable(self._filled(dict.fromkeys(self.arguments, "x")))

    @cached_property
    def _parts(self) -> tuple[tuple[str, str | None], ...]:
        """Pairs of a literal text and the name of the argument after it."""
        try:
            parsed = tuple(Formatter().parse(self.text))
        except ValueError:
            parsed = (("", "", None, None),)
        parts: list[tuple[str, str | None]] = []
        literal = ""  # doubled braces are parsed as texts of their own
        for text, name, spec, conversion in parsed:
            if name is not None and (not name.isidentifier() or spec or conversion):
                raise ValueError(
                    f"{self.text!r} is not a scope template: write the name of an argument in "
                    "the braces, and {{ for a brace"
                )
            literal += text
            if name is not None:
                parts.append((literal, name))
                literal = ""
        return (*parts, (literal, None))

    @property
    def arguments(self) -> tuple[str, ...]:
        """The arguments that the template names."""
        return tuple(dict.fromkeys(name for _, name in self._parts if name is not None))

    @cached_property
    def _reading(self) -> re.Pattern[str]:
        """A pattern for the scopes of the template, with each argument as short as possible.

        An argument that occurs twice is matched twice: a back-reference would try all
        combinations of lengths.
        """
        parts = (re.escape(text) + ("(.+?)" if name else "") for text, name in self._parts)
        return re.compile("".join(parts))

    def scope(self, call: OperationCall) -> Scope:
        """Return the scope for the arguments of this call.

        Raises:
            InvalidInputError: naming the argument that is missing, is neither a string nor a
                whole number, or does not fit into a scope.
        """
        values = {name: _text(name, call.arguments) for name in self.arguments}
        made = self._filled(values)
        match = self._reading.fullmatch(made)
        filled = tuple(values[name] for _, name in self._parts if name is not None)
        if match is None or match.groups() != filled:
            raise InvalidInputError("These arguments together cannot be part of a scope")
        return _sendable(made)

    def _filled(self, values: Mapping[str, str]) -> str:
        return "".join(text + (values[name] if name else "") for text, name in self._parts)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class ScopeFunction(ArgumentScope):
    """The scopes that a function of the developer's returns."""

    function: ScopesForCall

    def scope(self, call: OperationCall) -> Scope:
        """Return the scopes that the function names.

        Raises:
            InvalidInputError: if it names no scope, an invalid one, or too many.
        """
        scopes = bounded_scopes(self.function(call))
        try:
            scope = all_of(*scopes)
            check_requestable(scope.tokens)
        except ValueError:
            raise InvalidInputError("No scope can be named for these arguments") from None
        return scope

    def __str__(self) -> str:
        return f"scopes by {getattr(self.function, '__qualname__', type(self.function).__name__)}"


def _text(name: str, arguments: Mapping[str, Any]) -> str:
    value = arguments.get(name)
    value = value.value if isinstance(value, Enum) else value
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    refusal = InvalidInputError(f"The argument {name} cannot be part of a scope", argument=name)
    if not isinstance(value, str) or len(value) > _MAX_LENGTH:
        raise refusal
    try:
        return _sendable(value).tokens[0]
    except ValueError:
        raise refusal from None


def _sendable(token: str) -> Scope:
    """Return ``token`` as a scope, if a challenge can request it.

    Raises:
        ValueError: if it is not a scope-token, or not one that a challenge can request.
    """
    scope = Scope(token)
    check_requestable(scope.tokens)
    return scope
