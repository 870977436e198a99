"""The ASGI middleware around the MCP framework.

It verifies the bearer token of every request, binds sessions to their owners, and holds back the
start of a response until its first data: until then a refusal inside the tool call can still be
answered with a real 401 or 403.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from toolguard.calls.recording import request_record
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.errors import (
    AccessDeniedError,
    InvalidTokenError,
    KeysUnavailableError,
    MalformedMessageError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.http import identity
from toolguard.http.answers import (
    not_found,
    respond,
    respond_in_protocol,
    send_empty,
    send_json,
)
from toolguard.http.door import HTTPGuard
from toolguard.http.event_ids import EventOwner
from toolguard.http.expiry import UntilExpiry, seconds_left
from toolguard.http.jsonrpc import receive_message
from toolguard.http.response import HeldResponse
from toolguard.http.sessions import SessionOwners
from toolguard.principal import Principal
from toolguard.tokens.bearer import presented_token
from toolguard.tokens.proofs.presented import check_binding, verified

if TYPE_CHECKING:
    from toolguard.tokens.proofs.possession import Possession

__all__ = ["ASGIApp", "GuardMiddleware", "Message", "Receive", "Scope", "Send", "SentHeaders"]

Message = MutableMapping[str, Any]
"""One event (ASGI)."""
Scope = MutableMapping[str, Any]
"""The connection scope (ASGI)."""
Receive = Callable[[], Awaitable[Message]]
"""Returns the next event from the client (ASGI)."""
Send = Callable[[Message], Awaitable[None]]
"""Sends an event to the client (ASGI)."""
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An application (ASGI)."""
_VerifyRequest = Callable[[Scope, str], Awaitable[Principal]]

_REVISION = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_PREFLIGHT = {b"origin", b"access-control-request-method"}
_SESSION_HEADER = b"mcp-session-id"
_EVENT_HEADER = b"last-event-id"
_LENGTHS = {len(_SESSION_HEADER), len(_EVENT_HEADER)}


class SentHeaders:
    """The headers of one request, as far as its guard reads them.

    Args:
        headers: the raw headers of an ASGI scope; names in lower case.

    Attributes:
        authorization: the values of the Authorization header.
        revision: the protocol revision that the request names; None if it is ambiguous or absent.
        sessions: the sessions that it names.
        events: the events from which it asks to resume a stream.
    """

    __slots__ = ("authorization", "events", "revision", "sessions")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.authorization: list[bytes] = []
        self.revision: str | None = None
        self.sessions: list[str] = []
        self.events: list[str] = []
        revisions: set[bytes] = set()
        for name, value in headers:
            if name == b"authorization":
                self.authorization.append(value)
            elif name == b"mcp-protocol-version":
                revisions.add(value.strip(b" \t"))
            elif len(name) in _LENGTHS:
                plain = _plain(name)
                if plain == _SESSION_HEADER:
                    self.sessions.append(value.decode("latin-1"))
                elif plain == _EVENT_HEADER:
                    self.events.append(value.decode("latin-1"))
        if len(revisions) == 1:
            (revision,) = revisions
            if _REVISION.fullmatch(revision):
                self.revision = revision.decode("ascii")


class GuardMiddleware:
    """Guards one ASGI application, normally the endpoint of an MCP server.

    Args:
        app: the application.
        guard: the guard, which verifies tokens and writes challenges.
        admits_anonymous: returns whether requests without a token are admitted now, for public
            operations behind this middleware; by default never.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: HTTPGuard,
        *,
        admits_anonymous: Callable[[], bool] = lambda: False,
    ) -> None:
        self.app = app
        self.guard = guard
        self.admits_anonymous = admits_anonymous
        self.sessions = SessionOwners()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI)."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # fail closed: never guarded
            return
        if scope["method"] == "OPTIONS":
            names = {name for name, _ in scope["headers"]}
            if b"authorization" not in names and names >= _PREFLIGHT:
                # A CORS preflight has no credentials (Fetch), so it is not passed on. A CORS
                # middleware around this one has answered those of its origins.
                await send_empty(send, 204)
                return
        sent = SentHeaders(scope["headers"])
        try:
            state = await self._authenticate(scope, sent)
            if self.guard.possession is not None:
                send = _with_nonce(send, state, self.guard.possession.nonce)
        except KeysUnavailableError as outage:
            self._record(outage)
            await self._answer_outage(outage, scope, receive, send, sent.revision)
        except ToolGuardError as refusal:
            self._record(refusal)
            await self._respond(refusal, scope, send, sent.revision)
        else:
            await self._serve(scope, receive, send, state, sent)

    async def _authenticate(self, scope: Scope, sent: SentHeaders) -> RequestAuth:
        possession, revision = self.guard.possession, sent.revision
        presented = presented_token(sent.authorization, reads_dpop=possession is not None)
        if presented is not None and possession is not None:
            return await self._proved(possession, scope, *presented, revision)
        if presented is not None:
            (token, _), verifier = presented, self.guard.verifier
            started = time.perf_counter()
            # A verifier may have a method that reads the whole request.
            verify_request: _VerifyRequest | None = getattr(verifier, "verify_request", None)
            if verify_request is not None:
                principal = await verify_request(scope, token)
            else:
                principal = await verifier.verify(token)
            if principal.jkt is not None:
                check_binding(principal.jkt, bound=False)
            took = time.perf_counter() - started
            return RequestAuth(token, principal, self.guard, revision=revision, verification=took)
        if not self.admits_anonymous():
            raise MissingTokenError
        return RequestAuth(None, None, self.guard, revision=revision)

    async def _proved(
        self,
        possession: Possession,
        scope: Scope,
        token: str,
        bound: bool,  # noqa: FBT001 - as the token was presented
        revision: str | None,
    ) -> RequestAuth:
        """Return the caller where tokens may be bound to a key."""
        started = time.perf_counter()
        try:
            principal = await verified(self.guard, token, bound=bound)
            if principal.jkt is not None:
                await possession.check(scope, token, principal.jkt)
        except InvalidTokenError as refusal:
            refusal.scheme = "DPoP" if bound else "Bearer"
            raise
        took = time.perf_counter() - started
        return RequestAuth(token, principal, self.guard, revision=revision, verification=took)

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, state: RequestAuth, sent: SentHeaders
    ) -> None:
        try:
            session_id = self._session_of(sent.sessions, state.principal) if sent.sessions else None
            if sent.events or scope["method"] in ("GET", "HEAD"):
                self._check_stream(scope, state.principal, session_id, sent.events)
        except _NotFoundError as missing:
            denied = AccessDeniedError(rule=f"{str(missing).lower()} of this caller")
            self._record(denied, state.principal)
            await not_found(send, str(missing))
            return
        except _NoStreamError:
            headers = [(b"allow", b"POST, DELETE")]
            await send_json(send, 405, headers, {"error": "method_not_allowed"})
            return
        except ToolGuardError as refusal:
            self._record(refusal, state.principal)
            await self._respond(refusal, scope, send, state.revision)
            return
        scope[SCOPE_KEY] = state
        headers = list(scope["headers"])
        orphans: list[str] = []

        def begin(opened: str | None) -> Callable[[bytes], bytes] | None:
            if opened is not None and not self._owned(opened, state.principal):
                orphans.append(opened)
                return None
            return functools.partial(self._sealed, state.principal, opened or session_id)

        refuse = functools.partial(self._replaces, state, scope, send)
        response = HeldResponse(send, state, refuse, begin, hold=scope["method"] == "POST")
        # The SDK binds a session to the user that opened it; there may be no such user.
        owned = session_id is None or not self.sessions.opened_anonymously(session_id)
        told = identity.tell(scope, state, as_user=owned)
        try:
            if scope["method"] == "GET" and session_id is not None:  # clients open the next stream
                left = seconds_left(self.guard, state.principal)
                await UntilExpiry(receive, response.send, left).serve(self.app, scope)
            else:
                await self.app(scope, receive, response.send)
        finally:
            identity.sdk_user.reset(told)
        await response.finish()
        if orphans:
            await self._end_session({**scope, "headers": headers}, orphans[0])
            self._record(_no_owner(), state.principal)
            await self._respond(_no_owner(), scope, send, state.revision, state.message_id)
        if scope["method"] == "DELETE" and session_id is not None and response.status < 300:  # noqa: PLR2004
            self.sessions.close(session_id)

    def _session_of(self, sessions: list[str], principal: Principal | None) -> str:
        """Return the session id of a request, after checking that the caller owns the session.

        Raises:
            MalformedMessageError: if the request names more than one session: the owner of one
                could have the application act on the other.
            MissingTokenError: if the session may be the caller's once they have signed in.
            _NotFoundError: if the session is not the caller's.
        """
        if len(sessions) > 1:
            raise MalformedMessageError("Send one Mcp-Session-Id header")
        if not self.sessions.admits(sessions[0], principal):
            raise MissingTokenError if principal is None else _NotFoundError("Session")
        return sessions[0]

    def _check_stream(
        self, scope: Scope, principal: Principal | None, session_id: str | None, sent: list[str]
    ) -> None:
        """Replace the sealed ``Last-Event-ID`` by the id of the event store.

        Raises:
            _NoStreamError: if there is no stream for this caller.
            AccessDeniedError: if the caller cannot own a session.
            _NotFoundError: if the event is not the caller's.
        """
        if scope["method"] in ("GET", "HEAD"):
            if principal is None:
                # An anonymous session may be taken over by its user, and no other caller may be
                # listening then. MCP: 405 means that the server offers no stream here.
                raise _NoStreamError
            if principal.user_id is None:
                raise _no_owner()
        if not sent:
            return
        others = [pair for pair in scope["headers"] if _plain(pair[0]) != _EVENT_HEADER]
        scope["headers"] = others  # it has a meaning in GET only
        if scope["method"] == "GET":
            owner = EventOwner.of(principal, session_id)
            event_id = self.guard.door.event_ids.unsealed(sent[0].encode("latin-1"), owner)
            if event_id is None or len(sent) > 1:
                raise _NotFoundError("Event")
            scope["headers"] = [*others, (_EVENT_HEADER, event_id)]

    def _sealed(
        self, principal: Principal | None, session_id: str | None, event_id: bytes
    ) -> bytes:
        owner = EventOwner.of(principal, session_id)
        return self.guard.door.event_ids.sealed(event_id, owner)

    async def _replaces(self, state: RequestAuth, scope: Scope, send: Send) -> bool:
        """Send the refusal that the message ended in; return whether there is one."""
        refusal = state.refusal
        if refusal is None or self.guard.door.refusals.status_of(refusal, state.revision) is None:
            return False
        await self._respond(refusal, scope, send, state.revision, state.message_id)
        return True

    async def _respond(
        self,
        refusal: ToolGuardError,
        scope: Scope,
        send: Send,
        revision: str | None,
        message_id: str | int | None = None,
    ) -> None:
        await respond(
            send,
            refusal,
            self.guard.challenge(refusal, revision),
            is_message=scope["method"] == "POST",
            message_id=message_id,
        )

    async def _answer_outage(
        self,
        outage: KeysUnavailableError,
        scope: Scope,
        receive: Receive,
        send: Send,
        revision: str | None,
    ) -> None:
        """Answer while tokens cannot be verified, by status or as the server would report it.

        The message is read for its id and is not passed on, because its caller is not known.
        """
        if (
            scope["method"] != "POST"
            or self.guard.door.refusals.status_of(outage, revision) is not None
        ):
            await self._respond(outage, scope, send, revision)
            return
        try:
            message = await receive_message(receive, scope["headers"], self.guard.door.held)
        except ToolGuardError as fault:
            await self._respond(fault, scope, send, revision)
            return
        if message.method is None or message.id is None:
            await self._respond(outage, scope, send, revision)
            return
        await respond_in_protocol(send, outage, message.method, message.id, revision=revision)

    def _record(self, refusal: ToolGuardError, principal: Principal | None = None) -> None:
        recorder = self.guard.recorder
        if recorder.wanted():
            recorder.put([request_record(self.guard, refusal, principal)])

    def _owned(self, session_id: str, principal: Principal | None) -> bool:
        """Record the owner of a new session; return whether the caller can own one."""
        if principal is not None and principal.user_id is None:
            return False
        self.sessions.open(session_id, principal)
        return True

    async def _end_session(self, scope: Scope, session_id: str) -> None:
        """Have the framework end a session that was refused to the caller that opened it."""
        headers = [*scope["headers"], (_SESSION_HEADER, session_id.encode("latin-1"))]

        async def receive() -> Message:
            return {"type": "http.request", "body": b""}

        async def send(_: Message) -> None:
            pass

        await self.app({**scope, "method": "DELETE", "headers": headers}, receive, send)


class _NotFoundError(Exception):
    """The session or event belongs to another caller, or does not exist."""


class _NoStreamError(Exception):
    """The client requested a stream that is not offered."""


def _with_nonce(send: Send, state: RequestAuth, nonce: str | None) -> Send:
    """Return ``send`` such that the client learns the nonce of its next proof (RFC 9449 §8.2)."""
    if nonce is None or state.principal is None or state.principal.jkt is None:
        return send
    told = [(b"dpop-nonce", nonce.encode("ascii"))]

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *told]}
        await send(message)

    return telling


def _no_owner() -> AccessDeniedError:
    # Without a subject, two users of one client cannot be told apart.
    return AccessDeniedError(
        "This token names no user, so it cannot own a session: use a stateless server",
        rule="a token that names a user",
    )


def _plain(name: bytes) -> bytes:
    """Return a name as servers may read it, which take "_" for "-" (RFC 3875 §4.1.18)."""
    return name.lower().replace(b"_", b"-")
