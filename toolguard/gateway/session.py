"""One session with the upstream, in a task of its own, on either line of the SDK."""

from __future__ import annotations

import inspect
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import anyio
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import BaseModel, ConfigDict, ValidationError

from toolguard.frameworks import internals
from toolguard.gateway.bounded import ENCODING, HTTP, TOO_LONG, bound, is_too_long
from toolguard.gateway.configuration import Upstream
from toolguard.parsing.secure_urls import is_this_machine
from toolguard.parts.bounded import HEADERS

__all__ = ["SDK_ERROR", "Credential", "Log", "Progress", "Session", "UpstreamError"]

Progress = Callable[[float, float | None, str | None], Awaitable[None]]
"""Passes on how far the upstream is: progress, total and message."""

Log = Callable[[Mapping[str, Any]], Awaitable[None]]
"""Passes on a log message of the upstream: the parameters of ``notifications/message``."""

_types: Any = import_module("mcp.types")
_errors: Any = import_module("mcp.shared.exceptions")

SDK_ERROR: type[Any] = getattr(_errors, "MCPError", None) or _errors.McpError
"""The error of the SDK for an error that came over a connection."""

_CLOSED = -32000  # CONNECTION_CLOSED of both lines
_CANCEL_WITHIN = 1.0
_PING_WITHIN = 5.0
_CONNECT_WITHIN = 10.0
_LEAVE_WITHIN = 10.0  # of which a process takes 4 s that ends only when it is killed

# 2.x would end a stream with an event of 1 MiB; the limit here is the same for all answers.
_UNLIMITED: dict[str, Any] = (
    {"max_sse_event_size": None}
    if "max_sse_event_size" in inspect.signature(streamable_http_client).parameters
    else {}
)


class UpstreamError(Exception):
    """The upstream cannot be reached, has ended, or does not answer as it may; the text says."""


class Credential:
    """What the gateway shows the upstream for one caller; never in a representation.

    Args:
        header: the value of ``Authorization`` for a URL; the token alone for a command.
    """

    __slots__ = ("header",)

    def __init__(self, header: str) -> None:
        self.header = header

    def __repr__(self) -> str:
        return "Credential(...)"


class _Message(BaseModel):
    """A request or a notification, passed on as it came."""

    name_param: ClassVar[None] = None  # which 2.x asks requests for
    method: str
    params: dict[str, Any] | None = None


class _Result(BaseModel):
    """A result, passed on with all of its members."""

    model_config = ConfigDict(extra="allow")


class Session:
    """One session with the upstream.

    The SDK's own client and transports carry it. It offers neither sampling nor elicitation nor
    roots to the upstream.

    Args:
        upstream: the server behind the gateway.
        credential: what it is shown for a caller; None for what all callers share, if anything.

    Attributes:
        ready: set once requests can be sent, or the session has failed.
        failure: why the session has ended or could not begin.
        is_over: whether no request can be sent any more.
        users: the number of requests that are being served.
        used: when the last request ended.
        greeting: the upstream's answer to ``initialize``.
        log: gets the log messages; None to drop them.
    """

    def __init__(self, upstream: Upstream, credential: Credential | None = None) -> None:
        self._upstream = upstream
        if credential is None and upstream.token is not None:
            credential = Credential(f"Bearer {upstream.token}")
        self._credential = credential
        self._client: Any = None
        self._ended = anyio.Event()
        self._resting = anyio.CancelScope()
        self._waiting: set[anyio.CancelScope] = set()
        self._status: int | None = None
        self.ready = anyio.Event()
        self.failure: UpstreamError | None = None
        self.is_over = False
        self.users = 0
        self.used = -math.inf
        self.greeting: dict[str, Any] = {}
        self.log: Log | None = None

    async def run(self) -> None:
        """Hold the session until it ends, is closed, or has not been used for some time."""
        try:
            with anyio.CancelScope() as leaving:
                async with self._opened():
                    self.ready.set()
                    with self._resting:
                        if not self.users:
                            self._resting.deadline = anyio.current_time() + self._upstream.idle
                        await self._ended.wait()
                    self.is_over = True
                    leaving.deadline = anyio.current_time() + _LEAVE_WITHIN
        except Exception as error:  # noqa: BLE001 - whatever a transport raises
            self.failure = self.failure or self._explained(error)
        finally:
            self.is_over = True
            self.ready.set()
            for scope in self._waiting:
                scope.cancel()

    def close(self) -> None:
        """End the session."""
        self.is_over = True
        self._ended.set()

    async def began(self) -> None:
        """Wait until requests can be sent.

        Raises:
            UpstreamError: if the session could not begin, or has ended with an error.
        """
        await self.ready.wait()
        if self.failure is not None:
            raise self.failure

    @contextmanager
    def using(self) -> Iterator[None]:
        """Keep the session from being given up in the block."""
        self.users += 1
        self._resting.deadline = math.inf
        try:
            yield
        finally:
            self.users -= 1
            self.used = anyio.current_time()
            if not self.users:
                self._resting.deadline = self.used + self._upstream.idle

    async def request(
        self, method: str, params: dict[str, Any] | None, progress: Progress | None = None
    ) -> dict[str, Any]:
        """Pass a request on and return its result.

        Args:
            method: the JSON-RPC method.
            params: its parameters.
            progress: passes on how far the upstream is.

        Raises:
            UpstreamError: if the upstream does not answer.
            Exception: the SDK's error, if the upstream answers with an error.
        """
        try:
            with self._until_failure(), anyio.fail_after(self._upstream.timeout):
                return await self._send(_Message(method=method, params=params), progress)
        except TimeoutError:
            # A slow operation is not the fault of the session, which may hold the caller's state.
            if not await self._is_alive():
                self.close()
            seconds = f"{self._upstream.timeout:g} s"
            raise UpstreamError(f"{self._upstream} did not answer within {seconds}") from None
        except ValidationError:
            raise UpstreamError(f"{self._upstream} sent an answer that is not MCP") from None
        except (anyio.ClosedResourceError, anyio.BrokenResourceError):
            pass
        except SDK_ERROR as error:
            if self._status is None and error.error.code != _CLOSED:
                raise
        self.close()  # what has lost its other end, or is refused, is not used again
        raise self.failure or self._explained(None)

    @contextmanager
    def _until_failure(self) -> Iterator[None]:
        """Leave the block when the session ends."""
        with anyio.CancelScope() as scope:
            self._waiting.add(scope)
            try:
                yield
            finally:
                self._waiting.discard(scope)

    def _refuse(self, what: str) -> UpstreamError:
        """End the session for what the upstream does, and return why."""
        self.failure = self.failure or UpstreamError(f"{self._upstream} {what}")
        self.close()
        for scope in self._waiting:
            scope.cancel()
        return self.failure

    async def _is_alive(self) -> bool:
        """Return whether the upstream answers anything at all."""
        try:
            with anyio.fail_after(_PING_WITHIN):
                await self._send(_Message(method="ping"), None)
        except SDK_ERROR as error:
            return bool(error.error.code != _CLOSED)
        except (
            TimeoutError,
            ValidationError,
            anyio.ClosedResourceError,
            anyio.BrokenResourceError,
        ):
            return False
        return True

    async def _send(self, message: _Message, progress: Progress | None) -> dict[str, Any]:
        number = internals.next_request_id(self._client)
        try:
            result = await self._client.send_request(message, _Result, progress_callback=progress)
        except anyio.get_cancelled_exc_class():
            if number is not None:  # 2.x tells the upstream by itself
                params = {"requestId": number, "reason": "The client has cancelled it"}
                with anyio.move_on_after(_CANCEL_WITHIN, shield=True):
                    await self._client.send_notification(
                        _Message(method="notifications/cancelled", params=params)
                    )
            raise
        found: dict[str, Any] = result.model_dump(mode="json")
        return found

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[None]:
        """Connect to the upstream and greet it."""
        async with self._transport() as streams, anyio.create_task_group() as reading:
            send, receive = anyio.create_memory_object_stream[Any](0)
            reading.start_soon(self._read, streams[0], send)
            async with ClientSession(
                receive,
                streams[1],
                logging_callback=self._logged,
                client_info=_types.Implementation(
                    name="toolguard proxy", version=version("toolguard-mcp")
                ),
            ) as self._client:
                with self._until_failure(), anyio.fail_after(self._upstream.start_timeout):
                    said = await self._client.initialize()
                    self.greeting = said.model_dump(by_alias=True, mode="json", exclude_none=True)
                if self.failure is not None:
                    raise self.failure
                yield
            reading.cancel_scope.cancel()

    async def _read(self, source: Any, send: Any) -> None:
        """Pass on what the upstream sends, and note when it sends no more."""
        async with source, send:
            async for message in source:
                if is_too_long(message):
                    self._refuse(TOO_LONG)
                else:
                    await send.send(message)
        self.is_over = True
        self._ended.set()

    @asynccontextmanager
    async def _transport(self) -> AsyncIterator[Any]:
        upstream, credential = self._upstream, self._credential
        if upstream.url is None:
            # The SDK passes on PATH, HOME and the like, and nothing else of the environment.
            environment = dict(upstream.environment)
            if credential is not None and upstream.connection_env is not None:
                environment[upstream.connection_env] = credential.header
            command, *arguments = upstream.command
            parameters = StdioServerParameters(
                command=command,
                args=arguments,
                env=environment,
                cwd=upstream.cwd,
                encoding=ENCODING,
                # Another byte than UTF-8's ends one line, and not the session.
                encoding_error_handler="replace",
            )
            async with stdio_client(parameters) as streams:
                yield streams
            return
        shown = {} if credential is None else {"authorization": credential.header}
        async with (
            HTTP.AsyncClient(
                headers={**HEADERS, **shown},
                # After the time of a request, so that its end is not that of the transport.
                timeout=HTTP.Timeout(_CONNECT_WITHIN, read=upstream.timeout + 2 * _PING_WITHIN),
                event_hooks={"response": [self._answered]},
                verify=HTTP.create_ssl_context(),  # which SSL_CERT_FILE sets for this machine too
                # A proxy would get the credential for a server on this machine in the clear.
                trust_env=not is_this_machine(upstream.url),
            ) as client,
            streamable_http_client(upstream.url, http_client=client, **_UNLIMITED) as streams,
        ):
            yield streams

    async def _answered(self, response: Any) -> None:
        """Limit an answer, and note the status of one after which this session is of no use."""
        bound(response, self._refuse)
        if response.request.method == "POST" and response.status_code in _REFUSED:
            self._status = response.status_code

    async def _logged(self, params: Any) -> None:
        if self.log is not None:
            await self.log(params.model_dump(by_alias=True, mode="json", exclude_none=True))

    def _explained(self, error: BaseException | None) -> UpstreamError:
        """Return an error in words, without text of the upstream's."""
        name = str(self._upstream)
        while nested := getattr(error, "exceptions", ()):  # of task groups
            error = nested[0]
        if self._status is not None:
            return UpstreamError(f"{name} answers {self._status}: {_REFUSED[self._status]}")
        if isinstance(error, TimeoutError):
            return UpstreamError(f"{name} did not answer within {self._upstream.start_timeout:g} s")
        if isinstance(error, OSError):
            return UpstreamError(
                f"{name} cannot be started ({error.strerror or error}): write {self._startable()}"
            )
        if self._upstream.url is not None:
            kind = "" if error is None else f" ({type(error).__name__})"
            return UpstreamError(f"{name} cannot be reached{kind}: check the URL, and the server")
        if not self.ready.is_set():
            return UpstreamError(
                f"{name} ended before it answered: its output says why; it must be a server that "
                "speaks over stdio; variables beyond PATH, HOME and such reach it if pass_env in "
                "[upstream] names them"
            )
        return UpstreamError(f"{name} has ended: it is started again with the next request")

    def _startable(self) -> str:
        """Return what to write for a command that cannot be started."""
        program = self._upstream.command[0]
        interpreter = _INTERPRETERS.get(Path(program).suffix)
        if interpreter is None or not Path(self._upstream.cwd or "", program).is_file():
            return "a command that this machine has"
        return f"-- {interpreter} {program}"


_INTERPRETERS = {".py": "python", ".js": "node", ".mjs": "node", ".sh": "sh"}

_REFUSED = {
    401: "it wants another credential: write token_env or connection in [upstream]",
    403: "it refuses this credential",
    404: "there is no such session, or no server at this URL",
}
