"""Methods of a server that determine what it runs, and whether they are the framework's own."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_overrides", "own_methods"]


def check_overrides(server: object, methods: Sequence[str], package: str) -> None:
    """Check that a server uses the framework's look-up.

    Args:
        server: the server.
        methods: the names of the methods that look operations up or run them.
        package: of the framework.

    Raises:
        ValueError: if the class or the server overrides a method and does not call the
            framework's.
    """
    for name in methods:
        method = vars(server).get(name) or getattr(type(server), name)
        function = getattr(method, "__func__", method)
        if str(getattr(function, "__module__", "")).partition(".")[0] == package:
            continue
        code = getattr(function, "__code__", None)
        if code is None or "__class__" not in code.co_freevars or name not in code.co_names:
            raise ValueError(
                f"{server!r} has a {name}() of its own that does not call super().{name}(), so "
                "what it runs would not be decided on: call it, or register operations instead"
            )


def own_methods(server: object, methods: Sequence[str]) -> tuple[object, ...]:
    """Return what a server has in place of its class's methods, to tell whether that changes."""
    attributes = vars(server)
    return (type(server), *map(attributes.get, methods))
