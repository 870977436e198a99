"""Which origins may be asked without TLS?"""

from __future__ import annotations

import pytest

from toolguard import Issuer, ToolGuard
from toolguard.tokens.issuers import Network
from toolguard.tokens.issuers.environment import issuers_from
from toolguard.tokens.jwks import JWKS

ORIGIN = "http://keycloak:8080"
INSIDE = Network(insecure_origins=[ORIGIN])


def test_an_insecure_origin_is_named_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    described = Issuer(f"{ORIGIN}/realms/a", network=Network(insecure_origins=[ORIGIN]))

    ToolGuard(issuers=[described], audience="https://mcp.test/mcp")
    assert caplog.messages == [
        f"keys are fetched without TLS from {ORIGIN}: only in a network of your own"
    ]


@pytest.mark.parametrize(
    "url",
    [
        "http://keycloak:8081/jwks",
        "http://keycloak:80800/jwks",
        "http://keycloak/jwks",
        "http://keycloak:8080.evil.example/jwks",
        "http://keycloak:8080@evil.example/jwks",
        "http://keycloak:8080\\@evil.example",
        "http://keycloak:8080/a#b",
        "http://keycloak:8080/a\r\nHost: b",
        "http://KEYCLOAK:8080/jwks",
        "http://evil.example/",
    ],
)
def test_no_other_url_is_admitted(url: str) -> None:
    assert not INSIDE.admits(url)
    with pytest.raises(ValueError, match="https"):
        JWKS(url=url, network=INSIDE)


@pytest.mark.parametrize("url", [ORIGIN, f"{ORIGIN}/realms/a/jwks", "https://auth.test/jwks"])
def test_the_named_origin_and_secure_urls_are_admitted(url: str) -> None:
    assert INSIDE.admits(url)


@pytest.mark.parametrize("origin", ["https://a.test", "http://a.test/path", "a.test", ""])
def test_only_origins_of_plain_http_can_be_named(origin: str) -> None:
    with pytest.raises(ValueError, match="plain http"):
        Network(insecure_origins=[origin])


def test_origins_are_a_list() -> None:
    with pytest.raises(TypeError, match="list"):
        Network(insecure_origins=ORIGIN)


def test_without_the_name_plain_http_is_refused() -> None:
    with pytest.raises(ValueError, match="insecure_origins"):
        Issuer(f"{ORIGIN}/realms/a")


def test_the_environment_names_insecure_origins() -> None:
    environ = {"TOOLGUARD_ISSUER": f"keycloak:{ORIGIN}/realms/a"}
    (described,) = issuers_from({**environ, "TOOLGUARD_INSECURE_ORIGINS": ORIGIN})

    assert described.url == f"{ORIGIN}/realms/a"
    with pytest.raises(ValueError, match="TOOLGUARD_ISSUER"):
        issuers_from(environ)
    with pytest.raises(ValueError, match="TOOLGUARD_INSECURE_ORIGINS"):
        issuers_from({**environ, "TOOLGUARD_INSECURE_ORIGINS": "keycloak"})


def test_a_proxy_is_not_shown() -> None:
    assert "secret" not in repr(Network(proxy="http://user:secret@proxy.test"))
