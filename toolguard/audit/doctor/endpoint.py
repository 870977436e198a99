"""Look at the MCP endpoint of a running server as a client does that has no token yet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from toolguard.audit.doctor.diagnosis import Diagnosis
from toolguard.http.challenge import Challenge, metadata_url, parse
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.parsing.strict_json import lenient_object

__all__ = ["Seen", "initialize", "look_at_endpoint"]

_ORIGIN = "https://client.example"
# Seconds by which clocks may differ before tokens are refused.
_SKEW = 30.0
_ADVICE = {
    301: "give clients the address that it redirects to: they do not send tokens along",
    404: "write the path of the MCP endpoint, such as /mcp, and check the mount of the application",
    405: "write the path of the MCP endpoint: this one does not take POST",
    421: "the SDK does not know this Host: TransportSecuritySettings(allowed_hosts=[...]) names it",
    429: "a proxy limits the rate: try again later",
    502: "the proxy does not reach the server: check its upstream and that the server runs",
    503: "the server cannot fetch the keys of its issuer: see what its log says of them",
}
_ADVICE.update(dict.fromkeys((302, 307, 308), _ADVICE[301]) | {504: _ADVICE[502]})
# The endpoint is elsewhere, or nothing is behind the proxy: what else is missing follows from that.
_NOT_HERE = frozenset({301, 302, 307, 308, 404, 405, 502, 504})


class Seen:
    """What was seen of a server, for the looks that follow.

    Attributes:
        url: the URL of its endpoint.
        challenge: the challenge to a caller without a token.
        metadata: the protected resource metadata (RFC 9728).
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.challenge: Challenge | None = None
        self.metadata: dict[str, Any] = {}

    @property
    def issuers(self) -> list[str]:
        """The authorization servers that the metadata names."""
        named = self.metadata.get("authorization_servers")
        return [str(each) for each in named] if isinstance(named, list) else []


async def initialize(
    client: httpx.AsyncClient, url: str, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Send the first message of a client, and return the response.

    Raises:
        httpx.HTTPError: if there is no answer.
    """
    about = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "toolguard-doctor", "version": "1"},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    sent = {"accept": "application/json, text/event-stream", "origin": _ORIGIN, **(headers or {})}
    return await client.post(url, json=message, headers=sent)


async def look_at_endpoint(
    client: httpx.AsyncClient, seen: Seen, now: float
) -> AsyncIterator[Diagnosis]:
    """Yield what is wrong with the endpoint, its challenge and its metadata.

    Raises:
        httpx.HTTPError: if the server cannot be reached.
        ValueError: if the URL cannot be parsed.
    """
    if urlsplit(seen.url).scheme != "https" and not is_secure_url(seen.url):
        yield Diagnosis(
            "insecure-url",
            seen.url,
            "https",
            "http to another machine",
            "put TLS in front of the server: tokens can be read on the way",
        )
    response = await initialize(client, seen.url)
    for each in (*_clock(response, now), *_status(response), *_challenge(response, seen)):
        yield each
    if response.status_code in _NOT_HERE:
        return
    async for each in _metadata(client, seen):
        yield each
    async for each in _cors(client, response):
        yield each


def _clock(response: httpx.Response, now: float) -> Iterator[Diagnosis]:
    date = response.headers.get("date")
    if date is None:
        return
    skew = parsedate_to_datetime(date).timestamp() - now
    if abs(skew) > _SKEW:
        yield Diagnosis(
            "clock",
            str(response.url),
            f"a clock within {_SKEW:.0f} s of this machine's",
            f"it is {abs(skew):.0f} s {'ahead' if skew > 0 else 'behind'}",
            "have both machines set their clocks (NTP): tokens are good for minutes",
        )


def _status(response: httpx.Response) -> Iterator[Diagnosis]:
    status, url = response.status_code, str(response.url)
    if status == httpx.codes.UNAUTHORIZED:
        return
    if status == httpx.codes.OK:
        yield Diagnosis(
            "admits-anonymous",
            url,
            "401 to a caller without a token",
            "200",
            "call guard.protect(server); nothing, if some of its operations are @public",
            level="note",
        )
        return
    advice = _ADVICE.get(status, "see what the server's log says of this request")
    yield Diagnosis(f"status-{status}", url, "401 to a caller without a token", str(status), advice)


def _challenge(response: httpx.Response, seen: Seen) -> Iterator[Diagnosis]:
    if response.status_code != httpx.codes.UNAUTHORIZED:
        return
    header = response.headers.get("www-authenticate")
    if header is None:
        yield Diagnosis(
            "challenge-missing",
            seen.url,
            "WWW-Authenticate in the 401",
            "no such header",
            "let the proxy pass WWW-Authenticate on, and let no error page of its own replace 401",
        )
        return
    try:
        seen.challenge = parse(header)
    except ValueError:
        yield Diagnosis(
            "challenge-invalid",
            seen.url,
            "WWW-Authenticate: Bearer with parameters",
            "a challenge that cannot be read",
            "remove what adds another authentication in front of the server (Basic of a proxy?)",
        )
        return
    named = seen.challenge.resource_metadata
    if named is None:
        yield Diagnosis(
            "challenge-without-metadata",
            seen.url,
            "resource_metadata in the challenge",
            "none",
            "check that the answer comes from the guard, and not from something in front of it",
        )
    elif _origin(named) != _origin(seen.url):
        yield Diagnosis(
            "public-url",
            seen.url,
            f"a challenge that leads to {_origin(seen.url)}",
            f"one that leads to {_origin(named)}",
            "set MCP_SERVER_URL (audience=, resource=) to the address that clients use",
        )


async def _metadata(client: httpx.AsyncClient, seen: Seen) -> AsyncIterator[Diagnosis]:
    named = seen.challenge.resource_metadata if seen.challenge is not None else None
    # Clients look where the challenge says (RFC 9728 §5.1); here not on another host.
    is_here = named is not None and _origin(named) == _origin(seen.url)
    document = named if named is not None and is_here else metadata_url(seen.url)
    response = await client.get(document, headers={"origin": _ORIGIN})
    found = lenient_object(response.content) if response.status_code == httpx.codes.OK else None
    if found is None:
        yield Diagnosis(
            "metadata-missing",
            document,
            "the protected resource metadata (RFC 9728), as JSON",
            f"HTTP {response.status_code}",
            "add guard.metadata_route() to the routes of the outermost application, and let the "
            "proxy pass on /.well-known/oauth-protected-resource",
        )
        return
    seen.metadata = found
    if found.get("resource") != seen.url:
        yield Diagnosis(
            "resource-differs",
            document,
            f"resource {seen.url}",
            f"resource {found.get('resource')}",
            "set MCP_SERVER_URL (audience=, resource=) to the address that clients use, to the "
            "last slash; have the issuer put it into aud",
        )
    if not seen.issuers:
        yield Diagnosis(
            "no-issuer",
            document,
            "authorization_servers with one or more issuers",
            "none",
            "write issuer=... beside verifier=..., so that clients learn where to sign in",
        )
    if "access-control-allow-origin" not in response.headers:
        yield Diagnosis(
            "metadata-cors",
            document,
            "Access-Control-Allow-Origin, for clients in browsers",
            "no such header",
            "let the proxy pass on the headers of this document",
        )


async def _cors(client: httpx.AsyncClient, refused: httpx.Response) -> AsyncIterator[Diagnosis]:
    allowed = refused.headers.get("access-control-allow-origin")
    exposed = refused.headers.get("access-control-expose-headers", "").lower()
    if allowed is not None and "www-authenticate" not in exposed and "*" not in exposed:
        yield Diagnosis(
            "cors-hides-challenge",
            str(refused.url),
            "WWW-Authenticate among Access-Control-Expose-Headers",
            exposed or "no exposed header",
            'write CORSMiddleware(..., expose_headers=["WWW-Authenticate", "Mcp-Session-Id"])',
        )
    preflight = {
        "origin": _ORIGIN,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type, mcp-protocol-version",
    }
    answer = await client.options(str(refused.url), headers=preflight)
    if "access-control-allow-origin" not in answer.headers:
        yield Diagnosis(
            "cors",
            str(refused.url),
            "an answer to the preflight of a client in a browser",
            f"HTTP {answer.status_code} without Access-Control-Allow-Origin",
            "wrap the outermost application in CORSMiddleware; nothing, if no client is a web page",
            level="note",
        )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
