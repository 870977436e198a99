"""Descope: the SDK's settings, requests and answers, and its names beside those of others."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from toolguard import descope, errors
from toolguard.connections import Connection
from toolguard.descope import (
    DescopeConfig,
    DescopeMCP,
    ErrorResponse,
    TenantTokenRequest,
    TokenResponse,
    UserTokenRequest,
)

WELL_KNOWN = "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration"


def test_settings_say_where_the_project_is() -> None:
    project = DescopeConfig(well_known_url=WELL_KNOWN).project

    assert (project.base_url, project.project_id) == ("https://api.descope.com", "P2abc")


def test_settings_do_not_show_the_key() -> None:
    config = DescopeConfig(well_known_url=WELL_KNOWN, management_key="K2key")

    assert repr(config) == f"DescopeConfig(well_known_url={WELL_KNOWN!r}, mcp_server_url=None)"


def test_a_url_that_is_none_of_descopes_is_refused() -> None:
    with pytest.raises(ValueError, match="not a well-known URL of Descope"):
        DescopeConfig(well_known_url="https://api.descope.com/P2abc/mcp")


def test_the_environment_has_three_variables() -> None:
    environ = {
        "DESCOPE_MCP_WELL_KNOWN_URL": WELL_KNOWN,
        "DESCOPE_MANAGEMENT_KEY": "K2key",
        "MCP_SERVER_URL": "https://mcp.test/mcp",
    }

    assert DescopeConfig.from_env(environ) == DescopeConfig(
        well_known_url=WELL_KNOWN, management_key="K2key", mcp_server_url="https://mcp.test/mcp"
    )
    emptied = {**environ, "DESCOPE_MANAGEMENT_KEY": "", "MCP_SERVER_URL": ""}
    assert DescopeConfig.from_env(emptied) == DescopeConfig(well_known_url=WELL_KNOWN)


@pytest.mark.parametrize(
    ("kind", "fields", "error"),
    [
        (UserTokenRequest, {"app_id": "", "user_id": "U1"}, ValueError),
        (UserTokenRequest, {"app_id": "google", "user_id": ""}, ValueError),
        (UserTokenRequest, {"app_id": "google", "user_id": "U1", "tenant_id": ""}, ValueError),
        (UserTokenRequest, {"app_id": "google", "user_id": "U1", "scopes": []}, ValueError),
        (UserTokenRequest, {"app_id": "google", "user_id": "U1", "scopes": "a b"}, TypeError),
        (TenantTokenRequest, {"app_id": "google"}, ValueError),
        (TenantTokenRequest, {"app_id": "google", "tenant_id": ""}, ValueError),
    ],
)
def test_a_request_names_an_app_and_an_owner(
    kind: Any, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        kind(**fields)


@pytest.mark.parametrize(
    ("kind", "given", "missing"),
    [
        (DescopeConfig, {"management_key": "K2key"}, ["well_known_url"]),
        (TokenResponse, {}, ["token"]),
        (UserTokenRequest, {}, ["app_id", "user_id"]),
        (UserTokenRequest, {"app_id": "google"}, ["user_id"]),
        (TenantTokenRequest, {"tenant_id": "acme"}, ["app_id"]),
        (ErrorResponse, {}, ["error"]),
    ],
)
def test_a_missing_field_is_answered_as_by_the_sdk(
    kind: Any, given: dict[str, Any], missing: list[str]
) -> None:
    with pytest.raises(ValidationError) as caught:
        kind(**given)

    assert [error["loc"] for error in caught.value.errors()] == [(name,) for name in missing]
    assert "K2key" not in f"{caught.value!r} {caught.value.errors()}"


@pytest.mark.parametrize("given", [(WELL_KNOWN,), ()])
def test_a_field_that_is_not_one_is_a_type_error(given: tuple[str, ...]) -> None:
    with pytest.raises(TypeError, match=r"TokenResponse\.__init__\(\)"):
        TokenResponse(*given, token="t", refresh_token="r")  # type: ignore[call-arg]


def test_a_response_is_json_with_the_token_and_a_text_without_it() -> None:
    response = TokenResponse.of(Connection("ya29.secret", scopes=("read",), expires_at=1_800.5))

    assert json.loads(response.to_json()) == {
        "token": "ya29.secret",
        "expires_at": 1800,
        "scopes": ["read"],
        "metadata": None,
    }
    assert repr(response) == "TokenResponse(expires_at=1800, scopes=['read'])"


def test_an_error_as_data_is_what_the_exception_says() -> None:
    error = errors.ConnectionRequiredError(
        "Connect it first", connection="google", connect_url="https://vault.test/connect"
    )

    assert json.loads(ErrorResponse.of(error).to_json()) == {
        "error": "Connect it first",
        "code": "connection_required",
        "details": {"connection": "google", "connect_url": "https://vault.test/connect"},
    }
    assert ErrorResponse.of(errors.InvalidTokenError("expired", "It has expired")) == (
        ErrorResponse(error="It has expired", code="invalid_token", details=None)
    )


# The SDK's names -------------------------------------------------------------------------------

FUNCTIONS = {
    "init_descope_mcp": ["well_known_url", "management_key", "mcp_server_url"],
    "validate_token": ["access_token", "audience"],
    "validate_token_and_get_user_id": ["access_token", "audience"],
    "validate_token_require_scopes_and_get_user_id": [
        *("access_token", "required_scopes", "audience", "error_description"),
    ],
    "require_scopes": ["token_result", "required_scopes", "error_description"],
    "get_connection_token": [
        *("user_id", "app_id", "scopes", "tenant_id", "options", "access_token"),
    ],
    "create_auth_check": ["required_scopes"],
    "fetch_user_token": ["config", "app_id", "user_id", "tenant_id", "options", "access_token"],
    "fetch_user_token_by_scopes": [
        *("config", "app_id", "user_id", "scopes", "options", "tenant_id"),
    ],
    "fetch_tenant_token": ["config", "app_id", "tenant_id", "options", "access_token"],
    "fetch_tenant_token_by_scopes": [
        *("config", "app_id", "tenant_id", "scopes", "options", "access_token"),
    ],
    "create_descope_fastmcp_server": ["name", "config"],
}


def positional(function: Any) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.POSITIONAL_ONLY)
    parameters = inspect.signature(function).parameters.values()
    return [each.name for each in parameters if each.kind in kinds and each.name != "self"]


@pytest.mark.parametrize(("name", "parameters"), FUNCTIONS.items(), ids=FUNCTIONS)
def test_a_function_of_the_sdk_takes_what_its_users_write(name: str, parameters: list[str]) -> None:
    assert positional(getattr(descope, name)) == parameters
    method = getattr(DescopeMCP, name, None)
    assert method is None or positional(method) == parameters


@pytest.mark.parametrize(
    "name",
    [
        "validate_token",
        "validate_token_and_get_user_id",
        "validate_token_require_scopes_and_get_user_id",
        "get_connection_token",
    ],
)
def test_what_waits_has_a_coroutine_beside_it(name: str) -> None:
    for owner in (descope, DescopeMCP):
        assert not inspect.iscoroutinefunction(getattr(owner, name))
        assert inspect.iscoroutinefunction(getattr(owner, f"a{name}"))
        twins = [inspect.signature(getattr(owner, each)) for each in (name, f"a{name}")]
        assert twins[0] == twins[1]


def test_the_object_is_made_of_what_its_users_give_it() -> None:
    assert positional(DescopeMCP) == ["well_known_url", "management_key", "mcp_server_url"]
    assert descope.InsufficientScopeError is errors.InsufficientScopeError


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("DescopeMCPServer", r"add_descope_tools\(server, config, expose_tokens=True\)"),
        ("DescopeMCPClient", r"await fetch_user_token\(config, app_id, user_id\)"),
    ],
)
def test_what_is_left_out_says_what_to_write(name: str, instead: str) -> None:
    with pytest.raises(NotImplementedError, match=rf"^{name} .*left out: write .*{instead}"):
        getattr(descope, name)(["python", "-m", "descope_mcp.server"])


def test_a_package_that_is_called_descope_stands_beside_it(tmp_path: Path) -> None:
    (tmp_path / "descope").mkdir()
    (tmp_path / "descope" / "__init__.py").write_text("class DescopeClient: ...\n")
    code = (
        "import toolguard.descope, sys; assert 'descope' not in sys.modules\n"
        "import descope; from toolguard import descope as ours\n"
        "assert ours is not descope and ours is toolguard.descope\n"
        "assert descope.DescopeClient() and not hasattr(ours, 'DescopeClient')\n"
        "print(descope.__file__)"
    )
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        env=environ,
    )

    assert done.stdout.strip() == str(tmp_path / "descope" / "__init__.py")
