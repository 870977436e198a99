"""Does the upstream see each caller's own account, and only that one?"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx
import pytest

from support.gateways import AUDIENCE, RULES, command_of, write_rules
from support.scripted_upstream import ScriptedUpstream
from support.wire import Caller
from toolguard import ToolGuard
from toolguard.gateway.configuration import Configuration, read_configuration
from toolguard.gateway.gateway import Gateway
from toolguard.gateway.survey import survey
from toolguard.testing import LocalIssuer, Loopback, ScriptedConnections

VAULT = """
database = "sqlite:///{folder}/vault.db"

[connections.github]
client_id = "Iv1"
client_secret_env = "GITHUB_SECRET"

[sign_in]
client_id = "mcp-server"
"""
KEYS = "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="
Made = Callable[[str], Caller]


@pytest.fixture
def upstream() -> ScriptedUpstream:
    """The server behind."""
    return ScriptedUpstream("hour", "read")


@pytest.fixture
def rules() -> str:
    """The rules of the file."""
    return RULES


@pytest.fixture
def described(
    signing: LocalIssuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rules: str
) -> Callable[..., Configuration]:
    """Read a file with a vault in it."""
    monkeypatch.setenv("TOOLGUARD_VAULT_KEYS", KEYS)

    def read(**settings: Any) -> Configuration:
        settings["connection"] = '"github"'
        path = write_rules(tmp_path, signing.issuer, rules, **settings)
        vault = VAULT.format(folder=tmp_path)
        head, _, rest = path.read_text().partition("\n[rules]")
        first, _, tables = vault.partition("\n[")
        path.write_text(f"{head}\n{first}\n[{tables}\n[rules]{rest}")
        return read_configuration(
            path, {"GITHUB_SECRET": "x", "PYTHONPATH": os.pathsep.join(sys.path)}
        )

    return read


@pytest.fixture
def connections() -> ScriptedConnections:
    """The accounts of alice and bob."""
    found = ScriptedConnections()
    found.answer("github", "alices-own", user="alice")
    found.answer("github", "bobs-own", user="bob")
    return found


@pytest.fixture
def made(
    upstream: ScriptedUpstream,
    described: Callable[..., Configuration],
    connections: ScriptedConnections,
    signing: LocalIssuer,
    patient: httpx.Client,
) -> Iterator[Made]:
    """Make callers of a gateway before the upstream."""
    with Loopback(upstream.app) as behind:
        configuration = described(url=f'"{behind.url}/mcp"')
        guard = ToolGuard(
            issuer=signing.described, audience=AUDIENCE, connections=connections, default="deny"
        )
        configuration = replace(configuration, guard=guard)
        gateway = Gateway(configuration, anyio.run(survey, configuration))
        with Loopback(gateway.app()) as loopback:

            def caller(user: str) -> Caller:
                token = signing.mint(user, scopes=["time.read"])
                made = Caller(patient, f"{loopback.url}/mcp", token=token)
                assert made.open().status == 200
                return made

            yield caller


def test_each_caller_uses_their_own_account(made: Made, upstream: ScriptedUpstream) -> None:
    alice, bob = made("alice"), made("bob")

    served = [each.call("hour").value for each in (alice, bob, alice)]

    assert served == ["served"] * 3
    shown = [headers["authorization"] for headers, _ in upstream.sent("tools/call")]
    assert shown == ["Bearer alices-own", "Bearer bobs-own", "Bearer alices-own"]
    greeted = [headers["authorization"] for headers, _ in upstream.sent("initialize")]
    assert greeted == ["Bearer alices-own", "Bearer bobs-own"]
    assert all("authorization" in headers for headers, _ in upstream.requests)


def test_an_account_that_changes_has_another_session(
    made: Made, upstream: ScriptedUpstream, connections: ScriptedConnections
) -> None:
    carol = made("carol")
    unconnected = carol.call("hour")
    connections.answer("github", "carols-own", user="carol")

    served = carol.call("hour")

    assert "connection_required" in unconnected.tool_error
    assert served.value == "served"
    assert upstream.sent("tools/call")[-1][0]["authorization"] == "Bearer carols-own"


def test_who_has_not_connected_is_told_so_and_sees_what_rules_name(
    made: Made, upstream: ScriptedUpstream
) -> None:
    carol = made("carol")

    listed = carol.tools()
    refused = carol.call("hour")

    assert [*listed] == ["hour"]
    assert "Connect your github account" in listed["hour"]["description"]
    assert listed["hour"]["_meta"]["toolguard/requires"]["scopes"] == [["time.read"]]
    assert "connection_required" in refused.tool_error
    assert upstream.requests == []


def test_a_caller_of_what_only_wildcards_name_is_told_where_to_connect(made: Made) -> None:
    carol = made("carol")

    assert "connection_required" in carol.call("read").tool_error
    assert "connection_required" in carol.call("not_there").tool_error


@pytest.mark.parametrize("rules", ['[rules]\n"*" = "time.read"\n'])
def test_where_rules_name_nothing_the_list_says_where_to_connect(made: Made) -> None:
    carol = made("carol")

    listed = carol.send("tools/list")

    assert listed.status == 200
    assert listed.body["error"]["data"]["error"] == "connection_required"
    assert carol.send("prompts/list").result["prompts"] == []
    assert [*made("alice").tools()] == ["hour", "read"]


def test_who_may_not_call_is_refused_before_an_account_is_fetched(
    made: Made, connections: ScriptedConnections, signing: LocalIssuer
) -> None:
    alice = made("alice")
    alice.token = signing.mint("alice")

    assert alice.call("hour").status == 403
    assert connections.calls == []


def test_a_vault_in_the_file_says_where_to_connect(
    upstream: ScriptedUpstream,
    described: Callable[..., Configuration],
    signing: LocalIssuer,
    patient: httpx.Client,
) -> None:
    with Loopback(upstream.app) as behind, Loopback() as loopback:
        configuration = described(url=f'"{behind.url}/mcp"')
        gateway = Gateway(configuration, anyio.run(survey, configuration))
        loopback.start(gateway.app())
        caller = Caller(
            patient,
            f"{loopback.url}/mcp",
            token=signing.mint("alice", scopes=["time.read"]),
            capabilities={"elicitation": {"url": {}}},
        )
        caller.open()

        reply = caller.call("hour")
        link = reply.messages[-1]["error"]["data"]["elicitations"][0]["url"]
        page = patient.get(f"{loopback.url}{urlsplit(link).path}?{urlsplit(link).query}")

    assert urlsplit(link).netloc == "mcp.test"
    assert page.status_code in (200, 302, 303)


def test_a_command_gets_the_token_of_its_caller_in_a_variable(
    described: Callable[..., Configuration],
    connections: ScriptedConnections,
    signing: LocalIssuer,
    patient: httpx.Client,
) -> None:
    configuration = described(
        command=str(command_of()),
        pass_env='["PYTHONPATH"]',
        connection_env='"GITHUB_TEST_TOKEN"',
    )
    guard = ToolGuard(issuer=signing.described, audience=AUDIENCE, connections=connections)
    configuration = replace(configuration, guard=guard)
    gateway = Gateway(configuration, anyio.run(survey, configuration))
    with Loopback(gateway.app()) as loopback:
        caller = Caller(patient, f"{loopback.url}/mcp", token=signing.mint("alice"))
        caller.open()

        told = caller.call("variables").value

    assert "GITHUB_TEST_TOKEN=alices-own" in told
    assert str(caller.token) not in told
