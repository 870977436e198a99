"""When do two URLs name the target of one request?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.tokens.proofs.target import canonical_target, target_of

URL = "https://mcp.example.com/mcp"


@pytest.mark.parametrize(
    "spelling",
    [
        "HTTPS://MCP.Example.COM/mcp",
        "https://mcp.example.com:443/mcp",
        "https://mcp.example.com:/mcp",
        "https://mcp.example.com:0443/mcp",
        "https://mcp.example.com/%6dcp",
        "https://mcp.example.com/./a/../mcp",
        "https://mcp.example.com/mcp?session=1",
        "https://mcp.example.com/mcp#top",
        "https://mcp.example.com/mcp?a#b",
    ],
)
def test_a_spelling_of_the_same_url_is_equal(spelling: str) -> None:
    assert canonical_target(spelling) == URL


@pytest.mark.parametrize(
    "other",
    [
        "http://mcp.example.com/mcp",
        "https://mcp.example.com:8443/mcp",
        "https://mcp.example.com/MCP",
        "https://mcp.example.com/mcp/",
        "https://mcp.example.com//mcp",
        "https://mcp.example.com/mcp%2F",
        "https://evil.example/mcp",
        "https://mcp.example.com.evil.example/mcp",
        "https://mcp.example.com%2Fevil/mcp",
    ],
)
def test_another_url_differs(other: str) -> None:
    assert canonical_target(other) not in (URL, None)


@pytest.mark.parametrize(
    "text",
    [
        *("", "/mcp", "mcp.example.com/mcp", "//mcp.example.com/mcp", "ftp://mcp.example.com/"),
        *("https://", "https:///mcp", "https://a@mcp.example.com/", "https://a:b@h/", "https:/h/"),
        *("https://h/a b", "https://h/\u00e9", "https://h\u0130/", "https://h/%zz", "https://h/%"),
        *("https://h:x/", "https://h:123456/", "https://h\\evil/", " https://h/", "https://h/\n"),
        "https://h/" + "a" * 4_096,
    ],
)
def test_what_is_not_a_plain_url_has_no_canonical_form(text: str) -> None:
    assert canonical_target(text) is None


@pytest.mark.parametrize(
    ("resource", "path", "target"),
    [
        (URL, "/mcp", URL),
        (URL, "/mcp/", f"{URL}/"),
        (URL, "/messages/", "https://mcp.example.com/messages/"),
        ("https://mcp.example.com", "/mcp", URL),
        ("https://mcp.example.com", "/", "https://mcp.example.com/"),
        (URL, "/", "https://mcp.example.com/"),
        ("https://h.test/notes/mcp", "/mcp", "https://h.test/notes/mcp"),
        ("https://h.test/notes/mcp", "/notes/mcp", "https://h.test/notes/mcp"),
        ("https://h.test/notes/mcp", "/es/mcp", "https://h.test/es/mcp"),
    ],
)
def test_the_target_has_the_configured_origin(resource: str, path: str, target: str) -> None:
    assert target_of(resource, path) == target


@given(st.text())
def test_a_canonical_form_is_its_own(text: str) -> None:
    for url in (text, f"https://mcp.example.com/{text}", f"https://{text}/mcp"):
        canonical = canonical_target(url)
        assert canonical is None or canonical_target(canonical) == canonical


@given(st.text("ab./%2Ee", max_size=30))
def test_no_canonical_path_leaves_its_origin(path: str) -> None:
    canonical = canonical_target(f"https://mcp.example.com/{path}")

    assert canonical is None or canonical.startswith("https://mcp.example.com/")
    assert "/../" not in f"{canonical}/"
