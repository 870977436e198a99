"""Which parameters of a function are injected, and what does the outside see of it?

The frameworks build a tool's schema from its signature, annotations and docstring. A guarded
function shows all three without the injected parameters, so no client can see or set them.
"""

from __future__ import annotations

import functools
import inspect
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from toolguard.connections.protocol import Connection
from toolguard.errors import AccessDeniedError
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal

__all__ = ["Injection", "sent_by_clients", "unwrapped"]

_USER_ID = "user_id"
_INJECTABLE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)

Connections = Mapping[str, "Connection | None"]
Extract = Callable[["Principal | None", Connections], object]


@dataclass(frozen=True)
class Injection:
    """How one function is called under one policy.

    Attributes:
        visible: the signature without the injected parameters.
        sources: for each injected parameter, where its value comes from.
    """

    visible: inspect.Signature
    sources: Mapping[str, Extract]

    @classmethod
    def plan(cls, function: Callable[..., Any], policy: Policy) -> Injection:
        """Return the plan for ``function``.

        Raises:
            TypeError: if the policy injects something the function does not take, or takes in a
                way that a keyword cannot reach; the message says what to write.
        """
        signature = _evaluated(function)
        sources: dict[str, Extract] = {}
        for name, parameter in signature.parameters.items():
            source = _source(parameter, policy, function)
            if source is not None:
                _check_injectable(parameter, signature, function)
                sources[name] = source
        for need in policy.connections:
            if need.parameter not in sources:
                raise TypeError(
                    f"{_name(function)}() does not take the token of connection {need.name!r}: add "
                    f"`*, {need.parameter}: str` to its parameters, or name the one it has with "
                    f"with_connection({need.name!r}, ..., as_=...)"
                )
        kept = [p for name, p in signature.parameters.items() if name not in sources]
        _check_read(policy, kept, function)
        return cls(signature.replace(parameters=kept), types.MappingProxyType(sources))

    def values(self, principal: Principal | None, connections: Connections) -> dict[str, object]:
        """Return the injected keyword arguments for this caller.

        Raises:
            AccessDeniedError: if a user is needed and the token names none.
        """
        return {name: source(principal, connections) for name, source in self.sources.items()}

    def arguments(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], injected: Mapping[str, object]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return what to call the function with: the caller's arguments, then the injected ones.

        Positional arguments are matched with the visible parameters, so that none of them can
        land on an injected one; injected values replace whatever was passed under their names.
        """
        if not args:
            return (), {**kwargs, **injected}
        # Kept aside, so that `bind` does not trip over a name it cannot see.
        hidden = {name: value for name, value in kwargs.items() if name not in injected}
        bound = self.visible.bind(*args, **hidden)
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
        return tuple(positional), {**named, **injected}

    def sent(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the caller's arguments by name, with defaults, for rules that read them.

        Raises:
            TypeError: if they do not fit the function.
        """
        hidden = {name: value for name, value in kwargs.items() if name not in self.sources}
        bound = self.visible.bind(*args, **hidden)
        bound.apply_defaults()
        return dict(bound.arguments)

    @functools.cached_property
    def _has_star_args(self) -> bool:
        kinds = {parameter.kind for parameter in self.visible.parameters.values()}
        return inspect.Parameter.VAR_POSITIONAL in kinds

    def dress(self, wrapper: Callable[..., Any], function: Callable[..., Any]) -> None:
        """Make ``wrapper`` look like ``function`` without the injected parameters."""
        functools.update_wrapper(wrapper, function, updated=())
        wrapper.__name__ = _name(function)
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


def unwrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function behind partials and bound methods."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__func__", function)


def _name(function: Callable[..., Any]) -> str:
    inner = unwrapped(function)
    return getattr(inner, "__name__", type(inner).__name__)


def _evaluated(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature with postponed annotations evaluated where that is possible."""
    inner = inspect.unwrap(unwrapped(function))
    if not hasattr(inner, "__globals__"):  # an object that can be called
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
    except NameError:  # imported under TYPE_CHECKING, or local: the framework has the last word
        return annotation


def _source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract | None:
    for need in policy.connections:
        if parameter.name == need.parameter:
            return _connection_source(parameter, need, function)
    if parameter.name == _USER_ID:
        return _user_id_source(parameter, policy, function)
    if _is(parameter.annotation, Principal):
        return _principal_source(parameter, policy, function)
    _check_not_sent(parameter, function)
    return None


def _check_read(
    policy: Policy, visible: Collection[inspect.Parameter], function: Callable[..., Any]
) -> None:
    """Make sure that what a rule reads of the call is there to be read."""
    names = {parameter.name for parameter in visible}
    for name in policy.arguments:
        if name not in names:
            raise TypeError(
                f"the rule {policy.rule} reads an argument that {_name(function)}() does not "
                f"have: add `{name}: str` to its parameters"
            )


def _check_not_sent(parameter: inspect.Parameter, function: Callable[..., Any]) -> None:
    """Make sure that no client can send who calls; a connection may be declared further up."""
    if _mentions(parameter.annotation, Principal):
        raise TypeError(
            f"{_name(function)}() takes {parameter.name} as {parameter.annotation!r}, which a "
            f"client could send: write `{parameter.name}: Principal`"
        )


def sent_by_clients(function: Callable[..., Any]) -> str | None:
    """Return the parameter that only a guard may fill, of those that clients see."""
    try:
        parameters = _evaluated(function).parameters.values()
    except (TypeError, ValueError):  # no signature, such as of a built-in
        return None
    for parameter in parameters:
        if any(_mentions(parameter.annotation, kind) for kind in (Principal, Connection)):
            return parameter.name
    return None


def _mentions(annotation: Any, kind: type) -> bool:
    """Return whether ``kind`` or a kind of it occurs anywhere in an annotation."""
    if isinstance(annotation, str):
        return kind.__name__ in re.findall(r"\w+", annotation)
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        return issubclass(annotation, kind)
    # Of `type X = ...`, and of NewType.
    alias = getattr(annotation, "__value__", getattr(annotation, "__supertype__", None))
    parts = typing.get_args(annotation) if alias is None else (alias,)
    return any(_mentions(part, kind) for part in parts)


def _connection_source(
    parameter: inspect.Parameter, need: ConnectionNeed, function: Callable[..., Any]
) -> Extract:
    name, annotation = parameter.name, parameter.annotation
    is_object = _is(annotation, Connection)
    if not is_object and not _accepts_text(annotation):
        raise TypeError(
            f"{_name(function)}() takes {name} as {annotation!r}: write `{name}: str` "
            f"for the token, or `{name}: Connection` for the object"
        )
    if need.optional and not _accepts_none(annotation):
        kind = "Connection" if is_object else "str"
        raise TypeError(
            f"{_name(function)}() runs without connection {need.name!r}, too: write "
            f"`{name}: {kind} | None`"
        )

    def token(_: Principal | None, connections: Connections) -> str | None:
        connection = connections[name]
        return None if connection is None else connection.token

    return (lambda _, connections: connections[name]) if is_object else token


def _user_id_source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract:
    optional = _accepts_none(parameter.annotation)
    if not _accepts_text(parameter.annotation):
        raise TypeError(f"{_name(function)}() must take the caller as `user_id: str`")
    if policy.public and not optional:
        raise TypeError(
            f"{_name(function)}() is public, its caller may be nobody: write `user_id: str | None`"
        )

    def user_id(principal: Principal | None, _: Connections) -> str | None:
        found = principal.user_id if principal is not None else None
        if found is None and not optional:
            raise AccessDeniedError("This operation needs a user, and the token names none")
        return found

    return user_id


def _principal_source(
    parameter: inspect.Parameter, policy: Policy, function: Callable[..., Any]
) -> Extract:
    if policy.public and not _accepts_none(parameter.annotation):
        raise TypeError(
            f"{_name(function)}() is public, its caller may be nobody: write "
            f"`{parameter.name}: Principal | None`"
        )
    return lambda principal, _: principal


def _is(annotation: Any, kind: type) -> bool:
    """Whether the annotation is ``kind``, ``kind | None``, or their name left unevaluated."""
    if isinstance(annotation, str):
        names = {part.strip().rpartition(".")[2] for part in annotation.split("|")}
        return kind.__name__ in names and names <= {kind.__name__, "None"}
    members = {member for member in _members(annotation) if member is not type(None)}
    return members == {kind}


def _accepts_text(annotation: Any) -> bool:
    if annotation is inspect.Parameter.empty or annotation is Any:
        return True
    if isinstance(annotation, str):
        return annotation.replace(" ", "") in {"str", "str|None", "Any"}
    return str in _members(annotation)


def _accepts_none(annotation: Any) -> bool:
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
            f"{_name(function)}() cannot be given {parameter.name} as a keyword: "
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
