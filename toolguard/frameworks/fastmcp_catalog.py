"""Which operations does a fastmcp server have, by the names its clients know, asking nobody?

fastmcp puts them together when they are listed: from the server's own, from mounted servers and
other providers, renamed and added to by transforms. That is done here over again, because the
framework's own lists run middleware, leave out what this moment's caller may not see, and go over
the network for the tools of a proxied server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from toolguard.frameworks import internals
from toolguard.frameworks.operation import Catalog, Operation
from toolguard.policies.operations import Kind

__all__ = ["catalog_of"]

# Kind, what its lists are called, what looking one up is called.
_KINDS: tuple[tuple[Kind, str, str], ...] = (
    ("tool", "tools", "tool"),
    ("resource", "resources", "resource"),
    ("resource", "resource_templates", "resource_template"),
    ("prompt", "prompts", "prompt"),
)
# What a component of fastmcp carries through copies and renamings: which one it was in the
# beginning, and the mounted servers it came through, with its names there.
_ORIGIN, _MOUNTS = "__toolguard_origin__", "__toolguard_mounts__"


def catalog_of(server: Any) -> Catalog:
    """Return the operations of a fastmcp server, and sentences on what could not be listed."""
    # A thread of its own: the caller may be in an event loop, or in the middle of a request.
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, _Walk().through(server)).result()


class _Walk:
    """One walk through a fastmcp server and what is mounted on it."""

    def __init__(self) -> None:
        self._unlisted: dict[str, None] = {}

    async def through(self, server: Any) -> Catalog:
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
        if inner is not None:  # a namespace or a transform around a provider
            return await self._components(inner, many, one)
        if mounted is not None:
            theirs = await self._components(mounted, many, one)
            return [_through(mounted, each) for each in theirs]
        if _is_local(node, many):
            return [_first(each) for each in await internals.list_untransformed(node, many)()]
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
        """Return what a transform makes of ``found``, with what it leaves out and still serves."""
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
    """Return whether listing what a provider has goes no further than this process.

    That is known of fastmcp's own code alone. Its proxies do go further, and what is put together
    of several providers depends on each of them.
    """
    module = str(internals.list_untransformed(type(provider), many).__module__)
    return module.startswith("fastmcp.") and not module.endswith((".proxy", ".aggregate"))


def _first(component: Any) -> Any:
    return _marked(component, {_ORIGIN: object()})


def _through(server: Any, component: Any) -> Any:
    mounts = vars(component).get(_MOUNTS, ())
    return _marked(component, {_MOUNTS: ((server, _name(component)), *mounts)})


def _marked(component: Any, marks: dict[str, object]) -> Any:
    copy = component.model_copy()
    vars(copy).update(marks)
    return copy


def _with_injected(node: Any, found: Sequence[Any]) -> list[Any]:
    """Return the tools of a server with those that its middleware puts in front of them."""
    middleware = getattr(node, "middleware", ())
    injected = {
        tool.name: tool for each in middleware for tool in getattr(each, "injected_tools", ())
    }
    return [*injected.values(), *(each for each in found if each.name not in injected)]


async def _is_served(transform: Any, one: str, component: Any) -> bool:
    """Return whether a transform that does not list a component serves it nevertheless."""

    async def base(name: str, *, version: Any = None) -> Any:
        asked = version is None or version.matches(component.version)
        return component if asked and name == _name(component) else None

    found = await getattr(transform, f"get_{one}")(_name(component), base, version=None)
    return found is not None


def _origins(component: Any) -> Iterator[object]:
    return (vars(each)[_ORIGIN] for each in _parents(component) if _ORIGIN in vars(each))


def _parents(component: Any) -> Iterator[Any]:
    """Yield a component, then what it was transformed from."""
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
    )


def _name(component: Any) -> str:
    uri = getattr(component, "uri_template", None) or getattr(component, "uri", None)
    return str(uri or component.name)
