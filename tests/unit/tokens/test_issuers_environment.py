"""Issuers as environment variables describe them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from toolguard import Issuer, JWTVerifier, ToolGuard
from toolguard.tokens import issuers
from toolguard.tokens.issuers.environment import issuers_from
from toolguard.tokens.trust import TrustedIssuers

URL = "https://mcp.example.com/mcp"
CLIENT = {"TOOLGUARD_CLIENT_ID": "one two"}


@pytest.mark.parametrize(
    ("word", "described"),
    [
        ("https://id.example.com", Issuer("https://id.example.com")),
        ("auth0:acme.eu.auth0.com", issuers.auth0("acme.eu.auth0.com")),
        ("descope:P2abc", issuers.descope("P2abc")),
        ("okta:https://a.test/oauth2/x", issuers.okta("https://a.test/oauth2/x")),
        ("keycloak:https://a.test/realms/x", issuers.keycloak("https://a.test/realms/x")),
        ("entra:t1", issuers.entra("t1", client_id="one")),
        ("entra:t1,t2", issuers.entra(["t1", "t2"], client_id="one")),
        (
            "cognito:https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_A",
            issuers.cognito("eu-west-1_A", clients=["one", "two"]),
        ),
        ("adfs:https://a.test/adfs", issuers.adfs("a.test")),
        ("cognito:eu-west-1_A", issuers.cognito("eu-west-1_A", clients=["one", "two"])),
        (
            "azure_b2c:contoso,775527ff,B2C_1_in",
            issuers.azure_b2c("contoso", tenant_id="775527ff", policy="B2C_1_in", client_id="one"),
        ),
        ("google:one,two", issuers.google(["one", "two"])),
        ("xsuaa:a.test", issuers.xsuaa("a.test", xsappname="one")),
    ],
)
def test_a_word_is_a_url_or_a_preset(word: str, described: Issuer) -> None:
    assert issuers_from({**CLIENT, "TOOLGUARD_ISSUER": word}) == [described]


def test_a_guard_trusts_all_issuers_of_the_environment() -> None:
    made = ToolGuard.from_env(
        {"TOOLGUARD_ISSUER": "https://a.test  auth0:b.test", "MCP_SERVER_URL": URL}
    )

    assert isinstance(made.verifier, TrustedIssuers)
    assert made.issuers == ("https://a.test", "https://b.test/")


def test_settings_of_the_environment_hold_for_all_issuers() -> None:
    made = issuers_from(
        {
            "TOOLGUARD_ISSUER": "https://a.test auth0:b.test",
            "TOOLGUARD_LEEWAY": "30",
            "TOOLGUARD_TOKEN_TYPES": "at+jwt",
            "TOOLGUARD_PERMISSIONS_ARE_SCOPES": "True",
        }
    )

    for each in made:
        assert (each.leeway, tuple(each.token_types)) == (30, ("at+jwt",))
        assert each.permissions_are_scopes


def test_several_audiences_are_separated_by_blanks() -> None:
    environ = {"TOOLGUARD_ISSUER": "https://a.test", "MCP_SERVER_URL": URL}
    made = ToolGuard.from_env({**environ, "TOOLGUARD_AUDIENCE": "one  two"})

    assert isinstance(made.verifier, JWTVerifier)
    assert made.verifier.audiences == ("one", "two")


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TOOLGUARD_LEEWAY": "soon"}, "TOOLGUARD_LEEWAY is 'soon'"),
        ({"TOOLGUARD_LEEWAY": "nan"}, "TOOLGUARD_LEEWAY is 'nan'"),
        ({"TOOLGUARD_LEEWAY": "301"}, "TOOLGUARD_LEEWAY is '301'"),
        ({"TOOLGUARD_PERMISSIONS_ARE_SCOPES": "x"}, "TOOLGUARD_PERMISSIONS_ARE_SCOPES is 'x'"),
        ({"TOOLGUARD_ISSUER": "entra:t1"}, "TOOLGUARD_ISSUER holds 'entra:t1': set TOOLGUARD_CL"),
        ({"TOOLGUARD_ISSUER": "entra:common", **CLIENT}, "TOOLGUARD_ISSUER holds 'entra:common'"),
        ({"TOOLGUARD_ISSUER": "azure_b2c:contoso", **CLIENT}, "write azure_b2c:NAME,TENANT-ID,POL"),
        ({"TOOLGUARD_ISSUER": "azure_b2c:a,,b", **CLIENT}, "TOOLGUARD_ISSUER holds 'azure_b2c:a,"),
        ({"TOOLGUARD_ISSUER": "azure_b2c:a,b,c"}, "set TOOLGUARD_CLIENT_ID"),
        ({"TOOLGUARD_ISSUER": "http://a.test"}, "TOOLGUARD_ISSUER holds 'http://a.test'"),
        ({"TOOLGUARD_ISSUER": "acme:x"}, "TOOLGUARD_ISSUER holds 'acme:x'"),
        ({"TOOLGUARD_ISSUER": "azure-b2c:x"}, "a preset with an argument: adfs, auth0, authentik"),
        ({"TOOLGUARD_ISSUER": "a.test"}, "TOOLGUARD_ISSUER holds 'a.test': it is neither a URL"),
        ({"TOOLGUARD_ISSUER": "google"}, "TOOLGUARD_ISSUER holds 'google': a preset takes an"),
        ({"TOOLGUARD_ISSUER": "auth0:"}, "write auth0:acme.eu.auth0.com"),
        (
            {"TOOLGUARD_ISSUER": "https://a.test https://a.test"},
            "TOOLGUARD_ISSUER holds 'https://a.test' twice",
        ),
        ({"TOOLGUARD_TOKEN_TYPES": "at+jwt,JWT"}, "TOOLGUARD_TOKEN_TYPES holds 'at+jwt,JWT'"),
        (
            {"TOOLGUARD_ISSUER": "cognito:https://cognito-idp.eu-west-1.evil.com/eu-west-1_A"}
            | CLIENT,
            "the id of a user pool",
        ),
        (
            {"TOOLGUARD_ISSUER": "cognito:https://cognito-idp.x.amazonaws.com/eu-west-1_A"}
            | CLIENT,
            "the id of a user pool",
        ),
    ],
)
def test_a_wrong_variable_is_named_with_its_value(environ: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        issuers_from({"TOOLGUARD_ISSUER": "https://a.test", **environ})


def test_a_password_in_a_variable_is_not_shown() -> None:
    with pytest.raises(ValueError, match="TOOLGUARD_ISSUER") as caught:
        issuers_from({"TOOLGUARD_ISSUER": "https://user:secret@a.test"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"TOOLGUARD_ISSUER": "  "}, "set TOOLGUARD_ISSUER"),
        ({"MCP_SERVER_URL": "mcp.test"}, "MCP_SERVER_URL is 'mcp.test': "),
        ({"MCP_SERVER_URL": "http://mcp.example.com"}, "MCP_SERVER_URL is 'http://mcp.example"),
        ({"MCP_SERVER_URL": "https://u:secret@a.test"}, "MCP_SERVER_URL is a URL: "),
        ({"MCP_SERVER_URL": "", "TOOLGUARD_AUDIENCE": "api://a"}, "set MCP_SERVER_URL"),
        ({"TOOLGUARD_AUDIENCE": "a https://a.test#b"}, "TOOLGUARD_AUDIENCE is 'https://a.test#b'"),
    ],
)
def test_a_guard_names_the_wrong_variable(environ: dict[str, str], said: str) -> None:
    given = {"TOOLGUARD_ISSUER": "https://a.test", "MCP_SERVER_URL": URL, **environ}
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        ToolGuard.from_env(given)
    assert "secret" not in str(caught.value)


def test_an_audience_that_is_a_url_names_the_server() -> None:
    environ = {"TOOLGUARD_ISSUER": "https://a.test", "TOOLGUARD_AUDIENCE": URL}

    assert ToolGuard.from_env(environ).resource == URL


@pytest.mark.parametrize("vault", [{}, {"connections": None}])
def test_settings_hold_beside_the_metadata_url_of_descope(vault: dict[str, Any]) -> None:
    url = "https://api.descope.com/P2abc/.well-known/openid-configuration"
    environ = {"DESCOPE_MCP_WELL_KNOWN_URL": url, "MCP_SERVER_URL": URL}
    plain = ToolGuard.from_env(environ, **vault)
    set_otherwise = ToolGuard.from_env({**environ, "TOOLGUARD_LEEWAY": "20"}, **vault)

    assert isinstance(set_otherwise.verifier, JWTVerifier)
    assert set_otherwise.verifier.leeway == 20
    assert set_otherwise.issuers == plain.issuers
    assert type(set_otherwise.connections) is type(plain.connections)
    with pytest.raises(ValueError, match="TOOLGUARD_LEEWAY is 'soon'"):
        ToolGuard.from_env({**environ, "TOOLGUARD_LEEWAY": "soon"})
