"""Read the parameters of a function and their annotations."""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Final

__all__ = [
    "accepts_none",
    "accepts_text",
    "evaluated",
    "injected",
    "is_context",
    "is_kind",
    "is_sent_by_client",
    "kinds_of",
    "mentions",
    "name_of",
    "sent_by_client",
    "unwrapped",
]


_FRAMEWORKS = frozenset({"mcp", "fastmcp"})


class _SentByClient:
    """Marks a parameter, in ``Annotated``."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "sent_by_client"


sent_by_client: Final = _SentByClient()
"""Mark a parameter ``user_id`` as an ordinary argument of the client, not the caller.

::

    @mcp.tool()
    @requires_scopes("admin")
    async def ban_user(user_id: Annotated[str, sent_by_client]) -> str: ...
"""


class _Injected:
    """Stands for the value that a guard will inject."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "injected"


injected: Final[Any] = _Injected()
"""The default of an injected parameter, for functions that your own code calls as well.

A guarded function keeps its parameters for type checkers, the injected ones included, because the
type system cannot remove a keyword. With this default, a call may leave them out::

    @requires_scopes("notes.read")
    async def notes(day: str, *, user_id: str = injected) -> list[str]: ...

    @mcp.tool()
    @requires_auth
    async def summary(day: str) -> str:
        return " ".join(await notes(day))
"""


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind partials and bound methods."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of a function for error messages."""
    inner = unwrapped(function)
    return getattr(inner, "__name__", type(inner).__name__)


def kinds_of(parameter: str, function: Callable[..., Any]) -> Iterator[Any]:
    """Yield the kind of ``parameter`` in each function of a chain of wrappers and partials.

    A partial makes the parameters after its keywords keyword-only, whatever ``def`` declares.
    """
    layer: Any = function
    while layer is not None:
        parameters = inspect.signature(layer).parameters
        if parameter in parameters:
            yield parameters[parameter].kind
        inner = getattr(layer, "func", None) if isinstance(layer, functools.partial) else None
        layer = inner or getattr(layer, "__wrapped__", None)


def evaluated(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with postponed annotations evaluated where that is possible."""
    inner = inspect.unwrap(unwrapped(function))
    if not hasattr(inner, "__globals__"):  # a callable object
        inner = inspect.unwrap(type(inner).__call__)
    namespace = getattr(inner, "__globals__", {})
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=_evaluate(parameter.annotation, namespace))
        for parameter in signature.parameters.values()
    ]
    return signature.replace(
        parameters=parameters,
        return_annotation=_evaluate(signature.return_annotation, namespace),
    )


def _evaluate(annotation: Any, namespace: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    holder = types.SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, globalns=namespace, include_extras=True)["it"]
    except NameError:  # imported under TYPE_CHECKING, or local: left to the framework
        return annotation


def mentions(annotation: Any, kind: type) -> bool:
    """Return whether ``kind`` or a subclass of it occurs anywhere in an annotation."""
    if isinstance(annotation, str):
        return kind.__name__ in re.findall(r"\w+", annotation)
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return issubclass(annotation, kind)
    # Of `type X = ...`, and of NewType.
    alias = getattr(annotation, "__value__", getattr(annotation, "__supertype__", None))
    parts = typing.get_args(annotation) if alias is None else (alias,)
    return any(mentions(part, kind) for part in parts)


def is_sent_by_client(annotation: Any) -> bool:
    """Return whether ``sent_by_client`` occurs anywhere in an annotation."""
    if isinstance(annotation, str):
        return repr(sent_by_client) in re.findall(r"\w+", annotation)
    alias = getattr(annotation, "__value__", None)  # of `type X = ...`
    parts = typing.get_args(annotation) if alias is None else (alias,)
    return any(isinstance(part, _SentByClient) or is_sent_by_client(part) for part in parts)


def is_kind(annotation: Any, kind: type) -> bool:
    """Return whether it is ``kind``, ``kind | None``, or their unevaluated name."""
    if isinstance(annotation, str):
        names = {part.strip().rpartition(".")[2] for part in annotation.split("|")}
        return kind.__name__ in names and names <= {kind.__name__, "None"}
    members = {member for member in _members(annotation) if member is not type(None)}
    return members == {kind}


def is_context(annotation: Any) -> bool:
    """Return whether it is the context that a framework passes to a function, or that or None.

    No client can send one; it can send values of other types of these packages.
    """
    if isinstance(annotation, str):
        return bool(re.fullmatch(r"(\w+\.)*Context(\s*\|\s*None)?", annotation))
    return any(
        kind.__name__ == "Context" and kind.__module__.partition(".")[0] in _FRAMEWORKS
        for member in _members(annotation)
        for kind in getattr(typing.get_origin(member) or member, "__mro__", ())
    )


def accepts_text(annotation: Any) -> bool:
    """Return whether the annotation accepts a string."""
    if annotation is inspect.Parameter.empty or annotation is Any:
        return True
    if isinstance(annotation, str):
        return annotation.replace(" ", "") in {"str", "str|None", "Any"}
    return str in _members(annotation)


def accepts_none(annotation: Any) -> bool:
    """Return whether the annotation accepts None."""
    if isinstance(annotation, str):
        return "None" in {part.strip() for part in annotation.split("|")}
    return type(None) in _members(annotation)


def _members(annotation: Any) -> tuple[Any, ...]:
    annotation = getattr(annotation, "__value__", annotation)  # of `type X = ...`
    if typing.get_origin(annotation) is typing.Annotated:
        return _members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(part for each in typing.get_args(annotation) for part in _members(each))
    return (annotation,)
