"""Is a framework refused that has lost what toolguard relies on, with the fact and the version?"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, cast

import pytest

from support.lines import LINES, Guarding, Line
from toolguard.frameworks import internals


def lost(name: str, at: Callable[[Any], Any] = lambda server: server) -> Callable[[Any, Any], None]:
    """Return what takes an attribute away, wherever the object or its class has it."""

    def take(monkeypatch: pytest.MonkeyPatch, server: Any) -> None:
        holder = at(server)
        for each in (holder, *type(holder).__mro__):
            if name in vars(each):
                monkeypatch.delattr(each, name)

    return take


def local(server: Any) -> Any:
    return server.local_provider


FACTS: dict[str, dict[str, Callable[[Any, Any], None]]] = {
    "sdk": {
        "_tool_manager": lost("_tool_manager"),
        "_tool_manager.call_tool": lost("call_tool", lambda server: server._tool_manager),
        "_resource_manager": lost("_resource_manager"),
        "_resource_manager.get_resource": lost("get_resource", lambda s: s._resource_manager),
        "_prompt_manager": lost("_prompt_manager"),
        "_prompt_manager.get_prompt": lost("get_prompt", lambda server: server._prompt_manager),
        "_lowlevel_server": lambda patch, server: lost(
            "_mcp_server" if hasattr(server, "_mcp_server") else "_lowlevel_server"
        )(patch, server),
        "_custom_starlette_routes": lost("_custom_starlette_routes"),
        "_token_verifier": lost("_token_verifier"),
    },
    "fastmcp": {
        "_get_additional_http_routes": lost("_get_additional_http_routes"),
        "_mcp_server": lost("_mcp_server"),
        "local_provider._components": lost("_components", local),
        "local_provider._list_tools": lost("_list_tools", local),
    },
}
CASES = [(line, fact) for line in LINES for fact in FACTS[line.family]]


@pytest.mark.parametrize(("line", "fact"), CASES, ids=str)
def test_a_fact_that_is_gone_is_named_with_the_version(
    line: Line, guarding: Guarding, monkeypatch: pytest.MonkeyPatch, fact: str
) -> None:
    server = line.server("changed")
    FACTS[line.family][fact](monkeypatch, server)

    with pytest.raises(RuntimeError) as caught:
        guarding().protect(server)

    distribution = "fastmcp" if line.family == "fastmcp" else "mcp"
    assert f"{distribution} {version(distribution)} has no " in str(caught.value)
    assert fact in str(caught.value)


@pytest.mark.skipif(all(line.family == "sdk" for line in LINES), reason="no fastmcp")
def test_classes_of_fastmcp_that_have_changed_are_named() -> None:
    class Changed:
        def __init__(self, *_: Any) -> None:
            self.local_provider = self

    with pytest.raises(RuntimeError) as caught:
        internals.probe_fastmcp(cast("Any", Changed()), (Changed,), Changed, Changed())

    for fact in ("Changed._server", "Changed._tools_to_inject_by_name", "Changed._inner"):
        assert fact in str(caught.value)
