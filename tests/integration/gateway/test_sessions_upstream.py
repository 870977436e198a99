"""How many sessions does a gateway hold, for how long, and what passes in them?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx
import pytest

from support.gateways import RULES, gateway, write_rules
from support.scripted_upstream import ScriptedUpstream, events, text
from support.wire import Caller, message
from toolguard.testing import LocalIssuer, Loopback

Serving = Callable[..., Callable[..., Caller]]


@pytest.fixture
def serving(
    upstream: ScriptedUpstream, signing: LocalIssuer, patient: httpx.Client, tmp_path: Path
) -> Iterator[Serving]:
    """Serve a gateway with some settings; return what makes callers of it."""
    with Loopback(upstream.app) as behind, Loopback() as loopback:

        def caller(user: str, client: str = "app") -> Caller:
            token = signing.mint(user, scopes=["time.read"], client_id=client)
            made = Caller(patient, f"{loopback.url}/mcp", token=token)
            assert made.open().status == 200
            return made

        def serve(**settings: str) -> Callable[..., Caller]:
            settings["url"] = f'"{behind.url}/mcp"'
            loopback.start(gateway(write_rules(tmp_path, signing.issuer, RULES, **settings)))
            upstream.requests.clear()
            upstream.left.clear()
            return caller

        yield serve


def test_the_least_recently_used_session_makes_room(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(max_callers="2")
    alice, bob, carol = map(caller, ("alice", "bob", "carol"))

    called = [each.call("hour").value for each in (alice, bob, carol, bob, alice)]

    assert called == ["served"] * 5
    assert len(upstream.sent("initialize")) == 4  # alice's had to go
    assert upstream.left.wait(20)


def test_no_session_in_use_is_ended_for_another_caller(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(max_callers="1")
    alice, bob = caller("alice"), caller("bob")
    upstream.answers["tools/call"] = partial(answered_once, upstream)

    with ThreadPoolExecutor(1) as other:
        served = other.submit(alice.call, "hour")
        assert upstream.called.wait(20)
        refused = bob.call("hour")
        upstream.cancelled.set()

    assert served.result().value == "late"
    assert "serves 1 callers now: try again" in refused.content
    assert bob.call("hour").value == "late"


def test_one_user_with_many_clients_leaves_room_for_others(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(max_callers="2")
    alice, again, bob = caller("alice"), caller("alice", "another-app"), caller("bob")
    upstream.answers["tools/call"] = partial(answered_once, upstream)

    with ThreadPoolExecutor(1) as other:
        served = other.submit(alice.call, "hour")
        assert upstream.called.wait(20)
        refused = again.call("hour")
        upstream.cancelled.set()
        bobs = bob.call("hour")

    assert served.result().value == bobs.value == "late"
    assert "serves as many calls of this user as it may now: try again" in refused.content


def test_one_user_with_many_clients_ends_no_session_of_others(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(max_callers="4")
    bob = caller("bob")
    assert bob.call("hour").value == "served"

    for client in range(4):
        assert caller("alice", f"app-{client}").call("hour").value == "served"
    upstream.requests.clear()

    assert bob.call("hour").value == "served"
    assert upstream.sent("initialize") == []


def test_a_session_that_is_not_used_ends(serving: Serving, upstream: ScriptedUpstream) -> None:
    alice = serving(idle="0.05")("alice")

    assert alice.call("hour").value == "served"
    assert upstream.left.wait(20)
    assert alice.call("hour").value == "served"


def test_one_session_serves_all_where_that_is_written(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(shared="true")

    assert [caller(each).call("hour").value for each in ("alice", "bob")] == ["served"] * 2
    assert len(upstream.sent("initialize")) == 1


def test_a_cancelled_call_is_cancelled_at_the_upstream(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    alice = serving()("alice")
    upstream.answers["tools/call"] = partial(answered_once, upstream)
    body = message(alice.protocol, "tools/call", {"name": "hour"})

    with ThreadPoolExecutor(1) as other:
        ended = other.submit(alice.post, body, alice.headers(body))
        assert upstream.called.wait(20)
        alice.send("notifications/cancelled", {"requestId": body["id"]})
        assert upstream.cancelled.wait(20)

    (sent,) = upstream.sent("tools/call")
    ((_, told),) = upstream.sent("notifications/cancelled")
    assert told["params"]["requestId"] == sent[1]["id"]
    assert "late" not in ended.result().content


async def never(_: dict[str, Any]) -> dict[str, Any]:
    await anyio.sleep_forever()
    raise AssertionError


def test_a_slow_call_keeps_the_session_of_a_living_upstream(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    alice = serving(timeout="1")("alice")
    upstream.answers["tools/call"] = never

    slow = alice.call("hour")
    del upstream.answers["tools/call"]
    served = alice.call("hour")

    assert "did not answer within 1 s" in slow.content
    assert served.value == "served"
    assert len(upstream.sent("ping")) == 1
    assert len(upstream.sent("initialize")) == 1


def test_an_upstream_that_answers_nothing_more_is_left_for_a_new_session(
    serving: Serving, upstream: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolguard.gateway.session._PING_WITHIN", 0.5)
    alice = serving(timeout="1")("alice")
    upstream.answers |= {"tools/call": never, "ping": never}

    stuck = alice.call("hour")
    upstream.answers.clear()
    served = alice.call("hour")

    assert "did not answer within 1 s" in stuck.content
    assert served.value == "served"
    assert len(upstream.sent("initialize")) == 2


def test_what_the_upstream_logs_reaches_the_caller(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    alice = serving()("alice")
    logged = {"level": "info", "logger": "upstream", "data": {"said": "hello"}}
    upstream.answers["tools/call"] = lambda sent: events(
        {"jsonrpc": "2.0", "method": "notifications/message", "params": logged},
        {"jsonrpc": "2.0", "id": sent["id"], "result": text("served")},
    )

    reply = alice.call("hour")

    assert [each["params"] for each in reply.messages if "method" in each] == [logged]
    assert reply.value == "served"


def test_the_upstream_may_not_ask_a_caller(serving: Serving, upstream: ScriptedUpstream) -> None:
    alice = serving()("alice")
    asked = {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage"}
    params = {"messages": [], "maxTokens": 1}
    upstream.answers["tools/call"] = lambda sent: events(
        {**asked, "params": params},
        {"jsonrpc": "2.0", "id": sent["id"], "result": text("served")},
    )

    reply = alice.call("hour")

    assert reply.value == "served"
    assert [each.get("method") for each in reply.messages] == [None]
    assert upstream.sent("initialize")[0][1]["params"]["capabilities"] == {}


async def answered_once(upstream: ScriptedUpstream, _: dict[str, Any]) -> dict[str, Any]:
    """Answer when the test says so."""
    await anyio.to_thread.run_sync(upstream.cancelled.wait, 20)
    return text("late")
