"""What does the official SDK learn of a token that a verifier of toolguard's has accepted?"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

import pytest
from mcp.server.auth.provider import AccessToken

from support.callers import ISSUER, NOW, TOKEN, Tokens, person
from toolguard import KeysUnavailableError, Principal, ToolGuard
from toolguard.frameworks.sdk_auth import SDKTokenVerifier

AUDIENCE = "https://mcp.example.com/mcp"


class Ours(Tokens):
    """A verifier that knows which server this is."""

    audiences = ("HTTPS://mcp.example.com/mcp",)


def asked(verifying: Any, token: str = TOKEN) -> AccessToken | None:
    return asyncio.run(SDKTokenVerifier(verifying).verify_token(token))


def answer(principal: Principal, kind: type[Tokens] = Tokens) -> AccessToken:
    found = asked(kind({TOKEN: principal}))
    assert found is not None
    return found


def test_an_access_token_says_who_calls_by_which_client_and_who_vouches() -> None:
    assert answer(person("alice", "a", "b", claims={"act": "x"})) == AccessToken(
        token=TOKEN,
        client_id="desktop",
        scopes=["a", "b"],
        expires_at=int(NOW + 60),
        subject="alice",
        claims={"act": "x", "iss": ISSUER},
    )


def test_a_caller_without_user_and_client_stays_one() -> None:
    found = answer(person(None, client_id=None))

    assert (found.subject, found.client_id) == (None, "")


def test_a_bound_token_is_no_bearer_token_of_a_framework() -> None:
    assert asked(Tokens({TOKEN: person("alice", jkt="thumbprint")})) is None


def test_a_refused_token_is_none_and_the_reason_goes_to_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "toolguard"):
        assert asked(Tokens(), "a-forged-token") is None

    assert "signature" in caplog.text
    assert "a-forged-token" not in caplog.text


def test_an_outage_is_no_verdict() -> None:
    class Down:
        async def verify(self, token: str) -> Principal:
            raise KeysUnavailableError("The issuer cannot be reached")

    with pytest.raises(KeysUnavailableError):
        asked(Down())


@pytest.mark.parametrize("expires_at", [0.0, -5.0, 0.9])
def test_an_expiry_long_past_is_not_taken_for_none_at_all(expires_at: float) -> None:
    assert answer(person(expires_at=expires_at)).expires_at == 1


def test_a_token_that_never_expires_has_to_say_so() -> None:
    assert answer(person(expires_at=math.inf)).expires_at is None


@pytest.mark.parametrize(
    ("audience", "resource"),
    [
        (AUDIENCE, AUDIENCE),
        ([AUDIENCE], AUDIENCE),
        (["https://other.example.com", AUDIENCE], None),
        ([], None),
        (None, None),
        (7, None),
    ],
)
def test_a_verifier_that_does_not_say_which_server_this_is_leaves_no_choice(
    audience: object, resource: str | None
) -> None:
    assert answer(person(claims={"aud": audience})).resource == resource


@pytest.mark.parametrize(
    ("audience", "resource"),
    [
        (["https://other.example.com", AUDIENCE], AUDIENCE),
        ("https://other.example.com", None),
        ([7, AUDIENCE], None),
    ],
)
def test_of_several_audiences_the_resource_is_the_one_of_this_server(
    audience: object, resource: str | None
) -> None:
    assert answer(person(claims={"aud": audience}), Ours).resource == resource


def test_a_guard_knows_which_resource_its_server_is() -> None:
    tokens = Tokens({TOKEN: person(claims={"aud": "api://calendar"})})
    guard = ToolGuard(verifier=tokens, audience="api://calendar", resource=AUDIENCE)
    found = asked(guard)

    assert found is not None
    assert found.resource == AUDIENCE


def test_a_guard_is_asked_for_its_verifier_at_every_call() -> None:
    guard = ToolGuard(verifier=Tokens(), audience=AUDIENCE)
    verifier = SDKTokenVerifier(guard)
    guard.verifier = Tokens({TOKEN: person()})

    assert asyncio.run(verifier.verify_token(TOKEN)) is not None
