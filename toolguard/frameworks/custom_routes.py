"""The custom HTTP routes of a server, which are not guarded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from toolguard.frameworks import internals

__all__ = ["CustomRoute", "check_open_routes", "custom_routes", "unmatched_paths"]


class CustomRoute(NamedTuple):
    """A route of ``@server.custom_route``.

    Attributes:
        path: the path as registered, such as ``/users/{id}``.
        methods: its HTTP methods; empty for any method.
    """

    path: str
    methods: tuple[str, ...]


def custom_routes(server: object) -> list[CustomRoute]:
    """Return the custom routes that a server serves, also those of servers mounted on it."""
    return [_described(route) for route in internals.custom_routes(server) or ()]


def _described(route: Any) -> CustomRoute:
    methods = set(getattr(route, "methods", None) or ())
    if "GET" in methods:
        methods.discard("HEAD")  # implied by GET
    return CustomRoute(str(getattr(route, "path", route)), tuple(sorted(methods)))


def unmatched_paths(server: object, paths: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the ``paths`` at which a server has no custom route, each with what to write."""
    known = [route.path for route in custom_routes(server)]
    for path in paths:
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            fault = f"{path!r} is the path of no custom route{hint}"
            yield path, f"{fault}: correct it, or leave it out of open_routes"


def check_open_routes(server: object, paths: Collection[str]) -> None:
    """Check that the server has a custom route at each of ``paths``.

    Raises:
        ValueError: naming one that is missing.
    """
    for _, fault in unmatched_paths(server, paths):
        raise ValueError(fault)
