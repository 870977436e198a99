"""Fill the parameters that fastmcp fills by running functions, such as ``Depends(open_db)``.

fastmcp runs them before it calls a guarded function, and so before a decision on the arguments. A
guarded function therefore hides these parameters from fastmcp: they are filled once the call is
permitted.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from toolguard.errors import ToolGuardError

__all__ = ["Dependencies", "sent_to_dependencies"]

# The engine of fastmcp, which is imported if a parameter has a dependency, and what sets it up.
_ENGINE = "uncalled_for"
_FASTMCP = "fastmcp.server.dependencies"
# What the frameworks fill in without running code of the user's, and what plans a task.
_OF_FRAMEWORKS = ("fastmcp.", "fastmcp_tasks.", "docket.", f"{_ENGINE}.")

_Parameters = tuple[inspect.Parameter, ...]


@dataclass(frozen=True)
class Dependencies:
    """The dependencies of one function that run code of the user's.

    Attributes:
        names: the parameters that they fill.
        sent: the arguments of the client that they read and the function does not have.
    """

    names: frozenset[str]
    sent: _Parameters
    _resolved: Callable[..., Any]

    @classmethod
    def of(cls, function: Callable[..., Any], signature: inspect.Signature) -> Dependencies | None:
        """Return the dependencies of ``function``; None if it has none.

        Args:
            function: the function.
            signature: its signature without the injected parameters.
        """
        engine: Any = sys.modules.get(_ENGINE)
        if engine is None:
            return None
        found: Mapping[str, object] = engine.get_dependency_parameters(function)
        names = frozenset(
            name
            for name, each in found.items()
            if name in signature.parameters
            # A function of the user's, or a class.
            and (hasattr(each, "factory") or not type(each).__module__.startswith(_OF_FRAMEWORKS))
        )
        if not names:
            return None

        def resolved() -> None:
            """Have no parameters but those that the engine fills, and those that it reads."""

        told = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            if name in names
            else inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY)
            for name, each in signature.parameters.items()
        ]
        resolved.__name__ = getattr(function, "__name__", "function")
        resolved.__signature__ = inspect.Signature(told)  # type: ignore[attr-defined]
        resolved.__annotations__ = {
            each.name: each.annotation
            for each in told
            if each.annotation is not inspect.Parameter.empty
        }
        return cls(names, sent_to_dependencies(resolved), resolved)

    def apart_from(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of a call without those that only dependencies have to do with."""
        others = {*self.names, *(each.name for each in self.sent)}
        return {name: value for name, value in arguments.items() if name not in others}

    @asynccontextmanager
    async def filled(self, arguments: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """Run the dependencies; yield the values of their parameters, until the call has ended.

        Args:
            arguments: the arguments of the call, without injected ones.

        Raises:
            ToolGuardError: the refusal of a guarded function among the dependencies.
        """
        resolve: Any = import_module(_FASTMCP).resolve_dependencies
        is_filled = False
        try:
            async with resolve(self._resolved, dict(arguments)) as found:
                is_filled = True
                yield {name: found[name] for name in self.names}
        except RuntimeError as error:  # in which fastmcp wraps what a dependency raises
            refusal = error.__cause__
            if is_filled or not isinstance(refusal, ToolGuardError):
                raise
            raise refusal from None


def sent_to_dependencies(function: Callable[..., Any]) -> _Parameters:
    """Return the arguments of clients that only dependencies of ``function`` read.

    ``CallArgument("day")`` in a dependency makes ``day`` an argument of the tool, on fastmcp 4.
    """
    engine: Any = sys.modules.get(_ENGINE)
    read = getattr(engine, "get_call_argument_parameters", None)
    return () if read is None else tuple(read(function))
