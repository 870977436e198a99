"""Whom do verified claims describe, and what do strange claims grant?"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given

from support.claim_shapes import SHAPES, Shape
from toolguard.principal import Principal
from toolguard.testing.strategies import claims as any_claims

ALICE = {"iss": "https://issuer.example", "sub": "alice", "exp": 1_800_000_000}


def read(**claims: Any) -> Principal:
    return Principal.from_claims({**ALICE, **claims})


# --- real tokens


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_providers_token_describes_its_caller(shape: Shape) -> None:
    principal = Principal.from_claims(shape.claims)

    expected = dataclasses.asdict(shape)
    for name in ("name", "claims"):
        expected.pop(name)
    assert {name: getattr(principal, name) for name in expected} == expected
    assert principal.issuer == shape.claims["iss"]
    assert principal.expires_at == shape.claims["exp"]
    assert dict(principal.claims) == shape.claims


def test_auth0_permissions_count_as_scopes_where_the_server_says_so() -> None:
    (auth0,) = [shape for shape in SHAPES if shape.name.startswith("Auth0")]

    principal = Principal.from_claims(auth0.claims, permissions_are_scopes=True)

    assert principal.scopes == ("openid", "profile", "calendar:read", "calendar:write")
    assert principal.permissions == ("calendar:read", "calendar:write")


# --- which claim counts


def test_scope_goes_before_scp_and_scp_before_scopes() -> None:
    assert read(scope="a", scp="b", scopes=["c"]).scopes == ("a",)
    assert read(scp="b", scopes=["c"]).scopes == ("b",)
    assert read(scopes=["c"]).scopes == ("c",)


@pytest.mark.parametrize("scope", [None, 7, {}, {"a": 1}, True])
def test_a_scope_claim_that_cannot_be_read_does_not_fall_back_to_another(scope: object) -> None:
    assert read(scope=scope, scp="admin", scopes=["admin"]).scopes == ()


@pytest.mark.parametrize(
    ("scope", "scopes"),
    [
        ("a b", ("a", "b")),
        ("b a b", ("b", "a")),
        ("  a   b ", ("a", "b")),
        ("", ()),
        (" ", ()),
        ("a\tb", ("a\tb",)),
        ("a\nb", ("a\nb",)),
        ("a\u00a0b", ("a\u00a0b",)),
        ("a\u2003b", ("a\u2003b",)),
        ("a,b", ("a,b",)),
        (["a", "b"], ("a", "b")),
        (["a b"], ("a b",)),
        (["a", 7, None, ["b"], {"c": 1}, "a", ""], ("a",)),
        ([], ()),
    ],
)
def test_scopes_are_separated_by_spaces_and_nothing_else(
    scope: object, scopes: tuple[str, ...]
) -> None:
    assert read(scope=scope).scopes == scopes


@pytest.mark.parametrize(
    ("claims", "user_id"),
    [
        ({"sub": "a", "userId": "b"}, "a"),
        ({"userId": "b", "user_id": "c"}, "b"),
        ({"user_id": "c", "user": {"id": "d"}}, "c"),
        ({"user": {"id": "d", "sub": "e"}}, "d"),
        ({"user": {"sub": "e"}}, "e"),
        ({"user": "f"}, None),
        ({"sub": ""}, None),
        ({"sub": "", "userId": "bob"}, None),
        ({"sub": None, "user_id": "bob"}, None),
        ({"sub": "", "user": {"id": "bob"}}, None),
        ({"userId": "", "user_id": "bob"}, None),
        ({"user": {"sub": "", "userId": "bob"}}, None),
        ({"sub": 7}, None),
        ({"sub": ["alice"]}, None),
        ({"sub": None, "user": {"id": 7}}, None),
        ({}, None),
    ],
)
def test_the_user_is_what_the_first_claim_that_is_there_says(
    claims: Mapping[str, Any], user_id: str | None
) -> None:
    assert Principal.from_claims(claims).user_id == user_id


@pytest.mark.parametrize(
    ("claims", "client_id"),
    [
        ({"client_id": "a", "azp": "b", "appid": "c", "cid": "d"}, "a"),
        ({"azp": "b", "appid": "c", "cid": "d"}, "b"),
        ({"appid": "c", "cid": "d"}, "c"),
        ({"cid": "d"}, "d"),
        ({"client_id": 7, "azp": ""}, None),
        ({}, None),
    ],
)
def test_the_client_is_the_first_claim_that_names_one_in_text(
    claims: Mapping[str, Any], client_id: str | None
) -> None:
    assert read(**claims).client_id == client_id


@pytest.mark.parametrize("name", ["tenant", "tenantId", "dct", "tid", "org_id"])
def test_every_providers_tenant_is_found(name: str) -> None:
    principal = read(**{name: "T1"})

    assert (principal.tenant_id, principal.tenant_ids) == ("T1", ("T1",))


def test_the_permissions_and_roles_of_another_tenant_do_not_count() -> None:
    tenants = {"T1": {"permissions": ["p1"], "roles": ["r1"]}, "T2": {"permissions": ["p2"]}}

    first, second = read(tenants=tenants, dct="T1"), read(tenants=tenants, dct="T2")

    assert (first.permissions, first.roles) == (("p1",), ("r1",))
    assert (second.permissions, second.roles) == (("p2",), ())


@pytest.mark.parametrize("tenants", [[], ["T1"], "T1", 7, None, {"T1": None}, {"T1": ["admin"]}])
def test_a_tenant_map_of_another_shape_grants_nothing(tenants: object) -> None:
    principal = read(tenants=tenants, dct="T1")

    assert (principal.tenant_id, principal.permissions, principal.roles) == ("T1", (), ())


def test_roles_are_collected_from_every_place_without_repetition() -> None:
    principal = read(
        roles=["a"], realm_access={"roles": ["b", "a"]}, role="c", **{"cognito:groups": ["d"]}
    )

    assert principal.roles == ("a", "b", "d", "c")


@pytest.mark.parametrize(
    "claims",
    [
        {"permissions": "admin"},
        {"permissions": {"admin": True}},
        {"roles": "admin"},
        {"role": ["admin"]},
        {"role": {"name": "admin"}},
        {"realm_access": {"roles": "admin"}},
        {"realm_access": ["admin"]},
        {"cognito:groups": "admin"},
        {"resource_access": {"account": {"roles": ["admin"]}}},
    ],
)
def test_permissions_and_roles_of_another_shape_grant_nothing(claims: Mapping[str, Any]) -> None:
    principal = read(**claims)

    assert (principal.permissions, principal.roles, principal.scopes) == ((), (), ())


# --- expiry


@pytest.mark.parametrize(
    "exp",
    [None, "1800000000", True, [], {}, 0, -1, math.nan, math.inf, -math.inf, 1e300, 10**400],
    ids=repr,
)
def test_a_token_without_a_readable_expiry_has_expired(exp: object) -> None:
    assert read(exp=exp).is_expired(0.0)


@pytest.mark.parametrize(
    ("now", "expired"), [(999.0, False), (999.999, False), (1_000.0, True), (1_001.0, True)]
)
def test_a_token_has_expired_from_the_second_it_names(now: float, expired: bool) -> None:
    assert read(exp=1_000).is_expired(now) is expired


def test_a_principal_made_without_an_expiry_has_expired() -> None:
    assert Principal("alice", "https://issuer.example").is_expired(1.0)


# --- the value


def test_an_owner_is_issuer_user_client_key_tenant_and_actor() -> None:
    owner = ("https://issuer.example", "alice", "desktop")

    assert read(client_id="desktop", scope="a").owner_key == (*owner, None, None)
    assert read(client_id="desktop", dct="T1").owner_key == (*owner, None, "T1")
    assert read(client_id="desktop", cnf={"jkt": "a"}).owner_key == (*owner, "a", None)
    acting = {"sub": "agent", "act": {"sub": "earlier"}}
    agent = ("https://issuer.example", "agent")
    assert read(client_id="desktop", act=acting).owner_key == (*owner, None, None, *agent)


@pytest.mark.parametrize(
    ("confirmation", "jkt"),
    [({"jkt": "a"}, "a"), ({"jkt": 7}, "7"), ({"jkt": None}, None), ({}, None), ("a", None)],
)
def test_a_token_is_bound_to_the_key_of_its_confirmation(
    confirmation: Any, jkt: str | None
) -> None:
    assert read(cnf=confirmation).jkt == jkt


def test_the_representation_shows_who_and_not_what_else_is_in_the_token() -> None:
    principal = read(client_id="desktop", dct="T1", scope="read write", email="ada@example.com")

    assert repr(principal) == (
        "<Principal: alice of https://issuer.example in T1 via desktop [read write]>"
    )
    assert repr(read()) == "<Principal: alice of https://issuer.example []>"


def test_a_principal_cannot_be_changed() -> None:
    principal = read(scope="read")

    with pytest.raises(dataclasses.FrozenInstanceError):
        principal.user_id = "bob"  # type: ignore[misc]
    with pytest.raises(TypeError):
        principal.claims["sub"] = "bob"  # type: ignore[index]


def test_a_later_change_of_the_claims_changes_nothing() -> None:
    claims: dict[str, Any] = {**ALICE, "scope": "read"}
    principal = Principal.from_claims(claims)
    claims["sub"] = "bob"

    assert principal.claims["sub"] == "alice"


def test_principals_are_equal_and_hashable_by_their_facts() -> None:
    assert read(scope="a", extra=[1]) == read(scope="a", extra=[2])
    assert read(scope="a") != read(scope="b")
    assert len({read(scope="a", extra=[1]), read(scope="a")}) == 1


# --- any claims at all


def texts(value: object) -> set[str]:
    return {item for item in value if isinstance(item, str)} if isinstance(value, list) else set()


def member(claims: Mapping[str, Any], *path: str | None) -> object:
    value: object = claims
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


@given(any_claims())
def test_any_claims_give_a_principal(claims: Mapping[str, Any]) -> None:
    principal = Principal.from_claims(claims, permissions_are_scopes=True)

    assert isinstance(hash(principal), int)
    assert principal.user_id != ""
    assert principal.client_id != ""


@given(any_claims())
def test_no_scope_is_granted_that_the_scope_claim_does_not_spell_out(
    claims: Mapping[str, Any],
) -> None:
    spelled: set[str] = set()
    for name in ("scopes", "scp", "scope"):
        if name in claims:
            value = claims[name]
            spelled = set(value.split(" ")) if isinstance(value, str) else texts(value)

    assert set(Principal.from_claims(claims).scopes) == spelled - {""}


@given(any_claims())
def test_no_permission_is_granted_that_is_not_the_users_or_the_current_tenants(
    claims: Mapping[str, Any],
) -> None:
    principal = Principal.from_claims(claims)

    spelled = texts(claims.get("permissions")) | texts(
        member(claims, "tenants", principal.tenant_id, "permissions")
    )
    assert set(principal.permissions) == spelled - {""}


@given(any_claims())
def test_no_role_is_granted_that_is_not_the_users_or_the_current_tenants(
    claims: Mapping[str, Any],
) -> None:
    principal = Principal.from_claims(claims)
    spelled: set[str] = set()
    for fact in (claims, member(claims, "tenants", principal.tenant_id)):
        if isinstance(fact, dict):
            spelled |= texts(fact.get("roles")) | texts(fact.get("cognito:groups"))
            spelled |= texts(member(fact, "realm_access", "roles")) | texts([fact.get("role")])

    assert set(principal.roles) == spelled - {""}


@given(any_claims())
def test_permissions_as_scopes_add_the_permissions_and_nothing_else(
    claims: Mapping[str, Any],
) -> None:
    plain = Principal.from_claims(claims)
    widened = Principal.from_claims(claims, permissions_are_scopes=True)

    assert set(widened.scopes) == {*plain.scopes, *plain.permissions}
    assert dataclasses.replace(widened, scopes=plain.scopes) == plain


@given(any_claims())
def test_a_current_tenant_is_always_one_of_the_tenants(claims: Mapping[str, Any]) -> None:
    principal = Principal.from_claims(claims)

    assert not principal.tenant_id or principal.tenant_ids[0] == principal.tenant_id
