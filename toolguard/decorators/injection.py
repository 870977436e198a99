"""Inject keyword arguments into a function, and hide their parameters from clients.

The frameworks build a tool's schema from its signature, annotations and docstring. A guarded
function shows all three without the injected parameters, so no client can see or set them.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolguard.connections.protocol import Connection
from toolguard.decorators.annotations import (
    accepts_none,
    accepts_text,
    evaluated,
    injected,
    is_context,
    is_kind,
    is_sent_by_client,
    kinds_of,
    mentions,
    name_of,
    unwrapped,
)
from toolguard.decorators.dependencies import Dependencies, sent_to_dependencies
from toolguard.errors import AccessDeniedError
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal

__all__ = ["Connections", "Injection", "sent_by_clients", "unwrapped"]

_USER_ID = "user_id"
_INJECTABLE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

Connections = Mapping[str, "Connection | None"]
"""The connections of a call by name; None for one that is optional and not connected."""
Extract = Callable[["Principal | None", Connections], object]


@dataclass(frozen=True)
class Injection:
    """The plan of calling one function under one policy.

    Attributes:
        visible: the signature without the injected parameters.
        sources: the source of the value of each injected parameter.
        receiver: the parameter that a method's object is bound to; None for a function.
        dependencies: what fastmcp would fill before the decision; None if there is nothing.
    """

    visible: inspect.Signature
    sources: Mapping[str, Extract]
    receiver: str | None = None
    dependencies: Dependencies | None = None

    @classmethod
    def from_policy(cls, function: Callable[..., Any], policy: Policy) -> Injection:
        """Return the plan for ``function``.

        Raises:
            TypeError: if the function has no parameter for an injected value, or one that cannot
                be passed by keyword; the message says what to write.
        """
        signature = evaluated(function)
        sources: dict[str, Extract] = {}
        for name, parameter in signature.parameters.items():
            source = _source(parameter, policy, function)
            if source is not None:
                _check_injectable(parameter, signature, function)
                sources[name] = source
        for need in policy.connections:
            if need.parameter not in sources:
                raise TypeError(
                    f"{name_of(function)}() does not take the token of connection {need.name!r}: "
                    f"add `*, {need.parameter}: str` to its parameters, or name the one it has "
                    f"with with_connection({need.name!r}, ..., as_=...)"
                )
        kept = [p for name, p in signature.parameters.items() if name not in sources]
        dependencies = Dependencies.of(function, signature.replace(parameters=kept))
        if dependencies is not None:
            kept = _without_dependencies(kept, dependencies, sources, function)
        _check_read(policy, kept, function, () if dependencies is None else dependencies.names)
        visible, injected_by = signature.replace(parameters=kept), types.MappingProxyType(sources)
        return cls(visible, injected_by, _receiver(function, kept), dependencies)

    def values(self, principal: Principal | None, connections: Connections) -> dict[str, object]:
        """Return the injected keyword arguments for this caller.

        Raises:
            AccessDeniedError: if a user is needed and the token names no user.
        """
        return {name: source(principal, connections) for name, source in self.sources.items()}

    def arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], injected: Mapping[str, object]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments for the function: the caller's, then the injected ones.

        Positional arguments are matched with the visible parameters, so that none of them can
        be bound to an injected one; injected values replace those passed under their names.
        """
        if not args:
            given = kwargs if self.dependencies is None else self.dependencies.apart_from(kwargs)
            return (), {**given, **injected}
        # Set aside, because `bind` refuses names that are not visible.
        hidden = {name: value for name, value in kwargs.items() if name not in injected}
        try:
            bound = self.visible.bind(*args, **hidden)
        except TypeError:
            del injected  # a traceback shows local variables, and none may hold a token
            raise
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for name, value in bound.arguments.items():
            kind = self.visible.parameters[name].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                positional.extend(value)
            elif kind is inspect.Parameter.VAR_KEYWORD:
                named.update(value)
            elif kind is inspect.Parameter.KEYWORD_ONLY or not (
                kind is inspect.Parameter.POSITIONAL_ONLY or self._has_star_args
            ):
                named[name] = value
            else:
                positional.append(value)
        if self.dependencies is not None:
            named = self.dependencies.apart_from(named)
        return tuple(positional), {**named, **injected}

    def sent(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, is_whole: bool = True
    ) -> dict[str, Any]:
        """Return the caller's arguments by name, with defaults, for requirements that read them.

        Args:
            args: the positional arguments.
            kwargs: the keyword arguments.
            is_whole: whether they include the parameters that the framework fills.

        Raises:
            TypeError: if they do not match the signature of the function.
        """
        hidden = {name: value for name, value in kwargs.items() if name not in self.sources}
        bind = self.visible.bind if is_whole else self.visible.bind_partial
        bound = bind(*args, **hidden)
        bound.apply_defaults()
        # No client sends an argument by position, so this one is the method's object.
        if args and self.receiver is not None:
            del bound.arguments[self.receiver]
        unfilled = () if is_whole else self._contexts - hidden.keys()
        return {name: value for name, value in bound.arguments.items() if name not in unfilled}

    @functools.cached_property
    def _contexts(self) -> frozenset[str]:
        parameters = self.visible.parameters.items()
        return frozenset(name for name, each in parameters if is_context(each.annotation))

    @functools.cached_property
    def _has_star_args(self) -> bool:
        kinds = {parameter.kind for parameter in self.visible.parameters.values()}
        return inspect.Parameter.VAR_POSITIONAL in kinds

    def apply_to(self, wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
        """Make ``wrapper`` look like ``function`` without the injected parameters."""
        functools.update_wrapper(wrapper, function, updated=())
        wrapper.__name__ = name_of(function)
        wrapper.__doc__ = _without_parameters(inspect.getdoc(unwrapped(function)), self.sources)
        wrapper.__signature__ = self.visible  # type: ignore[attr-defined]
        annotations = {
            name: parameter.annotation
            for name, parameter in self.visible.parameters.items()
            if parameter.annotation is not inspect.Parameter.empty
        }
        if self.visible.return_annotation is not inspect.Signature.empty:
            annotations["return"] = self.visible.return_annotation
        wrapper.__annotations__ = annotations


def _source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract | None:
    for need in policy.connections:
        if parameter.name == need.parameter:
            return _connection_source(parameter, need, function)
    is_sent = is_sent_by_client(parameter.annotation)
    if parameter.name == _USER_ID and not is_sent:
        _check_keyword_only(function)
        return _user_id_source(parameter, policy, function)
    if is_kind(parameter.annotation, Principal) and not is_sent:
        return _principal_source(parameter, policy, function)
    _check_not_sent(parameter, function)
    return None


def _without_dependencies(
    kept: Sequence[inspect.Parameter],
    dependencies: Dependencies,
    sources: Collection[str],
    function: Callable[..., Any],
) -> list[inspect.Parameter]:
    """Return the parameters that the framework sees, if a function has dependencies.

    Raises:
        TypeError: if a client would send to a dependency what the guard injects.
    """
    for parameter in dependencies.sent:
        is_caller = parameter.name == _USER_ID and not is_sent_by_client(parameter.annotation)
        if parameter.name in sources or is_caller:
            raise TypeError(
                f"a dependency of {name_of(function)}() takes {parameter.name} by CallArgument, so "
                "from the client: in the dependency, write toolguard.current_principal() for the "
                "caller, or give an argument of the client another name"
            )
    others = [each for each in kept if each.name not in dependencies.names]
    return sorted((*others, *dependencies.sent), key=lambda each: each.kind)


def _receiver(function: Callable[..., Any], visible: Sequence[inspect.Parameter]) -> str | None:
    """Return the parameter of a function in the body of a class that takes the object."""
    owner = getattr(unwrapped(function), "__qualname__", "").rpartition(".")[0]
    is_method = owner and not owner.endswith("<locals>")
    first = visible[0].name if visible else None
    return first if is_method and first in ("self", "cls") else None


def _check_read(
    policy: Policy,
    visible: Collection[inspect.Parameter],
    function: Callable[..., Any],
    filled: Collection[str],
) -> None:
    """Check that the function has the arguments that the rule reads, and that clients send them."""
    names = {parameter.name for parameter in visible}
    for name in policy.approval.arguments if policy.approval is not None else ():
        if name not in names:
            raise TypeError(
                f"the summary {policy.approval.summary!r} names an argument that "  # type: ignore[union-attr]
                f"{name_of(function)}() does not have: write one of {sorted(names)}"
            )
    for name in policy.arguments:
        if name in filled:
            raise TypeError(
                f"the rule {policy.formula} reads {name}, and a dependency of "
                f"{name_of(function)}() fills {name} only once the call is permitted: read an "
                "argument of the client"
            )
        if name not in names:
            raise TypeError(
                f"the rule {policy.formula} reads an argument that {name_of(function)}() does not "
                f"have: add `{name}: str` to its parameters"
            )


def _check_keyword_only(function: Callable[..., Any]) -> None:
    """Check that ``user_id`` is keyword-only, and so cannot be meant as a client's argument."""
    if any(kind is not inspect.Parameter.KEYWORD_ONLY for kind in kinds_of(_USER_ID, function)):
        raise TypeError(
            f"{name_of(function)}() takes user_id by position: write "
            "`*, user_id: str` for the caller, or `user_id: Annotated[str, sent_by_client]` for "
            "what the client sends"
        )


def _check_not_sent(parameter: inspect.Parameter, function: Callable[..., Any]) -> None:
    """Check that no client can set the caller; a connection may be declared further up."""
    if mentions(parameter.annotation, Principal):
        raise TypeError(
            f"{name_of(function)}() takes {parameter.name} as {parameter.annotation!r}, which a "
            f"client could send: write `{parameter.name}: Principal`"
        )
    is_alike = parameter.name.replace("_", "").lower() == _USER_ID.replace("_", "")
    is_keyword_only = parameter.kind is inspect.Parameter.KEYWORD_ONLY
    if is_alike and is_keyword_only and not is_sent_by_client(parameter.annotation):
        raise TypeError(
            f"{name_of(function)}() takes {parameter.name}, which a client could send: write "
            f"`*, {_USER_ID}: str` for the caller, or `{parameter.name}: Annotated[str, "
            "sent_by_client]` for what the client sends"
        )


def sent_by_clients(function: Callable[..., Any], declared: Collection[str] = ()) -> str | None:
    """Return the fault of a parameter that clients can set and only a guard may fill.

    Args:
        function: the function that the framework calls.
        declared: the parameters that ``protect(..., sent_by_client=...)`` names for it.

    Returns:
        The fault and its remedies, to follow the name of the operation in an error; None if there
        is no fault.
    """
    try:
        parameters = evaluated(function).parameters.values()
    except (TypeError, ValueError):  # no signature, as for built-ins
        return None
    for parameter in (*parameters, *sent_to_dependencies(function)):
        if parameter.default is injected:
            return (
                f"has a parameter {parameter.name} = injected that no guard fills: add the guard, "
                "@requires_auth or @with_connection(..., as_=...)"
            )
        for kind in (Principal, Connection):
            if mentions(parameter.annotation, kind):
                return (
                    f"takes a {kind.__name__} as {parameter.name}, which a client could send: add "
                    "the guard that fills it, @requires_auth or @with_connection(..., as_=...)"
                )
        if (
            parameter.name == _USER_ID
            and parameter.kind is inspect.Parameter.KEYWORD_ONLY
            and not is_sent_by_client(parameter.annotation)
            and _USER_ID not in declared
        ):
            return (
                "takes user_id by keyword only, and has no guard that fills it: add one, such as "
                "@requires_auth; or say that clients send it, with `user_id: Annotated[str, "
                'sent_by_client]` or protect(..., sent_by_client={"...": ["user_id"]})'
            )
    return None


def _connection_source(
    parameter: inspect.Parameter, need: ConnectionNeed, function: Callable[..., Any]
) -> Extract:
    name, annotation = parameter.name, parameter.annotation
    if is_sent_by_client(annotation):
        raise TypeError(
            f"{name_of(function)}() takes {name} from the client and from with_connection(): "
            "remove sent_by_client, or name another parameter with as_=..."
        )
    is_object = is_kind(annotation, Connection)
    if not is_object and not accepts_text(annotation):
        raise TypeError(
            f"{name_of(function)}() takes {name} as {annotation!r}: write `{name}: str` "
            f"for the token, or `{name}: Connection` for the object"
        )
    if need.optional and not accepts_none(annotation):
        kind = "Connection" if is_object else "str"
        raise TypeError(
            f"{name_of(function)}() also runs without connection {need.name!r}: write "
            f"`{name}: {kind} | None`"
        )

    def token(_: Principal | None, connections: Connections) -> str | None:
        connection = connections[name]
        return None if connection is None else connection.token

    return (lambda _, connections: connections[name]) if is_object else token


def _user_id_source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract:
    optional = accepts_none(parameter.annotation)
    if not accepts_text(parameter.annotation):
        raise TypeError(f"{name_of(function)}() must take the caller as `user_id: str`")
    if policy.public and not optional:
        raise TypeError(
            f"{name_of(function)}() is public, so it may have no caller: "
            "write `user_id: str | None`"
        )

    def user_id(principal: Principal | None, _: Connections) -> str | None:
        found = principal.user_id if principal is not None else None
        if found is None and not optional:
            raise AccessDeniedError.unnamed("user", "This operation needs a user")
        return found

    return user_id


def _principal_source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract:
    if policy.public and not accepts_none(parameter.annotation):
        raise TypeError(
            f"{name_of(function)}() is public, so it may have no caller: write "
            f"`{parameter.name}: Principal | None`"
        )
    return lambda principal, _: principal


def _check_injectable(
    parameter: inspect.Parameter, signature: inspect.Signature, function: Callable[..., Any]
) -> None:
    kinds = {each.kind for each in signature.parameters.values()}
    reachable = parameter.kind in _INJECTABLE and not (
        parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        and inspect.Parameter.VAR_POSITIONAL in kinds
    )
    if not reachable:
        raise TypeError(
            f"{name_of(function)}() cannot be given {parameter.name} as a keyword: "
            f"write it after a bare `*`, as in `*, {parameter.name}: str`"
        )


# One parameter's entry: Sphinx (two forms), Google and NumPy.
_ENTRIES = (
    r":param(?:[ \t]+[^:\n]+)?[ \t]+{name}:",
    r":type[ \t]+{name}:",
    r"\*{{0,2}}{name}[ \t]*(?:\([^)\n]*\))?[ \t]*:",
)


def _without_parameters(doc: str | None, names: Collection[str]) -> str | None:
    """Remove the entries of these parameters from a docstring (Google, NumPy or Sphinx style)."""
    if not doc or not names:
        return doc
    name = f"(?:{'|'.join(map(re.escape, names))})"
    entry = re.compile("|".join(entry.format(name=name) for entry in _ENTRIES))
    kept: list[str] = []
    blank: list[str] = []  # belongs to what comes after it
    dropped_indent: int | None = None
    for line in doc.splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip():
            blank.append(line)
            continue
        if dropped_indent is None or indent <= dropped_indent:
            dropped_indent = indent if entry.match(line.strip()) else None
        if dropped_indent is None:
            kept += [*blank, line]
        blank = []
    return "\n".join(kept)
