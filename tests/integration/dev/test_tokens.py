"""What tokens say and for how long they are good; everything that ends them early."""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from dataclasses import replace
from hashlib import sha256
from typing import Any

import jwt
import pytest

from support.devrooms import FETCH, ISSUER, MCP, READ, VERIFIER, WRITE, Room
from toolguard.dev.oauth.config import Lifetimes, builtin_world
from toolguard.dev.oauth.grants import find_refresh_token, use_refresh_token
from toolguard.dev.oauth.policies import ScopeRule
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.store import Store
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal


def claims_of(token: str) -> dict[str, Any]:
    return jwt.decode(token, options={"verify_signature": False})


def verify(room: Room, token: str, audience: str | None = None) -> Principal:
    return asyncio.run(room.server.verifier(audience).verify(token))


def reason(room: Room, token: str, audience: str | None = None) -> str:
    with pytest.raises(InvalidTokenError) as refused:
        verify(room, token, audience)
    return refused.value.reason


def test_an_access_token_says_who_what_and_for_whom() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 300
    assert tokens["scope"] == f"{READ} {WRITE} {FETCH}"
    header = jwt.get_unverified_header(tokens["access_token"])
    assert (header["typ"], header["alg"]) == ("at+jwt", "ES256")
    claims = claims_of(tokens["access_token"])
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "http://127.0.0.1:8800/P2dev",
        "aud": "http://127.0.0.1:8000/mcp",
        "sub": "alice",
        "client_id": client_id,
        "iat": 1_800_000_000,
        "exp": 1_800_000_300,
        "scope": f"{READ} {WRITE} {FETCH}",
        "permissions": ["scheduler"],
        "tenants": {"tenant-a": {"permissions": ["scheduler"]}},
        "dct": "tenant-a",
    }


def test_a_guard_reads_the_token_as_a_principal() -> None:
    room = Room()
    tokens = room.tokens(room.register()["client_id"], "carol@tenant-b.example")
    principal = verify(room, tokens["access_token"], MCP)
    assert principal.user_id == "carol"
    assert (principal.tenant_id, principal.permissions) == ("tenant-b", ())
    assert principal.scopes == (READ, FETCH)


def test_the_answer_is_kept_by_nobody() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    response = room.redeem(client_id, room.code(client_id))
    assert response.headers["cache-control"] == "no-store"


def test_a_client_without_the_grant_type_gets_no_refresh_token() -> None:
    room = Room()
    client_id = room.register(grant_types=["authorization_code"])["client_id"]
    assert "refresh_token" not in room.redeem(client_id, room.code(client_id)).json()
    assert room.refresh(client_id, "x").json()["error"] == "unauthorized_client"


def test_nothing_that_opens_a_door_is_in_the_store() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id)
    tokens = room.redeem(client_id, code).json()
    dump = "\n".join(room.server.store.db.iterdump())
    for secret in (code, tokens["refresh_token"], tokens["access_token"], VERIFIER):
        assert secret not in dump


# Codes


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"code_verifier": "x" * 43}, "invalid_grant"),
        ({"code_verifier": VERIFIER[:-1]}, "invalid_grant"),
        ({"code_verifier": VERIFIER + "="}, "invalid_grant"),
        ({"code_verifier": VERIFIER.lower()}, "invalid_grant"),
        ({"code_verifier": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"}, "invalid_grant"),
        ({"code_verifier": "x" * 129}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_request"),
        ({"redirect_uri": "http://127.0.0.1:3001/callback"}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:3000/other"}, "invalid_grant"),
        ({"redirect_uri": "https://evil.example/"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"code": "x" * 43}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"resource": "https://evil.example/mcp"}, "invalid_target"),
        ({"resource": f"{MCP}/x"}, "invalid_target"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
        ({"grant_type": "implicit"}, "unsupported_grant_type"),
        ({"grant_type": None}, "invalid_request"),
    ],
)
def test_a_code_without_its_proof_is_refused(changed: dict[str, Any], error: str) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    response = room.redeem(client_id, **{"code": room.code(client_id), **changed})
    assert (response.status_code, response.json()["error"]) == (400, error)


@pytest.mark.parametrize("verifier", ["short", "x" * 42, "x" * 129, "\u00e9" * 43, "=" * 43])
def test_a_verifier_that_is_none_is_refused_even_if_it_fits(verifier: str) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    challenge = urlsafe_b64encode(sha256(verifier.encode()).digest()).rstrip(b"=").decode()
    code = room.code(client_id, code_challenge=challenge)
    response = room.redeem(client_id, code, code_verifier=verifier)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_grant")


def test_a_wrong_proof_uses_the_code_up() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id)
    assert room.redeem(client_id, code, code_verifier="x" * 43).status_code == 400
    assert room.redeem(client_id, code).json()["error"] == "invalid_grant"


def test_a_code_used_twice_revokes_its_tokens() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id)
    tokens = room.redeem(client_id, code).json()
    assert verify(room, tokens["access_token"]).user_id == "alice"
    again = room.redeem(client_id, code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert reason(room, tokens["access_token"]) == "expired"
    assert room.introspect(tokens["access_token"]) == {"active": False}
    assert room.refresh(client_id, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_the_code_of_another_client_is_refused_and_stays_good() -> None:
    room = Room()
    mine, theirs = room.register()["client_id"], room.register()["client_id"]
    code = room.code(mine)
    stolen = room.redeem(theirs, code)
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    assert room.redeem(mine, code).status_code == 200


def test_a_code_expires() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    code = room.code(client_id)
    room.clock.advance(60)
    assert room.redeem(client_id, code).json()["error"] == "invalid_grant"


def test_the_same_resource_may_be_named_again() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    assert room.redeem(client_id, room.code(client_id), resource=MCP).status_code == 200


def test_the_audience_is_the_resource_that_was_asked_for() -> None:
    room = Room(builtin_world().with_resources("http://127.0.0.1:9000/mcp"))
    client_id = room.register()["client_id"]
    code = room.code(client_id, resource="HTTP://127.0.0.1:9000/mcp")
    other = room.redeem(client_id, code, resource=MCP)
    assert other.json()["error"] == "invalid_target"
    code = room.code(client_id, resource="HTTP://127.0.0.1:9000/mcp")
    token = room.redeem(client_id, code).json()["access_token"]
    assert claims_of(token)["aud"] == "http://127.0.0.1:9000/mcp"
    assert reason(room, token, MCP) == "audience"
    assert verify(room, token).user_id == "alice"


# Refresh tokens


def test_a_refresh_token_is_replaced_at_every_use() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    first = room.tokens(client_id)
    room.clock.advance(301)
    second = room.refresh(client_id, first["refresh_token"]).json()
    assert second["refresh_token"] != first["refresh_token"]
    assert second["scope"] == first["scope"]
    assert reason(room, first["access_token"]) == "expired"
    assert verify(room, second["access_token"]).user_id == "alice"


def test_a_replayed_refresh_token_ends_the_whole_family() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    first = room.tokens(client_id)
    second = room.refresh(client_id, first["refresh_token"]).json()
    replayed = room.refresh(client_id, first["refresh_token"])
    assert (replayed.status_code, replayed.json()["error"]) == (400, "invalid_grant")
    newest = room.refresh(client_id, second["refresh_token"])
    assert (newest.status_code, newest.json()["error"]) == (400, "invalid_grant")
    assert reason(room, second["access_token"]) == "expired"


def test_of_two_that_use_a_refresh_token_at_once_one_ends_the_family() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    context = room.server._context
    grant = find_refresh_token(context, tokens["refresh_token"], client_id)
    use_refresh_token(context, tokens["refresh_token"], grant)
    with pytest.raises(Refusal, match="used before"):
        use_refresh_token(context, tokens["refresh_token"], grant)
    assert reason(room, tokens["access_token"]) == "expired"


def test_one_family_ends_without_another() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    one, other = room.tokens(client_id), room.tokens(client_id)
    room.refresh(client_id, one["refresh_token"])
    room.refresh(client_id, one["refresh_token"])
    assert room.refresh(client_id, other["refresh_token"]).status_code == 200


def test_the_refresh_token_of_another_client_is_refused_and_stays_good() -> None:
    room = Room()
    mine, theirs = room.register()["client_id"], room.register()["client_id"]
    token = room.tokens(mine)["refresh_token"]
    assert room.refresh(theirs, token).json()["error"] == "invalid_grant"
    assert room.refresh(mine, token).status_code == 200


@pytest.mark.parametrize(
    "scope", [f"{READ} {WRITE}", "admin", f"{READ}  {FETCH}", READ + "\t", f"{READ} {READ}x"]
)
def test_a_refresh_gives_no_scope_that_the_user_did_not(scope: str) -> None:
    room = Room()
    client_id = room.register()["client_id"]
    token = room.tokens(client_id, "bob@tenant-a.example")["refresh_token"]
    response = room.refresh(client_id, token, scope=scope)
    assert (response.status_code, response.json()["error"]) == (400, "invalid_scope")
    assert room.refresh(client_id, token).status_code == 200


def test_a_refresh_may_ask_for_less_and_later_for_all_again() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    less = room.refresh(client_id, room.tokens(client_id)["refresh_token"], scope=READ).json()
    assert less["scope"] == READ
    all_again = room.refresh(client_id, less["refresh_token"]).json()
    assert all_again["scope"] == f"{READ} {WRITE} {FETCH}"


def test_a_refresh_is_for_the_resource_of_the_grant() -> None:
    room = Room(builtin_world().with_resources("http://127.0.0.1:9000/mcp"))
    client_id = room.register()["client_id"]
    token = room.tokens(client_id)["refresh_token"]
    for resource in ("http://127.0.0.1:9000/mcp", "https://evil.example/mcp"):
        response = room.refresh(client_id, token, resource=resource)
        assert response.json()["error"] == "invalid_target"
    assert room.refresh(client_id, token, resource=MCP).status_code == 200


def test_refreshes_do_not_extend_a_family_beyond_a_day() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    tokens = room.tokens(client_id)
    room.clock.advance(86_300)
    tokens = room.refresh(client_id, tokens["refresh_token"]).json()
    assert tokens["expires_in"] == 100
    room.clock.advance(100)
    assert room.refresh(client_id, tokens["refresh_token"]).json()["error"] == "invalid_grant"


def test_the_policy_is_asked_again_at_every_refresh() -> None:
    store, world = Store(), builtin_world()
    room = Room(world, store=store)
    client_id = room.register()["client_id"]
    token = room.tokens(client_id)["refresh_token"]
    alice = replace(world.users[0], groups=())
    demoted = Room(replace(world, users=(alice, *world.users[1:])), store=store)
    answer = demoted.refresh(client_id, token).json()
    assert answer["scope"] == f"{READ} {FETCH}"
    nobody = ScopeRule.parse("Root", ["user.permissions contains root"], [READ])
    closed = Room(replace(world, rules=(nobody,)), store=store)
    assert closed.refresh(client_id, answer["refresh_token"]).json()["error"] == "invalid_grant"


def test_a_user_who_is_gone_gets_nothing() -> None:
    store, world = Store(), builtin_world()
    room = Room(world, store=store)
    client_id = room.register()["client_id"]
    token = room.tokens(client_id)["refresh_token"]
    without = Room(replace(world, users=world.users[1:]), store=store)
    assert without.refresh(client_id, token).json()["error"] == "invalid_grant"


def test_lifetimes_are_those_of_the_world() -> None:
    room = Room(replace(builtin_world(), lifetimes=Lifetimes(access_token=5)))
    assert room.tokens(room.register()["client_id"])["expires_in"] == 5


# Keys


def test_rotating_keys_leaves_issued_tokens_good() -> None:
    room = Room()
    before = room.tokens(room.register()["client_id"])["access_token"]
    kid = room.server.rotate_keys()
    after = room.tokens(room.register()["client_id"])["access_token"]
    assert jwt.get_unverified_header(after)["kid"] == kid
    assert jwt.get_unverified_header(before)["kid"] != kid
    assert verify(room, before).user_id == verify(room, after).user_id == "alice"
    published = room.client.get(f"{ISSUER}/jwks").json()["keys"]
    assert [key["kid"] == kid for key in published] == [True, False, False]


def test_a_retired_key_is_published_until_nothing_can_need_it() -> None:
    room = Room()
    room.server.rotate_keys()
    room.clock.advance(899)
    assert len(room.client.get(f"{ISSUER}/jwks").json()["keys"]) == 3
    room.clock.advance(1)
    assert len(room.client.get(f"{ISSUER}/jwks").json()["keys"]) == 2


def test_withdrawing_keys_ends_issued_tokens() -> None:
    room = Room()
    token = room.tokens(room.register()["client_id"])["access_token"]
    room.server.rotate_keys(keep_old=False)
    assert reason(room, token) == "key"


def test_published_keys_hold_nothing_private() -> None:
    keys = Room().client.get(f"{ISSUER}/jwks").json()["keys"]
    assert [set(key) for key in keys] == [{"kty", "crv", "x", "y", "kid", "alg", "use"}] * 2


def test_the_next_key_is_published_before_it_signs() -> None:
    room = Room()
    before = [key["kid"] for key in room.client.get(f"{ISSUER}/jwks").json()["keys"]]
    assert room.server.rotate_keys() == before[1]


def test_a_token_of_another_server_is_no_good_here() -> None:
    one, other = Room(), Room()
    foreign = other.tokens(other.register()["client_id"])["access_token"]
    assert reason(one, foreign) == "key"
