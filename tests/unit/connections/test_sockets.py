"""Which answers leave a connection as it was before them?"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.connections.sockets import is_one_answer

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"
HINTED = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + LENGTH
WHOLE = [LENGTH, CHUNKS, EMPTY, HINTED]


@pytest.mark.parametrize("answer", WHOLE)
def test_one_whole_answer_leaves_nothing(answer: bytes) -> None:
    assert is_one_answer(answer)


@given(st.sampled_from(WHOLE), st.binary(min_size=1))
def test_any_byte_after_an_answer_is_left_over(answer: bytes, more: bytes) -> None:
    assert not is_one_answer(answer + more)


@given(st.sampled_from([LENGTH, CHUNKS]), st.data())
def test_part_of_an_answer_is_not_one(answer: bytes, data: st.DataObject) -> None:
    end = data.draw(st.integers(0, len(answer) - 1))

    assert not is_one_answer(answer[:end])


@given(st.binary())
def test_any_bytes_are_an_answer_or_not(read: bytes) -> None:
    is_one_answer(read)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        LENGTH[:-2] + b"{" + b"x" * 2_000_000,
    ],
    ids=["no length", "HTTP/1.0", "another protocol", "too long"],
)
def test_an_answer_without_an_end_is_not_one(answer: bytes) -> None:
    assert not is_one_answer(answer)
