"""Is a piece of a token found in whatever it is in, and nothing else?"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.testing import LocalIssuer
from toolguard.testing.leaks.needles import Needles

TOKEN = secrets.token_urlsafe(48)
NONCE = secrets.token_hex(24)
JWT = LocalIssuer(algorithm="ES256").mint("alice", jti=NONCE, headers={"x5t#S256": NONCE})

NEEDLES = Needles()
NEEDLES.add("opaque", TOKEN)
NEEDLES.add_jwt("signed", JWT, NONCE)

WRITINGS: dict[str, Callable[[bytes], str]] = {
    "plain": lambda octets: octets.decode("latin-1"),
    "base64": lambda octets: base64.b64encode(octets).decode(),
    "base64url": lambda octets: base64.urlsafe_b64encode(octets).decode(),
    "hexadecimal": lambda octets: octets.hex(),
    "JSON": lambda octets: json.dumps({"token": octets.decode("latin-1")}),
}
# What cannot be part of a token: so that a piece is as long as it was cut.
around = st.text(st.sampled_from(" :,;<>'\"\n"), max_size=40)


def names(text: str) -> set[str]:
    return {each.name for each in NEEDLES.matches(text)}


def pieces(token: str, shortest: int) -> st.SearchStrategy[str]:
    starts = st.integers(0, len(token) - shortest)
    return starts.flatmap(
        lambda start: st.integers(start + shortest, len(token)).map(lambda end: token[start:end])
    )


@given(around, pieces(TOKEN, 16), around)
def test_a_piece_of_16_characters_is_found_and_a_redacted_text_has_none(
    before: str, piece: str, after: str
) -> None:
    text = before + piece + after

    (match,) = NEEDLES.matches(text)

    assert text[match.start : match.end] == piece
    assert NEEDLES.redacted(text) == f"{before}<opaque>{after}"


@given(around, pieces(TOKEN, 1).map(lambda piece: piece[:15]), around)
def test_fewer_than_16_characters_are_no_piece(before: str, piece: str, after: str) -> None:
    assert names(before + piece + after) == set()


@pytest.mark.parametrize("writing", WRITINGS)
@given(before=st.binary(max_size=9), after=st.binary(max_size=9), which=st.booleans())
def test_a_token_is_found_in_whatever_it_is_written(
    writing: str, before: bytes, after: bytes, *, which: bool
) -> None:
    token, name = (TOKEN, "opaque") if which else (JWT, "signed")

    assert names(WRITINGS[writing](before + token.encode() + after)) == {name}


@pytest.mark.parametrize("writing", ["base64", "base64url", "hexadecimal"])
@given(piece=pieces(TOKEN, 16), before=st.binary(max_size=5))
def test_a_piece_is_found_in_whatever_it_is_written(
    writing: str, piece: str, before: bytes
) -> None:
    assert names(WRITINGS[writing](before + piece.encode())) == {"opaque"}


@given(st.text(), st.binary())
def test_what_has_nothing_to_do_with_a_token_is_none(text: str, octets: bytes) -> None:
    texts = [text, *(writing(octets) for writing in WRITINGS.values())]

    assert [names(each) for each in texts] == [set()] * len(texts)
    assert [NEEDLES.redacted(each) for each in texts] == texts


def test_every_segment_of_a_jwt_is_found_by_itself() -> None:
    assert [names(segment) for segment in JWT.split(".")] == [{"signed"}] * 3


def test_what_tokens_have_in_common_is_no_piece() -> None:
    issuer = LocalIssuer(algorithm="ES256")
    needles = Needles()
    for _ in range(20):
        nonce = secrets.token_hex(24)
        minted = issuer.mint("alice", jti=nonce, headers={"x5t#S256": nonce})
        needles.add_jwt("signed", minted, nonce)

    assert list(needles.matches(issuer.mint("alice"))) == []
    assert list(needles.matches(issuer.mint("bob", jti="1", headers={"x5t#S256": "1"}))) == []


def test_of_a_token_that_was_broken_up_little_is_left() -> None:
    broken = f"Authorization: {JWT[-70:-30]}\n                {JWT[-30:-9]}\n{JWT[-9:]} ok"

    redacted = NEEDLES.redacted(broken)

    assert redacted.startswith("Authorization: <signed>\n                <signed>\n")
    assert redacted.endswith(" ok")


def test_two_tokens_are_told_apart() -> None:
    assert NEEDLES.redacted(f"{TOKEN} and {JWT}, {TOKEN}") == "<opaque> and <signed>, <opaque>"
    assert [each.name for each in NEEDLES.matches(f"{TOKEN} {TOKEN[:20]}")] == ["opaque"] * 2


def test_the_representation_of_markers_shows_none() -> None:
    assert repr(NEEDLES) == "<Needles: 2 tokens>"
    assert len(NEEDLES) == 2
