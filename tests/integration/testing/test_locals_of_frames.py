"""Does a token stand in a variable of ours while a tool runs, or when it fails?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from traceback import walk_tb
from types import FrameType
from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, Serve, Server
from support.wire import Caller, Reply
from toolguard import Connection, ConnectionRequest, injected, with_connection
from toolguard.testing import LocalIssuer

SECRET = "ya29.a-connection-of-alice"


async def connect(request: ConnectionRequest) -> Connection:
    return Connection(SECRET)


def texts(value: object, depth: int = 0) -> Iterator[str]:
    """Yield what a report of local variables shows of a value, a few levels deep."""
    if isinstance(value, bytes):
        yield value.decode("latin-1")
    elif isinstance(value, Mapping) and depth < 6:
        for item in (*value.keys(), *value.values()):
            yield from texts(item, depth + 1)
    elif isinstance(value, (list, tuple, set, frozenset)) and depth < 6:
        for item in value:
            yield from texts(item, depth + 1)
    else:
        yield str(value)
        yield repr(value)


def above(frame: FrameType | None) -> Iterator[FrameType]:
    """Yield a frame and those that called it."""
    while frame is not None:
        yield frame
        frame = frame.f_back


def holding(frames: Iterator[FrameType], secrets: tuple[str, ...]) -> list[str]:
    """Return the variables of our frames in which one of the secrets stands."""
    return [
        f"{frame.f_globals['__name__']}.{frame.f_code.co_name}: {name}"
        for frame in frames
        if str(frame.f_globals.get("__name__")).startswith("toolguard.")
        for name, value in frame.f_locals.items()
        if any(secret in text for text in texts(value) for secret in secrets)
    ]


@pytest.mark.parametrize("kind", ["tool", "resource", "prompt"])
def test_no_variable_of_ours_holds_a_token_around_a_body(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, kind: str
) -> None:
    token = issuer.mint("alice")
    seen: list[list[str]] = []

    def look(frames: Iterator[FrameType]) -> None:
        seen.append(holding(frames, (SECRET, token)))

    @with_connection("google")
    async def helper(*, connection_token: str = injected) -> str:
        look(above(sys._getframe()))
        raise ValueError("of the helper")

    @with_connection("google")
    async def waiting(*, connection_token: str) -> str:
        look(above(sys._getframe()))
        try:
            await helper()
        except ValueError as error:
            look(frame for frame, _ in walk_tb(error.__traceback__))
        return "done" if connection_token == SECRET else "other"

    @with_connection("google")
    def running(*, connection_token: str) -> str:
        look(above(sys._getframe()))
        return "done" if connection_token == SECRET else "other"

    server: Server = line.server("locals")
    for function in (waiting, running):
        register: dict[str, Callable[..., Any]] = {
            "tool": server.tool(),
            "resource": server.resource(f"held://{function.__name__}"),
            "prompt": server.prompt(),
        }
        register[kind](function)
    app = line.http_app(guarding(connections=connect).protect(server), stateless=True, json=True)
    alice = Caller(http, f"{serve(app)}/mcp", token=token)
    ask: dict[str, Callable[[str], Reply]] = {
        "tool": alice.call,
        "resource": lambda name: alice.send("resources/read", {"uri": f"held://{name}"}),
        "prompt": lambda name: alice.send("prompts/get", {"name": name}),
    }

    replies = [ask[kind](name).content for name in ("waiting", "running")]

    assert all("done" in str(reply) for reply in replies)
    assert seen == [[]] * 4
