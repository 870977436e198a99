"""Search the output of a server for the tokens of its callers.

Every operation is called over the server's own HTTP application, with unique tokens; then all of
its output is searched for them.
"""

from __future__ import annotations

import functools
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import httpx
from starlette.types import Receive, Scope, Send

from toolguard.calls.recorder import Recorder
from toolguard.calls.records import DecisionRecord
from toolguard.frameworks import Operation
from toolguard.frameworks.operation import operation_key
from toolguard.policies.policy import Policy
from toolguard.policies.published import LISTS
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.leaks.capture import Channel, Output, Recording, recording, records_spans
from toolguard.testing.leaks.claims import claims_for
from toolguard.testing.leaks.example_arguments import arguments_for, uri_for
from toolguard.testing.leaks.marked_connections import marked_connections
from toolguard.testing.leaks.needles import Needles
from toolguard.testing.leaks.reply import Reply
from toolguard.testing.subject import Subject, headers_for, visiting
from toolguard.testing.trust import issuer_for, trusting

__all__ = ["ByOperation", "Leak", "LeakReport", "LeakSearch"]

ByOperation: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Values by operation, named as in ``protect(rules=...)``: ``"prompt:plan"``."""

_METHODS = {"tool": "tools/call", "resource": "resources/read", "prompt": "prompts/get"}
# Seconds after which a tool that waits for a person is given up.
_PATIENCE = 30.0
# The maximum number of step-ups for one operation.
_STEPS = 3
# The maximum number of pages of a list.
_PAGES = 100
_CONTEXT = 60


@dataclass(frozen=True)
class Leak:
    """A place where a piece of a token can be read.

    Attributes:
        operation: what was called: ``"list_events"``, ``"prompt:plan"``, ``"tools/list"``.
        caller: with what, such as ``"an expired token"``.
        channel: where the piece is.
        where: in which header, log, warning, span or exception; else empty.
        token: what it is a piece of: ``"access token"``, ``"token of connection mail"``.
        excerpt: what stands around it, with ``<access token>`` in its place.
    """

    operation: str
    caller: str
    channel: Channel
    where: str
    token: str
    excerpt: str

    def __str__(self) -> str:
        place = f"{self.channel} {self.where}".strip()
        return (
            f"{self.operation}, called with {self.caller}: {self.token} in {place}: {self.excerpt}"
        )


@dataclass(frozen=True)
class LeakReport:
    """The report of a search. It contains no token.

    Attributes:
        leaks: where pieces of tokens can be read.
        ran: the operations that were searched to their end.
        failed: those that ended in an error, perhaps before they got to work, and why.
        refused: those that refused every caller, and why: only their refusals were searched.
        skipped: those that were omitted.
        spans: whether spans of OpenTelemetry were searched too.
    """

    leaks: tuple[Leak, ...]
    ran: tuple[str, ...]
    failed: Mapping[str, str]
    refused: Mapping[str, str]
    skipped: tuple[str, ...]
    spans: bool


@dataclass(frozen=True)
class _Searched:
    """One operation, and how it is called.

    Attributes:
        key: its name.
        method: the JSON-RPC method.
        params: its parameters.
        arguments: what its guard reads of them.
        policy: what it asks for.
    """

    key: str
    method: str
    params: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: Policy = field(default_factory=Policy)


class LeakSearch:
    """One search of one server.

    Args:
        server: the server, after ``guard.protect(server)``.
        arguments: what operations are called with, beside what their schemas require.
        claims: further claims of who calls them.
        skip: the operations that are left out.
        user: who calls.
        issuer: who mints the tokens; None for one that the guard trusts while it is searched.

    Raises:
        ValueError: if the server is not protected, or the framework verifies and there is no
            issuer.
    """

    def __init__(
        self,
        server: object,
        arguments: ByOperation,
        claims: ByOperation,
        *,
        skip: Collection[str],
        user: str,
        issuer: LocalIssuer | None,
    ) -> None:
        self._subject = Subject(server)
        guard = self._subject.guard
        if issuer is None and not guard.verifies_itself:
            raise ValueError("the framework verifies here: give issuer=, one that it accepts")
        self._guard = guard
        self._is_own = issuer is None
        self._issuer = issuer or issuer_for(guard)
        self._user = user
        self._arguments, self._claims, self._skip = arguments, claims, skip
        self._needles = Needles()
        self._leaks: dict[tuple[str, ...], Leak] = {}
        self._ran: list[str] = []
        self._failed: dict[str, str] = {}
        self._refused: dict[str, str] = {}

    async def run(self) -> LeakReport:
        """Search the server.

        Raises:
            ValueError: if there is no operation of a given name.
        """
        with ExitStack() as stack:
            if self._is_own:
                stack.enter_context(trusting(self._guard, self._issuer))
            stack.enter_context(marked_connections(self._guard, self._needles))
            heard = stack.enter_context(recording())
            record = functools.partial(_hear_record, heard)
            stack.callback(self._guard.recorder.listen(record))
            named = {*self._arguments, *self._claims, *self._skip}
            operations = self._subject.operations(named)
            async with self._client(heard) as client:
                wire = _SearchClient(client, heard, self._look, self._guard.recorder)
                listed = await self._list(wire)
                for key, operation in operations.items():
                    if key not in self._skip:
                        await self._try(wire, self._target(key, operation, listed.get(key, {})))
                await self._list(wire)  # again, for what the calls may have left there
            self._look("the application", "nobody", heard.take())
        return LeakReport(
            tuple(self._leaks.values()),
            tuple(self._ran),
            self._failed,
            self._refused,
            tuple(key for key in operations if key in self._skip),
            records_spans(),
        )

    @asynccontextmanager
    async def _client(self, heard: Recording) -> AsyncIterator[httpx.AsyncClient]:
        app = self._subject.adapter.stateless_app(json_response=False)

        async def overheard(scope: Scope, receive: Receive, send: Send) -> None:
            with ExitStack() as stack:
                stack.push(heard.add_exception)
                await app(scope, receive, send)

        transport = httpx.ASGITransport(overheard, raise_app_exceptions=False)
        async with visiting(app, transport) as client:
            yield client

    # --- what is asked

    async def _list(self, wire: _SearchClient) -> dict[str, Mapping[str, Any]]:
        """Return what the server lists, by the names of operations."""
        found: dict[str, Mapping[str, Any]] = {}
        for method, (member, kind, name) in LISTS.items():
            cursor: Mapping[str, Any] = {}
            for _ in range(_PAGES):
                target = _Searched(method, method, cursor)
                token = self._minted(self._issuer.mint, scopes=self._guard.scopes_supported)
                result = (await wire.call(target, "every scope", token)).result
                items = result.get(member, ())
                found.update({operation_key(kind, str(item.get(name))): item for item in items})
                if not result.get("nextCursor"):
                    break
                cursor = {"cursor": result["nextCursor"]}
        return found

    def _target(self, key: str, operation: Operation, listed: Mapping[str, Any]) -> _Searched:
        policy = self._subject.policy(operation) or Policy()
        given = self._arguments.get(key, {})
        method = _METHODS[operation.kind]
        if operation.kind == "resource":
            uri, variables = uri_for(str(given.get("uri", operation.name)))
            return _Searched(key, method, {"uri": uri}, {**variables, "uri": uri}, policy)
        if operation.kind == "prompt":
            named = listed.get("arguments") or ()
            made = {each["name"]: "1" for each in named if each.get("required")}
        else:
            made = arguments_for(listed.get("inputSchema", {}), policy.arguments)
        arguments = {**made, **given}
        params = {"name": operation.name, "arguments": arguments}
        return _Searched(key, method, params, arguments, policy)

    async def _try(self, wire: _SearchClient, target: _Searched) -> None:
        """Call one operation as a permitted caller, and as each kind of refused caller."""
        await self._enter(wire, target)
        if target.policy.formula is not None:
            await wire.call(target, "no scope", self._minted(self._issuer.mint))
        claims = self._opening(target)
        expired = self._minted(self._issuer.mint_expired, **claims)
        await wire.call(target, "an expired token", expired)
        another = self._minted(self._issuer.mint_wrong_audience, **claims)
        await wire.call(target, "a token for another server", another)
        await wire.call(target, "no token", None)

    async def _enter(self, wire: _SearchClient, target: _Searched) -> None:
        """Call an operation with all that it asks for, and with what it then still asks for."""
        claims = self._opening(target)
        for _ in range(_STEPS):
            token = self._minted(self._issuer.mint, **claims)
            known = len(self._needles)
            reply = await wire.call(target, "every scope", token)
            held = list(claims.get("scopes", ()))
            claims["scopes"] = list(dict.fromkeys((*held, *reply.asked_scopes)))
            if claims["scopes"] == held:
                break
        if reply.refusal:
            self._refused[target.key] = self._needles.redacted(reply.failure)
        elif reply.succeeded or len(self._needles) > known:
            self._ran.append(target.key)  # who has a connection has got past the arguments
        else:
            self._failed[target.key] = self._needles.redacted(reply.failure)

    def _opening(self, target: _Searched) -> dict[str, Any]:
        says, now = self._issuer.provider.says, self._guard.clock()
        claims = claims_for(target.policy, target.arguments, says=says, now=now)
        return {**claims, **self._claims.get(target.key, {})}

    def _minted(self, mint: Callable[..., str], **claims: Any) -> str:
        nonce = secrets.token_hex(24)
        # Only names a key (RFC 7515 §4.1.8): makes the header, too, like no other.
        token = mint(self._user, **{**claims, "jti": nonce}, headers={"x5t#S256": nonce})
        self._needles.add_jwt("access token", token, nonce)
        return token

    # --- what is found

    def _look(self, operation: str, caller: str, said: Collection[Output]) -> None:
        for each in said:
            for name in dict.fromkeys(found.name for found in self._needles.matches(each.text)):
                place = (operation, each.channel, each.where, name)
                if place not in self._leaks:
                    excerpt = _around(f"<{name}>", self._needles.redacted(each.text))
                    leak = Leak(operation, caller, each.channel, each.where, name, excerpt)
                    self._leaks[place] = leak


class _SearchClient:
    """What goes over HTTP, and is looked at together with what is said meanwhile."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        heard: Recording,
        look: Callable[[str, str, Collection[Output]], None],
        recorder: Recorder,
    ) -> None:
        self._client = client
        self._recorder = recorder
        self._heard = heard
        self._look = look

    async def call(self, target: _Searched, caller: str, token: str | None) -> Reply:
        """Return the reply, which is empty if there is none in time."""
        params = {**target.params, "_meta": {"progressToken": 1}}
        message = {"jsonrpc": "2.0", "id": 1, "method": target.method, "params": params}
        response = None
        with anyio.move_on_after(_PATIENCE):
            response = await self._client.post("/mcp", headers=headers_for(token), json=message)
        await anyio.to_thread.run_sync(self._recorder.flush)
        reply = Reply(target.method, response, _PATIENCE)
        self._look(target.key, caller, [*reply.outputs(), *self._heard.take()])
        return reply


def _hear_record(heard: Recording, record: DecisionRecord) -> None:
    heard.add("record", record.verdict, record.to_json())


def _around(word: str, text: str) -> str:
    """Return the line around ``word``."""
    at = max(0, text.find(word))
    start, end = at - _CONTEXT, at + len(word) + _CONTEXT
    line = " ".join(text[max(0, start) : end].split())
    return f"{'...' if start > 0 else ''}{line}{'...' if end < len(text) else ''}"
