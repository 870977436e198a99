"""Are custom routes, which no guard stands in front of, seen before they are served?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from support.auditing import row, wrong
from support.lines import FASTMCP_LINES, Guarding, Line, Serve
from support.lowlevel_servers import Told, lowlevel
from toolguard.audit import audit
from toolguard.audit.formats import as_text


async def _health(_: Request) -> Response:
    return PlainTextResponse("fine")


def _with_routes(line: Line, *paths: str, methods: Sequence[str] = ("GET",)) -> Any:
    server: Any = line.server("calendar")
    for path in paths:
        server.custom_route(path, methods=[*methods])(_health)
    return server


def test_a_custom_route_is_listed_as_open_and_found(line: Line, guarding: Guarding) -> None:
    server = guarding(default="deny").protect(_with_routes(line, "/export", methods=["GET", "PUT"]))

    report = audit(server)

    found = row(report, "GET,PUT /export")
    assert (found.kind, found.access, found.guarded) == ("route", "everybody", False)
    assert wrong(report) == {("unguarded", "GET,PUT /export")}
    assert "protect(server, open_routes=['/export'])" in report.findings[0].message
    assert "! route GET,PUT /export" in as_text(report)


def test_a_route_named_as_open_is_listed_and_no_finding(line: Line, guarding: Guarding) -> None:
    server = _with_routes(line, "/health", "/users/{id}")
    guarding().protect(server, open_routes=["/health", "/users/{id}"])

    report = audit(server)

    assert report.findings == ()
    assert [each.name for each in report.operations] == ["GET /health", "GET /users/{id}"]
    assert row(report, "GET /health").access == "everybody"


def test_a_route_named_as_open_is_served_without_a_token(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client
) -> None:
    server = guarding().protect(_with_routes(line, "/health"), open_routes=["/health"])

    url = serve(line.http_app(server, stateless=True))

    assert http.get(f"{url}/health").text == "fine"
    assert http.post(f"{url}/mcp", json={}).status_code == 401


def test_the_metadata_that_toolguard_serves_is_no_open_route(
    line: Line, guarding: Guarding
) -> None:
    server = guarding().protect(line.server("calendar"))
    line.http_app(server, stateless=True)

    assert audit(server).operations == ()


def test_a_route_registered_after_protect_is_seen(line: Line, guarding: Guarding) -> None:
    server: Any = guarding().protect(line.server("calendar"), open_routes=["/health"])

    assert wrong(audit(server)) == {("unmatched-rule", "/health")}
    server.custom_route("/health", methods=["GET"])(_health)
    assert audit(server).findings == ()
    server.custom_route("/late", methods=["GET"])(_health)
    assert wrong(audit(server)) == {("unguarded", "GET /late")}


def test_a_name_without_a_route_fails_when_the_app_is_built(line: Line, guarding: Guarding) -> None:
    server = guarding().protect(_with_routes(line, "/health"), open_routes=["/helth"])

    wanted = "'/helth' is the path of no custom route.*did you mean '/health'.*correct it, or leave"
    with pytest.raises(ValueError, match=wanted):
        line.http_app(server, stateless=True)
    assert "did you mean '/health'" in audit(server).findings[-1].message


@pytest.mark.parametrize(
    ("written", "error", "said"),
    [
        ("/health", TypeError, r"write open_routes=\['/health'\]: a list"),
        (["health"], ValueError, "'health': write the whole path, '/health'"),
    ],
)
def test_a_misspelt_list_of_open_routes_says_what_to_write(
    line: Line, guarding: Guarding, written: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        guarding().protect(_with_routes(line, "/health"), open_routes=written)


def test_a_server_without_custom_routes_has_none_to_open(guarding: Guarding) -> None:
    with pytest.raises(ValueError, match="has no custom routes: leave open_routes out"):
        guarding().protect(lowlevel(Told()), open_routes=["/health"])


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_routes_of_mounted_servers_are_named_where_they_are_served(
    line: Line, guarding: Guarding
) -> None:
    outer: Any = line.server("outer")
    outer.mount(_with_routes(line, "/health"), namespace="inner")
    guarding().protect(outer)

    assert wrong(audit(outer)) == {("unguarded", "GET /health")}
