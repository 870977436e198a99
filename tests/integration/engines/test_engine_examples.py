"""The examples with engines in this process decide as their policies say."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, Serve
from support.wire import Caller
from toolguard.testing import LocalIssuer

EXAMPLES = Path(__file__).parents[3] / "examples" / "engines"


def engine(name: str, distribution: str) -> Any:
    reason = f"pip install {distribution}"
    is_here = importlib.util.find_spec(distribution) is not None
    return pytest.param(name, marks=pytest.mark.skipif(not is_here, reason=reason), id=name)


CEDAR, CASBIN = engine("cedar", "cedarpy"), engine("casbin", "casbin")
Ask = Callable[..., bool]


@pytest.fixture
def may(  # noqa: PLR0917 - fixtures
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    guarding: Guarding,
    issuer: LocalIssuer,
    serve: Serve,
    http: httpx.Client,
    line: Line,
) -> Ask:
    """Return whether a user may call a tool of a server that the example guards."""
    monkeypatch.syspath_prepend(EXAMPLES)
    guard = getattr(importlib.import_module(f"with_{request.param}"), request.param)
    server = line.server("invoices")

    @server.tool()
    def list_invoices() -> str:
        return "done"

    @server.tool()
    def pay(amount: int) -> str:
        return "done"

    server = guarding().protect(server, rules={"*": guard})
    url = serve(line.http_app(server, stateless=True))

    def asked(user: str, tool: str, *roles: str, **arguments: Any) -> bool:
        token = issuer.mint(user, roles=list(roles))
        reply = Caller(http, f"{url}/mcp", token=token).call(tool, arguments)
        if reply.is_error:
            assert reply.denial["error"] == "access_denied"
            assert reply.denial["error_description"] == "You are not allowed to do this"
        return not reply.is_error

    return asked


@pytest.mark.parametrize("may", [CEDAR, CASBIN], indirect=True)
def test_the_engine_decides_by_user_and_role(may: Ask) -> None:
    assert may("alice", "list_invoices")
    assert may("bob", "pay", "finance", amount=5_000)
    assert not may("bob", "pay", "intern", amount=5_000)


@pytest.mark.parametrize("may", [CEDAR], indirect=True)
def test_cedar_reads_the_arguments(may: Ask) -> None:
    assert may("alice", "pay", amount=999)
    assert not may("alice", "pay", amount=1_000)
    assert not may("mallory", "pay", amount=1)


@pytest.mark.parametrize("may", [CEDAR], indirect=True)
@pytest.mark.parametrize("user", ['mallory"', 'a", action, User::"alice', "a\\", "ä"])
def test_a_name_cannot_become_a_part_of_cedars_request(may: Ask, user: str) -> None:
    assert not may(user, "pay", amount=5_000)


@pytest.mark.parametrize("may", [CASBIN], indirect=True)
@pytest.mark.parametrize("user", ["bob", "reader", "role:finance", "user:alice"])
def test_a_user_that_casbin_does_not_know_is_denied(may: Ask, user: str) -> None:
    assert not may(user, "list_invoices")
