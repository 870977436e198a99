"""List the operations of a fastmcp server by the names its clients use, without any I/O.

fastmcp composes its lists from the server's own components, those of mounted servers and of other
providers, and from transforms. This module does the same again, because the framework's own lists
run middleware, omit what the current caller may not see, and use the network for proxied servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toolguard.frameworks import internals
from toolguard.frameworks.fastmcp_components import remade, tags_of
from toolguard.frameworks.operation import Catalog, Operation
from toolguard.frameworks.protocols import FastMCPServer
from toolguard.policies.operations import Kind

__all__ = ["catalog_of"]

# Kind, the name of its lists, the name of its look-up.
_KINDS: tuple[tuple[Kind, str, str], ...] = (
    ("tool", "tools", "tool"),
    ("resource", "resources", "resource"),
    ("resource", "resource_templates", "resource_template"),
    ("prompt", "prompts", "prompt"),
)
# A component of fastmcp keeps through copies and renamings: its original, and the mounted
# servers it came through, with its names there.
_ORIGIN, _MOUNTS = "__toolguard_origin__", "__toolguard_mounts__"


def catalog_of(server: FastMCPServer) -> Catalog:
    """Return the operations of a fastmcp server, and sentences about those it cannot list."""
    # In a new thread: the calling code may be in an event loop, or in the middle of a request.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, _CatalogBuilder().through(server)).result()


class _CatalogBuilder:
    """One traversal of a fastmcp server and the servers mounted on it."""

    def __init__(self) -> None:
        self._unlisted: dict[str, None] = {}

    async def through(self, server: FastMCPServer) -> Catalog:
        listed = [
            _listed(kind, component)
            for kind, many, one in _KINDS
            for component in await self._components(server, many, one)
        ]
        return Catalog(tuple(listed), tuple(self._unlisted))

    async def _components(self, node: Any, many: str, one: str) -> list[Any]:
        """Return the components of a server or provider, by the names it gives them."""
        found = await self._untransformed(node, many, one)
        for transform in node.transforms:
            found = await self._made_of(found, transform, many, one)
        return _with_injected(node, found) if many == "tools" else found

    async def _untransformed(self, node: Any, many: str, one: str) -> list[Any]:
        inner, mounted = internals.inner_provider(node), getattr(node, "server", None)
        if inner is not None:  # a namespace or a transform that wraps a provider
            return await self._components(inner, many, one)
        if mounted is not None:
            theirs = await self._components(mounted, many, one)
            return [
                _marked(each, {_MOUNTS: ((mounted, _name(each)), *vars(each).get(_MOUNTS, ()))})
                for each in theirs
            ]
        if _is_local(node, many):
            own = await internals.list_untransformed(node, many)()
            return [_marked(each, {_ORIGIN: object()}) for each in own]
        if hasattr(node, "providers"):
            parts = [await self._components(each, many, one) for each in node.providers]
            return [component for part in parts for component in part]
        self._unlisted[
            f"{type(node).__name__} says what it provides only while the server runs, so that is "
            'not in the table: guard it by name in protect(rules=...), or by default="deny"'
        ] = None
        return []

    async def _made_of(
        self, found: Sequence[Any], transform: Any, many: str, one: str
    ) -> list[Any]:
        """Apply a transform to ``found``; keep components that it omits from lists but serves."""
        try:
            made = list(await getattr(transform, f"list_{many}")(found))
            shown = {origin for each in made for origin in _origins(each)}
            missing = [each for each in found if shown.isdisjoint(_origins(each))]
            return made + [each for each in missing if await _is_served(transform, one, each)]
        except Exception as error:  # noqa: BLE001 - a transform of the user's own
            self._unlisted[
                f"{type(transform).__name__} works only while a request is served "
                f"({type(error).__name__}), so what it renames has its old name here"
            ] = None
            return list(found)


def _is_local(provider: Any, many: str) -> bool:
    """Return whether listing the components of a provider stays within this process.

    That is known only of fastmcp's own classes. Its proxies use the network, and a provider
    composed of others depends on each of them.
    """
    module = str(internals.list_untransformed(type(provider), many).__module__)
    return module.startswith("fastmcp.") and not module.endswith((".proxy", ".aggregate"))


def _marked(component: Any, marks: dict[str, object]) -> Any:
    copy = component.model_copy()
    vars(copy).update(marks)
    return copy


def _with_injected(node: Any, found: Sequence[Any]) -> list[Any]:
    """Return the tools of a server, with those that its middleware injects first."""
    middleware = getattr(node, "middleware", ())
    injected = {
        tool.name: tool for each in middleware for tool in getattr(each, "injected_tools", ())
    }
    return [*injected.values(), *(each for each in found if each.name not in injected)]


async def _is_served(transform: Any, one: str, component: Any) -> bool:
    """Return whether a transform serves a component that it does not list."""

    async def base(name: str, *, version: Any = None) -> Any:
        asked = version is None or version.matches(component.version)
        return component if asked and name == _name(component) else None

    found = await getattr(transform, f"get_{one}")(_name(component), base, version=None)
    return found is not None


def _origins(component: Any) -> Iterator[object]:
    return (vars(each)[_ORIGIN] for each in _parents(component) if _ORIGIN in vars(each))


def _parents(component: Any) -> Iterator[Any]:
    """Yield a component, then the components it was transformed from."""
    while component is not None:
        yield component
        component = getattr(component, "parent_tool", None)


def _listed(kind: Kind, component: Any) -> Operation:
    chain = list(_parents(component))
    mounts = tuple(mount for each in chain for mount in vars(each).get(_MOUNTS, ()))
    listed, *others = dict.fromkeys((*map(_name, chain), *(name for _, name in mounts)))
    return Operation(
        kind,
        listed,
        getattr(chain[-1], "fn", None),
        getattr(component, "version", None),
        mounts,
        any(getattr(each, "auth", None) is not None for each in chain),
        other_names=tuple(others),
        tags=tags_of(chain),
        remade=remade(chain),
    )


def _name(component: Any) -> str:
    uri = getattr(component, "uri_template", None) or getattr(component, "uri", None)
    return str(uri or component.name)
