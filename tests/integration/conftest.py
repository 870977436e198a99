"""Which servers, callers and tokens do the tests over real HTTP share?"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx
import pytest

from support.calendar_server import calendar, connect
from support.forked import Forked, forking
from support.lines import LEGACY_PROTOCOLS, LINES, MODES, Guarding, Line, Mode, Serve, ServeOnce
from support.wire import Caller, Connect, Visit
from toolguard import ToolGuard
from toolguard.testing import LocalIssuer, Loopback

if not LINES:
    raise RuntimeError("no framework line is installed: nothing would be tested")


@pytest.fixture(params=LINES, ids=str)
def line(request: pytest.FixtureRequest) -> Line:
    """Every line of this environment."""
    found = request.param
    assert isinstance(found, Line)
    return found


@pytest.fixture(params=MODES, ids=str)
def mode(request: pytest.FixtureRequest) -> Mode:
    """Ways of speaking to every line of this environment."""
    found = request.param
    assert isinstance(found, Mode)
    return found


@pytest.fixture(scope="session")
def issuer() -> LocalIssuer:
    """Who issues the tokens; their audience is https://mcp.test/mcp."""
    return LocalIssuer(algorithm="ES256")


@pytest.fixture(scope="session")
def http() -> Iterator[httpx.Client]:
    """A plain HTTP client."""
    with httpx.Client(timeout=10) as client:
        yield client


@pytest.fixture(scope="session")
def guarding(issuer: LocalIssuer) -> Guarding:
    """Make guards for tokens of the issuer; settings are those of ToolGuard."""

    def guard(**settings: Any) -> ToolGuard:
        usual = {"verifier": issuer.verifier(), "audience": issuer.audience}
        return ToolGuard(**{**usual, "connections": connect, **settings})

    return guard


@pytest.fixture(scope="session")
def forked() -> Iterator[Forked]:
    """Python that has imported the frameworks, for processes of servers and programs."""
    with forking() as found:
        yield found


Stop = Callable[[Loopback], None]


@pytest.fixture(scope="session")
def stop() -> Iterator[Stop]:
    """Stop servers without keeping the next test waiting; all have stopped in the end."""
    stopping: list[Future[None]] = []
    with ThreadPoolExecutor(max_workers=16) as pool:
        yield lambda loopback: stopping.append(pool.submit(loopback.stop))
    for each in stopping:
        each.result()


@pytest.fixture
def serve(stop: Stop) -> Iterator[Serve]:
    """Serve applications for one test; return their origin."""
    with ExitStack() as stack:

        def url(app: Any) -> str:
            loopback = Loopback()
            stack.callback(stop, loopback)
            loopback.start(app)
            return loopback.url

        yield url


@contextmanager
def _keeping(stop: Stop) -> Iterator[ServeOnce]:
    """Serve each application once, until all are stopped."""
    served: dict[Hashable, Loopback] = {}

    def url(key: Hashable, app: Callable[[], Any]) -> str:
        if key not in served:
            served[key] = Loopback()
            served[key].start(app())
        return served[key].url

    yield url
    for loopback in served.values():
        stop(loopback)


@pytest.fixture(scope="module")
def serve_once(stop: Stop) -> Iterator[ServeOnce]:
    """Serve applications that no test disturbs, for the tests of a module.

    Not for all: a process may have no more than 1,024 sockets and other files open.
    """
    with _keeping(stop) as serve:
        yield serve


@pytest.fixture(scope="session")
def endpoint_of(guarding: Guarding, stop: Stop) -> Iterator[Callable[[Mode], str]]:
    """Serve the protected calendar in some mode; return the URL of its MCP endpoint."""
    with _keeping(stop) as serve:

        def endpoint(mode: Mode) -> str:
            key = (mode.line.name, mode.stateless, mode.json)
            return serve(key, lambda: mode.app(guarding().protect(calendar(mode.line)))) + "/mcp"

        yield endpoint


@pytest.fixture
def caller(mode: Mode, endpoint_of: Callable[[Mode], str], http: httpx.Client) -> Connect:
    """Make callers of the shared calendar; with a token, ready to call tools."""

    def connected(token: str | None) -> Caller:
        made = Caller(http, endpoint_of(mode), mode.protocol, token=token)
        if token is not None and mode.has_sessions:
            assert made.open().status == 200
        return made

    return connected


@pytest.fixture
def visit(mode: Mode, serve_once: ServeOnce, http: httpx.Client) -> Visit:
    """Make callers of a server that is made once for each way of speaking to it."""

    def visited(name: str, make: Callable[[Line], Any], token: str | None = None) -> Caller:
        key = (name, mode.line.name, mode.stateless, mode.json)
        url = serve_once(key, lambda: mode.app(make(mode.line))) + "/mcp"
        made = Caller(http, url, mode.protocol, token=token)
        if mode.has_sessions:
            made.open()
        return made

    return visited


@pytest.fixture
def stranger(line: Line, endpoint_of: Callable[[Mode], str], http: httpx.Client) -> Caller:
    """Make a caller without credentials, for what happens before a framework sees a request."""
    return Caller(http, endpoint_of(Mode(line, LEGACY_PROTOCOLS[-1], stateless=True, json=True)))
