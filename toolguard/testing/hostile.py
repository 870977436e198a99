"""Hypothesis strategies for hostile texts and JSON.

They generate what a server, or a client, may get from outside, and are also part of
:mod:`toolguard.testing.strategies`.
"""

from __future__ import annotations

import json
import string
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from toolguard.http.challenge import Challenge
from toolguard.parts.extras import explained

with explained():
    from hypothesis import strategies as st
    from hypothesis.strategies import SearchStrategy

__all__ = [
    "authorization_values",
    "challenges",
    "claims",
    "forged_tokens",
    "json_values",
    "scope_tokens",
    "sendable_scopes",
    "tool_arguments",
]

# RFC 6749 §3.3 names what a scope is made of by what it is not.
_SCOPE_CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"\\')
# What the clients of a challenge would take for the start of a parameter needs a "=".
_SENDABLE_CHARACTERS = _SCOPE_CHARACTERS.replace("=", "")
_BAITS = ("scope", "resource_metadata", "error", "scope:evil", "Bearer", ",", "scope'evil'")
_HOSTILE_TEXTS = (
    *("", " ", "a b", "a\tb", "a\u00a0b", "\x00", "a\r\nSet-Cookie: a=b", "\u202ecod", "\u0430"),
    *('"', "\\", "scope=admin", "admin write", "admin.*", "*", "{user_id}", "%s", "x" * 10_000),
    *("..", "../../etc/passwd", "a/../b", "https://evil.example/", "' OR 1=1 --", "<script>"),
)
_NEARLY_BEARER = (
    *("", "Bearer", "Bearer ", "{}", "Basic {}", "DPoP {}", "Bearer: {}", "Bearer={}"),
    *("Bearer {},", "Bearer, {}", 'Bearer "{}"', "Bearer %20{}", "Bearer token={}"),
    *("XBearer {}", "BearerX {}", "Bearer Bearer {}", "Basic x, Bearer {}"),
    *("Bearer {0} {0}", "Bearer {0},{0}", "Bearer {0}, Bearer {0}"),
    *("Bearer\t{}", "Bearer\x0b{}", "Bearer\u00a0{}", "Bearer {}\u00e9", "B\u0435arer {}"),
    *("Bearer {}\n", "\nBearer {}", "Bearer {}\x00", "\x00{}", "Bearer {}\r\nX-User: admin"),
)
_MEMBERS = ("permissions", "roles", "id", "sub", "T1", "T2")
_CLAIMS = (
    *("iss", "sub", "userId", "user_id", "user", "exp", "aud"),
    *("client_id", "azp", "appid", "cid"),
    *("tenant", "tenantId", "dct", "tid", "org_id", "tenants"),
    *("scope", "scp", "scopes", "permissions"),
    *("roles", "role", "realm_access", "resource_access", "cognito:groups"),
)


def scope_tokens() -> SearchStrategy[str]:
    """Scopes as RFC 6749 §3.3 allows them."""
    return st.text(_SCOPE_CHARACTERS, min_size=1, max_size=12)


def sendable_scopes() -> SearchStrategy[str]:
    """Scopes that may be asked for in a challenge, baits for careless readers among them."""
    return st.text(_SENDABLE_CHARACTERS, min_size=1, max_size=12) | st.sampled_from(_BAITS)


def json_values(*, strict: bool = False) -> SearchStrategy[Any]:
    """What a JSON document may hold anywhere.

    Args:
        strict: leave out what RFC 8259 §6 does not know and :func:`json.loads` reads: ``NaN`` and
            ``Infinity``.
    """
    leaves = (
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=not strict, allow_infinity=not strict)
        | st.just(10**400)  # which no float holds
        | st.text(max_size=8)
        | st.sampled_from(("admin", "a b", "a\tb", "a\u00a0b", " ", "T1"))
    )
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(_MEMBERS) | st.text(max_size=4), inner, max_size=4)
        ),
        max_leaves=12,
    )


def claims() -> SearchStrategy[Mapping[str, Any]]:
    """JSON objects with the names of real claims, and anything at all as their values."""
    return st.dictionaries(
        st.sampled_from(_CLAIMS) | st.text(max_size=4), json_values(), max_size=8
    )


def forged_tokens() -> SearchStrategy[str]:
    """Tokens without a valid signature: any header, any claims and any signature."""
    members = ("alg", "kid", "typ", "crit", "jwk", "jku", "x5c", "zip", "b64")
    algorithms = st.sampled_from(("none", "None", "RS256", "ES256", "HS256", "EdDSA"))
    header = st.dictionaries(st.sampled_from(members), algorithms | json_values(), max_size=4)

    def forged(header: Mapping[str, Any], payload: Mapping[str, Any], signature: bytes) -> str:
        parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
        return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)

    return st.builds(forged, header, claims(), st.binary(max_size=64))


def authorization_values(token: str = "abc") -> SearchStrategy[bytes]:  # noqa: S107 - no secret
    """Values of an Authorization header that do not carry ``token``, however close they come.

    Line breaks, zero bytes and what is not ASCII are among them, which an HTTP client would not
    send, and a proxy might.

    Args:
        token: what a server must not read in any of them.
    """
    near = st.sampled_from(_NEARLY_BEARER).map(lambda text: text.format(token).encode())
    return near | st.binary(max_size=40).filter(lambda value: token.encode() not in value)


def tool_arguments(*names: str) -> SearchStrategy[dict[str, Any]]:
    """Arguments of a tool call: each of these is left out, plain, hostile, or any JSON value.

    Args:
        names: of the arguments.
    """
    values = st.sampled_from(("work", 1)) | st.sampled_from(_HOSTILE_TEXTS)
    values |= json_values(strict=True)
    return st.fixed_dictionaries({}, optional=dict.fromkeys(names, values))


def challenges() -> SearchStrategy[Challenge]:
    """Challenges of every kind that is sent, with texts that try to be misread."""
    text = st.text([c for c in map(chr, range(0x20, 0x7F)) if c not in '"\\='], min_size=1)
    texts = text | st.lists(st.sampled_from(_BAITS), min_size=1).map(" ".join)
    path = st.text([*string.ascii_letters, *"/:@!$'()*+,;?&-._~%"], max_size=20)
    urls = path.map("https://mcp.example.com/".__add__)
    text_or_none, url_or_none = st.none() | texts, st.none() | urls
    scopes, classes = (st.lists(sendable_scopes(), max_size=most).map(tuple) for most in (4, 2))
    ages = st.none() | st.integers(0, 999_999_999)

    @st.composite
    def drawn(draw: st.DrawFn) -> Challenge:
        error, scope = draw(text_or_none), draw(scopes)
        description = draw(text_or_none) if error is not None else None
        metadata = draw(url_or_none if error is not None or scope else urls)
        return Challenge(error, scope, metadata, description, draw(classes), draw(ages))

    return drawn()
