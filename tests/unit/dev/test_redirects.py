"""Which addresses a client may be at, compared as parsed URLs and never as substrings."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.oauth.redirects import (
    RedirectPattern,
    is_same_redirect,
    parse_redirect,
    with_parameters,
)
from toolguard.dev.oauth.registration import is_approved

WORLD = builtin_world()

APPROVED = [
    "claude://oauth-callback/mcp",
    "claude://oauth-callback/a/b?x=1",
    "https://chat.openai.com/oauth/callback/abc",
    "http://127.0.0.1:3000/callback",
    "http://127.0.0.1/callback",
    "http://127.0.0.1:3000",
    "http://localhost:6274/oauth/callback/debug",
    "http://[::1]:3000/callback",
]

REFUSED = [
    "",
    "/callback",
    "callback",
    "https://evil.example/oauth/callback/x",
    # Nothing is a substring.
    "https://evil.example/?u=https://chat.openai.com/oauth/callback/x",
    "https://chat.openai.com.evil.example/oauth/callback/x",
    "https://evilchat.openai.com/oauth/callback/x",
    "https://chat.openai.com/oauth/callbackevil/x",
    "https://chat.openai.com/oauth/callback",
    "https://chat.openai.com/",
    # Scheme and port count.
    "http://chat.openai.com/oauth/callback/x",
    "https://chat.openai.com:8443/oauth/callback/x",
    "https://127.0.0.1:3000/callback",
    "claude2://oauth-callback/x",
    "claude://oauth-callback:1/x",
    "claude://oauth-callback",
    "claude://evil/x",
    "claude:oauth-callback/x",
    # User names, and what looks like one.
    "https://chat.openai.com@evil.example/oauth/callback/x",
    "https://user@chat.openai.com/oauth/callback/x",
    "https://user:pass@chat.openai.com/oauth/callback/x",
    "http://127.0.0.1:3000@evil.example/callback",
    "http://127.0.0.1:3000:80@evil.example/",
    # What browsers repair.
    "https://chat.openai.com\\@evil.example/oauth/callback/x",
    "https:\\\\chat.openai.com/oauth/callback/x",
    "https:///chat.openai.com/oauth/callback/x",
    "https:/chat.openai.com/oauth/callback/x",
    " https://chat.openai.com/oauth/callback/x",
    "https://chat.openai.com/oauth/callback/x\n",
    "https://chat.openai.com/oauth/callback/\t/x",
    "https://chat.openai.com/oauth/callback/x y",
    "https://chat.openai\u3002com/oauth/callback/x",
    "https://ch\u0430t.openai.com/oauth/callback/x",
    "HTTPS://CHAT.OPENAI.COM/oauth/callback/x",
    "https://chat.openai.com/OAuth/callback/x",
    # Dot segments, plain and encoded.
    "https://chat.openai.com/oauth/callback/../../evil",
    "https://chat.openai.com/oauth/callback/%2e%2e/%2E./evil",
    "https://chat.openai.com/oauth/callback/.",
    "https://chat.openai.com/oauth/callback/..",
    "http://127.0.0.1:3000/%2e%2e/x",
    "https://chat.openai.com/oauth/callback/%",
    "https://chat.openai.com/oauth/callback/%zz",
    # Fragments, and answers that are not ours.
    "http://127.0.0.1:3000/callback#x",
    "http://127.0.0.1:3000/callback#",
    "http://127.0.0.1:3000/callback?code=mine",
    "http://127.0.0.1:3000/callback?x=1&STATE=mine",
    "http://127.0.0.1:3000/callback?iss=mine",
    "http://127.0.0.1:3000/callback?error=",
    # Hosts and ports that are not.
    "http://127.0.0.1.evil.example:3000/callback",
    "http://localhost.evil.example:3000/callback",
    "http://127.0.0.2:3000/callback",
    "http://127.1:3000/callback",
    "http://0.0.0.0:3000/callback",
    "http://2130706433:3000/callback",
    "http://0x7f000001/callback",
    "http://[::ffff:127.0.0.1]:3000/callback",
    "http://[::]:3000/callback",
    "http://[::1%25lo]:3000/callback",
    "http://127.0.0.1:0/callback",
    "http://127.0.0.1:65536/callback",
    "http://127.0.0.1:999999/callback",
    "http://127.0.0.1:/callback",
    "http://127.0.0.1:\uff13000/callback",
    # What a browser would run.
    "javascript:alert(1)",
    "javascript://127.0.0.1/%0aalert(1)",
    "data:text/html,hello",
    "file:///etc/passwd",
    "vbscript:x",
    "http://127.0.0.1:3000/" + "x" * 2_000,
]


@pytest.mark.parametrize("uri", APPROVED)
def test_addresses_of_known_clients_are_approved(uri: str) -> None:
    assert is_approved(WORLD, uri)


@pytest.mark.parametrize("uri", REFUSED)
def test_everything_else_is_not(uri: str) -> None:
    assert not is_approved(WORLD, uri)


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "https://*/callback",
        "https://*.openai.com/callback/*",
        "https://chat.openai.com/*/callback",
        "https://chat.openai.com*",
        "https://chat.openai.com:*/callback",
        "http://chat.openai.com/callback/*",
        "claude://oauth-callback:*/x",
        "javascript://x/*",
        "data://x/*",
        "file://x/*",
        "ws://127.0.0.1/*",
        "https://chat.openai.com/callback#x",
        "",
    ],
)
def test_a_pattern_that_leaves_too_much_open_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"not a redirect pattern|not safe|port open"):
        RedirectPattern(pattern)


def test_a_pattern_without_a_star_stands_for_itself() -> None:
    pattern = RedirectPattern("https://app.example/callback?tenant=a")
    exact, other, shorter = (
        parse_redirect(f"https://app.example/callback{query}")
        for query in ("?tenant=a", "?tenant=b", "")
    )
    assert exact is not None
    assert other is not None
    assert shorter is not None
    assert [pattern.matches(uri) for uri in (exact, other, shorter)] == [True, False, False]


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("https://app.example/callback", "https://app.example/callback"),
        ("http://127.0.0.1/callback", "http://127.0.0.1:49152/callback"),
        ("http://127.0.0.1:1/callback?a=1", "http://127.0.0.1:2/callback?a=1"),
        ("http://localhost/callback", "http://localhost:49152/callback"),
        ("http://[::1]/callback", "http://[::1]:49152/callback"),
    ],
)
def test_a_loopback_client_may_take_any_port(registered: str, asked: str) -> None:
    assert is_same_redirect(registered, asked)


@pytest.mark.parametrize(
    ("registered", "asked"),
    [
        ("https://app.example/callback", "https://app.example:8443/callback"),
        ("https://app.example/callback", "https://app.example:443/callback"),
        ("https://app.example/callback", "https://app.example/callback/"),
        ("https://app.example/callback", "https://app.example/callback?x=1"),
        ("https://app.example/callback", "https://app.example/Callback"),
        ("https://app.example/callback", "https://APP.example/callback"),
        ("https://app.example/callback", "http://app.example/callback"),
        ("http://127.0.0.1:1/callback", "http://127.0.0.1:1/other"),
        ("http://127.0.0.1:1/callback", "http://127.0.0.1:1/callback?x=1"),
        ("http://127.0.0.1:1/callback", "http://localhost:1/callback"),
        ("http://127.0.0.1:1/callback", "http://[::1]:1/callback"),
        ("http://127.0.0.1:1/callback", "https://127.0.0.1:1/callback"),
        ("http://127.0.0.1:1/callback", "http://127.0.0.1:1@evil.example/callback"),
        ("http://127.0.0.1:1/callback", "http://evil.example/callback"),
        ("http://127.0.0.1:1/callback", "http://127.0.0.1:2/callback#"),
    ],
)
def test_anything_but_the_port_has_to_be_the_same(registered: str, asked: str) -> None:
    assert not is_same_redirect(registered, asked)


def test_parameters_are_added_and_encoded() -> None:
    assert (
        with_parameters("http://127.0.0.1/cb?a=1", [("code", "x&y"), ("iss", "http://a/b")])
        == "http://127.0.0.1/cb?a=1&code=x%26y&iss=http%3A%2F%2Fa%2Fb"
    )


@pytest.mark.parametrize(
    ("uri", "source"),
    [
        ("http://127.0.0.1:3000/callback", "http://127.0.0.1:3000"),
        ("https://chat.openai.com/oauth/callback/x", "https://chat.openai.com"),
        ("claude://oauth-callback/x", "claude:"),
        ("http://[::1]:3000/callback", "http:"),
    ],
)
def test_a_form_may_lead_to_the_client_and_no_further(uri: str, source: str) -> None:
    parsed = parse_redirect(uri)
    assert parsed is not None
    assert parsed.csp_source == source


urls = st.one_of(
    st.text(max_size=40),
    st.sampled_from(APPROVED + REFUSED),
    st.builds(
        lambda uri, position, extra: uri[:position] + extra + uri[position:],
        st.sampled_from(APPROVED),
        st.integers(0, 40),
        st.text("@:/\\?#%.*[] \n\u00e9a1", min_size=1, max_size=4),
    ),
)


@given(urls)
def test_what_is_approved_goes_to_a_host_that_was_approved(uri: str) -> None:
    if is_approved(WORLD, uri):
        parts = urlsplit(uri)
        assert (parts.scheme, parts.hostname) in {
            ("claude", "oauth-callback"),
            ("https", "chat.openai.com"),
            ("http", "127.0.0.1"),
            ("http", "::1"),
            ("http", "localhost"),
        }
        assert (parts.username, parts.password, parts.fragment) == (None, None, "")
        assert uri.isascii()
        assert uri.isprintable()


@given(urls, urls)
def test_being_the_same_is_symmetric(one: str, other: str) -> None:
    assert is_same_redirect(one, one)
    assert is_same_redirect(one, other) == is_same_redirect(other, one)
