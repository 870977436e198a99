"""Does a framework know of the caller what its own auth would have told it?

The same server twice: under the framework's own auth, which asks toolguard's verifier, and under
the guard. All that the framework can see of each caller is equal, but for the token itself.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import httpx
import pytest
from mcp.server.auth.middleware import auth_context
from mcp.server.auth.middleware.bearer_auth import authorization_context

from support.lines import (
    LINES,
    STATEFUL_MODES,
    Guarding,
    Line,
    Mode,
    Serve,
    ServeOnce,
    Server,
)
from support.lowlevel_servers import Told, lowlevel, streamable_app
from support.own_auth import with_token_verifier
from support.transfers import transfers
from support.wire import Caller
from toolguard import verifier_for
from toolguard.testing import LocalIssuer

MODERN_LINES = [line for line in LINES if line.modern]
CALLERS: Mapping[str, Mapping[str, Any]] = {
    "alice": {"scopes": ["notes.read", "notes.write"], "tenant": "acme"},
    "renewed": {"user": "alice", "scopes": ["notes.read"], "tenant": "acme"},
    "another client": {"user": "alice", "client_id": "other", "tenant": "acme"},
    "bob": {"user": "bob", "tenant": "acme", "roles": ["clerk"], "act": {"sub": "agent"}},
    "several audiences": {"tenant": "acme", "aud": ["https://mcp.test/mcp", "https://other.test"]},
    "no scopes": {"tenant": "other"},
}


def seen_by_the_sdk() -> Any:
    token = auth_context.get_access_token()
    return None if token is None else [type(token).__name__, token.model_dump(mode="json")]


def seen_on_the_request(request: Any) -> Any:
    user = request.user
    return {
        "user": [type(user).__name__, user.is_authenticated, user.display_name, user.scopes],
        "owner": authorization_context(user),
        "token": user.access_token.model_dump(mode="json"),
        "auth": request.auth.scopes,
    }


def showing(server: Server, line: Line) -> Server:
    """Put a tool on the server that shows all that can be seen of its caller."""
    if line.family == "sdk":

        async def seen(ctx: Any) -> str:
            request = ctx.request_context.request
            return json.dumps({"sdk": seen_by_the_sdk(), "request": seen_on_the_request(request)})

        seen.__annotations__ = {"ctx": line.context, "return": str}
        server.tool()(seen)
        return server
    dependencies: Any = importlib.import_module("fastmcp.server.dependencies")
    claim = dependencies.TokenClaim

    async def seen_by_fastmcp(sub: str = claim("sub"), tenant: str = claim("tenant")) -> str:
        token = dependencies.get_access_token()
        return json.dumps(
            {
                "sdk": seen_by_the_sdk(),
                "request": seen_on_the_request(dependencies.get_http_request()),
                "fastmcp": [type(token).__module__, token.model_dump(mode="json")],
                "claims": [sub, tenant],
            }
        )

    seen_by_fastmcp.__annotations__ = {"sub": str, "tenant": str, "return": str}
    server.tool("seen")(seen_by_fastmcp)
    return server


def own_server(line: Line, guarding: Guarding) -> Server:
    return with_token_verifier(line, verifier_for(guarding()))


See = Callable[[str, str], tuple[Any, Any]]


@pytest.fixture
def callers(
    mode: Mode, guarding: Guarding, serve_once: ServeOnce, http: httpx.Client
) -> Callable[[str], tuple[Caller, Caller]]:
    """Make one caller of each server, with the same token."""

    def made(token: str) -> tuple[Caller, Caller]:
        line, key = mode.line, (mode.line.name, mode.stateless, mode.json)
        own = serve_once(
            ("own identity", *key), lambda: mode.app(showing(own_server(line, guarding), line))
        )
        ours = serve_once(
            ("our identity", *key),
            lambda: mode.app(guarding().protect(showing(line.server("guarded"), line))),
        )
        both = [Caller(http, f"{url}/mcp", mode.protocol, token=token) for url in (own, ours)]
        for each in both if mode.has_sessions else ():
            assert each.open().status == 200
        return both[0], both[1]

    return made


Callers = Callable[[str], tuple[Caller, Caller]]


def mint(issuer: LocalIssuer, who: str) -> str:
    return issuer.mint(**{"user": "alice", **CALLERS[who]})


def standing_for(token: str) -> str:
    return f"sha256:{sha256(token.encode()).hexdigest()}"


def seen(caller: Caller) -> Any:
    reply = caller.call("seen")
    assert reply.status == 200, reply.content
    return json.loads(reply.value)


@pytest.mark.parametrize("who", CALLERS)
def test_the_framework_sees_the_same_caller_except_the_token(
    callers: Callers, issuer: LocalIssuer, who: str
) -> None:
    token = mint(issuer, who)
    own, ours = callers(token)
    shown = json.dumps(seen(own))

    assert token in shown
    assert seen(ours) == json.loads(shown.replace(token, standing_for(token)))


def test_the_token_itself_is_seen_nowhere(callers: Callers, issuer: LocalIssuer) -> None:
    token = mint(issuer, "alice")
    _, ours = callers(token)
    shown = json.dumps(seen(ours))

    assert standing_for(token) in shown
    assert token not in shown


@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_renewed_token_in_an_open_session_is_seen_on_its_request(
    callers: Callers, issuer: LocalIssuer
) -> None:
    own, ours = callers(mint(issuer, "alice"))
    own.token = ours.token = mint(issuer, "renewed")

    theirs, mine = seen(own), seen(ours)
    assert mine["request"]["auth"] == ["notes.read"]
    assert mine["request"]["token"] == {
        **theirs["request"]["token"],
        "token": standing_for(ours.token),
    }


# Where ours is better: the SDK 1.x knows the token that opened the session.
@pytest.mark.parametrize("mode", STATEFUL_MODES, ids=str)
def test_a_renewed_token_in_an_open_session_is_the_one_the_sdk_sees(
    callers: Callers, issuer: LocalIssuer
) -> None:
    _, ours = callers(mint(issuer, "alice"))
    ours.token = mint(issuer, "renewed")

    assert seen(ours)["sdk"][1]["token"] == standing_for(ours.token)


def test_what_a_tool_does_to_its_claims_is_its_own_affair(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = line.server("changing")

    @server.tool()
    async def change() -> str:
        token: Any = auth_context.get_access_token()
        shown = json.dumps(token.claims)
        token.claims["roles"].append("admin")
        token.claims["act"]["sub"] = "root"
        token.claims["sub"] = "root"
        token.scopes.append("admin")
        return shown

    url = serve(line.http_app(guarding().protect(server), stateless=True, json=True))
    bob = Caller(http, f"{url}/mcp", token=mint(issuer, "bob"))

    first = bob.call("change").value
    assert bob.call("change").value == first


def test_without_a_token_the_framework_knows_nobody(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = line.server("open")

    @server.tool()
    async def known() -> str:
        return str(auth_context.get_access_token())

    guard = guarding(default="public")
    url = serve(line.http_app(guard.protect(server), stateless=True, json=True))

    assert Caller(http, f"{url}/mcp", token=mint(issuer, "alice")).call("known").value != "None"
    assert Caller(http, f"{url}/mcp").call("known").value == "None"


# --- wherever code runs


class Watched:
    """A server whose operations note what the framework knows of their caller."""

    def __init__(self, line: Line, server: Any) -> None:
        self.server = server
        self.seen: dict[str, Any] = {}
        for where, function in {"async": self._async, "in a thread": self._sync}.items():
            server.tool(where.replace(" ", "_"))(function)
        server.resource("d://at/{which}")(self._template)
        server.resource("d://whole")(self._whole)
        server.prompt("prompt")(self._prompt)
        line.complete_by(server, self._complete)
        if line.family == "fastmcp":
            server.add_middleware(self._middleware())

    def _note(self, where: str) -> str:
        self.seen[where] = self._known()
        return where

    def _known(self) -> Any:
        known = [seen_by_the_sdk()]
        try:
            dependencies: Any = importlib.import_module("fastmcp.server.dependencies")
        except ImportError:
            return known
        token = dependencies.get_access_token()
        return [*known, None if token is None else token.model_dump(mode="json")]

    async def _async(self) -> str:
        return self._note("async tool")

    def _sync(self) -> str:
        return self._note("tool in a thread")

    async def _template(self, which: str) -> str:
        return self._note(f"template {which}")

    async def _whole(self) -> str:
        return self._note("resource")

    async def _prompt(self) -> str:
        return self._note("prompt")

    async def _complete(self, *_: Any) -> list[str]:
        return [self._note("completion")]

    def _middleware(self) -> Any:
        watched, base = self, importlib.import_module("fastmcp.server.middleware")

        class Watching(base.Middleware):  # type: ignore[misc,name-defined]
            async def on_request(self, context: Any, call_next: Any) -> Any:
                watched._note(f"middleware at {context.method}")
                return await call_next(context)

        return Watching()


MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "async", "arguments": {}}),
    ("tools/call", {"name": "in_a_thread", "arguments": {}}),
    ("resources/read", {"uri": "d://at/1"}),
    ("resources/read", {"uri": "d://whole"}),
    ("prompts/get", {"name": "prompt"}),
    (
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "prompt"},
            "argument": {"name": "x", "value": ""},
        },
    ),
    ("tools/list", {}),
]


@pytest.mark.parametrize("who", ["alice", "bob"])
def test_law_6_wherever_code_runs_the_framework_knows_the_same_caller(
    mode: Mode, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, who: str
) -> None:
    """Code of every kind is told of its caller what the framework's own auth would have told it."""
    line, token = mode.line, mint(issuer, who)
    own = Watched(line, own_server(line, guarding))
    ours = Watched(line, line.server("guarded"))
    guarding().protect(ours.server)
    for watched in (own, ours):
        url = serve(mode.app(watched.server))
        caller = Caller(http, f"{url}/mcp", mode.protocol, token=token)
        if mode.has_sessions:
            assert caller.open().status == 200
        for method, params in MESSAGES:
            assert not caller.send(method, params).is_error, method

    shown = json.dumps(own.seen)
    assert len(own.seen) >= len(MESSAGES) - 1
    assert token in shown
    assert ours.seen == json.loads(shown.replace(token, standing_for(token)))


@pytest.mark.parametrize("line", [line for line in LINES if line.family == "sdk"], ids=str)
@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("stateless", [True, False])
def test_law_6_on_low_level_servers(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    who: str,
    *,
    stateless: bool,
) -> None:
    """Handlers of a low-level server are told what a server of the same SDK tells its tools."""

    async def seen_here(_: Mapping[str, Any]) -> str:
        return json.dumps(seen_by_the_sdk())

    guard, server = guarding(), lowlevel(Told(tools={"seen": seen_here}))
    guard.protect(server)
    own = serve(line.http_app(showing(own_server(line, guarding), line), stateless=stateless))
    ours = serve(streamable_app(guard, server, stateless=stateless))
    token, known = mint(issuer, who), []
    for url in (own, ours):
        caller = Caller(http, f"{url}/mcp", token=token)
        if not stateless:
            assert caller.open().status == 200
        known.append(seen(caller))

    shown = json.dumps(known[0]["sdk"])
    assert known[1] == json.loads(shown.replace(token, standing_for(token)))


# --- sealed states


@pytest.mark.parametrize("line", MODERN_LINES, ids=str)
def test_a_sealed_state_serves_nobody_but_the_caller_it_was_given_to(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server = guarding().protect(transfers(line))
    url = serve(line.http_app(server, stateless=True, json=True))
    can: dict[str, Any] = {"elicitation": {"form": {}}}

    def call(who: str, **more: Any) -> Any:
        caller = Caller(http, f"{url}/mcp", "2026-07-28", token=mint(issuer, who), capabilities=can)
        return caller.send("tools/call", {"name": "transfer", "arguments": {}, **more})

    state = call("alice").result["requestState"]
    answer = {
        "inputResponses": {"ok": {"action": "accept", "content": {"ok": True}}},
        "requestState": state,
    }
    for who in ("bob", "another client"):
        assert "transferred" not in call(who, **answer).content
    for who in ("alice", "renewed"):
        assert call(who, **answer).value == "transferred from alices-account"
