"""Which token does a request carry, and which requests cannot be read?"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.errors import MalformedCredentialsError
from toolguard.http.middleware import SentHeaders
from toolguard.tokens.bearer import presented_token

JWT = b"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"
MALFORMED = MalformedCredentialsError

# what the header is, the values it was sent with, what is read
HEADERS: list[tuple[str, list[bytes], str | type[MalformedCredentialsError] | None]] = [
    ("none", [], None),
    ("plain", [b"Bearer " + JWT], JWT.decode()),
    ("lower case", [b"bearer " + JWT], JWT.decode()),
    ("upper case", [b"BEARER " + JWT], JWT.decode()),
    ("mixed case", [b"bEaReR " + JWT], JWT.decode()),
    ("one letter", [b"Bearer a"], "a"),
    ("every letter of b64token", [b"Bearer aZ09-._~+/=="], "aZ09-._~+/=="),
    ("padded", [b"Bearer dG9rZW4="], "dG9rZW4="),
    ("two spaces", [b"Bearer  abc"], "abc"),
    ("many spaces", [b"Bearer          abc"], "abc"),
    ("space around", [b"  Bearer abc  "], "abc"),
    ("tab around", [b"\tBearer abc\t"], "abc"),
    ("the word bearer as token", [b"Bearer Bearer"], "Bearer"),
    ("empty", [b""], None),
    ("blank", [b"   "], None),
    ("Basic", [b"Basic YTpi"], None),
    ("Digest", [b'Digest username="a"'], None),
    ("DPoP", [b"DPoP abc"], None),
    ("a scheme that begins with bearer", [b"BearerToken abc"], None),
    ("no space", [b"Bearer:abc"], None),
    ("a bare token", [JWT], None),
    ("scheme only", [b"Bearer"], MALFORMED),
    ("scheme and spaces", [b"Bearer   "], MALFORMED),
    ("tab after the scheme", [b"Bearer\tabc"], MALFORMED),
    ("tab after the space", [b"Bearer \tabc"], MALFORMED),
    ("tab inside", [b"Bearer a\tb"], MALFORMED),
    ("space inside", [b"Bearer abc def"], MALFORMED),
    ("scheme twice", [b"Bearer Bearer abc"], MALFORMED),
    ("joined by a comma", [b"Bearer abc,def"], MALFORMED),
    ("two joined by a comma", [b"Bearer abc, Bearer def"], MALFORMED),
    ("Bearer joined with Basic", [b"Bearer abc, Basic YTpi"], MALFORMED),
    ("quoted", [b'Bearer "abc"'], MALFORMED),
    ("a parameter", [b'Bearer token="abc"'], MALFORMED),
    ("padding only", [b"Bearer =="], MALFORMED),
    ("padding inside", [b"Bearer a=b"], MALFORMED),
    ("colon", [b"Bearer a:b"], MALFORMED),
    ("percent", [b"Bearer a%20b"], MALFORMED),
    ("no-break space", [b"Bearer a\xa0b"], MALFORMED),
    ("no-break space at the end", [b"Bearer abc\xa0"], MALFORMED),
    ("UTF-8", [b"Bearer \xc3\xa9"], MALFORMED),
    ("NUL", [b"Bearer abc\x00"], MALFORMED),
    ("CR LF at the end", [b"Bearer abc\r\n"], MALFORMED),
    ("CR LF inside", [b"Bearer abc\r\nX-Evil: 1"], MALFORMED),
    ("LF after the scheme", [b"Bearer\n"], MALFORMED),
    ("LF before the token", [b"Bearer \nabc"], MALFORMED),
    ("two headers", [b"Bearer abc", b"Bearer def"], MALFORMED),
    ("the same header twice", [b"Bearer abc", b"Bearer abc"], MALFORMED),
    ("Bearer and Basic", [b"Bearer abc", b"Basic YTpi"], MALFORMED),
    ("Basic and Bearer", [b"Basic YTpi", b"Bearer abc"], MALFORMED),
    ("Bearer and an empty one", [b"Bearer abc", b""], MALFORMED),
]


def read(values: list[bytes]) -> str | None:
    headers = [(b"host", b"x"), *((b"authorization", value) for value in values)]
    presented = presented_token(SentHeaders(headers).authorization)
    return None if presented is None else presented[0]


@pytest.mark.parametrize(
    ("values", "expected"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS]
)
def test_every_authorization_header_is_a_token_nothing_or_malformed(
    values: list[bytes], expected: str | type[MalformedCredentialsError] | None
) -> None:
    if expected is MALFORMED:
        with pytest.raises(MalformedCredentialsError):
            read(values)
    else:
        assert read(values) == expected


def test_a_token_elsewhere_in_the_request_is_ignored() -> None:
    headers = [
        (b"proxy-authorization", b"Bearer abc"),
        (b"x-authorization", b"Bearer abc"),
        (b"cookie", b"access_token=abc"),
        (b":path", b"/mcp?access_token=abc"),
        (b"referer", b"https://mcp.example.com/mcp?access_token=abc"),
    ]

    assert presented_token(SentHeaders(headers).authorization) is None


@pytest.mark.parametrize("values", [[b"Bearer s3cr3t t0k3n"], [b"Bearer s3cr3t", b"Bearer t0k3n"]])
def test_a_malformed_header_is_described_without_what_it_holds(values: list[bytes]) -> None:
    with pytest.raises(MalformedCredentialsError) as caught:
        read(values)

    shown = f"{caught.value!r} {caught.value.to_json()} {caught.value.__cause__!r}"
    assert "s3cr3t" not in shown
    assert "t0k3n" not in shown


def test_the_two_sentences_say_what_to_send() -> None:
    with pytest.raises(MalformedCredentialsError, match=r"^Send exactly one Authorization header$"):
        read([b"Bearer a", b"Bearer b"])
    with pytest.raises(
        MalformedCredentialsError,
        match=r"^The Authorization header must be: Bearer, a space, a token$",
    ):
        read([b"Bearer"])


@pytest.mark.parametrize("value", [b"DPoP abc", b"dpop  abc", b" DPOP abc\t"])
def test_a_bound_token_is_read_only_where_it_is_asked_for(value: bytes) -> None:
    assert presented_token([value]) is None
    assert presented_token([value], reads_dpop=True) == ("abc", True)


def test_a_bearer_token_is_told_from_a_bound_one() -> None:
    assert presented_token([b"Bearer abc"], reads_dpop=True) == ("abc", False)


@pytest.mark.parametrize("value", [b"DPoP", b"DPoP a b", b"DPoP =", b"DPoP\tabc"])
def test_a_malformed_bound_token_is_refused_only_where_it_is_asked_for(value: bytes) -> None:
    assert presented_token([value]) is None
    with pytest.raises(
        MalformedCredentialsError,
        match=r"^The Authorization header must be: DPoP, a space, a token$",
    ):
        presented_token([value], reads_dpop=True)


@given(st.lists(st.binary() | st.binary().map(b"Bearer ".__add__), max_size=3))
def test_any_bytes_are_a_b64token_nothing_or_malformed(values: list[bytes]) -> None:
    try:
        token = read(values)
    except MalformedCredentialsError:
        return
    if token is not None:
        assert re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", token)
        assert [value.strip(b" \t").endswith(token.encode()) for value in values] == [True]
