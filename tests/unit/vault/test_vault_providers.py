"""Are the oddities of each service read as its documentation shows them?"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from toolguard.connections.http import VaultAnswer
from toolguard.errors import (
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.vault import (
    Endpoints,
    OAuthProvider,
    atlassian,
    dropbox,
    github,
    github_app,
    google,
    hubspot,
    linear,
    microsoft,
    notion,
    openid,
    salesforce,
    slack,
)
from toolguard.vault.grants import Grant
from toolguard.vault.token_answers import read_grant

NOW = 1_800_000_000.0
PAIR = ("client", "s3cret")
ALL = {
    "atlassian": atlassian(*PAIR),
    "dropbox": dropbox(*PAIR),
    "github": github(*PAIR),
    "github_app": github_app(*PAIR),
    "google": google(*PAIR),
    "hubspot": hubspot(*PAIR),
    "linear": linear(*PAIR),
    "microsoft": microsoft(*PAIR),
    "notion": notion(*PAIR),
    "openid": openid("https://auth.test", *PAIR),
    "salesforce": salesforce(*PAIR),
    "slack": slack(*PAIR),
}
ENDPOINTS = Endpoints("https://x.test/authorize", "https://x.test/token")


def read(
    provider: OAuthProvider, members: dict[str, Any], status: int = 200, *asked: str
) -> Grant | ConnectionTokenError:
    return read_grant(VaultAnswer(status, members), provider, "x", Grant("", scopes=asked), NOW)


def query(provider: OAuthProvider, *scopes: str) -> dict[str, list[str]]:
    url = provider.consent_url(ENDPOINTS, "https://mcp.test/cb", provider.asked(scopes), state="s")
    return parse_qs(urlsplit(url).query)


@pytest.mark.parametrize("name", ALL)
def test_every_service_says_where_it_is_documented(name: str) -> None:
    assert ALL[name].documentation.startswith("https://")


@pytest.mark.parametrize("name", ALL)
def test_the_representation_of_a_service_shows_no_secret(name: str) -> None:
    assert "s3cret" not in repr(ALL[name])


@pytest.mark.parametrize("name", ALL)
def test_every_consent_has_a_code_challenge_and_one_redirect_uri(name: str) -> None:
    asked = query(ALL[name], "a.scope")

    assert asked["code_challenge_method"] == ["S256"]
    assert asked["redirect_uri"] == ["https://mcp.test/cb"]
    assert asked["state"] == ["s"]


@pytest.mark.parametrize(
    ("provider", "parameter", "value"),
    [
        (google(*PAIR), "access_type", "offline"),
        (google(*PAIR), "include_granted_scopes", "true"),
        (microsoft(*PAIR), "scope", "Mail.Read openid email offline_access"),
        (slack(*PAIR), "user_scope", "Mail.Read"),
        (atlassian(*PAIR), "audience", "api.atlassian.com"),
        (notion(*PAIR), "owner", "user"),
        (dropbox(*PAIR), "token_access_type", "offline"),
    ],
)
def test_a_consent_asks_in_the_way_of_its_service(
    provider: OAuthProvider, parameter: str, value: str
) -> None:
    assert query(provider, "Mail.Read")[parameter] == [value]


def test_services_without_scopes_are_asked_for_none_and_lack_none() -> None:
    for provider in (notion(*PAIR), github_app(*PAIR)):
        assert "scope" not in query(provider, "a.scope")
        assert provider.missing(("a.scope",), ()) == []


def test_github_separates_scopes_by_commas_and_includes_some() -> None:
    answer = {"access_token": "gho_1", "scope": "repo,gist", "token_type": "bearer"}
    grant = read(github(*PAIR), answer)

    assert grant == Grant("gho_1", scopes=("repo", "gist"), obtained_at=NOW)
    assert github(*PAIR).missing(("public_repo", "gist"), ("repo", "gist")) == []
    assert github(*PAIR).missing(("repo",), ("public_repo",)) == ["repo"]


def test_a_refusal_with_status_200_is_a_refusal() -> None:
    assert isinstance(read(github(*PAIR), {"error": "bad_refresh_token"}), ConnectionRequiredError)
    assert isinstance(
        read(github(*PAIR), {"error": "bad_verification_code"}), ConnectionResponseError
    )
    refused = {"ok": False, "error": "invalid_refresh_token"}
    assert isinstance(read(slack(*PAIR), refused), ConnectionRequiredError)
    limited = {"ok": False, "error": "ratelimited"}
    assert isinstance(read(slack(*PAIR), limited), ConnectionUnavailableError)


def test_slack_nests_the_tokens_of_users() -> None:
    user = {
        "id": "U1",
        "scope": "chat:write,search:read",
        "access_token": "xoxp-1",
        "refresh_token": "xoxe-1",
        "token_type": "user",
        "expires_in": 43_200,
    }
    grant = read(slack(*PAIR), {"ok": True, "authed_user": user, "team": {"name": "Acme"}})

    assert grant == Grant(
        "xoxp-1",
        "xoxe-1",
        scopes=("chat:write", "search:read"),
        expires_at=NOW + 43_200,
        account="Acme",
        obtained_at=NOW,
    )


def test_an_account_is_named_by_the_id_token() -> None:
    id_token = jwt.encode({"email": "alice@gmail.test"}, "k" * 32)
    answer = {"access_token": "ya29", "expires_in": 3599, "id_token": id_token, "scope": "openid"}
    grant = read(google(*PAIR), answer)

    assert isinstance(grant, Grant)
    assert grant.account == "alice@gmail.test"


def test_an_answer_without_scope_means_what_was_asked_for() -> None:
    grant = read(hubspot(*PAIR), {"access_token": "a", "refresh_token": "r"}, 200, "oauth", "crm")

    assert isinstance(grant, Grant)
    assert grant.scopes == ("oauth", "crm")


def test_a_refresh_keeps_what_its_answer_leaves_out() -> None:
    before = Grant("old", "kept", scopes=("a",), account="al")
    grant = read_grant(
        VaultAnswer(200, {"access_token": "new"}), openid("https://a.test", *PAIR), "x", before, NOW
    )

    assert grant == Grant("new", "kept", scopes=("a",), account="al", obtained_at=NOW)


@pytest.mark.parametrize(
    "members",
    [
        {},
        {"access_token": 7},
        {"access_token": "two words"},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": "a", "expires_in": -1},
        {"access_token": "a", "scope": 7},
        {"access_token": "a", "refresh_token": ["r"]},
        {"access_token": "a", "id_token": "a.b.c", "expires_in": "soon"},
    ],
)
def test_garbage_is_an_error_that_quotes_nothing(members: dict[str, Any]) -> None:
    error = read(openid("https://auth.test", *PAIR), members)

    assert isinstance(error, ConnectionResponseError)
    for value in members.values():
        assert json.dumps(value) not in str(error)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"client_id": ""}, "client id"),
        ({"endpoints": None}, "issuer="),
        ({"issuer": "http://auth.test", "endpoints": None}, "https"),
    ],
)
def test_a_service_that_cannot_work_is_refused(change: dict[str, Any], told: str) -> None:
    settings = {"title": "X", "client_id": "c", "client_secret": "s", "endpoints": ENDPOINTS}
    with pytest.raises(ValueError, match=told):
        OAuthProvider(**{**settings, **change})


def test_scopes_as_one_string_are_refused() -> None:
    with pytest.raises(TypeError, match="a list"):
        google(*PAIR, scopes="a b")


def test_an_endpoint_without_https_is_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        Endpoints("https://x.test/authorize", "http://x.test/token")
