"""Who does a server say it is, and what does it tell clients to begin with?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.http.challenge import metadata_url
from toolguard.http.metadata import (
    canonical_resource,
    first_scopes,
    protected_resource_metadata,
    scopes_supported,
)
from toolguard.policies.scopes import Scope, ScopeHierarchy, all_of, any_of
from toolguard.testing.strategies import grants, hierarchies, scope_rules

FLAT = ScopeHierarchy()

# --- the URL of the metadata


@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://example.com", "https://example.com/.well-known/oauth-protected-resource"),
        ("https://example.com/", "https://example.com/.well-known/oauth-protected-resource"),
        ("https://example.com/mcp", "https://example.com/.well-known/oauth-protected-resource/mcp"),
        (
            "https://example.com/mcp/",
            "https://example.com/.well-known/oauth-protected-resource/mcp/",
        ),
        (
            "https://example.com/a/b/mcp",
            "https://example.com/.well-known/oauth-protected-resource/a/b/mcp",
        ),
        (
            "https://example.com:8443/mcp",
            "https://example.com:8443/.well-known/oauth-protected-resource/mcp",
        ),
        (
            "http://127.0.0.1:8000/mcp",
            "http://127.0.0.1:8000/.well-known/oauth-protected-resource/mcp",
        ),
        (
            "http://[::1]:8000/mcp",
            "http://[::1]:8000/.well-known/oauth-protected-resource/mcp",
        ),
        (
            "https://example.com?tenant",
            "https://example.com/.well-known/oauth-protected-resource?tenant",
        ),
        (
            "https://example.com/mcp?t=1",
            "https://example.com/.well-known/oauth-protected-resource/mcp?t=1",
        ),
    ],
)
def test_the_well_known_part_stands_between_host_and_path(resource: str, url: str) -> None:
    assert metadata_url(resource) == url


# --- the identifier of the resource


@pytest.mark.parametrize(
    ("url", "resource"),
    [
        ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com/mcp/", "https://mcp.example.com/mcp"),
        ("https://mcp.example.com", "https://mcp.example.com"),
        ("https://mcp.example.com/", "https://mcp.example.com"),
        ("HTTPS://MCP.Example.COM/MCP", "https://mcp.example.com/MCP"),
        ("https://mcp.example.com:8443/mcp", "https://mcp.example.com:8443/mcp"),
        ("https://mcp.example.com/%7Ea", "https://mcp.example.com/%7Ea"),
        ("http://localhost:8000/mcp", "http://localhost:8000/mcp"),
        ("http://[::1]:8000/mcp", "http://[::1]:8000/mcp"),
    ],
)
def test_a_resource_is_named_in_one_form(url: str, resource: str) -> None:
    assert canonical_resource(url) == resource


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mcp.example.com/mcp",
        "//mcp.example.com/mcp",
        "/mcp",
        "ftp://mcp.example.com/mcp",
        "urn:example:mcp",
        "https:///mcp",
        "https://mcp.example.com/mcp#tools",
        "https://mcp.example.com/mcp?tenant=a",
        "https://mcp.exämple.com/mcp",
        "https://\u212amcp.example.com/mcp",
        "https://mcp.example.com/a b",
        "https://mcp.example.com/mcp\n",
        'https://mcp.example.com/"',
        "https://mcp.example.com:port/mcp",
    ],
)
def test_what_is_not_the_url_of_a_resource_is_refused_with_an_example(url: str) -> None:
    message = r"such as https://mcp\.example\.com/mcp, without user name, query and fragment$"

    with pytest.raises(ValueError, match=message):
        canonical_resource(url)


@pytest.mark.parametrize(
    "url",
    ["http://mcp.example.com/mcp", "HTTP://10.0.0.7:8000", "http://localhost.example.com/mcp"],
)
def test_an_http_resource_beyond_this_machine_is_refused_with_an_example(url: str) -> None:
    message = (
        r"tokens in the clear: write the https address .* such as https://mcp\.example\.com/mcp"
    )

    with pytest.raises(ValueError, match=message):
        canonical_resource(url)


@pytest.mark.parametrize("url", ["https://a:b@example.com/mcp", "https://a@example.com/mcp"])
def test_a_resource_with_credentials_is_refused_without_repeating_them(url: str) -> None:
    message = r"^the URL of a resource carries no user name or password$"

    with pytest.raises(ValueError, match=message):
        canonical_resource(url)


@given(
    st.from_regex(
        r"(https://[A-Za-z0-9.-]{1,10}|http://(localhost|127\.0\.0\.1|\[::1\]))"
        r"(:[0-9]{1,4})?(/[A-Za-z0-9._-]+){0,3}/?",
        fullmatch=True,
    )
)
def test_the_canonical_form_of_a_canonical_form_is_itself(url: str) -> None:
    resource = canonical_resource(url)

    assert canonical_resource(resource) == resource


# --- scopes


def test_every_scope_that_is_mentioned_is_supported_in_the_order_of_the_operations() -> None:
    rules_ = [all_of("b", "a"), None, any_of("c", "a"), Scope("d")]

    assert scopes_supported(rules_) == ("b", "a", "c", "d")
    assert scopes_supported([None]) == ()


def test_a_client_begins_with_the_smallest_grant_that_opens_something() -> None:
    assert first_scopes([all_of("a", "b"), None, any_of(all_of("c", "d"), "e")], FLAT) == ("e",)
    assert first_scopes([Scope("a"), Scope("b")], FLAT) == ("a",)
    assert first_scopes([None], FLAT) == ()
    assert first_scopes([], FLAT) == ()


def test_a_scope_that_includes_others_is_larger_than_they_are() -> None:
    hierarchy = ScopeHierarchy({"write": ["read"], "admin": ["write"]})

    assert first_scopes([Scope("admin"), Scope("write"), Scope("read")], hierarchy) == ("read",)
    assert first_scopes([Scope("admin"), Scope("write")], hierarchy) == ("write",)


@given(st.lists(scope_rules(), min_size=1, max_size=4), hierarchies())
def test_the_first_scopes_open_some_operation(
    declared: list[Scope], hierarchy: ScopeHierarchy
) -> None:
    first = first_scopes(declared, hierarchy)

    assert any(rule.allows(first) for rule in declared)


@given(st.lists(scope_rules(), min_size=1, max_size=4), grants())
def test_holding_every_supported_scope_opens_every_operation(
    declared: list[Scope], grant: frozenset[str]
) -> None:
    supported = scopes_supported(declared)

    assert all(rule.allows(grant.union(supported)) for rule in declared)


# --- the document


def test_the_document_is_that_of_rfc_9728() -> None:
    document = protected_resource_metadata(
        "https://mcp.example.com/mcp", ["https://auth.example.com"], ("read", "write")
    )

    assert document == {
        "resource": "https://mcp.example.com/mcp",
        "authorization_servers": ["https://auth.example.com"],
        "scopes_supported": ["read", "write"],
        "bearer_methods_supported": ["header"],
    }


def test_empty_members_are_left_out_of_the_document() -> None:
    assert protected_resource_metadata("https://mcp.example.com/mcp", (), ()) == {
        "resource": "https://mcp.example.com/mcp",
        "bearer_methods_supported": ["header"],
    }
