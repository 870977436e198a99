"""Who calls over stdio, where no request carries a token?"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession
from mcp.client.stdio import StdioServerParameters, stdio_client

from support.forked import Forked
from support.lines import LINES, Line
from toolguard.testing import LocalIssuer

_exceptions = importlib.import_module("mcp.shared.exceptions")
MCPError: Any = getattr(_exceptions, "MCPError", None) or _exceptions.McpError
METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'
CALLS: Mapping[str, dict[str, Any]] = {
    "whoami": {},
    "list_events": {"day": "monday"},
    "create_event": {"title": "lunch"},
    "weather": {"city": "oslo"},
    "secrets_of_child": {},
}
SECRETS = {
    "DESCOPE_MANAGEMENT_KEY": "K2",
    "TOOLGUARD_CACHE_KEYS": "k",
    "TOOLGUARD_SECRET": "s" * 32,
}
HINT = (
    "Set TOOLGUARD_ACCESS_TOKEN or TOOLGUARD_ACCESS_TOKEN_FILE in the environment of this stdio "
    "server"
)
EXPIRED = (
    "The access token has expired: start this server with a new TOOLGUARD_ACCESS_TOKEN, or name a "
    "file in TOOLGUARD_ACCESS_TOKEN_FILE"
)


Answers = Mapping[str, Any]


@dataclass(frozen=True)
class _Conversation:
    """What one process answered to every call, and what it logged."""

    answers: Answers
    log: str

    def text(self, tool: str) -> str:
        found = self.answers[tool]["content"][0]["text"]
        assert isinstance(found, str)
        return found

    def value(self, tool: str) -> str:
        assert self.answers[tool]["isError"] is False, self.text(tool)
        return self.text(tool)

    def error(self, tool: str) -> Any:
        assert self.answers[tool]["isError"] is True
        return json.loads(self.text(tool))

    def records(self, tool: str) -> list[Any]:
        """Return the decision records of a tool."""
        found = [json.loads(line) for line in self.log.splitlines() if line.startswith("{")]
        return [record for record in found if record.get("operation") == tool]

    def challenges(self, tool: str) -> Any:
        return (self.answers[tool].get("_meta") or {}).get("mcp/www_authenticate")


async def _converse(command: Sequence[str], env: dict[str, str], log: Path) -> Answers:
    server = StdioServerParameters(command=command[0], args=[*command[1:]], env=env)
    answers: dict[str, Any] = {}
    with log.open("w") as errors:
        async with (
            stdio_client(server, errlog=errors) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            try:
                answers["tools"] = await session.list_tools()
            except MCPError as error:
                answers["tools"] = error.error
            for tool, arguments in CALLS.items():
                answers[tool] = await session.call_tool(tool, arguments)
    return {k: v.model_dump(mode="json", by_alias=True) for k, v in answers.items()}


@pytest.fixture(scope="module")
def conversations(
    issuer: LocalIssuer, forked: Forked, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[tuple[str, str], _Conversation]:
    """Talk to one process for each line and situation, to all of them at once."""
    logs = tmp_path_factory.mktemp("stdio")
    keys = {"TEST_JWKS": json.dumps(issuer.jwks())}
    good = issuer.mint("alice", scopes=["calendar.read"])
    file = logs / "token"
    file.write_text(f"{good}\n")
    situations: dict[str, tuple[str, dict[str, str]]] = {
        "good": ("token", {"TOOLGUARD_ACCESS_TOKEN": good}),
        "expired": ("token", {"TOOLGUARD_ACCESS_TOKEN": issuer.mint("alice", expires_in=-600)}),
        "missing": ("token", {}),
        "file": ("token", {"TOOLGUARD_ACCESS_TOKEN_FILE": str(file)}),
        "trusted": ("trusted", {}),
    }
    answers: dict[tuple[str, str], Answers] = {}

    async def talk(line: Line, situation: str) -> None:
        rule, env = situations[situation]
        log = logs / f"{line.name}-{situation}"
        command = forked.command("-m", "support.stdio_server", line.name, rule)
        answers[line.name, situation] = await _converse(command, {**keys, **SECRETS, **env}, log)

    async def main() -> None:
        with anyio.fail_after(120):
            async with anyio.create_task_group() as group:
                for line in LINES:
                    for situation in situations:
                        group.start_soon(talk, line, situation)

    anyio.run(main)
    found = {
        key: _Conversation(each, (logs / "-".join(key)).read_text())
        for key, each in answers.items()
    }
    assert all(good not in each.log for each in found.values())
    return found


Conversations = Mapping[tuple[str, str], _Conversation]


def test_the_token_in_the_environment_says_who_calls(
    line: Line, conversations: Conversations
) -> None:
    alice = conversations[line.name, "good"]

    assert alice.value("whoami") == "alice"
    assert alice.value("list_events") == "monday of alice"
    assert alice.value("weather") == "fine in oslo"


def test_a_missing_scope_is_a_tool_error_with_the_challenge(
    line: Line, conversations: Conversations
) -> None:
    alice = conversations[line.name, "good"]

    assert alice.error("create_event") == {
        "error": "insufficient_scope",
        "scope": "calendar.read calendar.write contacts.read",
        "error_description": "Token missing required scopes: calendar.write contacts.read",
        "missing_scopes": ["calendar.write", "contacts.read"],
        "token_scopes": ["calendar.read"],
        "required_scopes": ["calendar.write", "calendar.read", "contacts.read"],
    }
    (challenge,) = alice.challenges("create_event")
    assert challenge == (
        'Bearer error="insufficient_scope", scope="calendar.read calendar.write contacts.read", '
        f'{METADATA}, error_description="Token missing required scopes: '
        'calendar.write contacts.read"'
    )


@pytest.mark.parametrize("tool", ["whoami", "list_events", "weather"])
def test_an_expired_token_is_a_tool_error(
    line: Line, conversations: Conversations, tool: str
) -> None:
    expired = conversations[line.name, "expired"]

    assert expired.error(tool) == {
        "error": "invalid_token",
        "error_description": EXPIRED,
    }
    (challenge,) = expired.challenges(tool)
    assert challenge == (
        f'Bearer error="invalid_token", scope="calendar.read", {METADATA}, '
        f'error_description="{EXPIRED}"'
    )


@pytest.mark.parametrize("tool", ["whoami", "list_events", "weather"])
def test_a_missing_token_is_a_tool_error_that_names_the_variable(
    line: Line, conversations: Conversations, tool: str
) -> None:
    nobody = conversations[line.name, "missing"]

    assert nobody.error(tool) == {
        "error": "missing_token",
        "error_description": HINT,
    }
    assert nobody.challenges(tool) == [f'Bearer scope="calendar.read", {METADATA}']
    assert "only public operations can be used" in nobody.log


def test_trusted_stdio_runs_as_the_named_user_and_says_so_in_the_log(
    line: Line, conversations: Conversations
) -> None:
    operator = conversations[line.name, "trusted"]

    assert operator.value("whoami") == "operator"
    assert operator.value("create_event") == (
        "lunch by operator with google-calendar token of operator"
    )
    assert "stdio is trusted" in operator.log
    assert "'operator'" in operator.log
    assert "stdio is trusted" not in conversations[line.name, "good"].log


def test_what_is_injected_is_hidden_over_stdio_too(
    line: Line, conversations: Conversations
) -> None:
    tools = conversations[line.name, "good"].answers["tools"]["tools"]

    assert {tool["name"] for tool in tools} >= set(CALLS)
    assert "user_id" not in json.dumps(tools)
    assert "connection_token" not in json.dumps(tools)


def test_the_token_in_a_file_says_who_calls(line: Line, conversations: Conversations) -> None:
    assert conversations[line.name, "file"].value("whoami") == "alice"


@pytest.mark.parametrize(
    ("situation", "tool", "expected"),
    [
        ("good", "whoami", ("served", None, "alice")),
        ("good", "create_event", ("refused", "insufficient_scope", "alice")),
        ("trusted", "create_event", ("served", None, "operator")),
        ("missing", "whoami", ("refused", "missing_token", None)),
        ("missing", "secrets_of_child", ("served", None, None)),
        ("expired", "whoami", ("refused", "invalid_token:expired", None)),
    ],
)
def test_each_call_over_stdio_leaves_one_record(
    line: Line,
    conversations: Conversations,
    situation: str,
    tool: str,
    expected: tuple[str, str | None, str | None],
) -> None:
    (record,) = conversations[line.name, situation].records(tool)

    assert tuple(map(record.get, ("verdict", "reason", "subject"))) == expected
    assert record["transport"] == "stdio"


@pytest.mark.parametrize("situation", ["good", "expired", "missing", "file", "trusted"])
def test_child_processes_find_no_secret_and_public_tools_stay_open(
    line: Line, conversations: Conversations, situation: str
) -> None:
    found = conversations[line.name, situation].value("secrets_of_child")

    assert found.split() == ["found:", *(["TOOLGUARD_ACCESS_TOKEN_FILE"] * (situation == "file"))]


@pytest.mark.parametrize("situation", ["expired", "missing"])
def test_without_a_good_token_a_server_with_public_tools_is_listed(
    line: Line, conversations: Conversations, situation: str
) -> None:
    tools = conversations[line.name, situation].answers["tools"]["tools"]

    assert {tool["name"] for tool in tools} >= set(CALLS)
