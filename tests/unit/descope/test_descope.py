"""Descope: what its URLs say, and what is sent to its vault."""

from __future__ import annotations

import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.vaults import READ, TOKEN, WELL_KNOWN, answering, asked, fetch
from toolguard.descope import DescopeConnections, DescopeProject
from toolguard.errors import ConnectionDeniedError

# An answer that names no user.
NAMELESS = {name: value for name, value in TOKEN.items() if name != "userId"}

# URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (
            "https://api.descope.com/P2abc/.well-known/openid-configuration",
            ("https://api.descope.com", "P2abc", None),
        ),
        (
            "https://auth.example.com/v1/apps/P2abc/.well-known/openid-configuration",
            ("https://auth.example.com", "P2abc", None),
        ),
        (WELL_KNOWN, ("https://api.descope.com", "P2abc", "MS3d")),
        (
            "https://auth.example/v1/apps/agentic/P2/MS3/.well-known/oauth-authorization-server",
            ("https://auth.example", "P2", "MS3"),
        ),
        (
            "https://api.descope.com/test/.well-known/openid-configuration",
            ("https://api.descope.com", "test", None),
        ),
        (
            "HTTPS://API.Descope.com:8443/P2abc/.well-known/openid-configuration",
            ("https://api.descope.com:8443", "P2abc", None),
        ),
        (
            "http://localhost:8000/P2abc/.well-known/openid-configuration",
            ("http://localhost:8000", "P2abc", None),
        ),
        (
            "http://127.0.0.1:8000/P2abc/.well-known/openid-configuration",
            ("http://127.0.0.1:8000", "P2abc", None),
        ),
        (
            "http://[::1]:8000/P2abc/.well-known/openid-configuration",
            ("http://[::1]:8000", "P2abc", None),
        ),
    ],
)
def test_every_well_known_form_says_base_url_project_and_server(
    url: str, expected: tuple[str, str, str | None]
) -> None:
    project = DescopeProject.from_well_known_url(url)

    assert (project.base_url, project.project_id, project.mcp_server_id) == expected
    assert project.well_known_url == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.descope.com/P2abc/.well-known/openid-configuration",
        "http://api.descope.com/P2abc/.well-known/openid-configuration",
        "http://localhost.evil.example/P2abc/.well-known/openid-configuration",
        "https://user:secret@api.descope.com/P2abc/.well-known/openid-configuration",
        "https://api.descope.com/P2abc",
        "https://api.descope.com/P2abc/.well-known/openid-configuration/",
        "https://api.descope.com/P2abc/.well-known/openid-configuration?x=1",
        "https://api.descope.com/P2abc/.well-known/openid-configuration#x",
        "https://api.descope.com/P2abc/.well-known/openid-configuration\n",
        "https://api.descope.com//P2abc/.well-known/openid-configuration",
        "https://api.descope.com/P2%61bc/.well-known/openid-configuration",
        "https://api.descope.com/P2:abc/.well-known/openid-configuration",
        "https://api.descope.com/tests/.well-known/openid-configuration",
        "https://api.descope.com/realms/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/agentic/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/agentic/P2abc/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/P2abc/T1/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/x/.well-known/openid-configuration",
        "https://api.descope.com/v1/apps/agentic/P2abc/MS3d",
        "https://999.1.1.1/P2abc/.well-known/openid-configuration",
        "https://[::::]/P2abc/.well-known/openid-configuration",
        "https://api.descope.com:99999/P2abc/.well-known/openid-configuration",
        "https://\N{KELVIN SIGN}.example/P2abc/.well-known/openid-configuration",
    ],
)
def test_any_other_url_is_refused_with_what_to_write(url: str) -> None:
    with pytest.raises(ValueError, match=r"https://api\.descope\.com/v1/apps/agentic/") as caught:
        DescopeProject.from_well_known_url(url)

    assert "secret" not in str(caught.value)


@given(st.text() | st.text(alphabet="htps:/.[]@Pv1agenticwel-knowo?#\\ %"))
def test_any_text_is_a_project_or_a_value_error(url: str) -> None:
    try:
        project = DescopeProject.from_well_known_url(url)
    except ValueError:
        return
    assert project.well_known_url == url


LABELS = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
HOSTS = st.lists(LABELS, min_size=2, max_size=4).map(".".join)
PROJECTS = st.from_regex(r"P[A-Za-z0-9_-]{1,32}", fullmatch=True)
SERVERS = st.none() | st.from_regex(r"[A-Za-z0-9_-]{1,40}", fullmatch=True)


@given(host=HOSTS, project_id=PROJECTS, server=SERVERS, by_apps=st.booleans())
def test_what_is_written_into_a_url_is_read_from_it(
    host: str, project_id: str, server: str | None, by_apps: bool
) -> None:
    path = f"v1/apps/agentic/{project_id}/{server}" if server else project_id
    if by_apps and not server:
        path = f"v1/apps/{project_id}"
    url = f"https://{host}/{path}/.well-known/openid-configuration"

    assert DescopeProject.from_well_known_url(url) == DescopeProject(
        f"https://{host}", project_id, server, url
    )


@pytest.mark.parametrize(
    ("base_url", "project_id", "server", "hint"),
    [
        ("http://api.descope.com", "P2abc", None, "base_url="),
        ("https://api.descope.com/", "P2abc", None, "base_url="),
        ("https://api.descope.com", "P2abc:ey", None, "project_id="),
        ("https://api.descope.com", "P2abc\r\nX: y", None, "project_id="),
        ("https://api.descope.com", "P2abc", "../x", "mcp_server_id="),
    ],
)
def test_a_project_cannot_be_made_of_what_would_not_fit_a_request(
    base_url: str, project_id: str, server: str | None, hint: str
) -> None:
    with pytest.raises(ValueError, match=hint):
        DescopeProject(base_url, project_id, server, WELL_KNOWN)


def test_a_well_known_url_that_is_not_set_is_named_as_such() -> None:
    with pytest.raises(TypeError, match="a well-known URL is a string"):
        DescopeConnections(None)  # type: ignore[arg-type]


# What is sent ----------------------------------------------------------------------------------


def test_scopes_are_asked_for_by_scopes() -> None:
    vault = answering(token=TOKEN)

    fetch(vault, asked(READ))

    assert vault.sent == [
        (
            "/v1/mgmt/outbound/app/user/token",
            {
                "appId": "google-calendar",
                "userId": "U1",
                "scopes": [READ],
                "options": {"withRefreshToken": False, "forceRefresh": False},
            },
        )
    ]


def test_without_scopes_the_latest_token_is_asked_for() -> None:
    vault = answering(token=TOKEN)

    fetch(vault, asked())

    assert vault.sent == [
        (
            "/v1/mgmt/outbound/app/user/token/latest",
            {
                "appId": "google-calendar",
                "userId": "U1",
                "options": {"withRefreshToken": False, "forceRefresh": False},
            },
        )
    ]


def test_the_vault_is_shown_the_callers_own_token() -> None:
    vault = answering(token=TOKEN)

    fetch(vault, asked(READ), management_key="K2key")

    (sent,) = vault.requests
    assert sent.method == "POST"
    assert sent.url.host == "api.descope.com"
    assert sent.headers["Authorization"] == "Bearer P2abc:ey.caller"
    assert sent.headers["Accept-Encoding"] == "identity"
    assert sent.headers["Content-Type"] == "application/json"


def test_a_management_key_is_used_only_without_a_callers_token_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="toolguard.connections")
    vault = answering(token=TOKEN)

    fetch(vault, asked(READ), management_key="K2key")
    assert [entry for entry in caplog.records if entry.name == "toolguard.connections"] == []

    fetch(vault, asked(READ, access_token=None), management_key="K2key")
    assert vault.requests[-1].headers["Authorization"] == "Bearer P2abc:K2key"
    (entry,) = [entry for entry in caplog.records if entry.name == "toolguard.connections"]
    assert entry.levelno == logging.INFO
    assert entry.getMessage() == (
        "management key used for connection 'google-calendar' of user 'U1'"
    )


@pytest.mark.parametrize(
    "token", ["", "two words", "line\nbreak", "ey.caf\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_an_unsendable_token_never_falls_back_to_the_management_key(
    token: str,
) -> None:
    vault = answering(token=TOKEN)

    with pytest.raises(ConnectionDeniedError):
        fetch(vault, asked(READ, access_token=token), management_key="K2key")

    assert vault.requests == []


def test_without_a_callers_token_and_a_management_key_nothing_is_asked() -> None:
    vault = answering(token=TOKEN)

    with pytest.raises(ConnectionDeniedError, match="needs an access token of the caller"):
        fetch(vault, asked(READ, access_token=None))

    assert vault.requests == []


@pytest.mark.parametrize("user_id", [None, ""])
def test_a_caller_who_is_no_user_has_no_connections(user_id: str | None) -> None:
    vault = answering(token=TOKEN)

    with pytest.raises(ConnectionDeniedError, match="needs a user"):
        fetch(vault, asked(READ, user_id=user_id), management_key="K2key")

    assert vault.requests == []


@given(st.text(min_size=1))
def test_any_user_id_reaches_the_vault_as_it_is(user_id: str) -> None:
    vault = answering(token=NAMELESS)

    fetch(vault, asked(user_id=user_id))

    assert vault.sent[0][1]["userId"] == user_id


def test_a_user_id_with_a_lone_surrogate_can_be_sent() -> None:
    vault = answering(token=NAMELESS)

    fetch(vault, asked(user_id="U\ud800"))

    assert rb"U\ud800" in vault.requests[0].content


@pytest.mark.parametrize("key", ["", "two words", "line\n"])
def test_a_management_key_that_cannot_be_sent_is_refused_at_once(key: str) -> None:
    with pytest.raises(ValueError, match="management_key=None"):
        DescopeConnections(WELL_KNOWN, management_key=key)


def test_the_provider_shows_neither_key_nor_token() -> None:
    connections = DescopeConnections(WELL_KNOWN, management_key="K2key")

    assert repr(connections) == "<DescopeConnections: P2abc at https://api.descope.com>"


@pytest.mark.parametrize("written", ["your-project-id", "YOUR_PROJECT_ID", "project-id", "P..."])
def test_a_placeholder_for_the_project_is_named(written: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(written))} stands for a value of your"):
        DescopeProject.from_well_known_url(
            f"https://api.descope.com/{written}/.well-known/openid-configuration"
        )
