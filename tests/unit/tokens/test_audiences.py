"""Which audiences are this server, and which only look like it?"""

from __future__ import annotations

from typing import Any

import pytest

from toolguard.errors import InvalidTokenError
from toolguard.testing import FrozenClock, LocalIssuer
from toolguard.tokens.jwt import canonical_audience

ISSUER = LocalIssuer(algorithm="ES256", clock=FrozenClock())
AUDIENCE = ISSUER.audience


def refusal(token: str, **settings: Any) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        ISSUER.verifier(**settings).verify_now(token)
    return caught.value.reason


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "HTTPS://MCP.EXAMPLE.COM/mcp"),
        ("HTTPS://Mcp.Example.com/mcp", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com", "https://mcp.example.com"),
        ("https://mcp.example.com", "https://mcp.example.com/"),
        ("https://mcp.example.com/", "https://mcp.example.com"),
        ("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp/"),
        ("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp/"),
        ("http://localhost:8000/mcp", "http://localhost:8000/mcp"),
        ("http://[::1]:8000/mcp", "http://[::1]:8000/mcp"),
        ("https://mcp.example.com/mcp?tenant=a", "https://mcp.example.com/mcp?tenant=a"),
        ("api://calendar", "api://calendar"),
        ("P2abcDEF", "P2abcDEF"),
    ],
)
def test_an_audience_that_is_this_server_is_accepted(configured: str, sent: str) -> None:
    assert ISSUER.verifier(audience=configured).verify_now(ISSUER.mint(aud=sent)) is not None


@pytest.mark.parametrize(
    ("configured", "sent"),
    [
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp//"),
        ("https://mcp.example.com/mcp?tenant=a", "https://mcp.example.com/mcp?tenant=a/"),
        ("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp//"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com"),
        ("https://mcp.example.com", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/MCP"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp/admin"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp2"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp?x=1"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp#x"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com:443/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com:8443/mcp"),
        ("https://mcp.example.com/mcp", "http://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com./mcp"),
        ("https://mcp.example.com/mcp", "https://user@mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com@evil.example/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com.evil.example/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/x/../mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/%6dcp"),
        ("https://mcp.example.com/mcp", " https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp\n"),
        ("https://mcp.example.com/mcp", "mcp.example.com/mcp"),
        ("https://kit.example.com", "https://\u212ait.example.com"),
        ("https://mcp.example.com/mcp", "https://\uff4dcp.example.com/mcp"),
        ("https://mcp.example.com/caf%C3%A9", "https://mcp.example.com/caf\u00e9"),
        ("api://calendar", "API://calendar"),
        ("api://calendar", "api://calendar/"),
        ("P2abcDEF", "p2abcdef"),
        ("P2abcDEF", "P2abcDEF/"),
    ],
)
def test_an_audience_that_is_not_this_server_is_refused(configured: str, sent: str) -> None:
    assert refusal(ISSUER.mint(aud=sent), audience=configured) == "audience"


def test_one_audience_of_several_is_enough_on_either_side() -> None:
    assert ISSUER.verifier().verify_now(ISSUER.mint(aud=["other", AUDIENCE])) is not None
    assert (
        ISSUER.verifier(audience=["P2abc", AUDIENCE]).verify_now(ISSUER.mint(aud="P2abc"))
        is not None
    )


def test_a_token_for_another_server_too_can_be_refused() -> None:
    alone = ISSUER.mint(aud=[AUDIENCE])
    shared = ISSUER.mint(aud=[AUDIENCE, "https://other.example.com"])

    assert ISSUER.verifier(require_single_audience=True).verify_now(alone) is not None
    assert refusal(shared, require_single_audience=True) == "audience"


def test_the_canonical_form_of_an_audience_is_its_own() -> None:
    once = canonical_audience("HTTPS://MCP.Example.com:8443/Path/")

    assert once == "https://mcp.example.com:8443/Path/"
    assert canonical_audience(once) == once


@pytest.mark.parametrize(
    "audience",
    [
        "https://mcp.example.com/mcp#top",
        "https://user:secret@mcp.example.com/mcp",
        "https://mcp.example.com/a b",
        "https://mcp.example.com/mcp\n",
        "https://",
        "https:///mcp",
        "https://m\u00fcnchen.example/mcp",
    ],
)
def test_a_url_that_cannot_be_a_resource_is_not_an_audience(audience: str) -> None:
    with pytest.raises(ValueError, match="write the URL of this server") as caught:
        ISSUER.verifier(audience=audience)
    assert "secret" not in str(caught.value)
