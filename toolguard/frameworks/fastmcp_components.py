"""Read a component of fastmcp: its kind, its names and tags, and the tools it is made from."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fastmcp.utilities.versions import VersionSpec
from pydantic import BaseModel

from toolguard.errors import AccessDeniedError
from toolguard.frameworks.operation import NOT_REMADE, Operation, Remade
from toolguard.policies.operations import Kind

__all__ = [
    "described",
    "kind_of",
    "name_of",
    "parents",
    "remade",
    "requested_version",
    "tags_of",
]

_VERSION = "_meta.fastmcp.version must be a version, or be left out"


def parents(component: Any) -> list[Any]:
    """Return a component, followed by the tools it was transformed from."""
    chain = []
    while component is not None:
        chain.append(component)
        component = component.parent_tool if _facts(component.__class__).is_transformed else None
    return chain


class _Facts(NamedTuple):
    """The facts about a class of components: pydantic is slow to report a missing attribute."""

    kind: Kind
    named_by: str
    is_transformed: bool


@functools.cache
def _facts(cls: Any) -> _Facts:
    fields = [name for name in ("uri_template", "uri") if name in {*cls.model_fields, *dir(cls)}]
    kind: Kind = "resource" if fields else "prompt" if hasattr(cls, "render") else "tool"
    return _Facts(kind, [*fields, "name"][0], "parent_tool" in cls.model_fields)


def name_of(component: Any) -> str:
    """Return the name or the URI (template) of a component."""
    return str(getattr(component, _facts(component.__class__).named_by) or component.name)


def kind_of(component: Any) -> Kind:
    """Return the kind of operation of a component."""
    return _facts(component.__class__).kind


def described(
    chain: Sequence[Any], more_names: Sequence[str] = (), more_tags: frozenset[str] = frozenset()
) -> Operation:
    """Return the operation of a component, with all its names and tags.

    Args:
        chain: the component, and the components it was transformed from.
        more_names: its names on the servers that it is mounted on.
        more_tags: its tags there.
    """
    listed, *others = dict.fromkeys((*map(name_of, chain), *more_names))
    return Operation(
        kind_of(chain[0]),
        listed,
        getattr(chain[-1], "fn", None),
        other_names=tuple(others),
        # As `tags_of` has it. Most are not made from another, and a call should not look further.
        tags=frozenset(tag for each in chain for tag in each.tags) | more_tags,
        remade=remade(chain) if len(chain) > 1 else NOT_REMADE,
    )


def tags_of(chain: Sequence[Any]) -> frozenset[str]:
    """Return the tags of a component, and of the components it was transformed from."""
    return frozenset(tag for each in chain for tag in each.tags)


def remade(chain: Sequence[Any]) -> Remade:
    """Return what those of ``chain`` that are made from another tool change for the last one.

    A function in front of a tool may give it any value for each of its arguments.
    """
    in_front: list[Callable[..., Any]] = []
    renamed, reused = set[str](), set[str]()
    for at, made in enumerate(chain[:-1], 1):
        if not _facts(made.__class__).is_transformed:
            continue
        names = {
            change.name
            for was, change in made.transform_args.items()
            if isinstance(change.name, str) and change.name != was and not change.hide
        }
        known = {name for each in chain[at:] for name in each.parameters.get("properties", ())}
        if made.fn is not made.forwarding_fn:
            in_front.append(made.fn)
            reused |= known
        renamed |= names
        reused |= names & known
    return Remade(tuple(in_front), frozenset(reused), renames=bool(in_front or renamed))


def requested_version(meta: object) -> VersionSpec | None:
    """Return the version of a component that the client requests in ``_meta.fastmcp.version``.

    Raises:
        AccessDeniedError: if the value is invalid. The framework would run the latest version,
            which might not be the component decided on.
    """
    if isinstance(meta, BaseModel):
        meta = meta.model_dump()
    for member in ("fastmcp", "version"):
        if meta is None:
            return None
        if not isinstance(meta, Mapping):
            raise AccessDeniedError(_VERSION, rule="a version in _meta.fastmcp")
        meta = meta.get(member)
    if meta is None:
        return None
    if not isinstance(meta, str) or not meta:
        raise AccessDeniedError(_VERSION, rule="a version in _meta.fastmcp")
    return VersionSpec(eq=meta)
