"""Do rules by tag hold on fastmcp, and are they refused where there are no tags?"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, Serve
from support.wire import Caller
from toolguard import requires_scopes
from toolguard.testing import LocalIssuer

RULES = {"tag:adm*": requires_scopes("admin")}


@pytest.fixture
def fastmcp(line: Line) -> Line:
    if line.family != "fastmcp":
        pytest.skip("has no tags")
    return line


@pytest.mark.parametrize("mounted", [False, True])
def test_a_rule_by_tag_holds_for_operations_of_every_kind(
    fastmcp: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    *,
    mounted: bool,
) -> None:
    root: Any = fastmcp.server("root")
    server: Any = fastmcp.server("tagged") if mounted else root

    async def run() -> str:
        return "done"

    registering: tuple[tuple[str, Any], ...] = (
        ("open", lambda tags: server.tool(name="open", tags=tags)),
        ("tool", lambda tags: server.tool(name="closed", tags=tags)),
        ("resource", lambda tags: server.resource("notes://closed", tags=tags)),
        ("prompt", lambda tags: server.prompt(name="closed", tags=tags)),
    )
    for kind, register in registering:
        register({"users"} if kind == "open" else {"users", "admins"})(run)
    if mounted:
        root.mount(server)
    guard = guarding()
    guard.protect(root, rules=RULES)
    url = serve(fastmcp.http_app(root, stateless=True, json=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))
    admin = Caller(http, f"{url}/mcp", token=issuer.mint("ada", scopes=["admin"]))
    asked: list[tuple[str, dict[str, Any]]] = [
        ("tools/call", {"name": "closed"}),
        ("resources/read", {"uri": "notes://closed"}),
        ("prompts/get", {"name": "closed"}),
    ]

    assert alice.call("open").value == "done"
    for method, params in asked:
        refused, served = alice.send(method, params), admin.send(method, params)
        assert (refused.status, "done" in refused.content) == (403, False), method
        assert (served.status, "done" in served.content) == (200, True), method


def test_a_rule_by_tag_is_refused_where_there_are_no_tags(line: Line, guarding: Guarding) -> None:
    if line.family == "fastmcp":
        pytest.skip("has tags")
    with pytest.raises(ValueError, match=r"rules by tag, .* are for fastmcp: write rules by name"):
        guarding().protect(line.server("plain"), rules=RULES)


def test_a_rule_with_an_unknown_prefix_is_refused_at_once(line: Line, guarding: Guarding) -> None:
    with pytest.raises(ValueError, match="has the unknown prefix 'tags:'"):
        guarding().protect(line.server("plain"), rules={"tags:admin": requires_scopes("admin")})
