"""Which texts are read as a challenge, and which are refused?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.http.challenge import Challenge, parse

METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"


@pytest.mark.parametrize(
    ("text", "challenge"),
    [
        ('Bearer error="invalid_token"', Challenge("invalid_token")),
        ("bearer error=invalid_token", Challenge("invalid_token")),
        ('  BEARER   error="invalid_token"  ', Challenge("invalid_token")),
        ('Bearer scope="a b"', Challenge(scope=("a", "b"))),
        ("Bearer SCOPE=a", Challenge(scope=("a",))),
        ('Bearer realm="x, y", scope="a"', Challenge(scope=("a",))),
        ('Bearer realm="say \\"hi\\"",scope="a"', Challenge(scope=("a",))),
        ('Bearer scope = "a" ,\terror="x"', Challenge("x", scope=("a",))),
        ('Bearer error="x", scope=""', Challenge("x")),
        (f'Bearer resource_metadata="{METADATA}"', Challenge(resource_metadata=METADATA)),
    ],
)
def test_well_formed_challenges_are_read(text: str, challenge: Challenge) -> None:
    assert parse(text) == challenge


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer dG9rZW4=",
        'Basic realm="x"',
        'Bearer error="x", Basic realm="y"',
        'Bearer scope="a", scope="b"',
        'Bearer scope="a", Scope="b"',
        'Bearer scope="a',
        "Bearer scope=",
        'Bearer scope="a" error="x"',
        'Bearer scope="a"error="x"',
        'Bearer error_description="why"',
        'Bearer , scope="a"',
        'Bearer scope="a",',
        'Bearer scope="a", , error="x"',
        'Bearer scope="a\\" error="x"',
        'Bearer error="two\\\r\nlines"',
    ],
)
def test_what_is_no_single_well_formed_bearer_challenge_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of the sentences does not matter
        parse(text)


_PIECES = ("Bearer", "bearer", " ", ",", "=", '"', "\\", "scope", "error", "a", "é", "\t", "\n")


@given(
    st.text()
    | st.text().map("Bearer ".__add__)
    | st.lists(st.sampled_from(_PIECES)).map("".join).map("Bearer scope=".__add__)
)
def test_any_text_is_read_as_a_challenge_or_refused(text: str) -> None:
    try:
        challenge = parse(text)
    except ValueError:
        return
    assert isinstance(challenge, Challenge)
