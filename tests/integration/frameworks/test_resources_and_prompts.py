"""Do guards on resources and prompts count like those on tools?"""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from support.lines import Guarding, Mode, ServeOnce
from support.wire import Caller, Connect, asked_for
from toolguard import public, requires_scopes
from toolguard.testing import LocalIssuer

METADATA_PATH = "/.well-known/oauth-protected-resource/mcp"
# How each is got, and what alice gets.
DIARY: dict[str, tuple[str, dict[str, str], str]] = {
    "resource": ("resources/read", {"uri": "diary://today"}, "today of alice"),
    "template": ("resources/read", {"uri": "diary://days/monday"}, "monday of alice"),
    "prompt": ("prompts/get", {"name": "summary"}, "summary of alice"),
}


def _diary(mode: Mode) -> Any:
    server = mode.line.server("diary")

    @server.resource("diary://today")
    @requires_scopes("diary.read")
    async def today(*, user_id: str) -> str:
        return f"today of {user_id}"

    @server.resource("diary://days/{day}")
    @requires_scopes("diary.read")
    def days(day: str, *, user_id: str) -> str:
        return f"{day} of {user_id}"

    @server.prompt()
    @requires_scopes("diary.read", "diary.summary")
    async def summary(*, user_id: str) -> str:
        return f"summary of {user_id}"

    @server.resource("diary://cover")
    @public
    async def cover(*, user_id: str | None) -> str:
        return f"cover for {user_id or 'everybody'}"

    @server.prompt()
    @public
    def greeting() -> str:
        return "greet everybody"

    return server


@pytest.fixture(params=["authenticated", "deny"])
def reader(
    request: pytest.FixtureRequest,
    mode: Mode,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
) -> Connect:
    """Make callers of the diary, whose guard has one default or the other."""

    def connected(token: str | None) -> Caller:
        def app() -> Any:
            return mode.app(guarding(default=request.param).protect(_diary(mode)))

        key = ("diary", request.param, mode.line.name, mode.stateless, mode.json)
        made = Caller(http, serve_once(key, app) + "/mcp", mode.protocol, token=token)
        if mode.has_sessions:
            assert made.open().status == 200
        return made

    return connected


def test_who_has_the_scopes_gets_it(reader: Connect, issuer: LocalIssuer) -> None:
    alice = reader(issuer.mint("alice", scopes=["diary.read", "diary.summary"]))

    for method, params, expected in DIARY.values():
        assert expected in alice.send(method, params).content


def test_who_lacks_a_scope_gets_a_403_with_the_challenge(
    reader: Connect, issuer: LocalIssuer
) -> None:
    alice = reader(issuer.mint("alice", scopes=["profile"]))
    scopes = {"resource": "diary.read", "template": "diary.read"}

    for kind, (method, params, _) in DIARY.items():
        reply = alice.send(method, params)
        scope = scopes.get(kind, "diary.read diary.summary")
        assert reply.status == 403
        asked = asked_for(alice.protocol, scope, "profile")
        assert f'Bearer error="insufficient_scope", scope="{asked}"' in str(reply.challenge)
        assert reply.body["missing_scopes"] == scope.split()


def test_what_is_public_is_public_and_the_rest_asks_for_a_token(reader: Connect) -> None:
    stranger = reader(None)
    cover = stranger.send("resources/read", {"uri": "diary://cover"})
    greeting = stranger.send("prompts/get", {"name": "greeting"})

    assert "cover for everybody" in cover.content
    assert "greet everybody" in greeting.content
    for method, params, _ in DIARY.values():
        refused = stranger.send(method, params)
        assert refused.status == 401
        assert 'Bearer scope="diary.read' in str(refused.challenge)


def test_their_scopes_are_supported_scopes(reader: Connect) -> None:
    stranger = reader(None)
    url = stranger.endpoint.removesuffix("/mcp") + METADATA_PATH

    assert sorted(stranger.http.get(url).json()["scopes_supported"]) == [
        "diary.read",
        "diary.summary",
    ]


def test_what_is_injected_is_no_argument_of_a_prompt(reader: Connect, issuer: LocalIssuer) -> None:
    prompts = reader(issuer.mint()).send("prompts/list").result["prompts"]

    assert {prompt["name"]: prompt.get("arguments", []) for prompt in prompts} == {
        "summary": [],
        "greeting": [],
    }
