"""The HTTP client of connection providers.

Faults are raised as a kind of
:class:`~toolguard.errors.ConnectionTokenError` without a cause: an exception of httpx holds its
request, and the request holds the credential.
"""

from __future__ import annotations

import json
import math
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Literal, TypeAlias
from urllib.parse import urlencode

import anyio
import httpx

from toolguard.connections.retries import (
    MAX_RETRY_AFTER,
    NO_RETRIES,
    Failure,
    FaultKind,
    Retries,
    retry_after_seconds,
)
from toolguard.connections.sockets import SocketTransport
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionUnavailableError,
)
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parsing.strict_json import strict_object
from toolguard.tokens.per_loop import PerLoop

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_RETRY_AFTER",
    "Transport",
    "VaultAnswer",
    "VaultClient",
    "VaultRequest",
    "retry_after_seconds",
]

Transport: TypeAlias = httpx.AsyncBaseTransport
"""An httpx transport to use instead of sockets: for tests, proxies and private authorities."""

#: The maximum length of an answer in bytes, regardless of its Content-Length.
MAX_ANSWER_BYTES = 256 * 1024

_HEADERS = {
    "Accept": "application/json",
    # Without compression, an answer cannot grow while it is decoded.
    "Accept-Encoding": "identity",
    "User-Agent": "toolguard-mcp",
}
_CONTENT_TYPES = {"json": "application/json", "form": "application/x-www-form-urlencoded"}
# No byte of the request has left when one of these is raised.
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_UNANSWERED = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
# RFC 9110 §15.6.3 to §15.6.5: sent by a gateway, or for a temporary condition.
_PASSING = frozenset({502, 503, 504})


@dataclass(frozen=True)
class VaultRequest:
    """One request to a vault, or to the token endpoint of a service.

    Attributes:
        connection: the name the tool was declared with, for errors.
        url: the URL; https, or http to this machine.
        body: the members or parameters. In a form, a list of values repeats the parameter.
        authorization: the ``Authorization`` header; None if the body holds the credential.
            Neither is in the representation.
        encoding: the encoding of the body.
        method: the HTTP method; a GET has no body.
        is_idempotent: whether the vault may safely process the request twice.

    Raises:
        ValueError: if a credential may not be sent to ``url``, or cannot be sent in a header.
    """

    connection: str
    url: str
    body: Mapping[str, Any] = field(repr=False)
    authorization: str | None = field(repr=False)
    encoding: Literal["json", "form"] = field(default="json", kw_only=True, repr=False)
    method: Literal["POST", "GET"] = field(default="POST", kw_only=True, repr=False)
    is_idempotent: bool = field(default=False, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        if secure_origin(self.url) is None:
            raise ValueError("a vault is at an https URL (http only on this machine)")
        if self.authorization is not None and not re.fullmatch(r"[\x20-\x7e]+", self.authorization):
            raise ValueError("an Authorization header is one line of printable ASCII")

    @property
    def content(self) -> str:
        """The encoded body."""
        if self.method == "GET":
            return ""
        if self.encoding == "form":
            return urlencode(self.body, doseq=True)
        return json.dumps(dict(self.body))

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the request."""
        headers = dict(_HEADERS)
        if self.method != "GET":
            headers["Content-Type"] = _CONTENT_TYPES[self.encoding]
        if self.authorization is not None:
            headers["Authorization"] = self.authorization
        return headers


@dataclass(frozen=True)
class VaultAnswer:
    """The answer of a vault: success, or a refusal (4xx) for the provider to interpret.

    Attributes:
        status: 200 to 299, or 400 to 499 without 408 and 429.
        members: the members of the JSON object; empty for a refusal without one. Not in the
            representation.
    """

    status: int
    members: Mapping[str, Any] = field(repr=False)

    @property
    def is_refusal(self) -> bool:
        """Whether the vault refused the request (RFC 9110 §15.5)."""
        return httpx.codes.is_client_error(self.status)


class VaultClient:
    """The pooled HTTP client of a provider.

    One client serves every event loop: each gets its own pools, one for each connection, because
    a TCP connection belongs to the loop it was opened on. Redirects are not followed, cookies are
    not kept, and proxies and certificates are not taken from the environment.

    Args:
        timeout: seconds for one whole request with all its attempts, from waiting for a
            connection to the last byte.
        retries: how often a request is repeated; by default never.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if ``timeout`` is not a positive number.
    """

    def __init__(
        self,
        *,
        timeout: float = 10.0,
        retries: Retries = NO_RETRIES,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise ValueError("write timeout=10.0: seconds for a whole request, more than 0")
        self._timeout = timeout
        self._retries = retries
        self._transport = transport
        self._clock = clock
        # One pool for each connection: a service that hangs holds up no other one.
        self._clients: PerLoop[dict[str, httpx.AsyncClient]] = PerLoop(dict)

    async def post(
        self, request: VaultRequest, *, again: Callable[[], VaultRequest] | None = None
    ) -> VaultAnswer:
        """Return the vault's answer.

        Args:
            request: the request to send.
            again: makes the request of a further attempt, if it cannot be the same one: a client
                assertion may be used once.

        Raises:
            ConnectionUnavailableError: if there is no answer in time, or it is a server error.
            ConnectionRateLimitedError: if the vault limits the rate of requests (429).
            ConnectionResponseError: if the answer is a redirect, too long, compressed, or not
                JSON.
        """
        outcome = await self._attempts(request, again or (lambda: request))
        if isinstance(outcome, VaultAnswer):
            return outcome
        # Raised here, where no exception is being handled: `from None` hides a context but
        # keeps it.
        raise outcome.error

    async def _attempts(
        self, request: VaultRequest, again: Callable[[], VaultRequest]
    ) -> VaultAnswer | Failure:
        deadline = anyio.current_time() + self._timeout
        earlier: list[FaultKind] = []
        while True:
            seconds = deadline - anyio.current_time()
            if request.is_idempotent and len(earlier) < self._retries.max_retries:
                # One attempt does not use up the time for the next ones.
                seconds /= 2
            outcome = await self._attempt(request, seconds)
            if isinstance(outcome, VaultAnswer):
                return outcome
            delay = self._retries.delay(outcome, earlier, is_idempotent=request.is_idempotent)
            if delay is None or anyio.current_time() + delay >= deadline:
                return outcome
            await self._retries.sleep(delay)
            earlier.append(outcome.kind)
            request = again()

    async def _attempt(self, request: VaultRequest, seconds: float) -> VaultAnswer | Failure:
        with anyio.move_on_after(seconds):
            return await self._exchange(request)
        return Failure(
            ConnectionUnavailableError(
                f"The vault did not answer in {self._timeout:g} s: try again",
                connection=request.connection,
            ),
            "unanswered",
        )

    async def _exchange(self, request: VaultRequest) -> VaultAnswer | Failure:
        try:
            async with self._client(request.connection).stream(
                request.method, request.url, content=request.content, headers=request.headers
            ) as response:
                return await self._read(response, request.connection)
        except httpx.HTTPError as fault:
            kind: FaultKind = "unanswered" if isinstance(fault, _UNANSWERED) else "final"
            return Failure(
                ConnectionUnavailableError(
                    f"The vault cannot be reached ({type(fault).__name__}): try again",
                    connection=request.connection,
                ),
                "unsent" if isinstance(fault, _UNSENT) else kind,
            )

    async def _read(self, response: httpx.Response, connection: str) -> VaultAnswer | Failure:
        early = self._failure(response, connection)
        if early is not None:
            return early
        body = await _read_limited(response)
        if body is None:
            return _invalid("The vault's answer is too long", connection)
        members = strict_object(body)
        if members is None and response.is_success:
            return _invalid("The vault's answer is not JSON", connection)
        return VaultAnswer(response.status_code, members or {})

    def _failure(self, response: httpx.Response, connection: str) -> Failure | None:
        status = response.status_code
        wait = retry_after_seconds(response.headers.get("Retry-After"), self._clock())
        if status == httpx.codes.TOO_MANY_REQUESTS:
            limited = ConnectionRateLimitedError(
                "The vault is asked too often: try again later",
                connection=connection,
                retry_after=wait,
            )
            return Failure(limited, "rate_limited", wait)
        if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
            unavailable = ConnectionUnavailableError(
                f"The vault has a problem ({status}): try again", connection=connection
            )
            return Failure(unavailable, "unanswered" if status in _PASSING else "final", wait)
        if not (response.is_success or response.is_client_error):
            return _invalid(f"The vault sends the request elsewhere ({status})", connection)
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return _invalid("The vault's answer is compressed", connection)
        return None

    def _client(self, connection: str) -> httpx.AsyncClient:
        clients = self._clients.get()
        if connection not in clients:
            clients[connection] = self._new_client()
        return clients[connection]

    def _new_client(self) -> httpx.AsyncClient:
        transport = self._transport
        if transport is None:
            transport = SocketTransport(_trusted_authorities())
        return httpx.AsyncClient(
            transport=transport,
            # The deadline of the whole request replaces a timeout per read.
            timeout=None,  # noqa: S113 - see above
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            follow_redirects=False,
            event_hooks={"response": [_drop_location]},
            trust_env=False,
        )

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later request opens new ones."""
        for client in (self._clients.pop() or {}).values():
            await client.aclose()


@cache
def _trusted_authorities() -> ssl.SSLContext:
    """Return the TLS settings of all vaults, made once: that reads 150 certificates."""
    return httpx.create_ssl_context(trust_env=False)


def _invalid(message: str, connection: str) -> Failure:
    return Failure(ConnectionResponseError(message, connection=connection))


async def _drop_location(response: httpx.Response) -> None:
    # httpx parses the target of a redirect even if it does not follow it, and raises for some.
    response.headers.pop("Location", None)


async def _read_limited(response: httpx.Response) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)
