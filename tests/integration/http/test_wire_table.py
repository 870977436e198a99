"""Does every refusal reach the wire as the standards say, in every mode of every line?"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from support.calendar_server import calendar
from support.lines import LEGACY_PROTOCOLS, MODERN_PROTOCOL, STATEFUL_MODES, Guarding, Line, Serve
from support.wire import Caller, Connect, Reply, asked_for
from toolguard import KeysUnavailableError, Principal, Refusals
from toolguard.http.challenge import ChallengeScopes
from toolguard.testing import LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'


def test_an_allowed_call_runs_as_the_user_of_its_token(
    caller: Connect, issuer: LocalIssuer
) -> None:
    scopes = ["calendar.write", "calendar.read", "contacts.read"]
    alice = caller(issuer.mint("alice", scopes=scopes))

    assert alice.call("whoami").value == "alice"
    assert alice.call("list_events", {"day": "monday"}).value == "monday of alice"
    assert (
        alice.call("create_event", {"title": "lunch"}).value
        == "lunch by alice with google-calendar token of alice"
    )


def test_no_credentials_are_challenged_without_an_error(caller: Connect) -> None:
    reply = caller(None).call("list_events", {"day": "monday"})

    assert reply.status == 401
    assert reply.challenge == f'Bearer scope="calendar.read", {METADATA}'
    assert reply.body == {
        "error": "missing_token",
        "error_description": "This operation needs an access token",
    }


@pytest.mark.parametrize("value", ["Bearer", "bearer", "Bearer two tokens", "Bearer a,b"])
def test_a_malformed_authorization_header_is_an_invalid_request(
    stranger: Caller, value: str
) -> None:
    reply = stranger.post({}, {**stranger.headers(), "authorization": value})

    assert reply.status == 400
    assert reply.challenge == (
        f'Bearer error="invalid_request", {METADATA}, '
        'error_description="The Authorization header must be: Bearer, a space, a token"'
    )
    assert reply.body["error"] == "invalid_request"


def test_two_authorization_headers_are_an_invalid_request(
    stranger: Caller, issuer: LocalIssuer
) -> None:
    sent = [("authorization", f"Bearer {issuer.mint(user)}") for user in ("alice", "bob")]
    reply = Reply.of(stranger.http.post(stranger.endpoint, json={}, headers=sent))

    assert reply.status == 400
    assert reply.refusal == {
        "error": "invalid_request",
        "error_description": "Send exactly one Authorization header",
    }


def test_credentials_of_another_scheme_count_as_none(stranger: Caller) -> None:
    reply = stranger.post({}, {**stranger.headers(), "authorization": "Basic YWxpY2U6MTIz"})

    assert reply.status == 401
    assert reply.challenge == f'Bearer scope="calendar.read", {METADATA}'


def test_a_token_in_the_query_counts_as_none(stranger: Caller, issuer: LocalIssuer) -> None:
    stranger.endpoint += f"?access_token={issuer.mint()}"

    assert stranger.call("whoami").status == 401


@pytest.mark.parametrize(
    ("made", "description"),
    [
        ({"expires_in": -600}, "The token has expired"),
        ({"aud": "https://mcp.test/other"}, "The token is for another audience"),
        ({"iss": "https://issuer.test/"}, "The token is of another issuer"),
    ],
)
def test_a_token_that_does_not_hold_up_is_an_invalid_token(
    stranger: Caller, issuer: LocalIssuer, made: dict[str, Any], description: str
) -> None:
    stranger.token = issuer.mint(scopes=["calendar.read"], **made)
    reply = stranger.call("list_events", {"day": "monday"})

    assert reply.status == 401
    assert reply.challenge == (
        f'Bearer error="invalid_token", scope="calendar.read", {METADATA}, '
        f'error_description="{description}"'
    )
    assert reply.body == {"error": "invalid_token", "error_description": description}


def test_something_that_is_no_token_is_an_invalid_token(stranger: Caller) -> None:
    stranger.token = "opaque"
    reply = stranger.call("whoami")

    assert reply.status == 401
    assert reply.body["error"] == "invalid_token"
    assert "opaque" not in reply.content + str(reply.headers)


@pytest.mark.parametrize(
    ("tool", "arguments"), [("list_events", {"day": "monday"}), ("describe", {"note": "hi"})]
)
def test_a_missing_scope_is_403_for_sync_and_async_tools(
    caller: Connect, issuer: LocalIssuer, tool: str, arguments: dict[str, str]
) -> None:
    alice = caller(issuer.mint(scopes=["profile", "calendar.write"]))
    reply = alice.call(tool, arguments)

    assert reply.status == 403
    named = asked_for(alice.protocol, "calendar.read", "profile calendar.write")
    assert reply.challenge == (
        f'Bearer error="insufficient_scope", scope="{named}", {METADATA}, '
        'error_description="Token missing required scopes: calendar.read"'
    )
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert reply.body == {
        "error": "insufficient_scope",
        "scope": "profile calendar.write calendar.read",
        "error_description": "Token missing required scopes: calendar.read",
        "missing_scopes": ["calendar.read"],
        "token_scopes": ["profile", "calendar.write"],
        "required_scopes": ["calendar.read"],
    }


def test_one_challenge_names_every_scope_of_the_stacked_guards(
    caller: Connect, issuer: LocalIssuer
) -> None:
    alice = caller(issuer.mint(scopes=["calendar.read"]))
    reply = alice.call("create_event", {"title": "lunch"})

    assert reply.status == 403
    required = "calendar.write calendar.read contacts.read"
    named = asked_for(alice.protocol, required, "calendar.read")
    assert reply.challenge == (
        f'Bearer error="insufficient_scope", scope="{named}", '
        f'{METADATA}, error_description="Token missing required scopes: '
        'calendar.write contacts.read"'
    )
    assert reply.body["missing_scopes"] == ["calendar.write", "contacts.read"]
    assert reply.body["scope"] == "calendar.read calendar.write contacts.read"


def test_after_a_refusal_the_next_call_is_served(caller: Connect, issuer: LocalIssuer) -> None:
    alice = caller(issuer.mint(scopes=["profile"]))

    assert [alice.call("list_events", {"day": "1"}).status for _ in range(3)] == [403, 403, 403]
    assert alice.call("whoami").value == "alice"


def test_an_unknown_tool_gets_the_frameworks_own_error(
    caller: Connect, issuer: LocalIssuer
) -> None:
    reply = caller(issuer.mint()).call("no_such_tool")

    assert reply.status in (200, 400)  # 2026-07-28 maps invalid parameters to 400
    assert reply.challenge is None
    assert "no_such_tool" in reply.content
    assert "nknown tool" in reply.content
    assert "toolguard" not in reply.content.lower()


def test_invalid_arguments_get_the_frameworks_own_error(
    caller: Connect, issuer: LocalIssuer
) -> None:
    reply = caller(issuer.mint(scopes=["calendar.read"])).call("list_events", {"dya": "monday"})

    assert reply.challenge is None
    assert "day" in reply.tool_error


class _Outage:
    """A verifier whose keys cannot be had."""

    async def verify(self, token: str) -> Principal:
        raise KeysUnavailableError("The signing keys cannot be fetched", retry_after=17)


def test_an_outage_of_the_keys_is_a_503_without_a_challenge(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    url = serve(line.http_app(guarding(verifier=_Outage()).protect(calendar(line))))
    reply = Caller(http, f"{url}/mcp", token=issuer.mint()).open()

    assert reply.status == 503
    assert reply.headers["retry-after"] == "17"
    assert reply.challenge is None
    assert reply.body == {
        "error": "temporarily_unavailable",
        "error_description": "The signing keys cannot be fetched",
    }


def test_an_outage_can_be_a_tool_error_instead(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    guard = guarding(verifier=_Outage(), refusals=Refusals(outages="tool-error"))
    url = serve(line.http_app(guard.protect(calendar(line)), stateless=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint())

    said = {
        "error": "temporarily_unavailable",
        "error_description": "The signing keys cannot be fetched",
    }
    assert json.loads(alice.call("whoami").tool_error) == said
    listed = alice.send("tools/list")
    assert (listed.status, listed.refusal) == (200, said)
    assert alice.post({}, alice.headers()).status == 400
    # fastmcp routes no GET to a server without sessions.
    assert alice.http.get(alice.endpoint, headers=alice.headers()).status_code in (405, 503)


@pytest.mark.parametrize(
    ("setting", "scopes"),
    [("combined", "profile calendar.write calendar.read"), ("required", "calendar.read")],
)
@pytest.mark.parametrize("protocol", [*LEGACY_PROTOCOLS, MODERN_PROTOCOL])
def test_a_setting_says_which_scopes_challenges_name(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    *,
    setting: ChallengeScopes,
    scopes: str,
    protocol: str,
) -> None:
    if protocol == MODERN_PROTOCOL and not line.modern:
        pytest.skip("the line does not speak it")
    guard = guarding(refusals=Refusals(challenge_scopes=setting))
    url = serve(line.http_app(guard.protect(calendar(line)), stateless=True))
    token = issuer.mint(scopes=["profile", "calendar.write"])
    alice = Caller(http, f"{url}/mcp", protocol, token=token)

    assert alice.call("list_events", {"day": "monday"}).challenge == (
        f'Bearer error="insufficient_scope", scope="{scopes}", '
        f'{METADATA}, error_description="Token missing required scopes: calendar.read"'
    )


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_the_owners_stream_begins_before_anything_is_sent_on_it(
    caller: Connect, issuer: LocalIssuer
) -> None:
    alice = caller(issuer.mint("alice"))

    with alice.http.stream("GET", alice.endpoint, headers=alice.headers()) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert alice.call("whoami").value == "alice"


def test_other_methods_do_not_get_past_the_guard(stranger: Caller) -> None:

    for method in ("GET", "PUT", "DELETE", "HEAD"):
        response = stranger.http.request(method, stranger.endpoint)
        assert response.status_code in (401, 405), method
