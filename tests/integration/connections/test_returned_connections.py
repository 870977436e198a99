"""Does a client get the token of a connection that a tool returns?"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from support.lines import Guarding, Line, Serve, Server
from support.wire import Caller, Reply
from toolguard import Connection, ConnectionRequest, with_connection
from toolguard.testing import LocalIssuer

TOKEN = "ya29.secret"


@dataclass
class Held:
    connection: Connection


class Model(BaseModel):
    connection: Connection


async def connect(request: ConnectionRequest) -> Connection:
    return Connection(TOKEN)


async def bare(*, google: Connection) -> Connection:
    return google


async def unannotated(*, google: Connection):  # type: ignore[no-untyped-def]  # noqa: ANN201
    return google


async def in_any(*, google: Connection) -> Any:
    return google


async def in_dict(*, google: Connection) -> dict[str, Any]:
    return {"google": google}


async def in_list(*, google: Connection) -> list[Connection]:
    return [google]


async def in_dataclass(*, google: Connection) -> Held:
    return Held(google)


async def in_model(*, google: Connection) -> Model:
    return Model(connection=google)


async def as_vars(*, google: Connection) -> str:
    return json.dumps({"google": google}, default=vars)


async def as_text(*, google: Connection) -> str:
    return json.dumps({"google": google}, default=str)


async def raised(*, google: Connection) -> str:
    raise ValueError(google)


TOOLS = (
    bare,
    unannotated,
    in_any,
    in_dict,
    in_list,
    in_dataclass,
    in_model,
    as_vars,
    as_text,
    raised,
)


async def used(*, google: Connection) -> bool:
    return google.token == TOKEN and google.auth is not None


@pytest.mark.parametrize("kind", ["tool", "resource", "prompt"])
def test_a_returned_connection_does_not_send_its_token(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, kind: str
) -> None:
    server: Server = line.server("connected")
    guard_of = with_connection("google", as_="google")
    for tool in (*TOOLS, used):
        register = {
            "tool": server.tool(),
            "resource": server.resource(f"held://{tool.__name__}"),
            "prompt": server.prompt(),
        }
        register[kind](guard_of(tool))
    guard = guarding(connections=connect)
    url = serve(line.http_app(guard.protect(server), stateless=True, json=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))
    ask: dict[str, Callable[[str], Reply]] = {
        "tool": alice.call,
        "resource": lambda name: alice.send("resources/read", {"uri": f"held://{name}"}),
        "prompt": lambda name: alice.send("prompts/get", {"name": name}),
    }

    replies = {tool.__name__: ask[kind](tool.__name__) for tool in TOOLS}

    sent = {name: f"{reply.content} {reply.headers}" for name, reply in replies.items()}
    assert [name for name, text in sent.items() if TOKEN in text] == []
    assert [name for name, text in sent.items() if "connection_required" in text] == []
    if kind == "tool":
        assert alice.call("used").value == "true"
