"""What the parts of a guard have counted since the start, for metrics.

A part (a source of keys, a connection provider) may have a method ``figures`` that returns what it
has counted. It is asked when metrics are collected, never in a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, NamedTuple, Protocol, TypeAlias, runtime_checkable

__all__ = ["Figure", "FigureName", "figures_of"]

FigureName: TypeAlias = Literal[
    "keys.fetches",
    "keys.age",
    "connections.fetches",
    "connections.cache.hits",
    "connections.refreshes",
]
"""What is counted: fetches of key sets, and the age of the keys in seconds; requests to connection
providers, connections that a cache had, and access tokens that were refreshed."""


class Figure(NamedTuple):
    """One figure.

    Attributes:
        name: what it is.
        value: how many, or how much.
        attributes: what it is about: an issuer, a connection, an outcome. Never a user.
    """

    name: FigureName
    value: float
    attributes: Mapping[str, str]


@runtime_checkable
class _Counting(Protocol):
    def figures(self) -> Iterable[Figure]: ...


def figures_of(*parts: object) -> Iterator[Figure]:
    """Return the figures of those parts that have some."""
    for part in parts:
        if isinstance(part, _Counting):
            yield from part.figures()
