"""Signed answers of an introspection endpoint (RFC 9701), and forged ones."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Issuer
from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import LocalIssuer
from toolguard.tokens.introspection import (
    BasicClient,
    BearerClient,
    HTTPAnswer,
    Introspection,
    IntrospectionVerifier,
)
from toolguard.tokens.keys import StaticKeys

NOW = 1_800_000_000
ISSUER, SERVER = "https://a.test", "https://mcp.test/mcp"
LOCAL = LocalIssuer(ISSUER, algorithm="ES256")
OTHER = LocalIssuer(ISSUER, algorithm="ES256")
MEDIA_TYPE = "application/token-introspection+jwt"
TYPED = {"typ": "token-introspection+jwt"}
MEMBERS: dict[str, Any] = {
    "active": True,
    "iss": ISSUER,
    "sub": "alice",
    "aud": SERVER,
    "exp": NOW + 300,
}
SIGNED: dict[str, Any] = {
    "iss": ISSUER,
    "aud": "server",
    "iat": NOW,
    "token_introspection": MEMBERS,
}


def answer_of(
    claims: Mapping[str, Any], *, by: LocalIssuer = LOCAL, headers: Mapping[str, Any] = TYPED
) -> bytes:
    return by.sign(claims, headers=headers).encode()


def ask(
    body: bytes, *, media_type: str = MEDIA_TYPE, client: Any = None, signed: bool = True
) -> str | None:
    sent: list[str] = []

    async def post(
        url: str, form: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer | str:
        sent.append(headers["Accept"])
        return HTTPAnswer(200, "", body, media_type)

    asking = Introspection(
        client or BasicClient("server", "secret"), endpoint=f"{ISSUER}/i", signed=signed
    )
    described = Issuer(ISSUER, introspection=asking, keys=StaticKeys(LOCAL.jwks()))
    verifier = IntrospectionVerifier(
        described, audience=SERVER, post=post, clock=lambda: float(NOW)
    )
    try:
        return asyncio.run(verifier.verify("opaque")).user_id
    finally:
        assert sent == [MEDIA_TYPE if signed else "application/json"]


@pytest.mark.parametrize(
    ("changes", "client"),
    [
        ({}, None),
        ({"aud": SERVER}, BearerClient("own")),
        ({"aud": [SERVER]}, None),
        ({"iat": NOW - 5}, None),
    ],
)
def test_a_signed_answer_is_read(changes: dict[str, Any], client: Any) -> None:
    assert ask(answer_of({**SIGNED, **changes}), client=client) == "alice"


def test_a_token_that_is_not_active_is_refused() -> None:
    with pytest.raises(InvalidTokenError, match="not active"):
        ask(answer_of({**SIGNED, "token_introspection": {"active": False}}))


def unsigned(claims: Mapping[str, Any]) -> bytes:
    head = json.dumps({"alg": "none", **TYPED}).encode()
    parts = (head, json.dumps(claims).encode(), b"")
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)


FORGED: dict[str, Callable[[], bytes]] = {
    "no algorithm": lambda: unsigned(SIGNED),
    "a secret": lambda: answer_of(SIGNED, headers={**TYPED, "alg": "HS256"}),
    "another key": lambda: answer_of(SIGNED, by=OTHER),
    "another key under the name of a known one": lambda: answer_of(
        SIGNED, by=OTHER, headers={**TYPED, "kid": LOCAL.key_id}
    ),
    "a key of its own": lambda: answer_of(SIGNED, headers={**TYPED, "jwk": {}}),
    "an access token": lambda: LOCAL.mint("alice").encode(),
    "a plain JWT": lambda: answer_of(SIGNED, headers={"typ": "JWT"}),
    "another issuer": lambda: answer_of({**SIGNED, "iss": "https://b.test"}),
    "no issuer": lambda: answer_of({**SIGNED, "iss": None}),
    "another audience": lambda: answer_of({**SIGNED, "aud": "other-server"}),
    "a further audience": lambda: answer_of({**SIGNED, "aud": ["server", "other-server"]}),
    "no audience": lambda: answer_of({**SIGNED, "aud": None}),
    "an old answer": lambda: answer_of({**SIGNED, "iat": NOW - 60}),
    "an answer of tomorrow": lambda: answer_of({**SIGNED, "iat": NOW + 60}),
    "no time": lambda: answer_of({name: SIGNED[name] for name in SIGNED if name != "iat"}),
    "an ended answer": lambda: answer_of({**SIGNED, "exp": NOW - 60}),
    "no members": lambda: answer_of({**SIGNED, "token_introspection": None}),
    "members beside their place": lambda: answer_of({**MEMBERS, "aud": "server", "iat": NOW}),
    "members in a text": lambda: answer_of({**SIGNED, "token_introspection": "active"}),
    "active as a text": lambda: answer_of({**SIGNED, "token_introspection": {"active": "true"}}),
    "plain JSON": lambda: json.dumps(MEMBERS).encode(),
    "nothing": lambda: b"",
    "other bytes": lambda: b"\xff.\xff.\xff",
    "an encrypted answer": lambda: b"a.b.c.d.e",
    "a changed answer": lambda: answer_of(SIGNED)[:-4] + b"AAAA",
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_an_answer_that_is_not_accepted_is_an_outage(make: Callable[[], bytes]) -> None:
    with pytest.raises(KeysUnavailableError) as caught:
        ask(make())
    assert "opaque" not in str(caught.value)


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"iss": "https://b.test"}, "issuer"),
        ({"aud": "https://other.test"}, "audience"),
        ({"exp": NOW - 60}, "expired"),
        ({"cnf": {"jkt": "x"}}, "bound"),
        ({"sub": ""}, "claims"),
    ],
)
def test_the_members_of_a_signed_answer_are_checked(members: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        ask(answer_of({**SIGNED, "token_introspection": {**MEMBERS, **members}}))
    assert caught.value.reason == reason


def test_an_unsigned_answer_is_told_apart_by_its_media_type() -> None:
    with pytest.raises(KeysUnavailableError, match=r"leave signed=True out"):
        ask(answer_of(SIGNED), media_type="application/json")
    with pytest.raises(KeysUnavailableError, match=r"is signed: write .*signed=True"):
        ask(answer_of(SIGNED), signed=False)
    with pytest.raises(KeysUnavailableError, match="cannot be read"):
        ask(answer_of(SIGNED), signed=False, media_type="application/json")


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("media_type", [MEDIA_TYPE, "application/jwt", "application/json"])
@pytest.mark.parametrize("body", [b"eyJ.a.b.c.d", b" eyJ..b.c.d\n"])
def test_an_encrypted_answer_says_what_to_change_at_the_server(
    body: bytes, media_type: str, signed: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(KeysUnavailableError, match="is encrypted") as caught:
        ask(body, media_type=media_type, signed=signed)

    assert caught.value.reason == "encrypted"
    assert "without introspection_encrypted_response_alg" in caplog.text
    assert "eyJ" not in caplog.text


@given(
    st.dictionaries(
        st.sampled_from(["iss", "aud", "iat", "exp", "nbf", "token_introspection"]),
        st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
        min_size=1,
    )
)
def test_any_change_of_an_answer_is_an_outage_or_harmless(changes: dict[str, Any]) -> None:
    try:
        served = ask(answer_of({**SIGNED, **changes}))
    except KeysUnavailableError:
        return
    assert served == "alice"
    assert {**SIGNED, **changes}["iss"] == ISSUER
    assert {**SIGNED, **changes}["token_introspection"] == MEMBERS
