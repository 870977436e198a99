"""What real authorization servers send: served, or refused with a sentence that says what to do.

One row is one habit of a vendor: the setting, the claims and headers of its token, and what becomes
of it. The settings are those of a guard, so nothing is fetched: the keys are given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from toolguard import Issuer, ToolGuard
from toolguard.errors import InvalidTokenError
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.tokens import issuers
from toolguard.tokens.keys import StaticKeys

NOW = 1_800_000_000
SERVER = "https://mcp.test/mcp"
LOCAL = LocalIssuer(algorithm="ES256")
KEYS = StaticKeys(LOCAL.jwks())
TENANT, OTHER_TENANT = "aaaabbbb-0000-cccc-1111", "bbbbcccc-1111-dddd-2222"
API = "00001111-aaaa-2222"
MICROSOFT, DESCOPE = "https://login.microsoftonline.com", "https://api.descope.com"


@dataclass(frozen=True)
class Row:
    """A token that an authorization server sends, and what becomes of it.

    Attributes:
        issuer: the setting.
        claims: the claims of the token, apart from ``sub``, ``exp`` and ``iat``; None omits one.
        expected: attributes of the principal; None for a token that is refused.
        said: what the log says for it.
        headers: further headers of the token.
    """

    issuer: Issuer
    claims: Mapping[str, Any]
    expected: Mapping[str, Any] | None = field(default_factory=dict)
    said: Sequence[str] = ()
    headers: Mapping[str, Any] = field(default_factory=lambda: {"typ": "JWT"})


def refused(issuer: Issuer, claims: Mapping[str, Any], *said: str) -> Row:
    return Row(issuer, claims, None, said)


PROJECT = issuers.descope("P2test")
AUTH0 = issuers.auth0("acme.eu.auth0.com", permissions_are_scopes=True)
AUTH0_TOKEN = {"iss": "https://acme.eu.auth0.com/", "azp": "app", "aud": SERVER}
ENTRA = issuers.entra(TENANT, client_id=API)
ENTRA_TOKEN = {
    "iss": f"{MICROSOFT}/{TENANT}/v2.0",
    "aud": API,
    "azp": "app",
    "tid": TENANT,
    "scp": "notes.read",
}
SEVERAL = issuers.entra([TENANT, OTHER_TENANT], client_id=API)
ADFS = issuers.adfs("adfs.example.com")
ADFS_TOKEN = {
    "iss": "http://adfs.example.com/adfs/services/trust",
    "aud": SERVER,
    "appid": "app",
}
B2C = issuers.azure_b2c("contoso", tenant_id="775527ff", policy="B2C_1_in", client_id=API)
OKTA = issuers.okta("https://acme.okta.com/oauth2/default")
COGNITO = issuers.cognito("eu-west-1_Abc", clients=["mine"], resource_server="notes")
POOL = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc"
COGNITO_TOKEN = {
    "iss": POOL,
    "client_id": "mine",
    "token_use": "access",
    "scope": "notes/read openid",
}
REALM = "https://sso.example.com/realms/acme"
KEYCLOAK = issuers.keycloak(REALM)
KEYCLOAK_TOKEN = {"iss": REALM, "typ": "Bearer", "azp": "app", "aud": SERVER}
DEX = issuers.dex("https://dex.example.com", audience="mine")
DEX_TOKEN = {"iss": "https://dex.example.com", "aud": "mine", "at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}
AUTHENTIK = issuers.authentik("https://id.example.com/application/o/mcp", audience="mine")
CASDOOR = issuers.casdoor("https://casdoor.example.com", audience="mine")
XSUAA = issuers.xsuaa("acme.authentication.eu10.hana.ondemand.com", xsappname="notes!t1")
XSUAA_TOKEN = {
    "iss": "https://acme.authentication.eu10.hana.ondemand.com/oauth/token",
    "aud": ["sb-app", "notes!t1"],
    "cid": "sb-app",
    "scope": ["notes!t1.Read", "openid"],
}
WORKOS = issuers.workos("acme.authkit.app")
SUPABASE = issuers.supabase("abcdefghijklmnopqrst")
DUENDE = Issuer("https://duende.example.com")
# Stytch and Google write their issuer without a scheme.
SCHEMELESS = Issuer("https://accounts.google.com", names=["accounts.google.com"])

ROWS: dict[str, Row] = {
    "Descope, the project": Row(PROJECT, {"iss": f"{DESCOPE}/P2test", "aud": SERVER}),
    "Descope, inbound apps": Row(PROJECT, {"iss": f"{DESCOPE}/v1/apps/P2test", "aud": SERVER}),
    "Descope, an MCP server": Row(
        PROJECT, {"iss": f"{DESCOPE}/v1/apps/agentic/P2test/MS1", "aud": [SERVER]}
    ),
    "Descope, a tenant": Row(PROJECT, {"iss": f"{DESCOPE}/v1/apps/P2test/T1", "aud": SERVER}),
    "Descope, the project as audience": Row(
        PROJECT.with_settings(audience=["P2test"]), {"iss": f"{DESCOPE}/P2test", "aud": "P2test"}
    ),
    "Descope, the project as audience of a server": refused(
        PROJECT, {"iss": f"{DESCOPE}/P2test", "aud": "P2test"}, "aud is 'P2test', expected"
    ),
    "Descope, another project": refused(
        PROJECT, {"iss": f"{DESCOPE}/P2other", "aud": SERVER}, "iss is", "P2other", "expected"
    ),
    "Auth0": Row(AUTH0, {**AUTH0_TOKEN, "permissions": ["a"]}, {"scopes": ("a",)}),
    "Auth0, userinfo too": Row(
        AUTH0, {**AUTH0_TOKEN, "aud": [SERVER, "https://acme.eu.auth0.com/userinfo"]}
    ),
    "Auth0, a machine": Row(AUTH0, {**AUTH0_TOKEN, "sub": "app@clients"}, {"is_machine": True}),
    "Auth0, the slash forgotten": refused(
        Issuer("https://acme.eu.auth0.com"), AUTH0_TOKEN, "expected", "they differ by a slash"
    ),
    "authentik": Row(
        AUTHENTIK,
        {
            "iss": "https://id.example.com/application/o/mcp/",
            "aud": "mine",
            "azp": "mine",
            "uid": "1",
            "nonce": "n",
        },
    ),
    "JumpCloud": Row(
        Issuer("https://oauth.id.jumpcloud.com/"),
        {"iss": "https://oauth.id.jumpcloud.com/", "aud": SERVER},
    ),
    "Entra, version 2": Row(ENTRA, ENTRA_TOKEN, {"scopes": ("notes.read",), "tenant_id": TENANT}),
    "Entra, version 1": Row(
        ENTRA,
        {
            **ENTRA_TOKEN,
            "iss": f"https://sts.windows.net/{TENANT}/",
            "aud": f"api://{API}",
            "azp": None,
            "appid": "app",
        },
        {"client_id": "app"},
    ),
    "Entra, an application": Row(
        ENTRA,
        {**ENTRA_TOKEN, "scp": None, "roles": ["Notes.Read.All"], "idtyp": "app"},
        {"is_machine": True, "roles": ("Notes.Read.All",), "scopes": ()},
    ),
    "Entra, several tenants": Row(SEVERAL, ENTRA_TOKEN, {"tenant_id": TENANT}),
    "Entra, a tenant not listed": refused(
        SEVERAL, {**ENTRA_TOKEN, "iss": f"{MICROSOFT}/other/v2.0", "tid": "other"}, "iss is"
    ),
    "Azure B2C": Row(
        B2C,
        {
            "iss": "https://contoso.b2clogin.com/775527ff/v2.0/",
            "aud": API,
            "azp": "app",
            "nonce": "n",
        },
    ),
    "AD FS": Row(ADFS, ADFS_TOKEN, {"client_id": "app"}),
    "AD FS, another identifier": refused(
        ADFS, {**ADFS_TOKEN, "iss": "urn:fs"}, "'urn:fs'", "adfs(..., access_token_issuer=...)"
    ),
    "AD FS, another identifier, given": Row(
        issuers.adfs("adfs.example.com", access_token_issuer="urn:fs"),
        {**ADFS_TOKEN, "iss": "urn:fs"},
    ),
    "Okta, a custom server": Row(
        OKTA,
        {"iss": OKTA.url, "aud": SERVER, "cid": "app", "scp": ["read"]},
        {"scopes": ("read",)},
        headers={"typ": None},
    ),
    "Cognito": Row(COGNITO, COGNITO_TOKEN, {"client_id": "mine", "scopes": ("read", "openid")}),
    "Cognito, another app client": refused(
        COGNITO, {**COGNITO_TOKEN, "client_id": "other"}, "aud is missing", "app clients"
    ),
    "Keycloak": Row(KEYCLOAK, KEYCLOAK_TOKEN),
    "Keycloak before 25": Row(KEYCLOAK, {**KEYCLOAK_TOKEN, "nonce": "n"}),
    "Keycloak, no audience mapper": refused(
        KEYCLOAK, {**KEYCLOAK_TOKEN, "aud": None}, "aud is missing", "an audience mapper"
    ),
    "Keycloak, account": refused(
        KEYCLOAK, {**KEYCLOAK_TOKEN, "aud": "account"}, "'account'", "add an audience mapper"
    ),
    "Keycloak, account as audience": Row(
        KEYCLOAK.with_settings(audience="account"),
        {**KEYCLOAK_TOKEN, "aud": "account"},
        said=["lets the tokens of other applications in"],
    ),
    "Keycloak, in containers": Row(
        issuers.keycloak(
            "http://keycloak:8080/realms/a",
            network=issuers.Network(insecure_origins=["http://keycloak:8080"]),
        ),
        {**KEYCLOAK_TOKEN, "iss": "http://keycloak:8080/realms/a"},
    ),
    "Dex": Row(DEX, DEX_TOKEN),
    "Dex without its preset": refused(
        Issuer("https://dex.example.com", audience="mine"), DEX_TOKEN, "it has at_hash", "a preset"
    ),
    "Casdoor": Row(
        CASDOOR,
        {
            "iss": "https://casdoor.example.com",
            "aud": ["mine"],
            "tokenType": "access-token",
            "nonce": "n",
        },
    ),
    "XSUAA": Row(
        XSUAA,
        XSUAA_TOKEN,
        {"scopes": ("Read", "openid")},
        headers={"typ": "JWT", "jku": "https://evil.example/keys"},
    ),
    "XSUAA without its preset": Row(
        Issuer(str(XSUAA_TOKEN["iss"]), audience="notes!t1"),
        XSUAA_TOKEN,
        None,
        ["brings its own key", 'ignored_parameters=["jku"]'],
        {"typ": "JWT", "jku": "https://evil.example/keys"},
    ),
    "Keycloak, a refresh token": refused(
        KEYCLOAK, {**KEYCLOAK_TOKEN, "typ": "Refresh"}, "it states another kind"
    ),
    "Keycloak, a logout token": refused(
        KEYCLOAK, {**KEYCLOAK_TOKEN, "typ": "Logout", "events": {}}, "expected an access token"
    ),
    "Cognito, an ID token": refused(COGNITO, {**COGNITO_TOKEN, "token_use": "id"}, "another kind"),
    "Entra, an ID token": refused(ENTRA, {**ENTRA_TOKEN, "azp": None}, "it lacks appid or azp"),
    "WorkOS": Row(WORKOS, {"iss": WORKOS.url, "aud": SERVER, "client_id": "app"}),
    "WorkOS, a session": refused(WORKOS, {"sid": "session_1"}, "iss is missing", "use a Connect"),
    "Supabase": Row(
        SUPABASE,
        {"iss": SUPABASE.url, "aud": "authenticated", "role": "authenticated"},
        said=["audience 'authenticated' lets the tokens of other applications in"],
    ),
    "Duende, a machine": Row(
        DUENDE,
        {"iss": DUENDE.url, "aud": SERVER, "sub": None, "client_id": "job"},
        {"is_machine": True, "user_id": None},
        headers={"typ": "at+jwt"},
    ),
    "Stytch, Google": Row(SCHEMELESS, {"iss": "accounts.google.com", "aud": SERVER}),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_what_a_vendor_sends_is_served_or_explained(
    row: Row, caplog: pytest.LogCaptureFixture
) -> None:
    plain = {"metadata_url": None, "metadata_issuer": None, "jwks_url": None}
    described = row.issuer.with_settings(**plain, keys=KEYS)
    guard = ToolGuard(issuer=described, audience=SERVER, clock=FrozenClock(NOW))
    claims = {"sub": "alice", "exp": NOW + 300, "iat": NOW, **row.claims}
    token = LOCAL.sign(
        {name: value for name, value in claims.items() if value is not None}, headers=row.headers
    )

    if row.expected is None:
        with pytest.raises(InvalidTokenError):
            asyncio.run(guard.verifier.verify(token))
        assert len(caplog.messages) == 1
    else:
        principal = asyncio.run(guard.verifier.verify(token))
        assert {name: getattr(principal, name) for name in row.expected} == row.expected
        assert principal.issuer == row.claims["iss"]
    for sentence in row.said:
        assert sentence in caplog.text
    assert token.rpartition(".")[2] not in caplog.text


# What no token is needed for


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: issuers.okta("https://acme.okta.com"), "org authorization server are for Okta"),
        (lambda: issuers.entra("common", client_id=API), "ids of the tenants"),
        (lambda: issuers.entra("organizations", client_id=API), "ids of the tenants"),
        (lambda: issuers.cognito("eu-west-1_Abc", clients=[]), "write clients="),
        (lambda: issuers.keycloak("http://keycloak:8080/realms/a"), "insecure_origins="),
        (lambda: Issuer("accounts.google.com"), "write https://auth.example.com"),
        (lambda: issuers.descope("myproject"), 'write descope("P2abc...")'),
    ],
)
def test_a_setting_that_cannot_be_served_says_what_to_write(
    make: Callable[[], Issuer], said: str
) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        make()
    assert said in str(caught.value)


@pytest.mark.parametrize("settings", [["https://a.test"], ["https://a.test", "https://b.test"]])
@pytest.mark.parametrize("token", ["ya29.opaque", "gho_opaque", "oat_opaque", "00opaque"])
def test_an_opaque_token_is_told_of_in_the_log(
    token: str, settings: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    described = [Issuer(url, keys=KEYS) for url in settings]
    guard = ToolGuard(issuers=described, audience=SERVER)
    with pytest.raises(InvalidTokenError):
        asyncio.run(guard.verifier.verify(token))

    assert "write Issuer(..., introspection=Introspection(...))" in caplog.text
    assert token not in caplog.text


def test_a_client_of_entra_asks_for_the_long_name_of_a_scope() -> None:
    assert ENTRA.scope_names.requested("notes.read") == f"api://{API}/notes.read"
