"""Does a gateway serve a server that speaks over stdio, by rules and as it is?"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import httpx
import pytest

from support.forked import Forked
from support.gateways import RULES, gateway, write_rules
from support.lines import LINES, MODERN_PROTOCOL
from support.wire import Caller
from toolguard.testing import LocalIssuer, Loopback

PROTOCOLS = ("2025-11-25", *([MODERN_PROTOCOL] if LINES[0].modern else []))
Call = Callable[..., Caller]


@pytest.fixture(scope="module")
def endpoint(
    signing: LocalIssuer, forked: Forked, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The endpoint of a gateway."""
    path = write_rules(tmp_path_factory.mktemp("gateway"), signing.issuer, RULES)
    command = forked.command("-m", "support.upstream_server", LINES[0].name)
    secrets = {"TOOLGUARD_SECRET": "a secret of this gateway", "OTHER_TEST": "theirs"}
    with Loopback(gateway(path, secrets, command=command)) as loopback:
        yield f"{loopback.url}/mcp"


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    """Every revision that a caller may speak."""
    return str(request.param)


@pytest.fixture
def call(protocol: str, endpoint: str, signing: LocalIssuer, patient: httpx.Client) -> Call:
    """Make callers of the gateway."""

    def caller(user: str = "alice", *, client: str = "test-client") -> Caller:
        token = signing.mint(user, client_id=client)
        made = Caller(patient, endpoint, protocol, token=token)
        if protocol != MODERN_PROTOCOL:
            assert made.open().status == 200
        return made

    return caller


def test_a_caller_steps_up_and_is_served(call: Call, signing: LocalIssuer) -> None:
    caller = call()
    token, caller.token = caller.token, None

    stranger = caller.call("hour")
    caller.token = token
    refused = caller.call("hour")
    caller.token = signing.mint("alice", scopes=["time.read"])
    served = caller.call("hour")

    assert stranger.status == 401
    assert "resource_metadata=" in str(stranger.challenge)
    assert refused.status == 403
    assert 'error="insufficient_scope", scope="time.read"' in str(refused.challenge)
    assert served.value == "noon"


def test_lists_carry_requirements(call: Call) -> None:
    tools = call().tools()

    assert tools["hour"]["_meta"]["toolguard/requires"]["scopes"] == [["time.read"]]
    assert tools["hour"]["description"] == "Say what time it is."
    assert "outputSchema" in tools["hour"]


def test_resources_prompts_and_completions_pass(call: Call) -> None:
    caller = call()

    resource = caller.send("resources/read", {"uri": "notes://today"}).result
    fitting = caller.send("resources/read", {"uri": "notes://work/all"}).result
    templates = caller.send("resources/templates/list").result["resourceTemplates"]
    prompt = caller.send("prompts/get", {"name": "plan", "arguments": {"day": "monday"}}).result
    about = {"type": "ref/prompt", "name": "plan"}
    argument = {"name": "day", "value": ""}
    completed = caller.send("completion/complete", {"ref": about, "argument": argument}).result

    assert resource["contents"][0]["text"] == "buy milk"
    assert fitting["contents"][0]["text"] == "all of work"
    assert [each["uriTemplate"] for each in templates] == ["notes://{folder}/all"]
    assert prompt["messages"][0]["content"]["text"] == "Plan monday"
    assert completed["completion"]["values"] == ["monday", "tuesday"]


def test_an_error_of_the_upstream_is_passed_on(call: Call) -> None:
    caller = call()

    reply = caller.call("read", {"folder": {"not": "text"}})
    unknown = caller.send("prompts/get", {"name": "delete_all"})

    assert reply.is_error
    assert "folder" in reply.content
    assert unknown.is_error


def test_progress_reaches_the_caller_before_the_result(call: Call) -> None:
    reply = call().call("report", progressToken="mine")

    sent = [each["params"] for each in reply.messages if "method" in each]
    assert [(each["progressToken"], each["progress"]) for each in sent] == [
        ("mine", 1),
        ("mine", 3),
    ]
    assert sent[0]["message"] == "begun"
    assert reply.value == "reported"


def test_the_upstream_gets_no_secret_of_the_gateway(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = call()
    found = caller.call("variables").value.split()

    assert "PATH" in found
    assert not [each for each in found if each.startswith(("TOOLGUARD_", "DESCOPE_", "OTHER"))]
    assert str(caller.token) not in " ".join(found)


def test_no_caller_sees_the_session_of_another(call: Call) -> None:
    alice, bob = call("alice"), call("bob")
    other_client = call("alice", client="another-client")

    counts = [int(each.call("count").value) for each in (alice, alice, bob, other_client)]
    again = [int(each.call("count").value) for each in (alice, bob, other_client)]

    assert counts[1] == counts[0] + 1
    assert again == [counts[1] + 1, counts[2] + 1, counts[3] + 1]


def test_an_upstream_that_ends_is_said_and_started_again(call: Call) -> None:
    caller = call("bob")

    before = caller.call("count").value
    lost = caller.call("end")
    after = caller.call("count").value

    assert "has ended: it is started again with the next request" in lost.content
    assert lost.is_error
    assert int(before) >= 1
    assert after == "1"


def test_bytes_that_are_not_mcp_end_no_session(call: Call) -> None:
    caller = call("carol")

    before = int(caller.call("count").value)
    heard = caller.call("noise").value

    assert heard == "heard"
    assert int(caller.call("count").value) == before + 1


def test_an_unknown_tool_is_refused_by_name(call: Call) -> None:
    reply = call().call("not_there")

    assert reply.body["error"]["code"] == -32602
