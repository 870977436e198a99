"""Ask the upstream once what it is and what it offers, before the first caller comes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from toolguard.gateway.configuration import Configuration
from toolguard.gateway.session import SDK_ERROR, Session, UpstreamError
from toolguard.policies.published import LISTS

__all__ = ["METHODS", "Survey", "survey"]

METHODS: Mapping[str, tuple[str, ...]] = {
    "tools": ("tools/list", "tools/call"),
    "resources": ("resources/list", "resources/templates/list", "resources/read"),
    "prompts": ("prompts/list", "prompts/get"),
    "completions": ("completion/complete",),
    "logging": ("logging/setLevel",),
}
"""Capability of a server -> the methods that it then answers."""

_METHOD_NOT_FOUND = -32601
# More pages than any server has.
_MAX_PAGES = 100


@dataclass(frozen=True)
class Survey:
    """What the upstream is, and what it offers.

    Attributes:
        name: its name.
        version: its version.
        instructions: how to use it, for a model.
        methods: the methods that it answers.
        lists: list method -> the operations in the list.
        is_complete: whether the upstream was asked; not if each caller has an account of their own.
    """

    name: str
    version: str = ""
    instructions: str | None = None
    methods: tuple[str, ...] = ()
    lists: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    is_complete: bool = True


async def survey(configuration: Configuration) -> Survey:
    """Return what the upstream offers; by the rules, if only a caller's account can ask for it.

    Raises:
        UpstreamError: if the upstream cannot be reached.
    """
    upstream = configuration.upstream
    if upstream.connection is not None:
        methods = [m for each in METHODS.values() for m in each if m != "logging/setLevel"]
        lists = _named(configuration.rules, f"{upstream.connection_name}")
        return Survey(str(upstream), methods=tuple(methods), lists=lists, is_complete=False)
    session = Session(upstream)
    found: Survey | UpstreamError
    async with anyio.create_task_group() as group:
        group.start_soon(session.run)
        try:
            with session.using():
                found = await _asked(session)
        except UpstreamError as fault:  # the group would wrap it
            found = fault
        finally:
            session.close()
    if isinstance(found, UpstreamError):
        raise found
    return found


async def _asked(session: Session) -> Survey:
    await session.began()
    greeting = session.greeting
    capabilities, info = greeting.get("capabilities", {}), greeting.get("serverInfo", {})
    offered = [METHODS[each] for each in METHODS if capabilities.get(each) is not None]
    methods = tuple(method for each in offered for method in each)
    lists = {method: await _listed(session, method) for method in LISTS if method in methods}
    return Survey(
        str(info.get("name", "")),
        str(info.get("version", "")),
        greeting.get("instructions"),
        methods,
        lists,
    )


async def _listed(session: Session, method: str) -> list[dict[str, Any]]:
    member, _, _ = LISTS[method]
    found: list[dict[str, Any]] = []
    cursor = None
    for _ in range(_MAX_PAGES):
        try:
            page = await session.request(method, None if cursor is None else {"cursor": cursor})
        except SDK_ERROR as error:
            if error.error.code == _METHOD_NOT_FOUND:  # templates are often not there
                return found
            raise UpstreamError(f"{method} is answered by an error: {str(error)!r}") from None
        found += [each for each in page.get(member) or () if isinstance(each, dict)]
        cursor = page.get("nextCursor")
        if not cursor:
            break
    return found


def _named(patterns: Collection[str], connection: str) -> dict[str, list[dict[str, Any]]]:
    """Return lists of what the rules name without ``*``, for callers who have not connected."""
    text = f"Connect your {connection} account to use this: a call of it says where"
    lists: dict[str, list[dict[str, Any]]] = {method: [] for method in LISTS}
    for pattern in patterns:
        kind, colon, name = pattern.partition(":")
        kind, name = (kind, name) if colon else ("tool", pattern)
        if "*" in name:
            continue
        if kind == "tool":
            schema = {"type": "object"}
            lists["tools/list"] += [{"name": name, "description": text, "inputSchema": schema}]
        elif kind == "prompt":
            lists["prompts/list"] += [{"name": name, "description": text}]
        elif kind == "resource" and "{" not in name:
            lists["resources/list"] += [{"name": name, "uri": name, "description": text}]
    return lists
