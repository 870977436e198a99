"""Does a gateway serve a server that is served elsewhere, and show it nothing of its callers?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import RedirectResponse, Response

from support.gateways import gateway, write_rules
from support.scripted_upstream import ScriptedUpstream, text
from support.wire import Caller, message
from toolguard.gateway.session import UpstreamError
from toolguard.testing import LocalIssuer, Loopback

RULES = """
[rules]
hour = "time.read"
read = "notes.{folder}.read"
"""

Serving = Callable[..., Caller]


@pytest.fixture
def upstream() -> ScriptedUpstream:
    """The server behind."""
    return ScriptedUpstream("hour", "read")


@pytest.fixture
def serving(
    upstream: ScriptedUpstream, signing: LocalIssuer, patient: httpx.Client, tmp_path: Path
) -> Iterator[Serving]:
    """Serve a gateway before the upstream; return a caller with all scopes."""
    with Loopback(upstream.app) as behind, Loopback() as loopback:

        def serve(environ: dict[str, str] | None = None, **settings: str) -> Caller:
            url = f"{behind.url}/mcp"
            path = write_rules(tmp_path, signing.issuer, RULES, url=f'"{url}"', **settings)
            loopback.start(gateway(path, environ))
            token = signing.mint("alice", scopes=["time.read", "notes.work.read"])
            caller = Caller(patient, f"{loopback.url}/mcp", token=token)
            assert caller.open().status == 200
            return caller

        yield serve


def test_a_permitted_call_reaches_the_upstream_and_a_refused_one_does_not(
    serving: Serving, upstream: ScriptedUpstream, signing: LocalIssuer
) -> None:
    caller = serving()
    held, caller.token = caller.token, signing.mint("alice")

    refused = caller.call("hour")
    reached = len(upstream.sent("tools/call"))
    caller.token = held
    served = caller.call("hour")

    assert (refused.status, reached) == (403, 0)
    assert served.value == "served"
    assert len(upstream.sent("tools/call")) == 1


def test_no_header_of_a_caller_reaches_the_upstream(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving()
    body = message(caller.protocol, "tools/call", {"name": "hour", "_meta": {"kept": 1}})
    own = {"cookie": "a=b", "x-forwarded-user": "root", "dpop": "proof", "traceparent": "x"}

    reply = caller.post(body, {**caller.headers(body), **own})

    assert reply.value == "served"
    for headers, sent in upstream.requests:
        assert not {"authorization", "cookie", "x-forwarded-user", "dpop"} & headers.keys()
        assert str(caller.token) not in f"{headers} {sent}"
        assert caller.session not in headers.values()
    assert upstream.sent("tools/call")[0][1]["params"] == {"name": "hour", "_meta": {"kept": 1}}


def test_a_shared_credential_comes_from_the_environment(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving({"UPSTREAM_TOKEN": "shared-secret"}, token_env='"UPSTREAM_TOKEN"')

    assert caller.call("hour").value == "served"
    assert {headers.get("authorization") for headers, _ in upstream.requests} == {
        "Bearer shared-secret"
    }


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_takes_no_credential_along(
    serving: Serving, upstream: ScriptedUpstream, status: int
) -> None:
    elsewhere = ScriptedUpstream("hour")
    with Loopback(elsewhere.app) as other:
        caller = serving({"UPSTREAM_TOKEN": "shared-secret"}, token_env='"UPSTREAM_TOKEN"')
        upstream.answers["tools/call"] = lambda _: RedirectResponse(f"{other.url}/mcp", status)

        reply = caller.call("hour")

    assert reply.is_error
    assert "shared-secret" not in reply.content
    assert elsewhere.requests == []


def test_a_proxy_gets_nothing_that_is_for_this_machine(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = serving({"UPSTREAM_TOKEN": "shared-secret"}, token_env='"UPSTREAM_TOKEN"')
    proxy = ScriptedUpstream("hour")
    with Loopback(proxy.app) as other:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, other.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)

        assert caller.call("hour").value == "served"
    assert proxy.requests == []


@pytest.mark.parametrize(
    "answered",
    [
        Response("{", media_type="application/json"),
        Response("[" * 100_000, media_type="application/json"),
        Response(b"\xff\xfe", media_type="application/json"),
        Response("event: message\ndata: 5\n\n", media_type="text/event-stream"),
        Response("<html>", media_type="text/html"),
        Response(status_code=500),
    ],
)
def test_an_answer_that_is_not_mcp_is_an_error_and_ends_there(
    serving: Serving, upstream: ScriptedUpstream, answered: Response
) -> None:
    caller = serving({"UPSTREAM_TOKEN": "shared-secret"}, token_env='"UPSTREAM_TOKEN"', timeout="1")
    upstream.answers["tools/call"] = lambda _: answered

    reply = caller.call("hour")
    upstream.answers.clear()

    assert reply.is_error
    assert "shared-secret" not in reply.content
    assert caller.call("hour").value == "served"


@pytest.mark.parametrize(
    "result",
    [{}, {"content": 5}, {"content": [{"type": "made-up"}]}, {"resultType": "input_required"}],
)
def test_a_result_that_is_no_result_of_a_tool_is_an_error(
    serving: Serving, upstream: ScriptedUpstream, result: dict[str, Any]
) -> None:
    caller = serving()
    asked = {"method": "elicitation/create", "params": {"url": "https://evil.example"}}
    upstream.answers["tools/call"] = lambda _: {**result, "inputRequests": {"a": asked}}

    reply = caller.call("hour")

    assert reply.is_error or "evil" not in reply.content


def test_an_answer_to_another_request_is_not_taken_for_this_one(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving(timeout="1")
    upstream.answers["tools/call"] = lambda sent: {
        "jsonrpc": "2.0",
        "id": sent["id"] + 1,
        "result": text("another's"),
    }

    lost = caller.call("hour")
    del upstream.answers["tools/call"]

    assert "another's" not in lost.content
    assert "did not answer within 1 s" in lost.content
    assert caller.call("hour").value == "served"


def test_the_upstream_does_not_say_where_callers_sign_in(
    serving: Serving, upstream: ScriptedUpstream
) -> None:
    caller = serving()
    challenge = 'Bearer resource_metadata="https://evil.example"'
    meta = {"mcp/www_authenticate": [challenge], "kept": True}
    upstream.answers["tools/call"] = lambda _: {**text("no"), "isError": True, "_meta": meta}

    reply = caller.call("hour")

    assert reply.result["_meta"] == {"kept": True}
    assert "evil" not in reply.content


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "wants another credential"), (403, "refuses this credential"), (404, "no such session")],
)
def test_a_refusal_of_the_upstream_is_said_and_does_not_last(
    serving: Serving, upstream: ScriptedUpstream, status: int, said: str
) -> None:
    caller = serving()
    assert caller.call("hour").value == "served"
    upstream.answers["tools/call"] = lambda _: Response(status_code=status)

    reply = caller.call("hour")
    upstream.answers.clear()

    assert reply.is_error
    assert reply.status == 200
    assert reply.challenge is None
    assert f"answers {status}: " in reply.content
    assert said in reply.content
    assert caller.call("hour").value == "served"


@pytest.mark.parametrize(
    "arguments",
    [
        {"folder": "work", "Folder": "private"},
        {"folder": "work", "f\u043elder": "private"},
        {"folder": "work", "directory": "private"},
        {"Folder": "work"},
        {},
    ],
)
def test_arguments_that_could_be_taken_for_others_are_refused(
    serving: Serving, upstream: ScriptedUpstream, arguments: dict[str, str]
) -> None:
    caller = serving()

    reply = caller.call("read", arguments)

    assert reply.is_error
    assert not upstream.sent("tools/call")


def test_an_argument_is_held_against_the_rule(serving: Serving, upstream: ScriptedUpstream) -> None:
    caller = serving()

    permitted = caller.call("read", {"folder": "work"})
    refused = caller.call("read", {"folder": "private"})

    assert permitted.value == "served"
    assert refused.status == 403
    assert refused.body["missing_scopes"] == ["notes.private.read"]
    assert [each["params"]["arguments"] for _, each in upstream.sent("tools/call")] == [
        {"folder": "work"}
    ]


def test_an_upstream_that_is_not_there_is_said_at_start(
    signing: LocalIssuer, tmp_path: Path
) -> None:
    with Loopback() as nowhere:
        url = f"{nowhere.url}/mcp"
    path = write_rules(tmp_path, signing.issuer, RULES, url=f'"{url}"')

    with pytest.raises(UpstreamError, match="cannot be reached"):
        gateway(path)
