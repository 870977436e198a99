"""Clients that call a protected server in process, as a given user.

A call passes the server's own HTTP application, the middleware, the verifier and the wrapper,
without a socket; the answer has the HTTP status and the challenge.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any

from toolguard.calls.waiting import wait_for
from toolguard.http.challenge import parse
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.proofs import ProofKey
from toolguard.testing.server_answer import ServerAnswer
from toolguard.testing.subject import Subject, headers_for, visiting
from toolguard.testing.trust import issuer_for, trusting
from toolguard.testing.wiring import current_wirings, wired_with
from toolguard.tokens.proofs.target import target_of

__all__ = ["AsyncGuardedClient", "GuardedClient", "call_as", "call_as_async"]


class AsyncGuardedClient:
    """One caller of a protected server, for use inside an event loop.

    Args:
        server: the server, after ``guard.protect(server)``.
        user: the subject of the caller's tokens; None sends no token.
        scopes: the scopes of the tokens.
        token: the token to send, instead of both, for the guard's own verifier.
        issuer: mints the tokens, if the guard has its verifier; by default an issuer of this
            process that the guard trusts for the duration of a call.
        dpop: whether the tokens are bound to a key, and sent with a proof (RFC 9449); or the key.
        claims: further claims of the tokens, as :meth:`LocalIssuer.mint` takes them.

    Raises:
        ValueError: if the server is not protected.

    Example::

        alice = AsyncGuardedClient(server, user="alice", scopes=["calendar.read"])
        assert (await alice.call("list_events", {"day": "monday"})).ok
    """

    def __init__(
        self,
        server: object,
        *,
        user: str | None = "alice",
        scopes: Sequence[str] = (),
        token: str | None = None,
        issuer: LocalIssuer | None = None,
        dpop: bool | ProofKey = False,
        **claims: Any,
    ) -> None:
        subject = Subject(server)
        self._adapter, self._guard = subject.adapter, subject.guard
        self._given = token
        self._own = issuer is None and token is None and user is not None
        if self._own and not self._guard.verifies_itself:
            raise ValueError("the framework verifies here: give token=, one that it accepts")
        self._issuer = issuer or issuer_for(self._guard)
        self._key = ProofKey(clock=self._guard.clock) if dpop is True else dpop or None
        self._mint = functools.partial(
            self._issuer.mint, user, scopes=scopes, key=self._key, **claims
        )
        self._user = user
        self._wirings = current_wirings()

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Call a tool.

        Args:
            tool: its name, as clients see it.
            arguments: its arguments.
        """
        return await self.send("tools/call", {"name": tool, "arguments": dict(arguments or {})})

    async def read(self, uri: str) -> ServerAnswer:
        """Read a resource.

        Args:
            uri: its URI.
        """
        return await self.send("resources/read", {"uri": uri})

    async def get_prompt(
        self, name: str, arguments: Mapping[str, str] | None = None
    ) -> ServerAnswer:
        """Get a prompt.

        Args:
            name: its name.
            arguments: its arguments, which are strings.
        """
        return await self.send("prompts/get", {"name": name, "arguments": dict(arguments or {})})

    async def send(self, method: str, params: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Send any JSON-RPC request, such as ``tools/list``.

        Args:
            method: the name of the method.
            params: its parameters.
        """
        trust = trusting(self._guard, self._issuer) if self._own else nullcontext()
        with wired_with(self._wirings), trust:
            return await self._post(method, dict(params or {}))

    async def _post(self, method: str, params: dict[str, Any]) -> ServerAnswer:
        token = self._given if self._given is not None or self._user is None else self._mint()
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        content = json.dumps(message)
        async with visiting(self._adapter.stateless_app()) as client:
            proof = self._proof(token)
            response = await client.post("/mcp", headers=headers_for(token, proof), content=content)
            if "dpop-nonce" in response.headers and response.status_code == HTTPStatus.UNAUTHORIZED:
                proof = self._proof(token, response.headers["dpop-nonce"])
                headers = headers_for(token, proof)
                response = await client.post("/mcp", headers=headers, content=content)
        header = response.headers.get("www-authenticate")
        return ServerAnswer.read(
            int(response.status_code),
            parse(header) if header is not None else None,
            json.loads(response.content or b"{}"),
        )

    def _proof(self, token: str | None, nonce: str | None = None) -> str | None:
        """Return a proof for one request to the server; None for a bearer token."""
        if self._key is None or token is None:
            return None
        url = target_of(self._guard.resource, "/mcp")
        return self._key.prove("POST", url, token, nonce=nonce)


class GuardedClient:
    """One caller of a protected server, for use outside of event loops.

    It has the arguments and the methods of :class:`AsyncGuardedClient`.

    Example::

        alice = GuardedClient(server, user="alice", scopes=["calendar.read"])
        assert alice.call("list_events", {"day": "monday"}).ok
        assert alice.call("delete_event", {"id": "1"}).missing_scopes == ("calendar.write",)
        assert alice.read("calendar://today").ok
    """

    def __init__(self, server: object, **caller: Any) -> None:
        self._client = AsyncGuardedClient(server, **caller)

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Call a tool.

        Args:
            tool: its name, as clients see it.
            arguments: its arguments.
        """
        return wait_for(functools.partial(self._client.call, tool, arguments))

    def read(self, uri: str) -> ServerAnswer:
        """Read a resource.

        Args:
            uri: its URI.
        """
        return wait_for(functools.partial(self._client.read, uri))

    def get_prompt(self, name: str, arguments: Mapping[str, str] | None = None) -> ServerAnswer:
        """Get a prompt.

        Args:
            name: its name.
            arguments: its arguments, which are strings.
        """
        return wait_for(functools.partial(self._client.get_prompt, name, arguments))

    def send(self, method: str, params: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Send any JSON-RPC request, such as ``tools/list``.

        Args:
            method: the name of the method.
            params: its parameters.
        """
        return wait_for(functools.partial(self._client.send, method, params))


def call_as(
    server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
) -> ServerAnswer:
    """Call a tool of a protected server as some user; for use outside an event loop.

    Args:
        server: the server, after ``guard.protect(server)``.
        tool: the name of the tool.
        arguments: the arguments to send.
        caller: the caller, as for :class:`AsyncGuardedClient`: ``user``, ``scopes``, ...

    Returns:
        The answer, as it would be on the wire.

    Raises:
        ValueError: if the server is not protected.

    Example::

        assert call_as(server, "delete_event", {"id": "1"}, scopes=["read"]).status == 403
    """
    return GuardedClient(server, **caller).call(tool, arguments)


async def call_as_async(
    server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
) -> ServerAnswer:
    """Call a tool as :func:`call_as` does, from inside an event loop."""
    return await AsyncGuardedClient(server, **caller).call(tool, arguments)
