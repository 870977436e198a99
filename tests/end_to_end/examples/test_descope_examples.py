"""Descope: do the examples run as they stand, against a local vault and local services?"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from support.projects import KEY, MCP, Project, call
from toolguard.descope.default import Default
from toolguard.testing import Loopback

EXAMPLES = Path(__file__).parents[3] / "examples"
Load = Callable[[str], Any]


class Services:
    """Google's calendars and Slack, for the holders of the tokens in the vault."""

    def __init__(self) -> None:
        self.posted: list[Any] = []
        self.app = Starlette(
            routes=[
                Route("/calendar/v3/calendars/{calendar}/events", self._events),
                Route("/api/chat.postMessage", self._post, methods=["POST"]),
            ]
        )

    async def _events(self, request: Request) -> JSONResponse:
        if request.headers.get("authorization") != "Bearer ya29.alice":
            return JSONResponse({}, 401)
        calendar = request.path_params["calendar"]
        return JSONResponse({"items": [{"summary": f"Alice's {calendar}"}]})

    async def _post(self, request: Request) -> JSONResponse:
        workspace = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.posted.append((workspace, await request.json()))
        return JSONResponse({"ok": True, "ts": "1503435956.000247"})


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    with Project.served() as served:
        yield served


@pytest.fixture(scope="module")
def services() -> Iterator[tuple[str, Services]]:
    made = Services()
    with Loopback(made.app) as loopback:
        yield loopback.url, made


@pytest.fixture
def load(project: Project, services: tuple[str, Services], monkeypatch: pytest.MonkeyPatch) -> Load:
    """Load an example in the environment that its README describes."""
    environ = {
        "DESCOPE_MCP_WELL_KNOWN_URL": project.well_known_url,
        "MCP_SERVER_URL": MCP,
        "GOOGLE_API_URL": services[0],
        "SLACK_API_URL": services[0],
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    for name in ("DESCOPE_MANAGEMENT_KEY", "TOOLGUARD_ISSUER", "TOOLGUARD_AUDIENCE"):
        monkeypatch.delenv(name, raising=False)
    fresh: Default[Any] = Default()
    for module in ("client", "sdk"):
        monkeypatch.setattr(f"toolguard.descope.{module}.default", fresh)

    def loaded(name: str) -> Any:
        spec = importlib.util.spec_from_file_location("example", EXAMPLES / name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return loaded


# The imperative style --------------------------------------------------------------------------


@pytest.fixture
def calendars(load: Load) -> Any:
    pytest.importorskip("mcp.server.mcpserver", reason="the example is for the SDK 2.x")
    return load("imperative.py").mcp


def test_the_imperative_example_serves_who_holds_the_scope_of_the_argument(
    project: Project, calendars: Any
) -> None:
    token = project.token("alice", "calendar.work.read")

    answer = call(calendars, "list_events", {"calendar": "work"}, token=token)

    assert (answer.ok, answer.text) == (True, "Alice's work")


def test_the_imperative_example_refuses_on_the_wire(project: Project, calendars: Any) -> None:
    token = project.token("alice", "calendar.work.read")

    answer = call(calendars, "list_events", {"calendar": "private"}, token=token)

    assert answer.status == 403
    assert answer.challenge is not None
    assert answer.missing_scopes == ("calendar.private.read",)
    assert answer.challenge.scope[-1] == "calendar.private.read"
    assert call(calendars, "list_events", {"calendar": "work"}, token=None).status == 401


def test_the_imperative_example_asks_who_has_not_connected_to_do_so(
    project: Project, calendars: Any
) -> None:
    token = project.token("carol", "calendar.work.read")

    answer = call(calendars, "list_events", {"calendar": "work"}, token=token)

    assert not answer.ok
    assert "https://vault.test/connections/link/" in answer.text


# Tokens of a tenant ----------------------------------------------------------------------------


@pytest.fixture
def workspace(load: Load) -> Any:
    return load("tenant_tokens/server.py").mcp


def test_the_tenant_example_writes_into_the_workspace_of_the_callers_tenant(
    project: Project, services: tuple[str, Services], workspace: Any
) -> None:
    _, made = services
    made.posted.clear()
    message = {"channel": "#general", "text": "Hello"}

    for user, tenant in (("alice", "acme"), ("bob", "globex")):
        token = project.token(user, "workspace:write", dct=tenant)
        assert call(workspace, "post_message", message, token=token).ok

    assert made.posted == [
        ("xoxb.acme", {"channel": "#general", "text": "Hello (alice)"}),
        ("xoxb.globex", {"channel": "#general", "text": "Hello (bob)"}),
    ]


@pytest.mark.parametrize(
    ("claims", "scopes", "error"),
    [
        ({"dct": "acme"}, [], "insufficient_scope"),
        ({}, ["workspace:write"], "access_denied"),
    ],
)
def test_the_tenant_example_serves_nobody_without_scope_or_tenant(
    project: Project,
    services: tuple[str, Services],
    workspace: Any,
    claims: dict[str, str],
    scopes: list[str],
    error: str,
) -> None:
    _, made = services
    made.posted.clear()
    token = project.token("alice", *scopes, **claims)

    answer = call(workspace, "post_message", {"channel": "c", "text": "t"}, token=token)

    assert (answer.ok, answer.error, made.posted) == (False, error, [])


def test_the_tenant_example_says_whom_to_ask(project: Project, workspace: Any) -> None:
    token = project.token("alice", "workspace:write", dct="initech")

    answer = call(workspace, "post_message", {"channel": "c", "text": "t"}, token=token)

    assert not answer.ok
    assert "Ask an administrator of your tenant to connect slack-workspace first" in answer.text
    assert KEY not in answer.text
