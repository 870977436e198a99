"""Is a stream of events the same however it is cut into chunks, but for its ids?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from toolguard.http.event_stream import EventStream


def seal(event_id: bytes) -> bytes:
    return event_id + b".SEAL"


def read(*chunks: bytes) -> tuple[bytes, bool]:
    """Return what goes out for a whole stream, and whether it has data."""
    stream = EventStream(seal)
    sent = [stream.feed(chunk) for chunk in chunks] + [stream.feed(b"", last=True)]
    return b"".join(sent), stream.has_data


_PIECES = (
    *(b"id", b"data", b"event", b"retry", b"i", b"da", b":", b" ", b"\n", b"\r", b"\r\n", b"x"),
    *(b"id: 7", b"data: {}", b"data:", b": ping", b"\xef\xbb\xbf", b"\n\n", b"\0", b"idx: 1"),
)
streams = st.lists(st.sampled_from(_PIECES) | st.binary(max_size=4), max_size=30).map(b"".join)


@given(streams, st.lists(st.integers(0, 120), max_size=8))
@example(b"\xef\xbb\xbfid: 7\n", [1])
@example(b"id: " + b"7" * 5_000 + b"\n", [10, 4_500])
def test_it_makes_no_difference_where_a_stream_is_cut(content: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(content)]
    chunks = [content[a:b] for a, b in pairwise(places)]

    assert read(*chunks, content[places[-2] :] if not chunks else b"") == read(content)


def events(content: bytes) -> list[tuple[bytes, bytes | None]]:
    """Read a stream as a client does (WHATWG HTML): the data and the last id of each event."""
    found: list[tuple[bytes, bytes | None]] = []
    last: bytes | None = None
    data: list[bytes] = []
    text = content.removeprefix(b"\xef\xbb\xbf")
    for line in re.split(rb"\r\n|\n|\r", text)[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                found.append((b"\n".join(data), last))
            data = []
        elif name == b"data":
            data.append(value)
        elif name == b"id":
            last = value
    return found


@given(streams)
@example(b"data: x\n\xef\xbb\xbfid: 7\ndata: y\n\n")
@example(b"\xef\xbb\xbfid: 7\ndata: y\n\n")
def test_a_client_reads_the_same_events_with_sealed_ids(content: bytes) -> None:
    before, after = events(content), events(read(content)[0])

    assert [data for data, _ in after] == [data for data, _ in before]
    assert [each for _, each in after] == [seal(each) if each else each for _, each in before]


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"id: 7\r\ndata: \r\n\r\n", b"id: 7.SEAL\r\ndata: \r\n\r\n"),
        (b"id:7\ndata: {}\n\n", b"id: 7.SEAL\ndata: {}\n\n"),
        (b"data: id: 7\n\n", b"data: id: 7\n\n"),
        (b"id\n\n", b"id\n\n"),
        (b"id:\n\n", b"id:\n\n"),
        (b"id: 7", b"id: 7.SEAL"),
        (b"ids: 7\n\n", b"ids: 7\n\n"),
        (b"ID: 7\n\n", b"ID: 7\n\n"),
    ],
)
def test_ids_leave_sealed_and_the_rest_as_it_is(content: bytes, sent: bytes) -> None:
    assert read(content)[0] == sent
    assert read(*(content[at : at + 1] for at in range(len(content))))[0] == sent


@pytest.mark.parametrize(
    "content",
    [b"", b"id: 7\r\ndata: \r\n\r\n", b": ping\n\n", b"retry: 10\n", b"event: x\n", b"data\n\n"],
)
def test_a_priming_event_says_nothing_yet(content: bytes) -> None:
    assert not read(content)[1]


@pytest.mark.parametrize("content", [b"data: {}", b"data:x\n\n", b"id: 7\ndata: {", b"other: 1\n"])
def test_an_event_with_data_says_something(content: bytes) -> None:
    assert read(content)[1]


def test_large_data_goes_out_as_it_comes() -> None:
    stream = EventStream(seal)
    chunks: Sequence[bytes] = [b"data: " + b"x" * 10_000, b"y" * 10_000, b"\n\n"]

    assert [len(stream.feed(chunk)) for chunk in chunks] == [10_006, 10_000, 2]


def test_an_over_long_id_becomes_a_comment() -> None:
    content = b"id: " + b"7" * 5_000 + b"\ndata: {}\n\n"

    assert events(read(content)[0]) == [(b"{}", None)]
