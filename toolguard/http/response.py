"""Hold back the start of a response, so that a refusal can still replace it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from toolguard.calls.request import RequestAuth
from toolguard.http.event_stream import EventStream

__all__ = ["HeldResponse"]

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

# The bytes of a stream without data that are held; a priming event has some 30 bytes.
_MAX_HELD = 65_536
_LENGTH = b"content-length"


class HeldResponse:
    """A response whose start waits for its first data, so that a refusal can still replace it.

    An event without data, such as the priming event of a resumable stream, does not count as data:
    it waits as well, until the message's own operation has been permitted.

    Args:
        send: the ASGI ``send``.
        state: the caller and the outcome of the message.
        refuse: sends the refusal instead of the response; returns whether it did.
        begin: called with the id of the session that the response opens, None if it opens none;
            returns the function that seals the ids of its events, or None if the response must not
            be sent. Not called for a response that neither opens a session nor has events.
        hold: whether the start is held back at all.
    """

    def __init__(
        self,
        send: Send,
        state: RequestAuth,
        refuse: Callable[[], Awaitable[bool]],
        begin: Callable[[str | None], Callable[[bytes], bytes] | None],
        *,
        hold: bool,
    ) -> None:
        self._send = send
        self._state = state
        self._refuse = refuse
        self._begin = begin
        self._hold = hold
        self._events: EventStream | None = None
        self._held: list[Message] = []
        self._held_bytes = 0
        self._replaced = False
        self._flushing: asyncio.Task[None] | None = None
        self.status = 500

    async def send(self, message: Message) -> None:
        """Pass on, hold back or replace what the application sends (ASGI)."""
        if self._flushing is not None:
            await self.finish()
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            await self._start(message)
            return
        if self._events is not None and "body" in message:
            last = not message.get("more_body", False)
            message = {**message, "body": self._events.feed(message["body"], last=last)}
        if not self._held:
            await self._send(message)
        elif not self._waits(message):
            self._state.on_permitted = None
            if self._state.refusal is not None and await self._refuse():
                self._replaced = True
                self._held.clear()
                return
            self._held.append(message)
            await self._flush()

    async def finish(self) -> None:
        """Wait until the released events are sent."""
        if self._flushing is not None:
            flushing, self._flushing = self._flushing, None
            await flushing

    async def _start(self, start: Message) -> None:
        self.status = start["status"]
        sent = {name.lower(): value for name, value in start.get("headers", ())}
        opened = sent.get(b"mcp-session-id")
        media_type = sent.get(b"content-type", b"").partition(b";")[0].strip().lower()
        is_stream = media_type == b"text/event-stream" and b"content-encoding" not in sent
        if opened is not None or is_stream:
            seal = self._begin(None if opened is None else opened.decode("latin-1"))
            if seal is None:
                self._replaced = True
                return
            if is_stream:
                self._events = EventStream(seal)
                headers = [pair for pair in start["headers"] if pair[0].lower() != _LENGTH]
                start = {**start, "headers": headers}
        self._held.append(start)
        if not self._hold and self._state.refusal is None:
            await self._flush()

    def _waits(self, message: Message) -> bool:
        """Hold ``message`` back while there was no data; return whether it was held back."""
        if not message.get("more_body", False):
            return False
        body = message.get("body", b"")
        if not body:
            return True  # an empty chunk is dropped
        self._held_bytes += len(body)
        if (
            self._events is None
            or self._events.has_data
            or self._state.permitted
            or self._held_bytes > _MAX_HELD
        ):
            return False
        self._held.append(message)
        self._let_go_when_permitted()
        return True

    def _let_go_when_permitted(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # trio: held events wait for the first data
            return

        def begin() -> None:
            if self._held and not self._replaced and self._flushing is None:
                self._flushing = loop.create_task(self._flush())

        def let_go() -> None:  # runs in the thread of the permitted function
            loop.call_soon_threadsafe(begin)

        self._state.on_permitted = let_go

    async def _flush(self) -> None:
        held, self._held = self._held, []
        for message in held:
            await self._send(message)
