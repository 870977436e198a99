"""Write and parse ``WWW-Authenticate`` challenges (RFC 6750 §3, RFC 9470, RFC 9728 §5.1).

Both official MCP clients search the header with an unanchored pattern for ``scope=`` and
``resource_metadata=``. So the content and order of a challenge are a security property: one
scheme, a few parameters in a fixed order, no ``=`` inside any of the free texts.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from toolguard.errors import (
    InsufficientAuthenticationError,
    InsufficientScopeError,
    MalformedMessageError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.parsing.scope_token import check_requestable, is_requestable

__all__ = ["Challenge", "ChallengeScopes", "challenge_for", "metadata_url", "parse"]

ChallengeScopes = Literal["required", "combined"]
"""Whether ``scope`` names the scopes that the operation needs, or also those the caller has."""

# RFC 6750 §3: 'Values for the "error" and "error_description" attributes MUST NOT include
# characters outside the set %x20-21 / %x23-5B / %x5D-7E', here without "=".
_TEXT = re.compile(r"[\x20\x21\x23-\x3C\x3E-\x5B\x5D-\x7E]+")
_URL = re.compile(r"https?://[\x21\x23-\x3C\x3E-\x5B\x5D-\x7E]+")
# RFC 9110 §11.2: auth-param = token BWS "=" BWS ( token / quoted-string )
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a grammar, not a secret
_PARAM = re.compile(rf'({_TOKEN})[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|({_TOKEN}))')
_SCHEME = re.compile(rf"({_TOKEN}) +(?={_TOKEN}[ \t]*=|$)")
# What servers, proxies and clients take as one header; 100 scopes of the usual length fit.
_MAX_LENGTH = 4_096
# A server sends the same few challenges again and again.
_KEPT = 256
_SEPARATOR = re.compile(r"[ \t]*,[ \t]*")


@dataclass(frozen=True)
class Challenge:
    """A Bearer challenge (RFC 6750 §3), a DPoP challenge (RFC 9449 §7.1), or both.

    Bearer comes first: an official client reads no other scheme in the first place.

    Attributes:
        error: ``invalid_request``, ``invalid_token`` or ``insufficient_scope``; None if the
            request carried no credentials.
        scope: the scopes to request, in this order; empty omits the parameter.
        resource_metadata: URL of the protected resource metadata (RFC 9728).
        error_description: one sentence for developers.
        acr_values: the accepted authentication context class references (RFC 9470 §3).
        max_age: the maximum age of the sign-in in seconds (RFC 9470 §3).
        algs: the algorithms of DPoP proofs (RFC 9449 §7.1); empty to offer no DPoP.
        offers_bearer: whether bearer tokens are accepted as well.
        scheme: with both schemes, the one that ``error`` is about.

    Raises:
        ValueError: for a value that cannot be quoted safely, and for a challenge without any
            parameter.
    """

    error: str | None = None
    scope: tuple[str, ...] = ()
    resource_metadata: str | None = None
    error_description: str | None = None
    acr_values: tuple[str, ...] = ()
    max_age: int | None = None
    algs: tuple[str, ...] = ()
    offers_bearer: bool = True
    scheme: str = "Bearer"

    def __post_init__(self) -> None:
        for name in ("error", "error_description"):
            text = getattr(self, name)
            if text is not None and not _TEXT.fullmatch(text):
                raise ValueError(f"{name} cannot be sent in a challenge: {text!r}")
        check_requestable(self.scope)
        check_requestable(self.acr_values, "class")
        if self.max_age is not None and self.max_age < 0:
            raise ValueError(f"max_age is a number of seconds, not {self.max_age!r}")
        if self.resource_metadata is not None and not _URL.fullmatch(self.resource_metadata):
            raise ValueError(f"resource_metadata is not a URL: {self.resource_metadata!r}")
        if self.error_description is not None and self.error is None:
            raise ValueError("error_description goes with an error (RFC 6750 §3.1)")
        if not any((self.error, self.scope, self.resource_metadata)):
            # RFC 6750 §3: 'This scheme MUST be followed by one or more auth-param values.'
            raise ValueError("a challenge needs at least one parameter")

    @functools.cached_property
    def header(self) -> str:
        """The value of the WWW-Authenticate header."""
        # RFC 6750 §3.1: 'If the request lacks any authentication information [...], the resource
        # server SHOULD NOT include an error code or other error information.'
        parameters = {
            "error": self.error,
            "scope": " ".join(self.scope),
            # RFC 9728 §5.1: 'resource_metadata: The URL of the protected resource metadata.'
            "resource_metadata": self.resource_metadata,
            "error_description": self.error_description,
            # RFC 9470 §3: both are strings there.
            "acr_values": " ".join(self.acr_values),
            "max_age": "" if self.max_age is None else str(self.max_age),
        }
        if not self.algs:
            return _written("Bearer", parameters)
        algs = {"algs": " ".join(self.algs)}
        if not self.offers_bearer:
            return _written("DPoP", {**parameters, **algs})
        if self.scheme == "Bearer":
            return f"{_written('Bearer', parameters)}, {_written('DPoP', algs)}"
        faults = {name: parameters.pop(name) for name in ("error", "error_description")}
        return f"{_written('Bearer', parameters)}, {_written('DPoP', {**faults, **algs})}"


def _written(scheme: str, parameters: Mapping[str, str | None]) -> str:
    return f"{scheme} " + ", ".join(f'{k}="{v}"' for k, v in parameters.items() if v)


def challenge_for(  # noqa: PLR0913 - all by keyword
    refusal: ToolGuardError,
    *,
    resource_metadata: str,
    default_scope: Sequence[str] = (),
    always: Sequence[str] = (),
    scopes: ChallengeScopes = "required",
    algs: Sequence[str] = (),
    offers_bearer: bool = True,
) -> Challenge | None:
    """Return the challenge for ``refusal``; None if it must not have one.

    Args:
        refusal: the refusal of the call.
        resource_metadata: URL of the protected resource metadata of this server (RFC 9728).
        default_scope: the scopes that a client needs to begin, as it asks for them, for refusals
            that name no scope.
        always: the scopes that every client has to ask for beside others.
        scopes: ``"combined"`` repeats the scopes the caller has, for clients that replace their
            scopes instead of adding to them.
        algs: the algorithms of DPoP proofs, where those are accepted. A 403 is a Bearer challenge
            all the same, which every client reads.
        offers_bearer: whether bearer tokens are accepted.
    """
    least: tuple[str, ...] = ()
    error: str | None = refusal.error
    if isinstance(refusal, MissingTokenError):
        error = None
        named = refusal.as_requested(refusal.scopes) or tuple(default_scope)
    elif isinstance(refusal, InsufficientScopeError):
        least = named = refusal.as_requested(refusal.required_scopes)
        if scopes == "combined":
            held_and_needed = dict.fromkeys((*refusal.combined_scopes, *refusal.required_scopes))
            named = refusal.as_requested(tuple(held_and_needed))
    elif isinstance(refusal, InsufficientAuthenticationError):
        named = refusal.as_requested(refusal.scopes)
    elif refusal.status in (400, 401) and not isinstance(refusal, MalformedMessageError):
        named = tuple(default_scope) if refusal.status == 401 else ()  # noqa: PLR2004
    else:
        return None
    if refusal.status in (401, 403):
        named = tuple(dict.fromkeys((*always, *named)))
    description = refusal.error_description
    is_sendable = error is not None and _TEXT.fullmatch(description) is not None
    offers_dpop = refusal.status == 401  # noqa: PLR2004 - a 403 keeps the form that clients read
    return _longest(
        named,
        least,
        description if is_sendable else None,
        error=error,
        resource_metadata=resource_metadata,
        acr_values=tuple(getattr(refusal, "acr_values", ())),
        max_age=getattr(refusal, "max_age", None),
        algs=tuple(algs) if offers_dpop else (),
        offers_bearer=offers_bearer or not offers_dpop,
        scheme=refusal.scheme if offers_dpop else "Bearer",
    )


@functools.lru_cache(_KEPT)
def _longest(
    named: tuple[str, ...], least: tuple[str, ...], description: str | None, **rest: Any
) -> Challenge:
    """Return the challenge that says the most within the limit; the body says all of it.

    A list of scopes is named as a whole or not at all: a client that got half of it would ask
    again and again.
    """
    for scope, text in ((named, description), (named, None), (least, None)):
        # A client could misread the others; a *declared* one of those is refused at import.
        requestable = tuple(filter(is_requestable, scope))
        made = Challenge(scope=requestable, error_description=text, **rest)
        if len(made.header) <= _MAX_LENGTH:
            return made
    return Challenge(**rest)


def metadata_url(resource: str) -> str:
    """Return the URL of the protected resource metadata of ``resource`` (RFC 9728 §3.1).

    RFC 9728 §3.1: the well-known string is inserted between the host and the path; 'any
    terminating slash (/) following the host component MUST be removed before inserting'.

    >>> metadata_url("https://api.example.com/mcp")
    'https://api.example.com/.well-known/oauth-protected-resource/mcp'
    """
    url = urlsplit(resource)
    path = "" if url.path == "/" else url.path
    query = f"?{url.query}" if url.query else ""
    return f"{url.scheme}://{url.netloc}/.well-known/oauth-protected-resource{path}{query}"


def parse(header: str) -> Challenge:
    """Parse a Bearer or DPoP challenge, or both, for clients and tests.

    Unknown parameters are skipped.

    Raises:
        ValueError: if the header is not well-formed (RFC 9110 §11.6.1), has challenges of another
            scheme or in another order, or repeats a parameter.

    >>> parse('Bearer error="insufficient_scope", scope="read write"').scope
    ('read', 'write')
    >>> parse('Bearer scope="read", DPoP error="invalid_dpop_proof", algs="ES256"').scheme
    'DPoP'
    """
    sent = _challenges(header.strip())
    if [*sent] not in (["bearer"], ["dpop"], ["bearer", "dpop"]):
        raise ValueError(f"not a Bearer challenge: {next(iter(sent), header)!r}")
    bound = sent.get("dpop", {})
    parameters = {**bound, **sent.get("bearer", {})}
    return Challenge(
        error=parameters.get("error"),
        scope=tuple(parameters.get("scope", "").split()),
        resource_metadata=parameters.get("resource_metadata"),
        error_description=parameters.get("error_description"),
        acr_values=tuple(parameters.get("acr_values", "").split()),
        max_age=_seconds(parameters.get("max_age")),
        algs=tuple(bound.get("algs", "").split()),
        offers_bearer="bearer" in sent,
        scheme="DPoP" if "error" in bound and "bearer" in sent else "Bearer",
    )


def _challenges(header: str) -> dict[str, dict[str, str]]:
    """Return the parameters of each challenge, by its scheme in lower case."""
    challenges: dict[str, dict[str, str]] = {}
    parameters: dict[str, str] = {}
    position = 0
    while position < len(header) or not challenges:
        if position:
            separator = _SEPARATOR.match(header, position)
            position = separator.end() if separator is not None else len(header)
        scheme = _SCHEME.match(header, position)
        if scheme is not None:
            position = scheme.end()
            parameters = {}
            if challenges.setdefault(scheme[1].lower(), parameters) is not parameters:
                raise ValueError(f"a repeated challenge: {scheme[1]!r}")
        match = _PARAM.match(header, position)
        if match is None or not challenges or match[1].lower() in parameters:
            raise ValueError(f"a malformed or repeated parameter at position {position}")
        quoted, bare = match[2], match[3]
        parameters[match[1].lower()] = bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
        position = match.end()
    return challenges


def _seconds(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,9}", text):
        raise ValueError("max_age is not a number of seconds")
    return int(text)
