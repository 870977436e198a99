"""What counts as one message of the server behind?"""

from __future__ import annotations

import bz2
import codecs
from collections.abc import AsyncIterator, Iterable
from typing import Any

import anyio
import pytest

from toolguard.gateway import bounded
from toolguard.gateway.bounded import ENCODING, HTTP, bound, is_too_long

MOST = 100


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let messages have few bytes."""
    monkeypatch.setattr(bounded, "MOST_BYTES", MOST)


def decode(chunks: Iterable[bytes], errors: str = "strict") -> list[str]:
    decoder = codecs.getincrementaldecoder(ENCODING)(errors)
    return [decoder.decode(chunk) for chunk in chunks]


def test_only_whole_lines_are_decoded() -> None:
    said = "é\nçà\nrest".encode()

    assert "".join(decode(said[i : i + 1] for i in range(len(said)))) == "é\nçà\n"
    assert decode([said]) == ["é\nçà\n"]
    assert decode([b"\n\n", b"\n", b""]) == ["\n\n", "\n", ""]


def test_bytes_that_are_not_utf8_are_replaced() -> None:
    assert decode([b"\xff\n"], "replace") == ["\ufffd\n"]


def test_what_is_sent_is_utf8() -> None:
    assert "é\n".encode(ENCODING, "replace") == "é\n".encode()
    assert "é\n".encode().decode(ENCODING) == "é\n"


@pytest.mark.parametrize("size", [1, 7, MOST, MOST + 1])
def test_a_long_line_is_dropped_with_all_that_follows(size: int) -> None:
    said = b"before\n" + b"x" * MOST * 3 + b"\nafter\n"
    found = "".join(decode(said[i : i + size] for i in range(0, len(said), size)))

    before, mark, nothing = found.split("\n")
    assert (before, nothing) == ("before", "")
    assert "too_long" in mark


def test_only_the_mark_stands_for_a_long_line() -> None:
    assert not is_too_long(ValueError("a line that is not JSON"))


class Sent(HTTP.AsyncByteStream):  # type: ignore[misc] # of either client
    """A body in chunks."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = chunks

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk


def read(
    chunks: Iterable[bytes], *, method: str = "POST", status: int = 200, **headers: str
) -> str:
    """Return the text of a response, as it is read.

    Raises:
        ValueError: if it is too long.
    """
    named: dict[str, Any] = {name.replace("_", "-"): value for name, value in headers.items()}
    request = HTTP.Request(method, "http://127.0.0.1/mcp")
    response = HTTP.Response(status, headers=named, stream=Sent(chunks), request=request)
    bound(response, ValueError)

    async def all_of_it() -> str:
        return "".join([each async for each in response.aiter_text()])

    return anyio.run(all_of_it)


SSE = "text/event-stream"


def split(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 10, MOST])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_may_have_many_events(end: str, size: int) -> None:
    body = f"event: message{end}data: 5{end}{end}: ping{end}{end}".encode() * 50

    assert read(split(body, size), content_type=SSE) == body.decode()


@pytest.mark.parametrize("size", [1, 2, 3, 10, MOST])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_one_event_may_not_be_long(end: str, size: int) -> None:
    body = f"data: 5{end}{end}".encode() * 5 + f"data: 5{end}".encode() * MOST

    with pytest.raises(ValueError, match="in one message"):
        read(split(body, size), content_type=SSE)


@pytest.mark.parametrize(
    "response",
    [
        {"content_type": "application/json"},
        {"content_type": f"application/json; a={SSE}"},
        {},
        {"content_type": SSE, "method": "DELETE"},
        {"content_type": SSE, "status": 307},
        {"content_type": SSE, "status": 400},
    ],
)
def test_all_else_is_one_message(response: dict[str, Any]) -> None:
    assert read([b"\n\n"] * (MOST // 2), **response) == "\n" * MOST

    with pytest.raises(ValueError, match="in one message"):
        read([b"\n\n"] * MOST, **response)


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd", "gzip, identity"])
def test_a_compressed_answer_is_refused_where_it_is_read(encoding: str) -> None:
    with pytest.raises(ValueError, match="compressed"):
        read([b"x"], content_type="application/json", content_encoding=encoding)


@pytest.mark.parametrize("kind", [SSE, "application/json"])
def test_no_charset_decompresses(kind: str) -> None:
    bomb = bz2.compress(b"0" * 100_000)

    assert len(read([bomb], content_type=f"{kind}; charset=bz2")) <= len(bomb)
    assert read([b"\n" * 50], content_type=f"{kind}; charset=utf-16") == "\n" * 50
