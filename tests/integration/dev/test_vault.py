"""The vault: whose tokens it gives, to whom, and in which shapes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.vaultrooms import (
    APP,
    KEY,
    NOW,
    READ,
    WRITE,
    Room,
    bearer,
    body,
    error,
    grant,
    token,
)
from toolguard.dev.vault.outbound_apps import FETCH_SCOPE
from toolguard.errors import KeysUnavailableError
from toolguard.principal import Principal
from toolguard.testing.proofs import ProofKey

# Tokens of a user --------------------------------------------------------------------------------


def test_a_user_gets_their_own_token_by_scopes_and_the_latest() -> None:
    room = Room()
    by_scopes = room.post("/user/token", bearer(token()), body(scopes=[WRITE]))
    latest = room.post("/user/token/latest", bearer(token()), body())
    expected = {
        "id": by_scopes.json()["token"]["id"],
        "appId": "google-calendar",
        "userId": "alice",
        "tokenSub": "alice@gmail",
        "accessToken": "ya29.alice",
        "accessTokenType": "Bearer",
        "accessTokenExpiry": "1800000600",
        "hasRefreshToken": True,
        "refreshToken": "",
        "scopes": [READ, WRITE],
    }

    assert expected["id"].startswith("OT")
    assert (by_scopes.status_code, by_scopes.json()) == (200, {"token": expected})
    assert (latest.status_code, latest.json()) == (200, {"token": expected})
    assert latest.headers["cache-control"] == "no-store"


def test_nobody_gets_the_token_of_another_user() -> None:
    room = Room()

    for path in ("/user/token", "/user/token/latest"):
        answer = room.post(path, bearer(token("bob")), body("alice", scopes=[READ]))
        assert error(answer) == (403, "E403")


def test_a_token_without_the_fetch_scope_gets_nothing() -> None:
    answer = Room().post("/user/token/latest", bearer(token("alice", "mcp:calendar.write")), body())

    assert error(answer) == (403, "E403")
    assert FETCH_SCOPE in answer.json()["errorMessage"]


def test_the_policy_sees_caller_app_and_scopes_and_has_the_last_word() -> None:
    seen: list[tuple[str | None, str, tuple[str, ...]]] = []

    def policy(caller: Principal, app: str, scopes: tuple[str, ...]) -> bool:
        seen.append((caller.user_id, app, scopes))
        return False

    answer = Room(policy=policy).post("/user/token", bearer(token()), body(scopes=[WRITE]))

    assert error(answer) == (403, "E403")
    assert seen == [("alice", "google-calendar", (WRITE,))]


@pytest.mark.parametrize(
    "credential",
    [
        "",
        "Bearer",
        "Bearer Plocal",
        "Bearer Plocal:",
        "Bearer Plocal:wrong",
        f"Bearer Pother:{KEY}",
        f"Basic Plocal:{KEY}",
        pytest.param(bearer(token(expires_in=-600)), id="expired"),
        pytest.param(bearer(token(aud="https://other.test/mcp")), id="other audience"),
        pytest.param(bearer(token(iss="https://other.test")), id="other issuer"),
        pytest.param(f"Bearer {token()}", id="no project"),
        pytest.param(bearer(token(key=ProofKey())), id="bound to a key"),
    ],
)
def test_a_credential_that_does_not_hold_up_is_401(credential: str) -> None:
    assert error(Room().post("/user/token/latest", credential, body())) == (401, "E401")


def test_the_management_key_names_any_user_and_may_see_the_refresh_token() -> None:
    room = Room(policy=lambda *_: False)
    asked = body("alice", options={"withRefreshToken": True})

    by_key = room.post("/user/token/latest", bearer(KEY), asked)
    by_token = Room().post("/user/token/latest", bearer(token()), asked)

    assert by_key.json()["token"]["refreshToken"] == "1//alice"
    assert by_token.json()["token"]["refreshToken"] == ""


def test_without_a_management_key_no_text_is_one() -> None:
    room = Room(management_key=None)

    assert error(room.post("/user/token/latest", bearer("None"), body()))[0] == 401
    assert error(room.post("/user/token/latest", bearer(""), body()))[0] == 401


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/user/token/latest", {"appId": "unknown", "userId": "alice"}),
        ("/user/token/latest", {"appId": APP, "userId": "bob"}),
        ("/user/token", {"appId": APP, "userId": "alice", "scopes": ["https://mail"]}),
    ],
)
def test_what_is_not_connected_is_404_with_its_code(path: str, asked: Any) -> None:
    assert error(Room().post(path, bearer(KEY), asked)) == (404, "E111504")


# Expiry ------------------------------------------------------------------------------------------


def test_an_expired_token_is_refreshed_and_kept() -> None:
    room = Room()
    room.put(grant(READ, expires_at=NOW))

    for _ in range(2):
        answer = room.post("/user/token/latest", bearer(token()), body())
        assert answer.json()["token"]["accessToken"] == "ya29.fresh"

    assert room.google.asked == 1


def test_a_refresh_can_be_forced() -> None:
    room = Room()

    answer = room.post("/user/token/latest", bearer(token()), body(options={"forceRefresh": True}))

    assert answer.json()["token"]["accessToken"] == "ya29.fresh"


def test_a_revoked_consent_is_forgotten_at_the_refresh() -> None:
    room = Room()
    room.google.revoked = True

    forced = room.post("/user/token/latest", bearer(token()), body(options={"forceRefresh": True}))

    assert error(forced) == (404, "E111504")
    kept = room.kept()
    assert kept is not None
    assert not kept.is_usable


def test_a_service_that_is_away_is_not_the_users_fault() -> None:
    room = Room()
    room.google.away = True

    forced = room.post("/user/token/latest", bearer(token()), body(options={"forceRefresh": True}))

    assert error(forced) == (503, "E503")
    assert room.kept() == grant(READ, WRITE)


# Tokens of a tenant ------------------------------------------------------------------------------


def test_a_tenants_token_is_for_callers_of_that_tenant() -> None:
    room = Room()
    room.put(grant(READ), "tenant-a", "tenant")
    asked = {"appId": APP, "tenantId": "tenant-a", "scopes": [READ]}

    for path in ("/tenant/token", "/tenant/token/latest"):
        own = room.post(path, bearer(token(tenant="tenant-a")), asked)
        other = room.post(path, bearer(token(tenant="tenant-b")), asked)
        none = room.post(path, bearer(token()), asked)
        assert own.json()["token"]["tenantId"] == "tenant-a"
        assert "userId" not in own.json()["token"]
        assert (error(other)[0], error(none)[0]) == (403, 403)


def test_a_user_and_a_tenant_of_the_same_name_are_two_owners() -> None:
    room = Room()
    asked = {"appId": APP, "tenantId": "alice"}

    answer = room.post("/tenant/token/latest", bearer(token(tenant="alice")), asked)

    assert error(answer) == (404, "E111504")


# Connecting --------------------------------------------------------------------------------------


def test_a_connect_url_is_for_the_caller_whatever_the_body_says() -> None:
    room = Room()
    asked = {"appId": APP, "userId": "bob", "options": {"scopes": [WRITE]}}

    answer = room.post("/connect", bearer(token()), asked)

    assert room.link_of(answer) == ("alice", APP, [WRITE])


def test_who_may_not_have_the_token_may_not_connect_either() -> None:
    asked = {"appId": APP, "options": {"scopes": [WRITE]}}

    assert error(Room(policy=lambda *_: False).post("/connect", bearer(token()), asked))[0] == 403
    assert error(Room().post("/connect", bearer(token("alice", "x")), asked))[0] == 403
    assert error(Room().post("/connect", bearer(token(None)), asked))[0] == 403


def test_what_nobody_can_connect_is_404() -> None:
    unknown = {"appId": "unknown"}

    assert error(Room().post("/connect", bearer(token()), unknown))[0] == 404
    assert error(Room(has_pages=False).post("/connect", bearer(token()), {"appId": APP}))[0] == 404


def test_the_management_key_has_to_say_for_whom() -> None:
    room = Room()

    assert error(room.post("/connect", bearer(KEY), {"appId": APP})) == (400, "E011002")
    named = room.post("/connect", bearer(KEY), {"appId": APP, "userId": "bob"})
    assert room.link_of(named) == ("bob", APP, [])


# Bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ([], "E011001"),
        ({"userId": "alice"}, "E011002"),
        ({"appId": APP}, "E011002"),
        ({"appId": APP, "userId": ""}, "E011002"),
        ({"appId": APP, "userId": ["alice"]}, "E011002"),
        ({"appId": APP, "userId": "alice"}, "E011002"),
        ({"appId": APP, "userId": "alice", "scopes": READ}, "E011003"),
        ({"appId": APP, "userId": "alice", "scopes": [1]}, "E011003"),
        ({"appId": APP, "userId": "alice", "scopes": [READ], "options": []}, "E011003"),
    ],
)
def test_a_body_that_cannot_be_read_is_400(asked: Any, code: str) -> None:
    assert error(Room().post("/user/token", bearer(KEY), asked)) == (400, code)


@given(st.binary(max_size=64) | st.just(b"[" * 70_000))
def test_any_body_is_answered_in_the_same_shape(content: bytes) -> None:
    answer = Room().post("/user/token", bearer(KEY), content=content)

    assert error(answer)[0] == 400


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_any_credential_is_answered_in_the_same_shape(credential: str) -> None:
    assert error(Room().post("/user/token/latest", credential, body()))[0] == 401


def test_keys_that_cannot_be_had_are_not_the_callers_fault() -> None:
    class Unreachable:
        async def verify(self, token: str) -> Principal:
            raise KeysUnavailableError("the issuer is away")

    answer = Room(verifier=Unreachable()).post("/user/token/latest", bearer(token()), body())

    assert error(answer) == (503, "E503")
