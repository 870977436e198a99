"""Does the server behind read what the guard has decided on, and nothing beside it?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from support.gateways import served_before
from support.lines import LINES, MODERN_PROTOCOL
from support.scripted_upstream import ScriptedUpstream
from support.wire import Caller
from toolguard.testing import LocalIssuer

RULES = """
[rules]
read = "notes.{folder}.read"
erase = "notes.erase"
"prompt:secret" = "notes.secret"
"prompt:of" = "notes.{folder}.read"
"resource:notes://secret*" = "notes.secret"
"resource:file:///srv/private/*" = "notes.secret"
"*" = { authenticated = true }
"""
PROTOCOLS = ("2025-11-25", *([MODERN_PROTOCOL] if LINES[0].modern else []))


@pytest.fixture(scope="module")
def upstream() -> ScriptedUpstream:
    """The server behind; it has operations of every kind."""
    made = ScriptedUpstream("read", "erase", "hour")
    capabilities: dict[str, Any] = {
        each: {} for each in ("tools", "prompts", "resources", "completions")
    }
    made.answers["initialize"] = lambda message: {
        "protocolVersion": message["params"]["protocolVersion"],
        "capabilities": capabilities,
        "serverInfo": {"name": "scripted", "version": "1"},
    }
    prompts = [
        {"name": "secret"},
        {"name": "plain"},
        {"name": "of", "arguments": [{"name": "folder"}]},
    ]
    made.answers["prompts/list"] = lambda _: {"prompts": prompts}
    made.answers["resources/list"] = lambda _: {
        "resources": [
            {"name": "a", "uri": "notes://open/a"},
            {"name": "s", "uri": "notes://secret/s"},
        ]
    }
    made.answers["resources/templates/list"] = lambda _: {
        "resourceTemplates": [{"name": "t", "uriTemplate": "notes://{+path}"}]
    }
    made.answers["resources/read"] = lambda m: {
        "contents": [{"uri": m["params"]["uri"], "text": "served"}]
    }
    made.answers["prompts/get"] = lambda _: {"messages": []}
    made.answers["completion/complete"] = lambda _: {"completion": {"values": ["served"]}}
    return made


@pytest.fixture(scope="module")
def endpoint(
    upstream: ScriptedUpstream, signing: LocalIssuer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The endpoint of a gateway before it."""
    with served_before(
        upstream.app, signing.issuer, RULES, tmp_path_factory.mktemp("rules")
    ) as url:
        yield url


@pytest.fixture(params=PROTOCOLS)
def alice(
    request: pytest.FixtureRequest,
    endpoint: str,
    upstream: ScriptedUpstream,
    signing: LocalIssuer,
    patient: httpx.Client,
) -> Caller:
    """A caller who may read the notes at work."""
    token = signing.mint("alice", scopes=["notes.work.read"])
    made = Caller(patient, endpoint, request.param, token=token)
    if request.param != MODERN_PROTOCOL:
        assert made.open().status == 200
    upstream.requests.clear()
    return made


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("tools/call", {"Arguments": {"folder": "home"}}),
        ("tools/call", {"ARGUMENTS": {"folder": "home"}}),
        ("prompts/get", {"Arguments": {"folder": "home"}}),
    ],
)
def test_arguments_in_another_spelling_stay_at_the_gateway(
    alice: Caller, upstream: ScriptedUpstream, method: str, more: dict[str, Any]
) -> None:
    name = {"tools/call": "read", "prompts/get": "of"}[method]

    alice.send(method, {"name": name, "arguments": {"folder": "work"}, **more})

    sent = [set(each["params"]) for _, each in upstream.sent(method)]
    assert all(members <= {"name", "arguments", "_meta"} for members in sent)


@pytest.mark.parametrize("more", [{"Folder": "home"}, {"other": "home"}])
def test_a_prompt_gets_the_arguments_that_the_rule_reads(
    alice: Caller, upstream: ScriptedUpstream, more: dict[str, str]
) -> None:
    permitted = alice.send("prompts/get", {"name": "of", "arguments": {"folder": "work"}})
    upstream.requests.clear()

    reply = alice.send("prompts/get", {"name": "of", "arguments": {"folder": "work", **more}})

    assert not permitted.is_error
    assert reply.is_error
    assert upstream.sent("prompts/get") == []


OPEN = {"type": "ref/resource", "uri": "notes://{+path}"}


@pytest.mark.parametrize(
    ("method", "known", "more"),
    [
        ("tools/call", {"name": "hour", "arguments": {}}, {"tool": "erase", "task": {"ttl": 1}}),
        ("resources/read", {"uri": "notes://open/a"}, {"url": "notes://secret/s"}),
        ("prompts/get", {"name": "plain"}, {"prompt": "secret"}),
        ("tools/list", {}, {"all": True}),
        (
            "completion/complete",
            {"ref": OPEN, "argument": {"name": "path", "value": ""}},
            {"of": "secret"},
        ),
    ],
)
def test_members_that_mcp_has_not_stay_at_the_gateway(
    alice: Caller,
    upstream: ScriptedUpstream,
    method: str,
    known: dict[str, Any],
    more: dict[str, Any],
) -> None:
    reply = alice.send(method, {**known, **more})

    assert not reply.is_error
    ((_, sent),) = upstream.sent(method)
    assert {key: value for key, value in sent.get("params", {}).items() if key != "_meta"} == known


def test_members_within_members_stay_at_the_gateway(
    alice: Caller, upstream: ScriptedUpstream
) -> None:
    argument = {"name": "path", "value": ""}
    known: dict[str, Any] = {
        "ref": OPEN,
        "argument": argument,
        "context": {"arguments": {"day": "monday"}},
    }
    params = {member: {**value, "of": "secret"} for member, value in known.items()}

    reply = alice.send("completion/complete", params)

    assert not reply.is_error
    ((_, sent),) = upstream.sent("completion/complete")
    assert {member: sent["params"][member] for member in known} == known


@pytest.mark.parametrize(
    "uri",
    [
        "notes://SECRET/s",
        "NOTES://secret/s",
        "notes://%73ecret/s",
        "notes://x@secret/s",
        "notes://x:y@secret/s",
        "file:////srv/private/s",
        "file:///srv//private/s",
        "file:///srv/open/..\\private\\s",
    ],
)
def test_a_uri_in_another_spelling_is_held_against_the_rule(
    alice: Caller, upstream: ScriptedUpstream, uri: str
) -> None:
    reply = alice.send("resources/read", {"uri": uri})

    assert reply.is_error
    assert upstream.sent("resources/read") == []


@pytest.mark.parametrize("name", ["ERASE", "er%61se", "Erase", "secret"])
def test_a_name_in_another_spelling_is_unknown(
    alice: Caller, upstream: ScriptedUpstream, name: str
) -> None:
    assert alice.call(name).is_error
    assert alice.send("prompts/get", {"name": name.upper()}).is_error
    assert upstream.sent("tools/call") == upstream.sent("prompts/get") == []


def test_completions_of_what_is_refused_are_refused(
    alice: Caller, upstream: ScriptedUpstream
) -> None:
    argument = {"name": "a", "value": ""}
    for ref in (
        {"type": "ref/prompt", "name": "secret"},
        {"type": "ref/prompt", "name": "of"},
        {"type": "ref/resource", "uri": "notes://secret/s"},
        {**OPEN, "Uri": "notes://secret/s"},
        {**OPEN, "name": "secret"},
    ):
        assert alice.send("completion/complete", {"ref": ref, "argument": argument}).is_error
    assert upstream.sent("completion/complete") == []
