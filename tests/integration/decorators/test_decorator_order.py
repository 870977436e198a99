"""Is a guard that guards nothing found out before anybody calls?"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from support.lines import FASTMCP_LINES, Guarding, Line, Serve, Server
from support.wire import Caller
from toolguard import requires_scopes
from toolguard.frameworks.operation import Revision
from toolguard.testing import LocalIssuer

FIX = (
    "tool 'delete_everything' was registered without all of its guards: "
    "write the line that registers the tool above them, as in @mcp.tool(), then "
    "@requires_scopes(...), then def"
)
fastmcp_lines = pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)


def _register_bare(server: Server) -> None:
    @requires_scopes("admin")
    @server.tool()
    async def delete_everything() -> str:
        return "deleted"


def _register_guarded(server: Server) -> None:
    @server.tool()
    @requires_scopes("admin")
    async def delete_everything() -> str:
        return "deleted"


def test_a_tool_registered_below_its_guard_is_found_at_protect(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("calendar")
    _register_bare(server)

    with pytest.raises(ValueError, match=re.escape(FIX)):
        guarding().protect(server)


def test_a_tool_that_its_guard_would_fill_is_told_of_the_order_first(
    line: Line, guarding: Guarding
) -> None:
    server: Server = line.server("calendar")

    @requires_scopes("admin")
    @server.tool()
    async def delete_everything(*, user_id: str) -> str:
        return user_id

    with pytest.raises(ValueError, match=re.escape(FIX)):
        guarding().protect(server)


@pytest.mark.parametrize("build", [Line.http_app, Line.sse_app])
def test_a_tool_registered_later_is_found_when_the_app_is_built(
    line: Line, guarding: Guarding, build: Callable[[Line, Any], Any]
) -> None:
    server = guarding().protect(line.server("calendar"))
    _register_bare(server)

    with pytest.raises(ValueError, match=re.escape(FIX)):
        build(line, server)


def test_a_tool_that_gets_another_name_is_found_by_that_name(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("calendar")

    async def delete_everything() -> str:
        return "deleted"

    server.tool(name="wipe")(delete_everything)
    requires_scopes("admin")(delete_everything)

    with pytest.raises(ValueError, match="tool 'wipe' was registered without all of its guards"):
        guarding().protect(server)


@fastmcp_lines
@pytest.mark.parametrize("namespace", [None, "inner"])
def test_a_bare_tool_of_a_mounted_server_is_found(
    line: Line, guarding: Guarding, namespace: str | None
) -> None:
    inner = line.server("inner")
    outer: Any = line.server("outer")
    _register_bare(inner)
    outer.mount(inner, namespace=namespace)

    with pytest.raises(ValueError, match="tool 'delete_everything' was registered without"):
        guarding().protect(outer)


@pytest.mark.parametrize("when", ["before protect", "after protect", "after the app is built"])
def test_a_tool_in_the_right_order_is_guarded_whenever_it_is_registered(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, when: str
) -> None:
    server = line.server("calendar")
    if when == "before protect":
        _register_guarded(server)
    guarding().protect(server)
    if when == "after protect":
        _register_guarded(server)
    app = line.http_app(server, stateless=True)
    if when == "after the app is built":
        _register_guarded(server)
    url = serve(app) + "/mcp"

    assert Caller(http, url, token=issuer.mint()).call("delete_everything").status == 403
    admin = Caller(http, url, token=issuer.mint(scopes=["admin"]))
    assert admin.call("delete_everything").value == "deleted"
    assert Caller(http, url).call("delete_everything").challenge == (
        'Bearer scope="admin", '
        'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
    )


def test_a_late_tool_below_its_guard_does_not_run(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = guarding().protect(line.server("calendar"))
    app = line.http_app(server, stateless=True)
    _register_bare(server)
    caller = Caller(http, serve(app) + "/mcp", token=issuer.mint(scopes=["admin"]))

    assert "was registered without all of its guards" in caller.call("delete_everything").content


def _register_bare_secret(server: Server, kind: str) -> None:
    def secret() -> str:
        return "secret"

    def secret_of(day: str) -> str:
        return f"secret of {day}"

    if kind == "prompt":
        server.prompt()(secret)
    elif kind == "resource":
        server.resource("calendar://secret")(secret)
    else:
        server.resource("calendar://secret/{day}")(secret_of)
    requires_scopes("admin")(secret_of if kind == "template" else secret)


@pytest.mark.parametrize("kind", ["resource", "template", "prompt"])
def test_a_resource_or_prompt_registered_below_its_guard_is_found(
    line: Line, guarding: Guarding, kind: str
) -> None:
    server = line.server("calendar")
    _register_bare_secret(server, kind)

    with pytest.raises(ValueError, match=r"secret.* was registered without all of its guards"):
        guarding().protect(server)


def test_one_tool_in_the_place_of_another_is_looked_at_like_any_other(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = line.server("calendar")
    server.tool(name="old")(requires_scopes("old.use")(_nothing))
    guard = guarding()
    app = line.http_app(guard.protect(server), stateless=True)
    assert guard.scopes_supported == ("old.use",)
    registry: Any = getattr(server, "local_provider", server)
    registry.remove_tool("old")
    server.tool(name="new")(requires_scopes("new.use")(_nothing))

    assert guard.scopes_supported == ("new.use",)
    alice = Caller(http, serve(app) + "/mcp", token=issuer.mint("alice"))
    assert alice.call("new").status == 403


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_a_tool_that_replaces_one_between_others_is_looked_at(
    line: Line, guarding: Guarding
) -> None:
    server = line.server("calendar")
    for name in ("first", "second", "third"):
        server.tool(name=name)(requires_scopes(f"{name}.use")(_nothing))
    guard = guarding()
    guard.protect(server)
    assert set(guard.scopes_supported) == {"first.use", "second.use", "third.use"}

    server.tool(name="second")(requires_scopes("new.use")(_nothing))

    assert set(guard.scopes_supported) == {"first.use", "new.use", "third.use"}


def test_an_exchanged_object_changes_a_revision_though_its_address_is_used_again() -> None:
    parts = [object(), object()]
    before = Revision(parts)
    for _ in range(100):
        parts[0] = object()
        assert Revision(parts) != before


async def _nothing() -> str:
    return "done"
