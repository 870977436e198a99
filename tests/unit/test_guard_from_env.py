"""Which guard does the environment describe?"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from support.callers import Tokens
from toolguard import JWTVerifier, ToolGuard
from toolguard.connections.cache import CachedConnections
from toolguard.descope import DescopeConnections
from toolguard.telemetry import DecisionRecord, Records
from toolguard.testing import ScriptedConnections

URL = "https://mcp.example.com/mcp"
ISSUER = {"TOOLGUARD_ISSUER": "https://auth.example.com", "MCP_SERVER_URL": URL}


def without(name: str) -> Mapping[str, str]:
    return {key: value for key, value in ISSUER.items() if key != name}


def test_the_environment_names_issuer_and_server() -> None:
    made = ToolGuard.from_env(ISSUER)

    assert isinstance(made.verifier, JWTVerifier)
    assert (made.issuer, made.resource) == ("https://auth.example.com", URL)
    assert made.verifier.audiences == (URL,)
    assert made.connections is None


def test_tokens_may_name_another_audience_than_the_servers_url() -> None:
    made = ToolGuard.from_env({**ISSUER, "TOOLGUARD_AUDIENCE": "calendar"})

    assert isinstance(made.verifier, JWTVerifier)
    assert made.verifier.audiences == ("calendar",)
    assert made.resource == URL


def test_settings_go_to_the_guard() -> None:
    made = ToolGuard.from_env(ISSUER, default="deny", resource="https://other.example/mcp")

    assert (made.default, made.resource) == ("deny", "https://other.example/mcp")


def test_settings_stand_in_for_variables() -> None:
    by_setting = ToolGuard.from_env(without("TOOLGUARD_ISSUER"), issuer="https://b.example")
    elsewhere = ToolGuard.from_env(without("MCP_SERVER_URL"), audience="https://b.example/mcp")

    assert (by_setting.issuer, by_setting.resource) == ("https://b.example", URL)
    assert (elsewhere.issuer, elsewhere.resource) == (
        "https://auth.example.com",
        "https://b.example/mcp",
    )


def test_a_verifier_of_ones_own_needs_no_issuer_in_the_environment() -> None:
    tokens = Tokens()

    assert ToolGuard.from_env({"MCP_SERVER_URL": URL}, verifier=tokens).verifier is tokens


@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_variable_is_named(value: str | None) -> None:
    empty = {} if value is None else {"TOOLGUARD_ISSUER": value}
    message = "set TOOLGUARD_ISSUER (or DESCOPE_MCP_WELL_KNOWN_URL for Descope)"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ToolGuard.from_env({**without("TOOLGUARD_ISSUER"), **empty})
    empty = {} if value is None else {"MCP_SERVER_URL": value}
    message = "set MCP_SERVER_URL to the address that clients connect to"
    with pytest.raises(ValueError, match=f"^{message}$"):
        ToolGuard.from_env({**without("MCP_SERVER_URL"), **empty})


def test_an_audience_that_is_no_url_does_not_say_where_the_server_is() -> None:
    environ = {**without("MCP_SERVER_URL"), "TOOLGUARD_AUDIENCE": "calendar"}

    with pytest.raises(ValueError, match=r"^set MCP_SERVER_URL"):
        ToolGuard.from_env(environ)


DESCOPE = {
    "DESCOPE_MCP_WELL_KNOWN_URL": (
        "https://api.descope.com/v1/apps/agentic/P2a/MS2b/.well-known/openid-configuration"
    ),
    "MCP_SERVER_URL": URL,
}


def test_descope_brings_its_issuer_and_its_connections() -> None:
    made = ToolGuard.from_env(DESCOPE)

    assert isinstance(made.connections, CachedConnections)
    assert isinstance(made.connections.provider, DescopeConnections)
    assert isinstance(made.verifier, JWTVerifier)


def test_connections_of_ones_own_go_before_descopes() -> None:
    vault = ScriptedConnections()

    made = ToolGuard.from_env(DESCOPE, connections=vault).connections
    assert isinstance(made, CachedConnections)
    assert made.provider is vault


def test_a_guard_from_the_environment_shows_no_secret() -> None:
    made = ToolGuard.from_env({**DESCOPE, "DESCOPE_MANAGEMENT_KEY": "K2-secret"})

    assert "K2-secret" not in f"{made!r} {made.connections!r} {made.verifier!r}"


# --- records


def told(guard: ToolGuard) -> None:
    guard.recorder.put([DecisionRecord(1.0, URL, "served", subject="ada")])
    assert guard.recorder.flush()


def test_records_are_appended_to_the_file_that_is_named(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"

    told(ToolGuard.from_env({**ISSUER, "TOOLGUARD_RECORDS": str(file)}))

    (line,) = file.read_text().splitlines()
    assert json.loads(line)["subject"] == "ada"


def test_the_file_stands_beside_what_code_does_with_records(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    got: list[DecisionRecord] = []
    records = Records(got.append, subjects="hashed", queue=7)

    guard = ToolGuard.from_env({**ISSUER, "TOOLGUARD_RECORDS": str(file)}, on_decision=records)
    told(guard)

    assert guard.recorder.hashes
    assert len(got) == len(file.read_text().splitlines()) == 1
    assert len(records.consumers) == 1


def test_an_empty_variable_names_no_file() -> None:
    assert ToolGuard.from_env({**ISSUER, "TOOLGUARD_RECORDS": ""}).recorder.wanted() is False
