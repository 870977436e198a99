"""Do the parameters of a template and the arguments of a prompt decide on its scope?"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import pytest

from support.lines import FASTMCP_LINES, MODERN_PROTOCOL, MODES, Guarding, Line
from support.wire import Caller, Visit, asked_for
from toolguard import OperationCall, Principal, requires, requires_scopes
from toolguard.testing import GuardedClient, LocalIssuer

METADATA = 'resource_metadata="https://mcp.test/.well-known/oauth-protected-resource/mcp"'


def _library(line: Line) -> Any:
    server = line.server("library")

    @server.resource("library://catalogue")
    @requires_scopes("library.read")
    def catalogue(*, user_id: str) -> str:
        return f"catalogue of {user_id}"

    @server.resource("library://{shelf}/books/{book}")
    @requires_scopes("library.{shelf}.read", "library.read")
    def books(shelf: str, book: str, *, user_id: str) -> str:
        return f"{book} on {shelf} for {user_id}"

    @server.prompt()
    @requires_scopes("library.{shelf}.review")
    async def review(shelf: str, *, user_id: str) -> str:
        return f"review {shelf} as {user_id}"

    return server


@pytest.fixture
def reader(guarding: Guarding, visit: Visit, issuer: LocalIssuer) -> Callable[..., Caller]:
    """Make readers of the library whose tokens have these scopes."""

    def made(*scopes: str) -> Caller:
        token = issuer.mint("alice", scopes=scopes)
        return visit("shelves", lambda line: guarding().protect(_library(line)), token)

    return made


OPERATIONS = [
    ("resources/read", {"uri": "library://catalogue"}, "library.read", "catalogue of alice"),
    (
        "resources/read",
        {"uri": "library://law/books/7"},
        "library.law.read library.read",
        "7 on law for alice",
    ),
    (
        "prompts/get",
        {"name": "review", "arguments": {"shelf": "law"}},
        "library.law.review",
        "review law as alice",
    ),
]


@pytest.mark.parametrize(("method", "params", "scope", "answer"), OPERATIONS)
def test_each_kind_of_operation_answers_or_refuses_with_one_challenge(
    reader: Callable[..., Caller], method: str, params: dict[str, Any], scope: str, answer: str
) -> None:
    allowed = reader(*scope.split()).send(method, params)
    other = reader("library.art.read", "library.art.review")
    refused = other.send(method, params)

    assert (allowed.status, answer in allowed.content) == (200, True)
    assert refused.status == 403
    named = asked_for(other.protocol, scope, "library.art.read library.art.review")
    assert refused.challenge == (
        f'Bearer error="insufficient_scope", scope="{named}", {METADATA}, '
        f'error_description="Token missing required scopes: {scope}"'
    )
    assert refused.body["missing_scopes"] == scope.split()
    assert answer not in refused.content


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("resources/read", {"uri": "library://law%20admin/books/7"}),
        ("resources/read", {"uri": "library://law%22/books/7"}),
        ("prompts/get", {"name": "review", "arguments": {"shelf": 'law"'}}),
        ("prompts/get", {"name": "review", "arguments": {"shelf": "law admin"}}),
    ],
)
def test_a_parameter_that_makes_no_scope_is_invalid_input(
    reader: Callable[..., Caller], method: str, params: dict[str, Any]
) -> None:
    reply = reader("library.law.read", "library.read", "admin").send(method, params)

    if "%" in str(params) and reply.status == 403:  # mcp 1.x leaves the encoding as it is
        shelf = params["uri"].split("/")[2]
        assert reply.body["missing_scopes"] == [f"library.{shelf}.read"]
        return
    assert reply.status in (200, 400)
    assert reply.challenge is None
    assert "for alice" not in reply.content
    assert "as alice" not in reply.content
    assert reply.body["error"]["code"] == -32602
    assert "cannot be part of a scope" in reply.content


def test_completions_and_subscriptions_need_what_their_operation_needs(
    line: Line, guarding: Guarding
) -> None:
    server = guarding().protect(_library(line))
    reader = GuardedClient(server, scopes=["library.read"])
    stranger = GuardedClient(server)
    ref = {"type": "ref/resource", "uri": "library://catalogue"}
    complete = {"ref": ref, "argument": {"name": "x", "value": ""}}

    for method, params in (
        ("completion/complete", complete),
        ("resources/subscribe", {"uri": "library://catalogue"}),
    ):
        assert stranger.send(method, params).status != 200 or not stranger.send(method, params).ok
        assert reader.send(method, params).error != "insufficient_scope"


LISTENING = [mode for mode in MODES if mode.protocol == MODERN_PROTOCOL]


@pytest.mark.parametrize("mode", LISTENING, ids=str)
def test_whoever_listens_to_a_resource_needs_its_scopes(reader: Callable[..., Caller]) -> None:
    listened = {"notifications": {"resourceSubscriptions": ["library://catalogue"]}}

    reply = reader("profile").send("subscriptions/listen", listened)
    assert reply.status == 403
    assert reply.body["missing_scopes"] == ["library.read"]


@pytest.mark.parametrize("mode", LISTENING, ids=str)
@pytest.mark.parametrize("scope", ["profile", "library.read"])
def test_subscriptions_under_another_spelling_are_refused_to_all(
    reader: Callable[..., Caller], scope: str
) -> None:
    # The frameworks read the name of the field as well.
    listened = {"notifications": {"resource_subscriptions": ["library://catalogue"]}}

    reply = reader(scope).send("subscriptions/listen", listened)
    assert (reply.status, reply.challenge) == (400, None)
    assert reply.body["error"]["code"] == -32602
    assert reply.body["error"]["data"]["error"] == "invalid_request"


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
@pytest.mark.parametrize("still_allowed", [False, True])
def test_what_a_cache_answers_for_a_rule_about_the_call_is_refused(
    line: Line, guarding: Guarding, issuer: LocalIssuer, still_allowed: bool
) -> None:
    allowed, ran = [True], []

    async def check(principal: Principal, call: OperationCall) -> bool:
        return allowed[0]

    server = line.server("cached")
    caching = importlib.import_module("fastmcp.server.middleware.caching")

    @server.tool()
    @requires(check)
    async def secret() -> str:
        ran.append("secret")
        return "a secret"

    cached: Any = guarding().protect(server)
    cached.add_middleware(caching.ResponseCachingMiddleware())
    alice = GuardedClient(cached, token=issuer.mint())
    assert alice.call("secret").text == "a secret"
    allowed[0] = still_allowed
    again = alice.call("secret")
    # The client of the kit names no revision: a denial is a tool error for it.
    assert (again.status, again.ok, again.error) == (200, False, "access_denied")
    assert "a secret" not in str(again.body)
    assert ran == ["secret"]
