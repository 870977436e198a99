"""Descope: whom do the SDK's token tools serve, and with whose tokens?"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from support.projects import APP, KEY, MCP, READ, SLACK, Project, call, on_each_line, sdk
from toolguard import StaticConnections, ToolGuard
from toolguard.descope import DescopeConfig, add_descope_tools, create_descope_fastmcp_server
from toolguard.frameworks import adapter_for
from toolguard.testing import call_as

NAMES = {
    "fetch_user_token",
    "fetch_user_token_by_scopes",
    "fetch_tenant_token",
    "fetch_tenant_token_by_scopes",
}
Make = Callable[[str], Any]


def config(project: Project) -> DescopeConfig:
    return DescopeConfig(
        well_known_url=project.well_known_url, management_key=KEY, mcp_server_url=MCP
    )


def tools(project: Project, make: Make, **settings: Any) -> Any:
    server = make("tokens")
    add_descope_tools(server, config(project), expose_tokens=True, **settings)
    return server


def names(server: Any) -> set[str]:
    return {operation.name for operation in adapter_for(server).operations()}


# Off unless asked for --------------------------------------------------------------------------


@on_each_line
def test_the_tools_are_not_added_unless_they_are_asked_for(project: Project, make: Make) -> None:
    server = make("tokens")

    with pytest.raises(ValueError, match=r"hand third-party tokens to the model.*expose_tokens=Tr"):
        add_descope_tools(server, config(project))

    assert names(server) == set()
    assert adapter_for(server).guard is None


@on_each_line
def test_the_four_tools_have_the_sdks_names(project: Project, make: Make) -> None:
    assert names(tools(project, make)) == NAMES


# Whose tokens ----------------------------------------------------------------------------------


@on_each_line
@pytest.mark.parametrize(
    ("tool", "arguments", "expected", "path"),
    [
        ("fetch_user_token", {"app_id": APP}, "ya29.alice", "user/token/latest"),
        (
            "fetch_user_token_by_scopes",
            {"app_id": APP, "scopes": [READ]},
            "ya29.alice",
            "user/token",
        ),
        ("fetch_tenant_token", {"app_id": SLACK}, "xoxb.acme", "tenant/token/latest"),
        (
            "fetch_tenant_token_by_scopes",
            {"app_id": SLACK, "scopes": ["chat:write"]},
            "xoxb.acme",
            "tenant/token",
        ),
    ],
)
def test_a_caller_gets_their_own_tokens_and_their_tenants(
    project: Project, make: Make, tool: str, arguments: dict[str, Any], expected: str, path: str
) -> None:
    token = project.token("alice", dct="acme")

    answer = call(tools(project, make), tool, arguments, token=token)

    assert (answer.ok, json.loads(answer.text)["token"]) == (True, expected)
    assert set(json.loads(answer.text)) == {"token", "expires_at", "scopes", "metadata"}
    assert project.asked == [(path, f"Bearer Plocal:{token}")]


@on_each_line
@pytest.mark.parametrize("tool", sorted(NAMES))
def test_no_client_can_name_a_user_or_a_tenant(project: Project, make: Make, tool: str) -> None:
    app = APP if "user" in tool else SLACK
    arguments: dict[str, Any] = {"app_id": app, "user_id": "bob", "tenant_id": "globex"}
    if "scopes" in tool:
        arguments["scopes"] = [READ] if app == APP else ["chat:write"]

    answer = call(tools(project, make), tool, arguments, token=project.token("alice", dct="acme"))

    assert "ya29.bob" not in answer.text
    assert "xoxb.globex" not in answer.text
    assert KEY not in str(project.asked)


@on_each_line
def test_a_tenants_token_needs_a_tenant_in_the_token(project: Project, make: Make) -> None:
    answer = call(
        tools(project, make), "fetch_tenant_token", {"app_id": SLACK}, token=project.token()
    )

    assert (answer.ok, answer.error) == (False, "access_denied")
    assert project.asked == []


@on_each_line
def test_the_vault_refreshes_where_the_option_says_so_and_shows_no_refresh_token(
    project: Project, make: Make
) -> None:
    options = {"forceRefresh": True, "withRefreshToken": True}

    answer = call(
        tools(project, make),
        "fetch_user_token",
        {"app_id": APP, "options": options},
        token=project.token("dave"),
    )

    assert json.loads(answer.text)["token"] == "ya29.dave.fresh"
    assert "1//refresh" not in answer.text


@on_each_line
@pytest.mark.parametrize("tool", sorted(name for name in NAMES if "scopes" in name))
@pytest.mark.parametrize("scopes", [[f"s{i}" for i in range(101)], ["s" * 257], ["a b"]])
def test_scopes_that_are_too_many_or_none_are_not_asked_for(
    project: Project, make: Make, tool: str, scopes: list[str]
) -> None:
    arguments = {"app_id": APP, "scopes": scopes}

    answer = call(tools(project, make), tool, arguments, token=project.token("alice", dct="acme"))

    assert not answer.ok
    assert "scope" in answer.text
    assert project.asked == []


# Refusals --------------------------------------------------------------------------------------


@on_each_line
@pytest.mark.parametrize("tool", sorted(NAMES))
def test_the_tools_need_the_scope_of_the_vault(project: Project, make: Make, tool: str) -> None:
    arguments = {"app_id": APP, **({"scopes": [READ]} if "scopes" in tool else {})}

    answer = call(tools(project, make), tool, arguments, token=project.issuer.mint("alice"))

    assert answer.status == 403
    assert answer.challenge is not None
    assert answer.challenge.scope == ("outbound.token.fetch",)
    assert project.asked == []


@on_each_line
def test_the_tools_may_need_a_scope_of_their_own(project: Project, make: Make) -> None:
    server = tools(project, make, required_scopes=["tokens.read"])

    refused = call(server, "fetch_user_token", {"app_id": APP}, token=project.token("alice"))
    allowed = call(
        server, "fetch_user_token", {"app_id": APP}, token=project.token("alice", "tokens.read")
    )

    assert (refused.status, allowed.ok) == (403, True)


@on_each_line
def test_nobody_without_a_token_gets_one(project: Project, make: Make) -> None:
    answer = call(tools(project, make), "fetch_user_token", {"app_id": APP}, token=None)

    assert answer.status == 401
    assert project.asked == []


@on_each_line
@pytest.mark.parametrize(
    ("arguments", "user"),
    [({"app_id": APP}, "mallory"), ({"app_id": APP}, "carol"), ({"app_id": ""}, "alice")],
)
def test_what_the_vault_refuses_is_an_error_and_no_answer(
    project: Project, make: Make, arguments: dict[str, Any], user: str
) -> None:
    answer = call(tools(project, make), "fetch_user_token", arguments, token=project.token(user))

    assert not answer.ok
    assert "ya29" not in json.dumps(answer.body)


# Which guard -----------------------------------------------------------------------------------


@on_each_line
def test_a_server_that_is_protected_keeps_its_guard_and_its_connections(
    project: Project, make: Make
) -> None:
    guard = sdk(project).guard()
    server = guard.protect(make("tokens"))

    add_descope_tools(server, expose_tokens=True)

    assert adapter_for(server).guard is guard
    assert call(server, "fetch_user_token", {"app_id": APP}, token=project.token("bob")).ok


@on_each_line
def test_two_sources_of_connections_are_refused(project: Project, make: Make) -> None:
    server = sdk(project).guard().protect(make("tokens"))

    with pytest.raises(ValueError, match="leave config out"):
        add_descope_tools(server, config(project), expose_tokens=True)

    assert names(server) == set()


@on_each_line
def test_a_guard_without_connections_is_refused(project: Project, make: Make) -> None:
    server = sdk(project).guard(connections=None).protect(make("tokens"))

    with pytest.raises(ValueError, match="connections="):
        add_descope_tools(server, expose_tokens=True)


@on_each_line
def test_any_provider_will_do(project: Project, make: Make) -> None:
    connections = StaticConnections({APP: {"alice": "ya29.table"}})
    guard = ToolGuard(verifier=project.issuer.verifier(), resource=MCP, connections=connections)
    server = guard.protect(make("tokens"))
    add_descope_tools(server, expose_tokens=True)

    answer = call_as(server, "fetch_user_token", {"app_id": APP}, token=project.token("alice"))

    assert json.loads(answer.text)["token"] == "ya29.table"


@pytest.mark.parametrize(("scopes", "error"), [([], ValueError), ("a.scope", TypeError)])
def test_the_tools_cannot_be_added_without_a_scope(
    project: Project, scopes: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        add_descope_tools(object(), config(project), expose_tokens=True, required_scopes=scopes)


def test_what_is_no_server_is_refused(project: Project) -> None:
    with pytest.raises(TypeError, match="not object"):
        add_descope_tools(object(), config(project), expose_tokens=True)


# A server of its own ---------------------------------------------------------------------------


def test_a_server_is_made_with_a_guard_and_without_the_tools(project: Project) -> None:
    server = create_descope_fastmcp_server("mine", config(project))

    assert server.name == "mine"
    assert names(server) == set()
    guard = adapter_for(server).guard
    assert guard is not None
    assert (guard.resource, guard.issuer) == (MCP, project.issuer.issuer)


def test_a_server_is_made_with_the_tools_where_they_are_asked_for(project: Project) -> None:
    server = create_descope_fastmcp_server(
        config=config(project), expose_tokens=True, instructions="Be careful."
    )

    assert (server.name, server.instructions) == ("descope", "Be careful.")
    assert names(server) == NAMES
    token = project.token("alice")
    assert call(server, "fetch_user_token", {"app_id": APP}, token=token).ok


def test_a_server_is_made_of_the_environment(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DESCOPE_MCP_WELL_KNOWN_URL", project.well_known_url)
    monkeypatch.delenv("DESCOPE_MANAGEMENT_KEY", raising=False)
    monkeypatch.setenv("MCP_SERVER_URL", MCP)

    guard = adapter_for(create_descope_fastmcp_server()).guard

    assert guard is not None
    assert guard.resource == MCP


def test_a_server_without_an_audience_is_not_made(project: Project) -> None:
    with pytest.raises(ValueError, match="MCP_SERVER_URL"):
        create_descope_fastmcp_server(config=DescopeConfig(well_known_url=project.well_known_url))
