"""The command ``toolguard doctor``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, TextIO

import anyio
import httpx

from toolguard.audit.doctor.configuration import guard_of, look_at_configuration
from toolguard.audit.doctor.diagnosis import Diagnosis
from toolguard.audit.doctor.endpoint import Seen, look_at_endpoint
from toolguard.audit.doctor.issuers import look_at_issuer
from toolguard.audit.doctor.tokens import look_with_token
from toolguard.audit.loading import LoadError, load_server
from toolguard.parsing.secure_urls import is_secure_url, is_this_machine
from toolguard.parts.bounded import HEADERS, UnboundedError, bound
from toolguard.parts.unanswered import why_unanswered
from toolguard.tokens.fetching import EnvironmentClient

__all__ = ["diagnose_url", "run_doctor"]

_FAILED, _UNUSABLE = 1, 2
_TIMEOUT = 10.0
_MOST_SECONDS = 120.0
_MAX_ISSUERS = 10


def new_client() -> httpx.AsyncClient:
    """Return a client that follows no redirects, as clients with tokens do not."""
    trusted = httpx.create_ssl_context()
    return EnvironmentClient(
        verify=trusted,
        headers=HEADERS,
        event_hooks={"response": [bound]},
        timeout=_TIMEOUT,
        follow_redirects=False,
    )


def run_doctor(
    target: str,
    out: TextIO,
    *,
    token: str | None = None,
    as_json: bool = False,
    client: Callable[[], httpx.AsyncClient] = new_client,
    load: Callable[[str], Any] = load_server,
) -> int:
    """Write the findings to ``out``.

    Args:
        target: the URL of an MCP endpoint, ``module:server``, or what ``load`` takes.
        out: the stream for the findings.
        token: a client's access token; it is sent to the endpoint only, and over https only.
        as_json: whether the findings are written as JSON.
        client: makes the HTTP client.
        load: returns the server that the target names.

    Returns:
        The exit code: 0; 1 if there is a fault; 2 if nothing could be looked at.
    """

    async def look() -> list[Diagnosis]:
        with anyio.fail_after(_MOST_SECONDS):
            return await look_at_all()

    async def look_at_all() -> list[Diagnosis]:
        async with client() as http:
            if target.startswith(("https://", "http://")):
                return await diagnose_url(http, target, token=token, now=time.time())
            return await _diagnose_server(http, await anyio.to_thread.run_sync(load, target))

    try:
        found = anyio.run(look)
    except (LoadError, UnboundedError) as error:
        reason = str(error)
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
        reason = _unreachable(error)
    else:
        if as_json:
            print(json.dumps([asdict(each) for each in found], indent=2), file=out)
        else:
            print("\n".join(map(str, found)) or f"{target} is set up right", file=out)
        return _FAILED if any(each.level == "fault" for each in found) else 0
    print(f"toolguard doctor: {target} cannot be looked at: {reason}", file=out)
    return _UNUSABLE


def _unreachable(error: Exception) -> str:
    """Say why a URL cannot be looked at, without text of the answer."""
    if isinstance(error, TimeoutError):
        return f"it takes more than {_MOST_SECONDS:g} s"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer within {_TIMEOUT:.0f} s ({type(error).__name__})"
    if isinstance(error, httpx.TransportError):
        why = why_unanswered(error)
        return f"nothing answers there ({why}): start the server, or check the URL"
    return f"write a URL such as https://mcp.example.com/mcp ({type(error).__name__})"


async def diagnose_url(
    client: httpx.AsyncClient, url: str, *, token: str | None = None, now: float
) -> list[Diagnosis]:
    """Return what is wrong with a running server.

    Args:
        client: makes the requests; it follows no redirects.
        url: the URL of its MCP endpoint.
        token: a client's access token; it is not sent over http to another machine.
        now: the time, in seconds since the epoch.

    Raises:
        httpx.HTTPError: if it cannot be reached.
    """
    seen = Seen(url)
    found = [each async for each in look_at_endpoint(client, seen, now)]
    named = seen.metadata.get("scopes_supported")
    scopes = [each for each in named if isinstance(each, str)] if isinstance(named, list) else ()
    is_here = is_this_machine(url)
    for issuer in seen.issuers[:_MAX_ISSUERS]:
        # A server elsewhere does not choose what is asked on this machine and in its network.
        if is_here or issuer.startswith("https://") or not url.startswith("https://"):
            found += [each async for each in look_at_issuer(client, issuer, scopes)]
        else:
            facts = ("an https URL", "another", "write the issuer's https URL")
            found.append(Diagnosis("issuer-insecure", issuer, *facts))
    if token is not None and is_secure_url(url):
        found += [each async for each in look_with_token(client, seen, token, now)]
    return found


async def _diagnose_server(client: httpx.AsyncClient, server: Any) -> list[Diagnosis]:
    found = [*look_at_configuration(server, os.environ)]
    guard = guard_of(server)
    if guard is not None and guard.issuer is not None:
        looks = look_at_issuer(client, guard.issuer, guard.scopes_supported)
        found += [each async for each in looks]
    return found
