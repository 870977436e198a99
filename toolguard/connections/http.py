"""How does a provider post to its vault, and what becomes of a fault on the way?

The one file that imports httpx. A fault leaves here as a kind of
:class:`~toolguard.errors.ConnectionTokenError` without a cause: an exception of httpx holds its
request, and the request holds the credential.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from typing import Any, TypeAlias

import anyio
import httpx

from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)

__all__ = [
    "MAX_ANSWER_BYTES",
    "MAX_RETRY_AFTER",
    "Transport",
    "VaultAnswer",
    "VaultClient",
    "VaultRequest",
    "retry_after_seconds",
    "secure_origin",
]

Transport: TypeAlias = httpx.AsyncBaseTransport
"""What carries the requests instead of sockets: for tests, proxies and private authorities."""

#: An answer that is longer is refused, whatever it announced.
MAX_ANSWER_BYTES = 256 * 1024
#: A vault may ask for patience, not for eternity (seconds).
MAX_RETRY_AFTER = 3_600

_LIMITS = httpx.Limits(max_connections=50, max_keepalive_connections=10, keepalive_expiry=30.0)
_HEADERS = {
    "Accept": "application/json",
    # An answer that needs no unpacking cannot grow while it is unpacked.
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
    "User-Agent": "toolguard-mcp",
}
# RFC 3986 without userinfo: a name and a password in a URL end up in logs.
_URL = re.compile(
    r"(?P<origin>(?P<scheme>https?)://"
    r"(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{1,5}))?)"
    r"(?:[/?#][a-z0-9!#$%&'()*+,./:;=?@\[\]_~-]*)?",
    re.ASCII | re.IGNORECASE,
)


def secure_origin(url: str) -> str | None:
    """Return the origin of ``url`` if a credential may go there, else None.

    That is https, or http to this machine (``localhost`` and loopback addresses), written as
    RFC 3986 has it and without userinfo.

    >>> secure_origin("https://API.descope.com/P2abc")
    'https://api.descope.com'
    >>> secure_origin("http://api.descope.com/P2abc") is None
    True
    """
    match = _URL.fullmatch(url)
    if match is None or int(match["port"] or 0) > 65_535:  # noqa: PLR2004 - RFC 9293 §3.1
        return None
    try:
        local = _is_loopback(match["host"].lower())
    except ValueError:
        return None
    return match["origin"].lower() if local or match["scheme"].lower() == "https" else None


def _is_loopback(host: str) -> bool:
    bare = host.strip("[]")
    if bare == host and not host.replace(".", "").isdigit():
        return host == "localhost"
    return ip_address(bare).is_loopback


def retry_after_seconds(value: str | None, now: float) -> int | None:
    """Return how long a ``Retry-After`` header asks to wait (RFC 9110 §10.2.3), in seconds.

    Args:
        value: the header: a number of seconds, or an HTTP date.
        now: seconds since the epoch.

    Returns:
        A number from 1 to :data:`MAX_RETRY_AFTER`; None if there is no header or it is neither.

    >>> retry_after_seconds("120", now=0.0)
    120
    """
    if value is None:
        return None
    if re.fullmatch("[0-9]{1,10}", value):
        return _bounded(int(value))
    try:
        moment = parsedate_to_datetime(value)
        # `-0000` gives a date without a zone; HTTP knows only GMT.
        aware = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
        return _bounded(math.ceil(aware.timestamp() - now))
    except (ValueError, OverflowError):
        return None


def _bounded(seconds: int) -> int:
    return min(max(seconds, 1), MAX_RETRY_AFTER)


@dataclass(frozen=True)
class VaultRequest:
    """One POST to a vault.

    Attributes:
        connection: the name the tool was declared with, for errors.
        url: where to; https, or http to this machine.
        body: what is sent as JSON.
        authorization: the ``Authorization`` header. Neither is in the representation.

    Raises:
        ValueError: if a credential may not go to ``url``, or cannot be sent in a header.
    """

    connection: str
    url: str
    body: Mapping[str, Any] = field(repr=False)
    authorization: str = field(repr=False)

    def __post_init__(self) -> None:
        if secure_origin(self.url) is None:
            raise ValueError("a vault is at an https URL (http only on this machine)")
        if not re.fullmatch(r"[\x20-\x7e]+", self.authorization):
            raise ValueError("an Authorization header is one line of printable ASCII")


@dataclass(frozen=True)
class VaultAnswer:
    """What the vault said: success, or a refusal (4xx) for the provider to read.

    Attributes:
        status: 200 to 299, or 400 to 499 without 408 and 429.
        members: the members of the JSON object; empty for a refusal without one. Not in the
            representation.
    """

    status: int
    members: Mapping[str, Any] = field(repr=False)

    @property
    def is_refusal(self) -> bool:
        """Whether the vault said no (RFC 9110 §15.5)."""
        return httpx.codes.is_client_error(self.status)


class VaultClient:
    """The pooled HTTP client of a provider.

    One client serves every event loop: each gets its own pool, because a connection belongs to
    the loop it was opened on. No redirect is followed, no cookie kept, no proxy or certificate
    taken from the environment.

    Args:
        timeout: seconds for one whole request, from waiting for a connection to the last byte.
        transport: carries the requests instead of sockets.
        clock: gives seconds since the epoch.

    Raises:
        ValueError: if ``timeout`` is not a positive number.
    """

    def __init__(
        self,
        *,
        timeout: float = 10.0,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not 0 < timeout < math.inf:
            raise ValueError("write timeout=10.0: seconds for a whole request, more than 0")
        self._timeout = timeout
        self._transport = transport
        self._clock = clock
        # Not a WeakKeyDictionary: a pool refers to its loop, so that no entry would ever go.
        self._clients: dict[asyncio.AbstractEventLoop, httpx.AsyncClient] = {}

    async def post(self, request: VaultRequest) -> VaultAnswer:
        """Return the vault's answer.

        Raises:
            ConnectionUnavailableError: if there is none in time, or it is a server error.
            ConnectionRateLimitedError: if the vault asks to come back later (429).
            ConnectionResponseError: if it is a redirect, too long, compressed, or not JSON.
        """
        outcome: VaultAnswer | ConnectionTokenError = ConnectionUnavailableError(
            f"The vault did not answer in {self._timeout:g} s: try again",
            connection=request.connection,
        )
        with anyio.move_on_after(self._timeout):
            outcome = await self._exchange(request)
        if isinstance(outcome, VaultAnswer):
            return outcome
        # Raised here, where no exception is being handled: `from None` hides a context but
        # keeps it.
        raise outcome

    async def _exchange(self, request: VaultRequest) -> VaultAnswer | ConnectionTokenError:
        headers = {**_HEADERS, "Authorization": request.authorization}
        content = json.dumps(dict(request.body))
        try:
            async with self._client().stream(
                "POST", request.url, content=content, headers=headers
            ) as response:
                return await self._read(response, request.connection)
        except httpx.HTTPError as fault:
            return ConnectionUnavailableError(
                f"The vault cannot be reached ({type(fault).__name__}): try again",
                connection=request.connection,
            )

    async def _read(
        self, response: httpx.Response, connection: str
    ) -> VaultAnswer | ConnectionTokenError:
        early = self._fault(response, connection)
        if early is not None:
            return early
        body = await _limited(response)
        if body is None:
            return ConnectionResponseError("The vault's answer is too long", connection=connection)
        members = _json_object(body)
        if members is None and response.is_success:
            return ConnectionResponseError("The vault's answer is not JSON", connection=connection)
        return VaultAnswer(response.status_code, members or {})

    def _fault(self, response: httpx.Response, connection: str) -> ConnectionTokenError | None:
        status = response.status_code
        if status == httpx.codes.TOO_MANY_REQUESTS:
            wait = retry_after_seconds(response.headers.get("Retry-After"), self._clock())
            return ConnectionRateLimitedError(
                "The vault is asked too often: try again later",
                connection=connection,
                retry_after=wait,
            )
        if response.is_server_error or status == httpx.codes.REQUEST_TIMEOUT:
            return ConnectionUnavailableError(
                f"The vault has a problem ({status}): try again", connection=connection
            )
        if not (response.is_success or response.is_client_error):
            return ConnectionResponseError(
                f"The vault sends the request elsewhere ({status})", connection=connection
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            return ConnectionResponseError(
                "The vault's answer is compressed", connection=connection
            )
        return None

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            self._forget_closed_loops()
            client = self._clients[loop] = httpx.AsyncClient(
                transport=self._transport,
                # The deadline of the whole request stands in for a timeout per read.
                timeout=None,  # noqa: S113 - see above
                limits=_LIMITS,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                follow_redirects=False,
                event_hooks={"response": [_forget_location]},
                trust_env=False,
            )
        return client

    def _forget_closed_loops(self) -> None:
        for loop in [loop for loop in list(self._clients) if loop.is_closed()]:
            self._clients.pop(loop, None)

    async def aclose(self) -> None:
        """Close the connections of the running event loop; a later request opens new ones."""
        self._forget_closed_loops()
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


async def _forget_location(response: httpx.Response) -> None:
    # httpx works out where a redirect leads even if it does not follow, and stumbles over some.
    response.headers.pop("Location", None)


async def _limited(response: httpx.Response) -> bytes | None:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAX_ANSWER_BYTES:
            return None
    return bytes(body)


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        # Decoded first: json.loads would guess UTF-16 and UTF-32.
        value = json.loads(body.decode())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
