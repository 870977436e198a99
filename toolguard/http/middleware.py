"""What happens to an HTTP request before and after the MCP framework sees it?

A pure ASGI middleware. It verifies the bearer token of every request, holds sessions to their
owners, and holds back the start of a response until its first byte: until then a guard that
refuses inside the tool call can still turn the answer into a real 401 or 403.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from toolguard.calls.request import SCOPE_KEY, Guard, RequestAuth
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRateLimitedError,
    KeysUnavailableError,
    MalformedMessageError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.http import identity
from toolguard.http.challenge import Challenge
from toolguard.http.sessions import Sessions
from toolguard.principal import Principal
from toolguard.tokens.bearer import bearer_token
from toolguard.tokens.verifier import Verifier

__all__ = ["ASGIApp", "GuardMiddleware", "Message", "Receive", "Scope", "Send"]

Message = MutableMapping[str, Any]
"""One event (ASGI)."""
Scope = MutableMapping[str, Any]
"""What is known of a connection (ASGI)."""
Receive = Callable[[], Awaitable[Message]]
"""Gives the next event from the client (ASGI)."""
Send = Callable[[Message], Awaitable[None]]
"""Sends an event to the client (ASGI)."""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application (ASGI)."""
_VerifyRequest = Callable[[Scope, str], Awaitable[Principal]]

_SESSION_HEADER = b"mcp-session-id"


class HTTPGuard(Guard, Protocol):
    """What the middleware needs of a guard."""

    def challenge(self, refusal: ToolGuardError) -> Challenge | None:
        """Return the challenge for a refusal."""
        ...


class GuardMiddleware:
    """Guards one ASGI application, normally the endpoint of an MCP server.

    Args:
        app: the application.
        guard: who verifies, and how refusals are challenged.
    """

    def __init__(self, app: ASGIApp, guard: HTTPGuard) -> None:
        self.app = app
        self.guard = guard
        self.sessions = Sessions()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "lifespan" or _is_preflight(scope):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # fail closed: never guarded
            return
        try:
            state = await self._authenticate(scope)
        except ToolGuardError as refusal:
            await _respond(send, refusal, self.guard.challenge(refusal))
            return
        await self._serve(scope, receive, send, state)

    async def _authenticate(self, scope: Scope) -> RequestAuth:
        token = bearer_token(scope["headers"])
        if token is not None:
            principal = await _verified(self.guard.verifier, scope, token)
            return RequestAuth(token, principal, self.guard)
        if not self.guard.admits_anonymous:
            raise MissingTokenError
        return RequestAuth(None, None, self.guard)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, state: RequestAuth) -> None:
        if sum(name == _SESSION_HEADER for name, _ in scope["headers"]) > 1:
            # Who owns one of them could have the application act on the other.
            await _respond(send, MalformedMessageError("Send one Mcp-Session-Id header"), None)
            return
        session_id = _header(scope["headers"], _SESSION_HEADER)
        if session_id is not None and not self.sessions.admits(session_id, state.principal):
            await _not_found(send)
            return
        if scope["method"] in ("GET", "HEAD") and await self._refuses_stream(state, send):
            return
        scope[SCOPE_KEY] = state
        headers = list(scope["headers"])
        response = _Response(send, state, self, hold=scope["method"] == "POST")
        # The SDK holds a session to the user who opened it; there may be no such user.
        owned = session_id is None or not self.sessions.opened_anonymously(session_id)
        with identity.tell(scope, state, as_user=owned):
            await self.app(scope, receive, response.send)
        if response.orphan is not None:
            await self._end_session({**scope, "headers": headers}, response.orphan)
            await _respond(send, _no_owner(), None)
        if scope["method"] == "DELETE" and session_id is not None and response.status < 300:  # noqa: PLR2004
            self.sessions.close(session_id)

    async def _refuses_stream(self, state: RequestAuth, send: Send) -> bool:
        """Refuse to who cannot own a session what belongs to one, or opens one."""
        if state.principal is None:
            # An anonymous session may be taken over by its user, and nobody else may be
            # listening then. MCP: 405 says that the server offers no stream here.
            headers = [(b"allow", b"POST, DELETE")]
            await _send_json(send, 405, headers, {"error": "method_not_allowed"})
            return True
        if state.principal.user_id is None:
            await _respond(send, _no_owner(), None)
            return True
        return False

    async def _end_session(self, scope: Scope, session_id: str) -> None:
        """Have the framework forget a session that was refused to who opened it."""
        headers = [*scope["headers"], (_SESSION_HEADER, session_id.encode("latin-1"))]

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(_: Message) -> None:
            pass

        await self.app({**scope, "method": "DELETE", "headers": headers}, receive, send)


class _Response:
    """A response whose start waits for its first byte, so that a refusal can still replace it."""

    def __init__(
        self, send: Send, state: RequestAuth, middleware: GuardMiddleware, *, hold: bool
    ) -> None:
        self._send = send
        self._state = state
        self._middleware = middleware
        self._hold = hold
        self._start: Message | None = None
        self._replaced = False
        self.status = 500
        #: A session that the framework opened and nobody may use.
        self.orphan: str | None = None

    async def send(self, message: Message) -> None:
        """Pass on, hold back or replace what the application sends (ASGI)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self._own_session(message)
        if self._replaced or self.orphan is not None:
            return
        if message["type"] == "http.response.start":
            self._start = message
            if not self._hold and self._state.refusal is None:
                await self._begin()
            return
        if self._start is not None:
            if not message.get("body") and message.get("more_body", False):
                return  # an empty chunk: nothing has been said yet
            if self._state.refusal is not None and self._state.refusal.status is not None:
                self._replaced = True
                challenge = self._middleware.guard.challenge(self._state.refusal)
                await _respond(self._send, self._state.refusal, challenge)
                return
            await self._begin()
        await self._send(message)

    async def _begin(self) -> None:
        start, self._start = self._start, None
        if start is not None:
            await self._send(start)

    def _own_session(self, start: Message) -> None:
        session_id = _header(start.get("headers", ()), _SESSION_HEADER)
        if session_id is None:
            return
        principal = self._state.principal
        if principal is not None and principal.user_id is None:
            self.orphan = session_id
            return
        self._middleware.sessions.open(session_id, principal)


async def _verified(verifier: Verifier, scope: Scope, token: str) -> Principal:
    """Return who sent the request; a verifier may have a method that looks at all of it."""
    verify_request: _VerifyRequest | None = getattr(verifier, "verify_request", None)
    if verify_request is not None:
        return await verify_request(scope, token)
    return await verifier.verify(token)


def _is_preflight(scope: Scope) -> bool:
    """Return whether this is a CORS preflight: it has no credentials, and reaches no operation."""
    return (
        scope["type"] == "http"
        and scope["method"] == "OPTIONS"
        and _header(scope["headers"], b"origin") is not None
        and _header(scope["headers"], b"access-control-request-method") is not None
    )


def _no_owner() -> AccessDeniedError:
    # Without a subject two users of one client could not be told apart.
    return AccessDeniedError(
        "This token names no user, so it cannot own a session: use a stateless server"
    )


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in headers if key == name), None)


async def _respond(send: Send, refusal: ToolGuardError, challenge: Challenge | None) -> None:
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    if challenge is not None:
        headers.append((b"www-authenticate", challenge.header.encode("ascii")))
        # Fetch: a browser client cannot read the challenge unless it is exposed.
        headers.append((b"access-control-expose-headers", b"WWW-Authenticate"))
    if isinstance(refusal, (KeysUnavailableError, ConnectionRateLimitedError)):
        headers.append((b"retry-after", str(refusal.retry_after).encode("ascii")))
    await _send_json(send, refusal.status or 500, headers, refusal.to_dict())


async def _not_found(send: Send) -> None:
    # MCP, session management: 404 tells the client to start a new session. Another user's
    # session looks exactly like one that does not exist.
    headers = [(b"content-type", b"application/json")]
    error = {"code": -32600, "message": "Session not found"}
    await _send_json(send, 404, headers, {"jsonrpc": "2.0", "id": None, "error": error})


async def _send_json(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: dict[str, Any]
) -> None:
    content = json.dumps(body).encode()
    headers = [*headers, (b"content-length", str(len(content)).encode("ascii"))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
