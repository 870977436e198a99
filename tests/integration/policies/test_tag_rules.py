"""Do rules by tag hold on fastmcp, and are they refused where there are no tags?"""

from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, Serve
from support.wire import Caller
from toolguard import Refusals, requires_scopes
from toolguard.audit import audit
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


@pytest.mark.parametrize("protected", [False, True])
@pytest.mark.parametrize("namespace", [None, "n"])
def test_a_rule_by_tag_holds_for_a_tag_that_a_transform_adds(
    fastmcp: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    *,
    namespace: str | None,
    protected: bool,
) -> None:
    root: Any = fastmcp.server("root")
    server: Any = fastmcp.server("untagged")

    async def wipe() -> str:
        return "wiped"

    server.tool()(wipe)
    if protected:
        guarding().protect(server)
    root.mount(server, namespace=namespace)
    config: Any = importlib.import_module("fastmcp.tools.tool_transform").ToolTransformConfig
    transform: Any = importlib.import_module("fastmcp.server.transforms").ToolTransform
    name = "wipe" if namespace is None else "n_wipe"
    root.add_transform(transform({name: config(name="clean", tags={"admins"})}))
    guarding(refusals=Refusals(unauthorized_tools="hide-all")).protect(root, rules=RULES)
    url = serve(fastmcp.http_app(root, stateless=True, json=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))
    admin = Caller(http, f"{url}/mcp", token=issuer.mint("ada", scopes=["admin"]))

    assert "wiped" not in alice.call("clean").content
    assert "clean" not in alice.send("tools/list").content
    assert admin.call("clean").value == "wiped"
    assert "clean" in admin.send("tools/list").content


def test_the_metadata_and_the_audit_know_rules_by_tag(fastmcp: Line, guarding: Guarding) -> None:
    server: Any = fastmcp.server("tagged")

    async def wipe() -> str:
        return "wiped"

    server.tool(tags={"admins"})(wipe)
    guard = guarding()
    guard.protect(server, rules=RULES)

    assert guard.scopes_supported == ("admin",)
    report = audit(server)
    assert [each.scopes for each in report.operations] == [("admin",)]
    assert report.findings == ()


def test_a_rule_by_tag_is_refused_where_there_are_no_tags(line: Line, guarding: Guarding) -> None:
    if line.family == "fastmcp":
        pytest.skip("has tags")
    with pytest.raises(ValueError, match=r"rules by tag, .* are for fastmcp: write rules by name"):
        guarding().protect(line.server("plain"), rules=RULES)


def test_a_rule_with_an_unknown_prefix_is_refused_at_once(line: Line, guarding: Guarding) -> None:
    with pytest.raises(ValueError, match="has the unknown prefix 'tags:'"):
        guarding().protect(line.server("plain"), rules={"tags:admin": requires_scopes("admin")})
