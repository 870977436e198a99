"""Which settings make a guard, and which are refused before anything is served?"""

from __future__ import annotations

import asyncio
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

import pytest

from support.callers import Desk, Tokens, person
from toolguard import (
    CachedConnections,
    JWTVerifier,
    Refusals,
    ScopeHierarchy,
    ToolGuard,
    TrustedUser,
)
from toolguard.connections import Connection, ConnectionRequest
from toolguard.settings import GuardSettings
from toolguard.testing import ScriptedConnections

URL = "https://mcp.example.com/mcp"
METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"


def guard(**settings: Any) -> ToolGuard:
    return ToolGuard(**{"verifier": Tokens(), "audience": URL, **settings})


def refuses(kind: type[Exception], message: str, make: Callable[[], object]) -> None:
    """Hold that ``make`` is refused with exactly this sentence."""
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make()


# --- who this server is


def test_the_audience_is_the_resource_where_it_is_a_url() -> None:
    assert guard().resource == "https://mcp.example.com/mcp"
    assert guard(audience=["calendar", URL, "https://b.example/"]).resource == URL
    assert guard(audience="HTTPS://MCP.Example.com/mcp/").resource == URL


def test_a_server_whose_tokens_name_something_else_says_where_it_is() -> None:
    made = guard(audience="calendar", resource="https://mcp.example.com/mcp/")

    assert (made.resource, made.metadata_url) == (URL, METADATA)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"audience": None}, ""),
        ({"audience": ()}, ""),
        ({"audience": "calendar"}, "; found audience='calendar'"),
        ({"audience": "ada:secret@mcp.example.com"}, ""),
        ({"audience": ["calendar", "urn:x"]}, "; found audience='calendar'"),
        ({"audience": "calendar", "resource": ""}, "; found resource=''"),
        ({"resource": ""}, "; found resource=''"),
    ],
)
def test_a_server_that_says_nowhere_who_it_is_is_refused(
    settings: dict[str, Any], found: str
) -> None:
    refuses(
        ValueError,
        'say which server this is: audience="https://mcp.example.com/mcp", or resource=... if '
        f"tokens name their audience in another way{found}",
        lambda: guard(**settings),
    )


@pytest.mark.parametrize("audience", ["", [""], [URL, ""]])
def test_an_empty_audience_is_refused(audience: Any) -> None:
    message = (
        'an audience is empty: write audience="https://mcp.example.com/mcp" (is a variable unset?)'
    )
    refuses(ValueError, message, lambda: guard(audience=audience))


@pytest.mark.parametrize("resource", ["mcp.example.com", "ftp://mcp.example.com", f"{URL}#x"])
def test_a_resource_that_is_no_url_is_refused(resource: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a resource: write the address"):
        guard(resource=resource)


@pytest.mark.parametrize("url", ["https://exämple.com/mcp", f"{URL}?scope=a", "https://a.b/c d"])
def test_a_url_that_no_challenge_could_name_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the URL of a resource: write the address"):
        guard(audience=url)


# --- whom it trusts


def test_an_issuer_and_an_audience_make_a_verifier() -> None:
    made = ToolGuard(issuer="https://auth.example.com", audience=URL)

    assert isinstance(made.verifier, JWTVerifier)
    assert made.issuer == "https://auth.example.com"
    assert repr(made) == (
        "<ToolGuard: https://mcp.example.com/mcp trusts https://auth.example.com>"
    )


def test_a_well_known_url_stands_for_its_issuer() -> None:
    made = ToolGuard(
        well_known_url="https://auth.example.com/.well-known/oauth-authorization-server",
        audience=URL,
    )

    assert isinstance(made.verifier, JWTVerifier)


def test_a_verifier_of_ones_own_needs_neither() -> None:
    tokens = Tokens()

    assert guard(verifier=tokens).verifier is tokens
    assert guard(verifier=tokens).issuer is None
    assert guard(verifier=tokens, issuer="https://auth.example.com").issuer == (
        "https://auth.example.com"
    )


def test_an_issuer_that_the_verifier_names_is_taken_from_it() -> None:
    class Named(Tokens):
        issuer = "https://named.example.com"

    assert guard(verifier=Named()).issuer == "https://named.example.com"


def test_nobody_to_trust_is_refused() -> None:
    refuses(
        ValueError,
        "give exactly one of issuer=, issuers=, well_known_url= and verifier=",
        lambda: ToolGuard(audience=URL),
    )


def test_two_to_trust_are_refused() -> None:
    well_known = "https://auth.example.com/.well-known/openid-configuration"

    refuses(
        ValueError,
        "give exactly one of issuer=, issuers=, well_known_url= and verifier=",
        lambda: ToolGuard(
            issuer="https://auth.example.com", well_known_url=well_known, audience=URL
        ),
    )
    refuses(
        ValueError,
        "give verifier= or well_known_url=, not both",
        lambda: guard(well_known_url=well_known),
    )


def test_an_issuer_without_an_audience_is_refused() -> None:
    refuses(
        ValueError,
        'give audience=: what tokens for this server name in their "aud"',
        lambda: ToolGuard(issuer="https://auth.example.com", resource=URL),
    )


@pytest.mark.parametrize("verifier", [object(), "https://auth.example.com", Tokens().verify])
def test_what_cannot_verify_is_refused(verifier: Any) -> None:
    refuses(
        TypeError,
        'verifier= takes an object with an async verify(token), or "framework": write '
        f"verifier=JWTVerifier(...), not {type(verifier).__name__}",
        lambda: guard(verifier=verifier),
    )


def test_an_empty_issuer_is_refused() -> None:
    with pytest.raises(ValueError, match="https://auth"):
        ToolGuard(issuer="", audience=URL)


# --- further settings


def test_the_usual_settings_are_the_strict_ones() -> None:
    made = guard()

    assert (made.default, made.door.refusals) == ("authenticated", Refusals())
    assert made.connections is None
    assert Refusals() == Refusals(challenge_scopes="auto", denials="auto", outages="http")
    assert made.scope_hierarchy.expand(["a"]) == {"a"}
    assert not made.admits_anonymous


def test_a_hierarchy_may_be_written_as_a_mapping() -> None:
    hierarchy = ScopeHierarchy({"write": ["read"]})

    assert guard(scope_hierarchy={"write": ["read"]}).scope_hierarchy.expand(["write"]) == {
        "write",
        "read",
    }
    assert guard(scope_hierarchy=hierarchy).scope_hierarchy is hierarchy
    with pytest.raises(ValueError, match="has a cycle through"):
        guard(scope_hierarchy={"a": ["a"]})


@pytest.mark.parametrize("value", ["", "open", None])
def test_an_unknown_default_is_refused_with_the_known_ones(value: str | None) -> None:
    refuses(
        ValueError,
        f"default={value!r}: write one of 'authenticated', 'deny', 'public'",
        lambda: guard(default=value),
    )


@pytest.mark.parametrize(
    ("name", "choices"),
    [
        ("unauthorized_tools", "'show', 'hide', 'hide-all'"),
        ("task_expiry", "'continue', 'stop'"),
        ("challenge_scopes", "'auto', 'required', 'combined'"),
        ("denials", "'auto', 'http', 'tool-error'"),
        ("outages", "'http', 'tool-error'"),
    ],
)
def test_an_unknown_setting_of_refusals_is_refused(name: str, choices: str) -> None:
    settings: dict[str, Any] = {name: "open"}

    refuses(ValueError, f"{name}='open': write one of {choices}", lambda: Refusals(**settings))


@pytest.mark.parametrize("stdio", ["trusted", "", None])
def test_stdio_is_a_token_or_a_trusted_user(stdio: str | None) -> None:
    refuses(
        ValueError,
        f'stdio={stdio!r}: write "token" or TrustedUser("ada")',
        lambda: guard(stdio=stdio),
    )


def test_a_trusted_user_has_a_name() -> None:
    refuses(ValueError, 'name the user: stdio=TrustedUser("ada")', lambda: TrustedUser(""))


def test_a_guard_has_at_most_15_settings_all_by_keyword_and_typed() -> None:
    parameters = inspect.signature(ToolGuard).parameters
    annotations = typing.get_type_hints(ToolGuard.__init__)
    del annotations["return"]

    assert len(parameters) <= 15
    assert {each.kind for each in parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert typing.get_type_hints(GuardSettings) == annotations
    assert [*GuardSettings.__annotations__] == [*parameters]


def test_initial_scopes_in_one_string_are_refused() -> None:
    refuses(
        TypeError,
        "write initial_scopes=['read', 'write']",
        lambda: Refusals(initial_scopes="read write"),
    )


@pytest.mark.parametrize("scopes", [["offline_access"], ["read", "offline_access"]])
def test_a_refresh_token_is_not_a_servers_to_ask_for(scopes: list[str]) -> None:
    refuses(
        ValueError,
        "leave offline_access out of initial_scopes: clients add it themselves",
        lambda: Refusals(initial_scopes=scopes),
    )


@pytest.mark.parametrize("scope", ["a b", "", "scope=x", 'a"b'])
def test_initial_scopes_that_cannot_be_asked_for_are_refused(scope: str) -> None:
    with pytest.raises(ValueError, match="this scope cannot be asked for in a challenge"):
        Refusals(initial_scopes=[scope])


def test_connections_come_from_a_provider_or_a_function() -> None:
    vault = ScriptedConnections({"mail": "mail-token"})
    request = ConnectionRequest("mail", (), person(), None)

    async def fetch(request: ConnectionRequest) -> Connection:
        return Connection(f"{request.name} of {request.principal.user_id}")

    made = guard(connections=fetch).connections
    around = guard(connections=vault).connections
    assert isinstance(around, CachedConnections)
    assert around.provider is vault
    assert made is not None
    assert asyncio.run(made.fetch(request)).token == "mail of alice"


@pytest.mark.parametrize("connections", ["https://vault.example", {"mail": "token"}, 7])
def test_what_cannot_fetch_connections_is_refused(connections: Any) -> None:
    refuses(
        TypeError,
        "connections come from a provider with an async fetch(), or from such a function, not "
        f"from {type(connections).__name__}",
        lambda: guard(connections=connections),
    )


def test_what_is_no_server_cannot_be_protected() -> None:
    with pytest.raises(TypeError, match=r"^protect\(\) takes an MCPServer .* not Desk; put any"):
        guard().protect(Desk())
