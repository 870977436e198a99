"""What a server answered, in plain words."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any

from toolguard.dev.one_call.wire import CallAnswer
from toolguard.parsing.strict_json import lenient_object

__all__ = ["answer_text", "connect_links", "explanation"]

# MCP 2025-11-25, elicitation: the user has to open a URL first.
_URL_ELICITATION_REQUIRED = -32042

_BY_STATUS: Mapping[int, str] = {
    HTTPStatus.NOT_FOUND: "no MCP endpoint is there: write its path, such as /mcp",
    HTTPStatus.METHOD_NOT_ALLOWED: "that is not an MCP endpoint: write its path, such as /mcp",
    HTTPStatus.MISDIRECTED_REQUEST: "the server does not know this host: write the URL it prints",
    HTTPStatus.SERVICE_UNAVAILABLE: "the server cannot check tokens now: try again later",
}


def explanation(exchange: CallAnswer) -> str | None:
    """Return what an answer asks for, or why it refuses; None if the operation ran."""
    challenge, refusal = exchange.challenge, exchange.answer.refusal
    reason = refusal.get("error_description") or exchange.answer.error
    if challenge is not None:
        scopes = " ".join(challenge.scope)
        if challenge.error == "insufficient_scope":
            return f"insufficient scope: it asks for a token with {scopes or 'more scopes'}"
        if challenge.error is not None:
            return (
                f"{challenge.error}: {challenge.error_description or reason or 'no reason given'}"
            )
        with_scopes = f", with {scopes}" if scopes else ""
        return f"it asks for a token{with_scopes}"
    if exchange.answer.ok or (reason is None and exchange.status == HTTPStatus.OK):
        return None
    if exchange.location is not None:
        return f"it redirects, and a token is not sent along: call {exchange.location}"
    return str(reason or _BY_STATUS.get(exchange.status, "no JSON-RPC answer"))


def connect_links(body: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the links at which the user has to connect an account first."""
    return tuple(dict.fromkeys(_links(body)))


def _links(body: Mapping[str, Any]) -> Iterator[str]:
    result, error = _mapping(body.get("result")), _mapping(body.get("error"))
    if error.get("code") == _URL_ELICITATION_REQUIRED:
        for asked in _list(_mapping(error.get("data")).get("elicitations")):
            yield str(_mapping(asked).get("url"))
    for asked in _mapping(result.get("inputRequests")).values():  # MCP 2026-07-28
        yield str(_mapping(_mapping(asked).get("params")).get("url"))
    if result.get("isError"):
        for part in _list(result.get("content")):
            text = _mapping(part).get("text")
            said = (lenient_object(text) if isinstance(text, str) else None) or {}
            if isinstance(said.get("connect_url"), str):
                yield said["connect_url"]


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def answer_text(exchange: CallAnswer) -> str:
    """Return the answer of the tool: its structured content as JSON, else its text."""
    structured = exchange.answer.result.get("structuredContent")
    if structured is not None:
        return json.dumps(structured, indent=2)
    return exchange.answer.text
