"""Is the whole body of a request read, and no more than that?"""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.asgi import Message, Receive
from toolguard.errors import MalformedMessageError, ToolGuardError
from toolguard.http import jsonrpc
from toolguard.http.door import HeldBytes
from toolguard.http.jsonrpc import (
    MAX_BODY,
    MCPMessage,
    MessageTooLargeError,
    MessageTooSlowError,
    OverloadedError,
    held_body,
    parse_message,
)

DISCONNECT: Message = {"type": "http.disconnect"}


def request(*pieces: bytes) -> list[Message]:
    """Return a body in pieces, as a server gives it."""
    last = len(pieces) - 1
    return [
        {"type": "http.request", "body": piece, "more_body": at < last}
        for at, piece in enumerate(pieces)
    ]


def given_by(messages: Sequence[Message]) -> Receive:
    """Return a ``receive`` that gives these messages, and has no others."""
    left = iter(messages)

    async def receive() -> Message:
        return next(left)

    return receive


async def read_body(receive: Receive, **settings: Any) -> bytes:
    """Read a body, and hold that all the room it took is given back."""
    given = settings.pop("held", None)
    room = 2 * MAX_BODY if given is None else 10_000
    held = given or HeldBytes(room)
    headers = settings.pop("headers", ())
    try:
        async with held_body(receive, headers, held, **settings) as body:
            return body.content
    finally:
        assert held.take(room)
        held.give_back(room)


def body_of(messages: Sequence[Message], **settings: Any) -> bytes:
    return asyncio.run(read_body(given_by(messages), **settings))


pieces = st.lists(st.binary(max_size=8), min_size=1, max_size=8)


@given(pieces, st.integers(0, 40))
def test_a_body_is_the_same_in_whatever_pieces_it_comes(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)

    if len(whole) <= limit:
        assert body_of(request(*pieces), limit=limit) == whole
    else:
        with pytest.raises(MessageTooLargeError):
            body_of(request(*pieces), limit=limit)


@given(pieces)
def test_a_body_without_an_end_is_no_body(pieces: list[bytes]) -> None:
    with pytest.raises(MalformedMessageError, match="ended before its body"):
        body_of([*request(*pieces, b"")[:-1], DISCONNECT])


@given(pieces)
def test_the_application_reads_what_was_read_and_then_what_comes(pieces: list[bytes]) -> None:
    async def read_twice() -> tuple[bytes, bytes, Message]:
        receive, held = given_by([*request(*pieces), DISCONNECT]), HeldBytes(10_000)
        async with held_body(receive, (), held, uncounted=0) as body:
            first, again = body.content, body.replay(receive)
            assert not first or not held.take(10_000)
            second = await read_body(again, held=held)
            assert held.take(10_000), "the application has it"
            held.give_back(10_000)
            return first, second, await again()

    first, second, last = asyncio.run(read_twice())

    assert first == second == b"".join(pieces)
    assert last == DISCONNECT


def test_members_of_a_request_message_may_be_left_out() -> None:
    assert body_of([{"type": "http.request"}]) == b""


def test_a_body_may_have_4_mib() -> None:
    assert MAX_BODY == 4_194_304
    assert len(body_of(request(bytes(MAX_BODY)))) == MAX_BODY
    with pytest.raises(MessageTooLargeError, match="at most 4194304 bytes"):
        body_of(request(bytes(MAX_BODY), b"1"))


@pytest.mark.parametrize("length", [b"11", b"9" * 20, b"9" * 5_000, b"0011"])
def test_a_body_that_says_it_is_too_large_is_not_read(length: bytes) -> None:
    with pytest.raises(MessageTooLargeError):
        body_of([], limit=10, headers=[(b"host", b"x"), (b"content-length", length)])


@pytest.mark.parametrize("length", [b"10", b"0", b"0" * 5_000 + b"1", b"", b"-1", b"1e9", b"\xb2"])
def test_the_length_that_is_said_is_not_the_one_that_counts(length: bytes) -> None:
    headers = [(b"content-length", length)]

    assert body_of(request(b"1", b"2"), limit=2, headers=headers[:0]) == b"12"
    with pytest.raises(MessageTooLargeError):
        body_of(request(bytes(11)), limit=10, headers=headers)


def test_reading_stops_where_the_body_gets_too_large() -> None:
    def endless() -> Iterator[Message]:
        for _ in range(4):
            yield {"type": "http.request", "body": b"12345", "more_body": True}
        pytest.fail("read on")

    left = endless()

    async def receive() -> Message:
        return next(left)

    with pytest.raises(MessageTooLargeError):
        asyncio.run(read_body(receive, limit=15))


# --- limits of all bodies together


async def forever() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def test_a_body_that_does_not_arrive_in_time_is_given_up() -> None:
    begun = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Message:
        found: Message | None = next(begun, None)
        return await forever() if found is None else found

    with pytest.raises(MessageTooSlowError, match="within 0 seconds") as raised:
        asyncio.run(read_body(receive, seconds=0))
    assert raised.value.status == 408


@given(st.lists(st.integers(0, 9), max_size=9))
def test_bodies_together_never_take_more_room_than_there_is(sizes: list[int]) -> None:
    held = HeldBytes(20)

    async def read_all() -> int:
        async with AsyncExitStack() as stack:
            total = 0
            for size in sizes:
                body = held_body(given_by(request(bytes(size))), (), held, uncounted=0)
                if total + size > 20:
                    with pytest.raises(OverloadedError, match="try again"):
                        await stack.enter_async_context(body)
                else:
                    total += len((await stack.enter_async_context(body)).content)
        return total

    asyncio.run(read_all())
    assert held.take(20)


def test_small_bodies_are_read_while_large_ones_take_all_room() -> None:
    held = HeldBytes(0)

    async def read(size: int) -> int:
        async with held_body(given_by(request(bytes(size))), (), held) as body:
            return len(body.content)

    assert asyncio.run(read(64 * 1024)) == 64 * 1024
    with pytest.raises(OverloadedError):
        asyncio.run(read(64 * 1024 + 1))


@pytest.mark.parametrize(
    ("values", "room"), [(b"[]," * 100_000, 6_400_000), (b"1," * 2_000_000, 24 * 1024 * 1024)]
)
def test_values_count_for_what_they_take_up(values: bytes, room: int) -> None:
    content = b'{"jsonrpc": "2.0", "method": "x", "params": {"a": [' + values + b"0]}}"

    async def parse(limit: int) -> str | None:
        async with held_body(given_by(request(content)), (), HeldBytes(limit)) as body:
            return (await body.parsed(())).method

    assert asyncio.run(parse(2 * room + len(content))) == "x"
    with pytest.raises(OverloadedError):
        asyncio.run(parse(room - 70_000))


def test_a_large_body_is_read_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []

    def read(body: bytes, headers: object) -> MCPMessage:
        threads.append(threading.get_ident())
        return MCPMessage(None)

    monkeypatch.setattr(jsonrpc, "read_message", read)
    for size in (100, 200_000):
        asyncio.run(parse_message(bytes(size), ()))

    assert threads[0] == threading.get_ident() != threads[1]


# --- errors


@pytest.mark.parametrize(
    ("error", "status"),
    [(MalformedMessageError("Send one message"), 400), (MessageTooLargeError("Too large"), 413)],
)
def test_both_errors_are_refusals_with_a_status(error: ToolGuardError, status: int) -> None:
    assert error.status == status
    assert error.to_dict() == {"error": "invalid_request", "error_description": str(error)}
    assert isinstance(error, MalformedMessageError)
    for again in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (type(again), str(again)) == (type(error), str(error))
