"""Do the tokens of a preset look like the provider's, and does the principal read them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.claim_shapes import SHAPES
from support.subjects import subjects
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.providers import PROVIDERS, Provider, ProviderName, TokenContent
from toolguard.testing.strategies import scope_tokens

NOW = 1_800_000_000
NAMES: tuple[ProviderName, ...] = get_args(ProviderName)


def like(name: ProviderName | Provider, **settings: Any) -> LocalIssuer:
    return LocalIssuer.like(name, algorithm="ES256", clock=lambda: NOW, **settings)


# Dex writes no client.
USUAL = [name for name in NAMES if name != "dex"]
# Their access tokens are told from ID tokens by the client that got them.
NAME_CLIENTS = ("okta", "entra", "azure-b2c", "adfs", "authentik", "xsuaa", "ory")

ISSUERS = {name: like(name) for name in NAMES}
ENTRA_TENANT = "aaaabbbb-0000-cccc-1111-dddd2222eeee"


def read(name: ProviderName, user: str | None = "alice", **wishes: Any) -> Principal:
    """Return whom a token of the provider speaks for, through the real verifier."""
    issuer = ISSUERS[name]
    principal = issuer.verifier().verify_now(issuer.mint(user, **wishes))
    assert principal is not None
    return principal


# --- what all of them have


def test_every_name_has_a_provider() -> None:
    assert set(PROVIDERS) == set(NAMES)


@pytest.mark.parametrize("name", USUAL)
@given(
    user=subjects(20),
    scopes=st.lists(scope_tokens(), unique=True, max_size=5),
)
def test_the_user_the_client_and_the_scopes_are_read_from_every_providers_token(
    name: ProviderName, user: str, scopes: list[str]
) -> None:
    principal = read(name, user, scopes=scopes, client_id="desktop")

    assert principal.issuer == PROVIDERS[name].issuer
    assert principal.user_id == user
    assert principal.client_id == "desktop"
    assert principal.scopes == tuple(scopes)
    assert principal.expires_at == NOW + 300


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*NAME_CLIENTS, "google")])
def test_a_token_may_have_no_subject_and_no_client(name: ProviderName) -> None:
    principal = read(name, None, client_id=None)

    assert (principal.user_id, principal.client_id) == (None, None)


@pytest.mark.parametrize("name", NAME_CLIENTS)
def test_a_token_without_the_client_that_all_have_is_refused(name: ProviderName) -> None:
    with pytest.raises(InvalidTokenError, match="not an access token"):
        read(name, "alice", client_id=None)


@pytest.mark.parametrize(
    ("name", "wishes", "expected"),
    [
        (
            "descope",
            {"tenant": "T2acme", "roles": ["Tenant Admin"], "permissions": ["loans.approve"]},
            {
                "tenant_id": "T2acme",
                "tenant_ids": ("T2acme",),
                "roles": ("Tenant Admin",),
                "permissions": ("loans.approve",),
            },
        ),
        (
            "descope",
            {"roles": ["Employee"], "permissions": ["SSO Admin"]},
            {"tenant_id": None, "roles": ("Employee",), "permissions": ("SSO Admin",)},
        ),
        (
            "entra",
            {"roles": ["Calendar.Admin"]},
            {"tenant_id": ENTRA_TENANT, "roles": ("Calendar.Admin",)},
        ),
        (
            "auth0",
            {"tenant": "org_9ybsU1dN2dKfDkBi", "scopes": ["read"], "permissions": ["write"]},
            {
                "tenant_id": "org_9ybsU1dN2dKfDkBi",
                "permissions": ("write",),
                "scopes": ("read", "write"),
            },
        ),
        ("keycloak", {"roles": ["planner"]}, {"roles": ("planner",)}),
        ("cognito", {"roles": ["planners"]}, {"roles": ("planners",)}),
        ("workos", {"tenant": "org_01HRDMC6"}, {"tenant_id": "org_01HRDMC6"}),
    ],
)
def test_tenant_roles_and_permissions_are_read_where_a_provider_has_them(
    name: ProviderName, wishes: Mapping[str, Any], expected: Mapping[str, Any]
) -> None:
    principal = read(name, **wishes)

    assert {field: getattr(principal, field) for field in expected} == expected


WORDS: dict[str, Any] = {"tenant": "acme", "roles": ["admin"], "permissions": ["loans.read"]}
UNSAID = [
    (name, word)
    for name, provider in PROVIDERS.items()
    for word in WORDS
    if word not in provider.says
]


@pytest.mark.parametrize(("name", "word"), UNSAID)
def test_what_a_provider_has_no_claim_for_is_not_made_up(name: ProviderName, word: str) -> None:
    with pytest.raises(ValueError, match=f"have no claim for {word}: .*issuer.sign"):
        ISSUERS[name].mint("alice", **{word: WORDS[word]})


@pytest.mark.parametrize(("name", "word"), UNSAID)
def test_to_have_none_of_it_can_be_said_of_every_provider(name: ProviderName, word: str) -> None:
    assert read(name, **{word: None}).user_id == "alice"


def test_an_added_claim_is_signed_under_its_own_name() -> None:
    okta = ISSUERS["okta"]
    token = okta.sign({**okta.claims("alice"), "groups": ["staff"], "roles": ["admin"]})

    principal = okta.verifier().verify_now(token)

    assert principal is not None
    assert principal.claims["groups"] == ["staff"]
    assert principal.roles == ("admin",)


# --- the shape of each


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("descope", {"typ": "JWT"}),
        ("okta", {}),
        ("entra", {"typ": "JWT"}),
        ("auth0", {"typ": "JWT"}),
        ("keycloak", {"typ": "JWT"}),
        ("cognito", {}),
        ("workos", {}),
    ],
)
def test_the_header_is_the_providers(name: ProviderName, header: dict[str, str]) -> None:
    made = jwt.get_unverified_header(ISSUERS[name].mint("alice"))

    assert made == {"alg": "ES256", "kid": ISSUERS[name].key_id, **header}


@pytest.mark.parametrize("name", ["id_token", "refresh_token", "wrong_key", "expired"])
def test_bad_tokens_have_the_header_of_the_provider_too(name: str) -> None:
    okta = ISSUERS["okta"]

    assert jwt.get_unverified_header(okta.mint_invalid(name)) == {
        "alg": "ES256",
        "kid": okta.key_id,
    }


# What a user may have and a token of the preset says nothing of.
NOT_IN_THE_PRESET = {"name", "preferred_username"}
# What a token has under circumstances that the example of the provider is without.
NOT_IN_THE_EXAMPLE: dict[str, set[str]] = {"Amazon Cognito": {"aud", "event_id", "jti"}}
WISHES: dict[str, dict[str, Any]] = {
    "descope": {"tenant": "T2acme", "roles": ["Owner"]},
    "okta": {},
    "entra": {"roles": ["Owner"]},
    "auth0": {"tenant": "org_1", "permissions": ["calendar:read"]},
    "keycloak": {"roles": ["planner"]},
    "cognito": {"roles": ["planners"]},
    "workos": {"tenant": "org_1"},
}
EXAMPLES = {
    "descope": "Descope: scopes as a list, current tenant among several",
    "okta": "Okta",
    "entra": "Entra ID, version 2.0",
    "auth0": "Auth0 with RBAC: permissions are not scopes unless the server says so",
    "keycloak": "Keycloak: roles of the realm, not those of one client",
    "cognito": "Amazon Cognito",
    "workos": "WorkOS, Connect: what an MCP client gets",
}


@pytest.mark.parametrize(("name", "title"), EXAMPLES.items(), ids=EXAMPLES)
def test_the_claims_have_the_names_and_types_of_the_providers_example(
    name: ProviderName, title: str
) -> None:
    (example,) = [shape.claims for shape in SHAPES if shape.name == title]
    expected = {claim: type(value) for claim, value in example.items()}
    if name == "descope":  # it writes scopes in either way, and roles where they belong
        del expected["scopes"], expected["permissions"], expected["roles"]
        expected["scope"] = str

    claims = ISSUERS[name].claims("alice", scopes=["openid", "read"], **WISHES[name])
    made = {claim: type(value) for claim, value in claims.items()}

    for claim in NOT_IN_THE_EXAMPLE.get(title, ()):
        del made[claim]
    for claim in NOT_IN_THE_PRESET - made.keys():
        expected.pop(claim, None)
    assert made == expected


def test_a_token_of_workos_is_the_one_that_connect_gives_to_mcp_clients() -> None:
    claims = ISSUERS["workos"].claims("user_01", scopes=["openid"], tenant="org_01")

    assert claims.keys() == {
        *("iss", "aud", "sub", "client_id", "org_id", "sid", "scope", "jti", "exp", "iat")
    }


def test_roles_of_descope_belong_to_the_tenant() -> None:
    claims = ISSUERS["descope"].claims("alice", tenant="T2acme", roles=["Owner"])

    assert claims["dct"] == "T2acme"
    assert claims["tenants"] == {"T2acme": {"permissions": [], "roles": ["Owner"]}}
    assert not {"roles", "permissions"} & claims.keys()


def test_okta_has_a_list_of_scopes_and_entra_a_string() -> None:
    assert ISSUERS["okta"].claims(scopes=["a", "b"])["scp"] == ["a", "b"]
    assert ISSUERS["entra"].claims(scopes=["a", "b"])["scp"] == "a b"


def test_an_entra_issuer_has_one_tenant() -> None:
    globex = like("entra", issuer="https://login.microsoftonline.com/globex/v2.0")

    assert globex.claims("alice")["tid"] == "globex"
    assert globex.claims("alice", tenant="globex")["tid"] == "globex"
    with pytest.raises(ValueError, match=r'here globex: write .*microsoftonline.com/acme/v2.0"'):
        globex.mint("alice", tenant="acme")


def test_an_entra_issuer_without_a_path_has_any_tenant() -> None:
    local = like("entra", issuer="http://127.0.0.1:1")

    assert local.claims("alice", tenant="acme")["tid"] == "acme"
    assert "tid" not in local.claims("alice")


def test_the_object_id_of_entra_is_one_per_user() -> None:
    entra = ISSUERS["entra"]

    assert entra.claims("alice")["oid"] == entra.claims("alice")["oid"]
    assert entra.claims("alice")["oid"] != entra.claims("bob")["oid"]


def test_a_token_of_auth0_with_openid_is_for_userinfo_too() -> None:
    auth0 = ISSUERS["auth0"]

    assert auth0.claims(scopes=["read"])["aud"] == "https://mcp.test/mcp"
    assert auth0.claims(scopes=["openid"])["aud"] == [
        "https://mcp.test/mcp",
        "https://example.eu.auth0.com/userinfo",
    ]


def test_permissions_of_auth0_count_as_scopes_unless_the_test_says_otherwise() -> None:
    auth0 = ISSUERS["auth0"]
    token = auth0.mint("alice", scopes=["read"], permissions=["write"])

    strict = auth0.verifier(permissions_are_scopes=False).verify_now(token)

    assert strict is not None
    assert strict.scopes == ("read",)


@pytest.mark.parametrize(
    ("name", "id_claim", "refresh_claim"),
    [
        ("descope", ("at_hash", "77QmUPtjPfzWtF2AnpK9RQ"), ("drn", "DSR")),
        ("keycloak", ("typ", "ID"), ("typ", "Refresh")),
        ("cognito", ("token_use", "id"), ("typ", "Refresh")),
    ],
)
def test_other_kinds_of_tokens_say_so_in_the_providers_words(
    name: ProviderName, id_claim: tuple[str, str], refresh_claim: tuple[str, str]
) -> None:
    def claims(token: str) -> dict[str, Any]:
        return dict(jwt.decode(token, options={"verify_signature": False}))

    assert id_claim in claims(ISSUERS[name].mint_id_token()).items()
    assert refresh_claim in claims(ISSUERS[name].mint_refresh_token()).items()


# --- which provider


def test_issuer_and_audience_are_the_providers_unless_they_are_given() -> None:
    okta = like("okta")
    given_ones = like("okta", issuer="https://id.test", audience="api://calendar")

    assert (okta.issuer, okta.audience) == (PROVIDERS["okta"].issuer, PROVIDERS["okta"].audience)
    assert (given_ones.issuer, given_ones.audience) == ("https://id.test", "api://calendar")
    principal = given_ones.verifier().verify_now(given_ones.mint("alice"))
    assert principal is not None
    assert principal.issuer == "https://id.test"


def test_a_provider_of_ones_own_is_described_by_its_claims() -> None:
    def shape(grant: TokenContent) -> dict[str, Any]:
        return {**grant.common, "user": {"id": grant.user}, "sub": None, "scp": [*grant.scopes]}

    mine = like(Provider("Mine", "https://id.test", "https://mcp.test/mcp", shape, typ="at+jwt"))
    principal = mine.verifier(token_types=["at+jwt"]).verify_now(mine.mint("a", scopes=["read"]))

    assert principal is not None
    assert (principal.user_id, principal.scopes) == ("a", ("read",))


def test_an_unknown_provider_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'otka': write one of descope, okta, entra, "):
        LocalIssuer.like("otka")  # type: ignore[arg-type]
