"""Presets: does a guard accept what each authorization server sends, and nothing beside it?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Issuer, ToolGuard
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer
from toolguard.testing.providers import PROVIDERS, ProviderName
from toolguard.tokens import issuers
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import KeySet, StaticKeys

NAMES: tuple[ProviderName, ...] = get_args(ProviderName)
SERVER = "https://mcp.test/mcp"
LOCAL = {name: LocalIssuer.like(name, algorithm="ES256") for name in NAMES}
TENANT, OTHER_TENANT = (
    "aaaabbbb-0000-cccc-1111-dddd2222eeee",
    "bbbbcccc-1111-dddd-2222-eeee3333ffff",
)
API = "00001111-aaaa-2222-bbbb-3333cccc4444"


def guard_of(*described: Issuer) -> ToolGuard:
    return ToolGuard(issuers=described, audience=SERVER)


def accepted(guard: ToolGuard, token: str) -> Principal:
    return asyncio.run(guard.verifier.verify(token))


def reason(guard: ToolGuard, token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(guard.verifier.verify(token))
    return caught.value.reason


def with_keys(described: Issuer, local: LocalIssuer, **settings: Any) -> Issuer:
    plain = {"metadata_url": None, "metadata_issuer": None, "jwks_url": None}
    return described.with_settings(**plain, keys=StaticKeys(local.jwks()), **settings)


@pytest.mark.parametrize("name", NAMES)
def test_a_token_of_the_providers_shape_passes_its_preset(name: ProviderName) -> None:
    local = LOCAL[name]

    assert accepted(guard_of(local.described), local.mint("alice")).user_id == "alice"


@pytest.mark.parametrize("name", NAMES)
def test_all_presets_together_take_each_providers_token(name: ProviderName) -> None:
    guard = guard_of(*(local.described for local in LOCAL.values()))

    assert accepted(guard, LOCAL[name].mint("alice")).issuer == LOCAL[name].issuer


@given(
    name=st.sampled_from(NAMES),
    other=st.sampled_from(NAMES),
    change=st.sampled_from(["iss", "aud", "key", "kind", "bound", "expired"]),
)
def test_no_profile_takes_what_belongs_to_another(
    name: ProviderName, other: ProviderName, change: str
) -> None:
    local, stranger = LOCAL[name], LOCAL[other]
    guard = guard_of(local.described)
    claims = local.claims("alice")
    tokens: dict[str, Callable[[], str]] = {
        "iss": lambda: local.sign({**claims, "iss": f"{local.issuer}x"}),
        "aud": lambda: local.sign({**claims, "aud": f"{local.audience}x"}),
        "key": lambda: LocalIssuer.like(other, algorithm="ES256").sign(
            claims, headers={"kid": local.key_id}
        ),
        "kind": lambda: local.sign({**claims, "token_type": "refresh_token"}),
        "bound": lambda: local.sign({**claims, "cnf": {"jkt": "x"}}),
        "expired": lambda: local.mint_expired("alice"),
    }

    reason(guard, tokens[change]())
    if name != other:
        assert reason(guard, stranger.mint("alice")) in ("issuer", "key")  # jku of XSUAA


@pytest.mark.parametrize("name", [name for name in NAMES if PROVIDERS[name].described])
def test_each_mark_of_an_access_token_is_required(name: ProviderName) -> None:
    local = LOCAL[name]
    guard = guard_of(local.described)

    for claim, value in local.described.must_carry.items():
        without = {name: each for name, each in local.claims("alice").items() if name != claim}
        assert reason(guard, local.sign(without)) == "type"
        if value is not None:
            assert reason(guard, local.sign({**without, claim: "other"})) == "type"


@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_minted_by_the_description_that_verifies_them(name: ProviderName) -> None:
    provider, local = PROVIDERS[name], LOCAL[name]
    described = provider.described
    assert described is not None
    claims = local.claims("alice", scopes=["read"])

    assert described.issuer_names.has(provider.issuer)
    assert provider.audience in (*described.audiences, SERVER)
    assert {"nonce", "at_hash"} & claims.keys() == set(described.may_carry)
    assert set(described.must_carry) <= claims.keys()
    assert provider.header.keys() == set(described.ignored_parameters)
    assert accepted(guard_of(local.described), local.mint("alice", scopes=["read"])).scopes == (
        "read",
    )
    assert reason(guard_of(local.described), local.mint_id_token("alice")) == "type"


# --- Entra


def entra_token(local: LocalIssuer, tenant: str, version: int, **claims: Any) -> str:
    names = {
        1: f"https://sts.windows.net/{tenant}/",
        2: f"https://login.microsoftonline.com/{tenant}/v2.0",
    }
    changed = {"iss": names[version], "tid": tenant, **claims}
    return local.sign({**local.claims("alice"), **changed})


def test_entra_has_two_versions_of_one_tenant() -> None:
    local = LOCAL["entra"]
    guard = guard_of(with_keys(issuers.entra(TENANT, client_id=API), local))

    assert accepted(guard, entra_token(local, TENANT, 1, aud=f"api://{API}")).tenant_id == TENANT
    assert accepted(guard, entra_token(local, TENANT, 2)).tenant_id == TENANT
    assert reason(guard, entra_token(local, OTHER_TENANT, 2)) == "issuer"
    assert reason(guard, entra_token(local, TENANT, 2, tid=OTHER_TENANT)) == "issuer"


def test_entra_takes_the_tenants_of_a_list_and_no_others() -> None:
    local = LOCAL["entra"]
    guard = guard_of(with_keys(issuers.entra([TENANT, OTHER_TENANT], client_id=API), local))

    for tenant in (TENANT, OTHER_TENANT):
        assert accepted(guard, entra_token(local, tenant, 2)).tenant_id == tenant
    assert reason(guard, entra_token(local, "ccccdddd", 2)) == "issuer"
    assert guard.metadata()["authorization_servers"] == [
        f"https://login.microsoftonline.com/{tenant}/v2.0" for tenant in (TENANT, OTHER_TENANT)
    ]


@pytest.mark.parametrize("tenant", ["common", "organizations", "", []])
def test_entra_needs_the_tenants_that_may_sign_in(tenant: Any) -> None:
    with pytest.raises(ValueError, match=r"guard\.add_issuer"):
        issuers.entra(tenant, client_id=API)


@pytest.mark.parametrize(
    ("key_issuer", "passes"),
    [
        ("https://login.microsoftonline.com/{tenantid}/v2.0", True),
        (f"https://login.microsoftonline.com/{TENANT}/v2.0", True),
        (f"https://login.microsoftonline.com/{OTHER_TENANT}/v2.0", False),
        ("https://login.microsoftonline.com/9188040d/v2.0", False),
    ],
)
def test_a_key_of_entra_signs_for_its_own_tenant(key_issuer: str, passes: bool) -> None:
    local = LOCAL["entra"]
    (jwk,) = local.jwks()["keys"]
    keys = StaticKeys(KeySet.from_jwks({"keys": [{**jwk, "issuer": key_issuer}]}))
    described = issuers.entra([TENANT, OTHER_TENANT], client_id=API).with_settings(
        metadata_url=None, metadata_issuer=None, keys=keys
    )
    guard = guard_of(described)

    token = entra_token(local, TENANT, 2)
    if passes:
        assert accepted(guard, token).tenant_id == TENANT
    else:
        assert reason(guard, token) == "key"


# --- Descope


DESCOPE = "https://api.descope.com"
OF_PROJECT = (
    f"{DESCOPE}/P2test",
    f"{DESCOPE}/v1/apps/P2test",
    f"{DESCOPE}/v1/apps/agentic/P2test/MS2test",
    f"{DESCOPE}/v1/apps/P2test/T2acme",
)


def test_descope_has_every_issuer_of_one_project() -> None:
    local = LOCAL["descope"]
    guard = guard_of(with_keys(issuers.descope("P2test"), local))

    for name in OF_PROJECT:
        assert accepted(guard, local.mint("alice", iss=name)).issuer == name
    for name in (
        f"{DESCOPE}/P2other",
        f"{DESCOPE}/P2test/",
        f"{DESCOPE}/P2test/x/y",
        f"{DESCOPE}/v1/apps/agentic/P2test/",
        f"{DESCOPE}/v1/apps/agentic/P2test/MS/more",
        f"{DESCOPE}/v1/apps/agentic/P2test/..",
        f"{DESCOPE}/v1/apps/agentic/P2test/MS2test\n",
        "https://api.descope.com.evil.example/P2test",
        f"{DESCOPE}/v1/apps/P2other/T2acme",
    ):
        assert reason(guard, local.mint("alice", iss=name)) == "issuer"


def test_servers_and_tenants_of_descope_can_be_listed() -> None:
    local = LOCAL["descope"]
    known = issuers.descope("P2test", servers=["MS2test"], tenants=[])
    guard = guard_of(with_keys(known, local))

    assert accepted(guard, local.mint("alice", iss=OF_PROJECT[2])).issuer == OF_PROJECT[2]
    assert reason(guard, local.mint("alice", iss=f"{OF_PROJECT[2]}x")) == "issuer"
    assert reason(guard, local.mint("alice", iss=OF_PROJECT[3])) == "issuer"


@pytest.mark.parametrize("name", OF_PROJECT)
def test_any_address_of_a_descope_project_names_it(name: str) -> None:
    described = issuers.descope(f"{name}/.well-known/openid-configuration")

    assert described.url == name
    assert described.issuer_names == issuers.descope("P2test").issuer_names


@pytest.mark.parametrize("project", ["", "X2abc", "https://api.descope.com/x", "http://a.test/P2a"])
def test_what_names_no_project_of_descope_is_refused(project: str) -> None:
    with pytest.raises(ValueError, match="descope"):
        issuers.descope(project)


# --- Cognito


def test_a_cognito_token_without_audience_is_held_against_its_client() -> None:
    local = LOCAL["cognito"]
    guard = guard_of(with_keys(issuers.cognito("eu-west-1_Example", clients=["mine"]), local))

    assert accepted(guard, local.mint("alice", aud=None, client_id="mine")).client_id == "mine"
    assert accepted(guard, local.mint("alice", client_id="other")).client_id == "other"
    assert reason(guard, local.mint("alice", aud=None, client_id="other")) == "audience"
    assert reason(guard, local.mint("alice", aud=None, client_id=None)) == "audience"
    assert reason(guard, local.mint("alice", aud="https://x.test", client_id="mine")) == "audience"
    assert reason(guard, local.mint("alice", aud=None, client_id="mine", token_use="id")) == "type"


@pytest.mark.parametrize("settings", [{"clients": []}, {"clients": "mine"}])
def test_cognito_needs_a_list_of_clients(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="clients"):
        issuers.cognito("eu-west-1_Example", **settings)


# --- others


@pytest.mark.parametrize("parameter", ["jwk", "x5u", "x5c"])
def test_xsuaa_ignores_jku_only(parameter: str) -> None:
    local = LOCAL["xsuaa"]
    guard = guard_of(local.described)

    assert reason(guard, local.mint("alice", headers={parameter: "https://x.test"})) == "key"


@pytest.mark.parametrize(
    ("make", "url"),
    [
        (lambda: issuers.auth0("https://acme.auth0.com/"), "https://acme.auth0.com/"),
        (lambda: issuers.keycloak("https://sso.test/realms/a/"), "https://sso.test/realms/a"),
        (lambda: issuers.workos("acme.authkit.app"), "https://acme.authkit.app"),
        (lambda: issuers.supabase("auth.acme.com"), "https://auth.acme.com/auth/v1"),
        (lambda: issuers.zitadel("id.acme.com"), "https://id.acme.com"),
    ],
)
def test_an_issuer_is_made_of_what_its_console_shows(make: Callable[[], Issuer], url: str) -> None:
    assert make().url == url


@pytest.mark.parametrize(
    "make",
    [
        lambda: issuers.auth0("acme.auth0.com/path"),
        lambda: issuers.auth0("http://acme.auth0.com"),
        lambda: issuers.auth0("user:secret@acme.auth0.com"),
        lambda: issuers.okta("https://acme.okta.com"),
        lambda: issuers.keycloak("https://sso.test"),
        lambda: issuers.cognito("Abc", clients=["a"]),
        lambda: Issuer(""),
        lambda: Issuer("https://a.test/.well-known/openid-configuration"),
        lambda: Issuer("https://a.test?x"),
        lambda: Issuer("http://a.test"),
        lambda: Issuer("https://a.test", names=["https://a.test/{x}"]),
        lambda: Issuer("https://a.test", names=["https://a.test/{x"], members={"x": ["1"]}),
        lambda: Issuer("https://a.test", names=[""]),
        lambda: Issuer("https://a.test", audience=""),
        lambda: Issuer("https://a.test", leeway=301),
        lambda: Issuer("https://a.test", leeway=float("nan")),
        lambda: Issuer("https://a.test", may_carry=["c_hash"]),
        lambda: Issuer("https://a.test", ignored_parameters=["crit"]),
        lambda: Issuer(
            "https://a.test", jwks_url="https://a.test", keys=StaticKeys(LOCAL["okta"].jwks())
        ),
    ],
)
def test_what_describes_no_issuer_is_refused(make: Callable[[], Issuer]) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the sentence differs
        make()
    assert "secret" not in str(caught.value)


def test_metadata_given_as_an_issuer_is_told_apart() -> None:
    with pytest.raises(ValueError, match="is the URL of metadata"):
        ToolGuard(issuer="https://a.test/.well-known/openid-configuration", audience=SERVER)


def test_an_issuer_is_a_value() -> None:
    assert issuers.auth0("a.test") == Issuer("https://a.test/")
    assert len({issuers.auth0("a.test"), Issuer("https://a.test/")}) == 1
    assert replace(Issuer("https://a.test"), leeway=9).leeway == 9


@pytest.mark.parametrize("name", NAMES)
def test_the_strict_default_is_what_it_was(name: ProviderName) -> None:
    local = LOCAL[name]
    strict = JWTVerifier(
        issuer=local.issuer, audience=local.audience, keys=StaticKeys(local.jwks())
    )
    lenient = ("authentik", "azure-b2c", "casdoor", "dex", "google", "xsuaa")
    if name in lenient:
        with pytest.raises(InvalidTokenError):
            strict.verify_now(local.mint("alice"))
    else:
        assert strict.verify_now(local.mint("alice")) is not None
