"""The command ``toolguard call``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TextIO

import anyio
import httpx

from toolguard.dev.oauth.direct import PersonTokenRequest
from toolguard.dev.one_call.wire import CallAnswer, CallRevision, ToolCaller
from toolguard.dev.one_call.words import answer_text, connect_links, explanation
from toolguard.dev.person_tokens import (
    DEFAULT_ISSUER,
    NoServerError,
    PersonToken,
    TokenRefusedError,
    fetch_person_token,
)
from toolguard.http.challenge import Challenge, metadata_url
from toolguard.parsing.printable import printable
from toolguard.parsing.secure_urls import is_this_machine, secure_origin
from toolguard.parsing.strict_json import lenient_object
from toolguard.parts.bounded import HEADERS, UnboundedError, bound

__all__ = ["CallError", "CallSettings", "parse_arguments", "run_call"]

_REFUSED, _UNUSABLE = 1, 2
_MOST_SIGN_INS = 4
_TIMEOUT = 60.0
_MOST_SECONDS = 300.0  # as long as a gateway waits for the server behind it


class CallError(Exception):
    """The call cannot be made; the text says why, and what to write."""


@dataclass(frozen=True)
class CallSettings:
    """The arguments of ``toolguard call``.

    Attributes:
        url: the MCP endpoint.
        tool: the name of the tool.
        arguments: its arguments.
        person: whose tokens are asked for; None for no sign-in.
        token: a token from elsewhere; None for none.
        issuer: the development server; None to take the one that the server names.
        revision: the protocol revision.
    """

    url: str
    tool: str
    arguments: Mapping[str, Any]
    person: PersonTokenRequest | None = None
    token: str | None = field(default=None, repr=False)
    issuer: str | None = None
    revision: CallRevision = "2025-11-25"


def parse_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a tool.

    Raises:
        CallError: if they are not a JSON object.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        value = None
        reason = f" ({error})"
    else:
        reason = ""
    if not isinstance(value, dict):
        raise CallError(
            f"{text!r} is not a JSON object{reason}: write the arguments of the tool as "
            """'{"title": "Lunch"}', in single quotes"""
        )
    return value


def run_call(settings: CallSettings, out: TextIO, err: TextIO) -> int:
    """Call a tool; write what happens to ``err``, and the answer of the tool to ``out``.

    Returns:
        The exit code: 0; 1 if the call was refused or the tool failed; 2 if it was not made.
    """
    try:
        _check_url(settings.url)
        http = httpx.AsyncClient(
            headers=HEADERS,
            event_hooks={"response": [bound]},
            verify=httpx.create_ssl_context(),  # which SSL_CERT_FILE sets for this machine too
            # All requests are to this origin; a proxy would get the tokens for this machine.
            trust_env=not is_this_machine(settings.url),
            timeout=_TIMEOUT,
        )
        return anyio.run(_CallInProgress(settings, http, err).run, out)
    except TimeoutError:
        sentence = (
            f"{settings.url} has not come to an end within {_MOST_SECONDS:g} s: correct the URL, "
            "or ask for what takes less time"
        )
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        sentence = (
            f"{settings.url} does not answer ({reason}): start the server, or correct the URL"
        )
    except (CallError, NoServerError, TokenRefusedError, UnboundedError) as error:
        sentence = str(error)
        if isinstance(error, TokenRefusedError):
            print(f"toolguard call: {printable(sentence)}", file=err)
            return _REFUSED
    print(f"toolguard call: {printable(sentence)}", file=err)
    return _UNUSABLE


def _check_url(url: str) -> None:
    """Refuse a URL to which a token must not be sent.

    Raises:
        CallError: if it is one.
    """
    if secure_origin(url) is not None:
        return
    if secure_origin(url.replace("http://", "https://", 1)) is not None:
        raise CallError(f"{url} would get the token in the clear: write https")
    raise CallError(f"{url!r} is not a URL: write one such as http://127.0.0.1:8000/mcp")


class _CallInProgress:
    """One call: what is known on the way to its answer."""

    def __init__(self, settings: CallSettings, http: httpx.AsyncClient, err: TextIO) -> None:
        self._settings = settings
        self._http = http
        self._err = err
        self._caller = ToolCaller(settings.url, http, settings.revision)
        self._signed_in: PersonToken | None = None

    async def run(self, out: TextIO) -> int:
        """Call until there is an answer that no sign-in changes; return the exit code.

        Raises:
            TimeoutError: if all of it takes too long.
        """
        with anyio.fail_after(_MOST_SECONDS):
            async with self._http:
                return await self._run(out)

    async def _run(self, out: TextIO) -> int:
        asked = self._settings.person
        if asked is not None and asked.scopes is not None:
            await self._sign_in(*await self._request(asked, metadata_url(self._settings.url)))
        for _ in range(_MOST_SIGN_INS):
            exchange = await self._send()
            more = await self._wanted(exchange)
            if more is None:
                break
            await self._sign_in(*more)
        await self._caller.end(self._token)
        return self._conclude(exchange, out)

    @property
    def _token(self) -> str | None:
        return self._settings.token if self._signed_in is None else self._signed_in.token

    async def _send(self) -> CallAnswer:
        settings = self._settings
        exchange = await self._caller.call(settings.tool, settings.arguments, self._token)
        name = "a token of yours" if self._token is not None else "no token"
        if self._signed_in is not None:
            name = f"a token of {self._signed_in.person}"
        self._say(f"POST {settings.url}  {exchange.about}, with {name}")
        self._say(f"  {exchange.status} {exchange.reason}")
        if exchange.header is not None:
            self._say(f"  WWW-Authenticate: {exchange.header}")
        said = explanation(exchange)
        if said is not None:
            self._say(f"  {said}")
        return exchange

    async def _wanted(self, exchange: CallAnswer) -> tuple[PersonTokenRequest, str] | None:
        """Return the request for the token that a challenge asks for, and its issuer.

        None if there is no challenge, or nothing that the person could have asked for.
        """
        asked, challenge = self._settings.person, exchange.challenge
        if challenge is None:
            return None
        if asked is None:
            self._say(_advice(challenge, has_token=self._token is not None))
            return None
        held = () if self._signed_in is None else self._signed_in.scopes
        wanted = tuple(dict.fromkeys((*held, *challenge.scope)))
        if self._signed_in is not None and set(wanted) == set(held):
            return None
        scopes = wanted or None
        return await self._request(replace(asked, scopes=scopes), challenge.resource_metadata)

    async def _request(
        self, asked: PersonTokenRequest, metadata: str | None
    ) -> tuple[PersonTokenRequest, str]:
        """Return a request for a token of this server, and its issuer.

        Args:
            asked: the request, without the server.
            metadata: the URL of the server's metadata (RFC 9728), which names both.

        Raises:
            CallError: if the metadata is of another server.
        """
        url = self._settings.url
        found: dict[str, Any] = {}
        if metadata is not None and secure_origin(metadata) != secure_origin(url):
            raise CallError(
                f"the server has its metadata at {metadata}, which is another server: call it at "
                "the URL that its guard has, MCP_SERVER_URL"
            )
        if metadata is not None:
            found = lenient_object((await self._http.get(metadata)).content) or {}
        resource, issuers = found.get("resource", url), found.get("authorization_servers")
        if not isinstance(resource, str) or secure_origin(resource) != secure_origin(url):
            raise CallError(f"{metadata} is the metadata of another server, {resource!r}")
        if resource.rstrip("/") != url.rstrip("/"):
            self._say(
                f"  attention: the server says that it is {resource}: set its MCP_SERVER_URL to "
                f"{url}, which clients compare with it"
            )
        named = issuers[0] if isinstance(issuers, list) and issuers else DEFAULT_ISSUER
        return replace(asked, resource=resource), self._settings.issuer or str(named)

    async def _sign_in(self, asked: PersonTokenRequest, issuer: str) -> None:
        is_first = self._signed_in is None
        self._signed_in = found = await fetch_person_token(issuer, asked)
        scopes = " ".join(found.scopes) or "no scope"
        step = "signed in" if is_first else "step-up"
        self._say(f"{step}: {found.person} at {found.issuer}, with {scopes}")

    def _conclude(self, exchange: CallAnswer, out: TextIO) -> int:
        for link in connect_links(exchange.answer.body):
            self._say(f"an account has to be connected first: open {link} and call again")
        text = answer_text(exchange)
        if text:
            print(printable(text), file=out, flush=True)
        return 0 if exchange.answer.ok and not connect_links(exchange.answer.body) else _REFUSED

    def _say(self, text: str) -> None:
        print(printable(text), file=self._err, flush=True)


def _advice(challenge: Challenge, *, has_token: bool) -> str:
    scopes = f" with {' '.join(challenge.scope)}" if challenge.scope else ""
    if has_token:
        return f"  get a token{scopes} from the issuer, and call with it"
    return (
        f"  call with --as PERSON to sign in at toolguard dev, or with a token{scopes} of the "
        "issuer in TOOLGUARD_CALL_TOKEN"
    )
