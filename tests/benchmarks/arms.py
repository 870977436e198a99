"""The same server: bare, guarded, with the framework's own auth, by hand, and with records."""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import jwt

from toolguard import ToolGuard, requires_scopes
from toolguard.telemetry import JSONLines
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys

__all__ = ["ALGORITHMS", "ARMS", "LINES", "MODES", "RECORD_ARMS", "SCOPE", "Trust", "app", "doors"]

SCOPE = "calendar.write"
ARMS = ("bare", "toolguard", "own auth", "naive")
RECORD_ARMS = ("unrecorded", "toolguard", "JSON lines", "OpenTelemetry")
"""Guards: whose recorder is never asked; without a consumer; and with one."""
ALGORITHMS: tuple[Literal["RS256", "ES256"], ...] = ("RS256", "ES256")
MODES: Mapping[str, tuple[bool, bool]] = {
    "JSON": (True, True),
    "SSE": (True, False),
    "stateful": (False, False),
}
"""How a server answers: whether it is stateless, and whether with JSON."""


def _installed() -> Iterator[str]:
    for distribution, majors in {"mcp": "12", "fastmcp": "34"}.items():
        try:
            major = version(distribution)[0]
        except PackageNotFoundError:
            continue
        if major in majors:
            yield f"{distribution}{major}"


LINES = tuple(_installed())
"""The framework lines of this environment, such as ``mcp2`` and ``fastmcp4``."""


@dataclass(frozen=True)
class Trust:
    """Whose tokens a server accepts.

    Attributes:
        issuer: the issuer.
        audience: the server.
        algorithm: what tokens are signed with.
        jwk: the public key.
    """

    issuer: str
    audience: str
    algorithm: str
    jwk: Mapping[str, Any]

    def decode(self, key: Any, token: str) -> dict[str, Any]:
        """Return the claims of a good token, as PyJWT's documentation has it done."""
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[self.algorithm],
            audience=self.audience,
            issuer=self.issuer,
            options={"require": ["exp", "iss", "aud"]},
        )
        return claims

    @property
    def key(self) -> Any:
        """The public key, prepared."""
        return jwt.PyJWK(dict(self.jwk)).key


async def _echo(text: str) -> str:
    return text


def app(line: str, arm: str, mode: str, trust: Trust, tools: int) -> Any:
    """Return the application of one arm: a server with ``tools`` tools, one of them ``echo``."""
    server, tool, settings = _MAKERS[arm](line, trust)
    for number in range(tools - 1):

        async def other(text: str) -> str:
            return text

        server.tool(name=f"other_{number}")(other)
    server.tool(name="echo", **settings)(tool)
    stateless, json = MODES[mode]
    if line.startswith("fastmcp"):
        return server.http_app("/mcp", stateless_http=stateless, json_response=json)
    if line == "mcp2":
        return server.streamable_http_app(stateless_http=stateless, json_response=json)
    server.settings.stateless_http, server.settings.json_response = stateless, json
    return server.streamable_http_app()


def doors(
    line: str, arm: str, trusts: Sequence[Trust], modes: Sequence[str], tools: int
) -> dict[str, Any]:
    """Return the applications of one arm by path, one for each mode and algorithm."""
    return {
        f"/{mode}/{trust.algorithm}": app(line, arm, mode, trust, tools)
        for mode in modes
        for trust in trusts
    }


_Made = tuple[Any, Callable[..., Any], dict[str, Any]]
"""A server, its tool, and settings of the tool."""


def _server(line: str, **settings: Any) -> Any:
    if line.startswith("fastmcp"):
        return importlib.import_module("fastmcp").FastMCP("benchmark", **settings)
    name, made = ("fastmcp", "FastMCP") if line == "mcp1" else ("mcpserver", "MCPServer")
    module = importlib.import_module(f"mcp.server.{name}")
    return getattr(module, made)("benchmark", log_level="ERROR", **settings)


def _bare(line: str, _: Trust) -> _Made:
    return _server(line), _echo, {}


def _guarded(line: str, trust: Trust, on_decision: Any = None, *, is_asked: bool = True) -> _Made:
    verifier = JWTVerifier(
        issuer=trust.issuer,
        audience=trust.audience,
        keys=StaticKeys({"keys": [dict(trust.jwk)]}),
        algorithms=[trust.algorithm],
    )
    server = _server(line)
    guard = ToolGuard(verifier=verifier, audience=trust.audience, on_decision=on_decision)
    if not is_asked:
        guard.recorder.wanted = lambda: False

    @requires_scopes(SCOPE)
    async def echo(text: str, *, user_id: str) -> str:
        return text

    guard.protect(server)
    return server, echo, {}


def _unrecorded(line: str, trust: Trust) -> _Made:
    return _guarded(line, trust, is_asked=False)


class _Nowhere(io.StringIO):
    """Takes text, and has nothing to be closed."""

    def write(self, text: str) -> int:
        return len(text)


def _json_lines(line: str, trust: Trust) -> _Made:
    return _guarded(line, trust, JSONLines(_Nowhere()))


def _open_telemetry(line: str, trust: Trust) -> _Made:
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - of one arm
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - likewise

    from toolguard.telemetry import OpenTelemetry  # noqa: PLC0415 - likewise

    return _guarded(line, trust, OpenTelemetry(MeterProvider([InMemoryMetricReader()])))


def _own_auth(line: str, trust: Trust) -> _Made:
    if line.startswith("fastmcp"):
        return _fastmcp_auth(line, trust)
    from mcp.server.auth.provider import AccessToken  # noqa: PLC0415 - of the measured server only
    from mcp.server.auth.settings import AuthSettings  # noqa: PLC0415 - likewise

    key = trust.key

    class Verifier:
        async def verify_token(self, token: str) -> AccessToken | None:
            try:
                claims = trust.decode(key, token)
            except jwt.PyJWTError:
                return None
            return AccessToken(
                token=token,
                client_id=claims["client_id"],
                scopes=claims["scope"].split(),
                expires_at=claims["exp"],
                subject=claims["sub"],
                claims=claims,
            )

    auth = AuthSettings.model_validate(
        {
            "issuer_url": trust.issuer,
            "resource_server_url": trust.audience,
            "required_scopes": [SCOPE],
            "validate_token_resource": False,
        }
    )
    return _server(line, auth=auth, token_verifier=Verifier()), _echo, {}


def _fastmcp_auth(line: str, trust: Trust) -> _Made:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - of one arm

    auth = importlib.import_module("fastmcp.server.auth")
    pem = trust.key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()
    verifier = importlib.import_module("fastmcp.server.auth.providers.jwt").JWTVerifier(
        public_key=pem, issuer=trust.issuer, audience=trust.audience, algorithm=trust.algorithm
    )
    return _server(line, auth=verifier), _echo, {"auth": auth.require_scopes(SCOPE)}


def _naive(line: str, trust: Trust) -> _Made:
    key = trust.key
    if line.startswith("fastmcp"):
        request = importlib.import_module("fastmcp.server.dependencies").get_http_request

        async def echo(text: str) -> str:
            _check(trust, key, request())
            return text

        return _server(line), echo, {}

    server = _server(line)

    async def echo_in_context(text: str, ctx: Any) -> str:
        _check(trust, key, ctx.request_context.request)
        return text

    name = "fastmcp" if line == "mcp1" else "mcpserver"
    context = importlib.import_module(f"mcp.server.{name}").Context
    echo_in_context.__annotations__ = {"text": str, "ctx": context, "return": str}
    return server, echo_in_context, {}


def _check(trust: Trust, key: Any, request: Any) -> None:
    token = request.headers["authorization"].removeprefix("Bearer ")
    if SCOPE not in trust.decode(key, token)["scope"].split():
        raise PermissionError(SCOPE)


_MAKERS: Mapping[str, Callable[[str, Trust], _Made]] = {
    "bare": _bare,
    "toolguard": _guarded,
    "unrecorded": _unrecorded,
    "JSON lines": _json_lines,
    "OpenTelemetry": _open_telemetry,
    "own auth": _own_auth,
    "naive": _naive,
}
