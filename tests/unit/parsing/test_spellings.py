"""Under which names could a server look up what was sent?"""

from __future__ import annotations

import sys
import unicodedata
from fnmatch import fnmatchcase
from urllib.parse import quote, unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import AnyUrl

from toolguard.parsing.spellings import (
    MAX_LENGTH,
    _drop_invisible,
    _join_words,
    spellings,
    uri_spellings,
)

PLAIN = "abcdefghijklmnopqrstuvwxyz0123456789_"
plain_names = st.text(PLAIN, min_size=1, max_size=20)
# Not of a scheme whose hosts may be numbers: file://0/ is file://0.0.0.0/.
plain_uris = st.builds("notes://{}/{}".format, plain_names, plain_names)
# Everything but control characters, which no name has.
names = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=30)
uris = st.builds("notes://{}".format, names) | names | plain_uris


def spelled(name: str) -> tuple[str, ...]:
    """Return the spellings; none for a name that is refused."""
    try:
        return uri_spellings(name)
    except ValueError:
        return ()


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ("delete_*", "delete_note"),
        ("delete_*", " delete_note"),
        ("delete_*", "Delete_Note"),
        ("delete_*", "DELETE_NOTE"),
        ("delete_*", "delete%5Fnote"),
        ("delete_*", "%64elete_note"),
        ("delete_*", "%2564elete_note"),
        ("delete_*", "\uff44elete_note"),
        ("delete_*", "delete\ufe4dnote"),
        ("delete_*", "%EF%BD%84elete_note"),
        ("caf\u00e9", "cafe\u0301"),
        ("office", "o\ufb03ce"),
        ("delete_*", "del\u00adete_note"),
        ("delete_*", "delete\u200d_note"),
        ("delete_*", "\ufeffdelete_note"),
        ("delete_*", "del\ufe0fete_note"),
        ("delete_*", "d\u034felete_note"),
        ("delete_*", "delete-note"),
        ("delete_*", "delete.note"),
        ("delete_*", "delete note"),
        ("delete_*", "Delete\u2010Note"),
        ("delete_*", "delete%2Dnote"),
    ],
)
def test_a_rule_about_a_tool_meets_every_spelling_of_its_name(rule: str, sent: str) -> None:
    assert any(fnmatchcase(each, rule) for each in spellings(sent))


@pytest.mark.parametrize(
    ("rule", "sent"),
    [
        ("notes://private/*", "notes://private/1"),
        ("notes://private/*", "NOTES://private/1"),
        ("notes://private/*", "Notes://Private/1"),
        ("notes://private/*", "notes://private/%31"),
        ("notes://private/*", "notes://%70rivate/1"),
        ("notes://private/*", "notes://%2570rivate/1"),
        ("notes://x/private/*", "notes://x/public/../private/1"),
        ("notes://x/private/*", "notes://x/public/%2e%2E/private/1"),
        ("notes://x/private/*", "notes://x/public/%252e%252E/private/1"),
        ("notes://x/private/*", "notes://x/./private/1"),
        ("notes://x/private/1", "notes://x/private/1?"),
        ("notes://x/private/1", "notes://x/private/1?a=b"),
        ("notes://x/private/1", "notes://x/private/1#a"),
        ("notes://x/private/1", "notes://x/private/1%3Fa=b"),
        ("notes://x/private/1", "notes://x/private%2F1"),
        ("notes://x/private/1", "  notes://x/private/1 "),
        ("notes://x/\u00e9", "notes://x/%C3%A9"),
        ("notes://x/%C3%A9", "notes://x/\u00e9"),
        ("notes://x/\u00e9", "notes://x/e\u0301"),
        ("https://api.example/a", "https://API.example:443/a"),
        ("https://api.example/a", "https://api.example\\a"),
        ("https://api.example/", "https://api.example"),
        ("file:///etc/passwd", "file://localhost/etc/passwd"),
        ("file:///etc/passwd", "file:////etc/passwd"),
        ("file:///etc/passwd", "file:///etc//passwd"),
        ("notes://x/private/*", "notes://x//private/1"),
        ("notes://private/*", "notes://alice@private/1"),
        ("notes://private/*", "notes://alice:b@private/1"),
        ("notes://private/*", "notes://a@b@private/1"),
        ("notes://private/*", "notes://pri\u200bvate/1"),
        ("notes://private/*", "notes://pri%C2%ADvate/1"),
    ],
)
def test_a_rule_about_a_resource_meets_every_spelling_of_its_uri(rule: str, sent: str) -> None:
    assert any(fnmatchcase(each, rule) for each in uri_spellings(sent))


@pytest.mark.parametrize("name", ["", " ", "\u00a0", "\u3000 "])
def test_a_name_is_not_blank(name: str) -> None:
    with pytest.raises(ValueError, match="not only blanks"):
        spellings(name)


@pytest.mark.parametrize("control", ["\0", "\t", "\n", "\r", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("where", ["{}note", "no{}te", "note{}"])
def test_no_control_character_is_in_a_name(where: str, control: str) -> None:
    with pytest.raises(ValueError, match="no control characters"):
        spellings(where.format(control))


@pytest.mark.parametrize("name", ["note%00", "note%00.txt", "note%2500", "%00"])
def test_no_nul_is_encoded_in_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="NUL"):
        uri_spellings(f"notes://x/{name}")


def test_a_line_may_be_encoded_in_a_uri() -> None:
    assert "search://q/a\nb" in uri_spellings("search://q/a%0Ab")


def test_a_name_is_as_long_as_a_url_may_be() -> None:
    assert len(spellings("a" * MAX_LENGTH)) == 1
    with pytest.raises(ValueError, match="1 to 2048 characters"):
        spellings("a" * (MAX_LENGTH + 1))


def test_what_is_encoded_over_and_over_is_refused() -> None:
    assert "a" in spellings("%252525252561")
    with pytest.raises(ValueError, match="percent-encode a name once"):
        spellings("%" + "25" * 200 + "61")


def test_a_uri_that_needs_every_repair_is_read() -> None:
    assert "https://x.com/" in uri_spellings("HTTPS://X.com:443/%41/../\ufb01/..?B=%2525#c ")


@given(plain_names)
def test_an_ordinary_name_has_one_spelling(name: str) -> None:
    assert spellings(name) == (name,)


@given(plain_uris)
def test_an_ordinary_uri_has_one_spelling(uri: str) -> None:
    assert uri_spellings(uri) == (uri,)


@given(uris)
@example("?a")
def test_no_spelling_is_empty(uri: str) -> None:
    assert "" not in spelled(uri)


@given(names)
def test_what_was_sent_is_the_first_spelling(name: str) -> None:
    assert not spelled(name) or spelled(name)[0] == name


@given(uris)
def test_a_spelling_has_no_spellings_that_the_name_has_not(uri: str) -> None:
    for each in spelled(uri):
        assert {*spelled(each)} <= {*spelled(uri)}


@given(uris)
def test_what_a_framework_makes_of_a_uri_is_among_its_spellings(uri: str) -> None:
    found = spelled(uri)
    if found:
        assert {unquote(uri), uri.casefold(), unicodedata.normalize("NFKC", uri)} <= {*found}
        assert uri.strip() in found
        if uri.startswith("notes://") and str(uri.strip()) == uri and uri.isascii():
            assert _normalised(uri) in {*found, None}


def _normalised(uri: str) -> str | None:
    try:
        return str(AnyUrl(uri))
    except ValueError:
        return None


@given(plain_uris, st.data())
def test_whatever_is_percent_encoded_in_a_uri_it_is_still_found(
    uri: str, data: st.DataObject
) -> None:
    encoded = data.draw(st.sets(st.integers(0, len(uri) - 1)))
    sent = "".join(f"%{ord(each):02X}" if at in encoded else each for at, each in enumerate(uri))

    assert uri in uri_spellings(sent)


@given(names)
def test_a_name_that_is_quoted_once_is_found(name: str) -> None:
    found = spelled(quote(name, safe=""))
    assert not found or name in found


def test_what_is_invisible_or_separates_is_what_unicode_says() -> None:
    for each in map(chr, range(0xA0, sys.maxunicode + 1)):
        category = unicodedata.category(each)
        if category == "Cf":
            assert _drop_invisible(each) == "", ascii(each)
        elif category in ("Pd", "Zs"):
            assert _join_words(each) == "_", ascii(each)
