"""Does the client for tests give what a caller would get over the wire?"""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from support.lines import Guarding, Line, Server
from support.own_auth import Issued, authenticated
from toolguard import ToolGuard, public, requires_auth, requires_roles, requires_scopes
from toolguard.testing import (
    INVALID_TOKENS,
    AsyncGuardedClient,
    GuardedClient,
    LocalIssuer,
    ProofKey,
    call_as,
    call_as_async,
)
from toolguard.tokens.proofs import DPoP


def diary(line: Line) -> Server:
    server = line.server("diary")

    @server.tool()
    @requires_scopes("diary.write")
    async def write(text: str, *, user_id: str) -> str:
        return f"{text} by {user_id}"

    @server.tool()
    @requires_roles("editor")
    async def edit() -> str:
        return "edited"

    @server.tool()
    @requires_auth
    async def fail() -> str:
        raise RuntimeError("out of ink")

    @server.resource("diary://today")
    @requires_scopes("diary.read")
    def today(*, user_id: str) -> str:
        return f"today of {user_id}"

    @server.prompt()
    @public
    def summary(*, user_id: str | None) -> str:
        return f"summary for {user_id}"

    return server


@pytest.fixture
def server(line: Line, guarding: Guarding) -> Server:
    return guarding().protect(diary(line))


def test_what_is_allowed_comes_back_as_text(server: Server) -> None:
    alice = GuardedClient(server, scopes=["diary.write", "diary.read"])
    written = alice.call("write", {"text": "hello"})

    assert (written.ok, written.status, written.text) == (True, 200, "hello by alice")
    assert (written.error, written.missing_scopes, written.challenge) == (None, (), None)
    assert alice.read("diary://today").text == "today of alice"
    assert alice.get_prompt("summary").text == "summary for alice"
    assert GuardedClient(server, user=None).get_prompt("summary").text == "summary for None"


def test_a_refusal_has_the_status_the_challenge_and_the_body_of_the_wire(server: Server) -> None:
    refused = GuardedClient(server, user="bob").call("write", {"text": "x"})

    assert (refused.ok, refused.status, refused.error) == (False, 403, "insufficient_scope")
    assert refused.missing_scopes == ("diary.write",)
    assert refused.challenge is not None
    assert refused.challenge.scope == ("diary.write",)
    assert GuardedClient(server).read("diary://today").missing_scopes == ("diary.read",)
    anonymous = GuardedClient(server, user=None).call("write", {"text": "x"})
    assert (anonymous.status, anonymous.error) == (401, "missing_token")


def test_claims_say_who_calls(server: Server) -> None:
    assert GuardedClient(server, roles=["editor"]).call("edit").ok
    assert GuardedClient(server, roles=["reader"]).call("edit").error == "access_denied"


def test_a_tool_that_fails_by_itself_is_no_refusal(server: Server) -> None:
    failed = GuardedClient(server).call("fail")

    assert (failed.ok, failed.status, failed.error) == (False, 200, None)


def test_any_other_request_can_be_sent(server: Server) -> None:
    listed = GuardedClient(server).send("tools/list")

    assert {tool["name"] for tool in listed.result["tools"]} == {"write", "edit", "fail"}


@pytest.mark.parametrize("name", INVALID_TOKENS)
def test_every_kind_of_bad_token_is_refused_by_the_guards_own_verifier(
    server: Server, issuer: LocalIssuer, name: str
) -> None:
    answer = call_as(server, "write", {"text": "x"}, token=issuer.mint_invalid(name))

    assert answer.status in (400, 401)


@pytest.mark.parametrize("settings", [DPoP(), DPoP("required"), DPoP("required", nonces=True)])
def test_a_bound_token_is_sent_with_a_proof(line: Line, guarding: Guarding, settings: DPoP) -> None:
    server = guarding(dpop=settings).protect(diary(line))

    assert call_as(server, "edit", dpop=True, roles=["editor"]).text == "edited"
    assert call_as(server, "edit", dpop=ProofKey(), roles=["editor"]).ok
    assert call_as(server, "edit", roles=["editor"]).ok is (settings.mode == "optional")
    refused = call_as(server, "write", {"text": "x"}, dpop=True)
    assert refused.missing_scopes == ("diary.write",)


def test_an_issuer_that_the_guard_knows_mints_the_tokens(
    server: Server, issuer: LocalIssuer
) -> None:
    assert GuardedClient(server, issuer=issuer, scopes=["diary.read"]).read("diary://today").ok
    stranger = LocalIssuer(audience=issuer.audience, algorithm="ES256")
    assert GuardedClient(server, issuer=stranger).call("edit").error == "invalid_token"


def test_calls_may_overlap_and_leave_the_guard_as_it_was(server: Any, issuer: LocalIssuer) -> None:
    guard: ToolGuard = GuardedClient(server)._client._guard
    before = guard.verifier
    answers: dict[str, str] = {}

    async def call(user: str) -> None:
        answer = await call_as_async(
            server, "write", {"text": "x"}, user=user, scopes=["diary.write"]
        )
        answers[user] = answer.text

    async def all_at_once() -> None:
        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(call, f"user-{number}")

    anyio.run(all_at_once)
    assert answers == {f"user-{n}": f"x by user-{n}" for n in range(8)}
    assert guard.verifier is before
    token = AsyncGuardedClient(server, user="x")._mint()
    assert call_as(server, "fail", token=token).error == "invalid_token", "trusted no longer"


def test_the_verifier_of_the_guard_comes_back_when_a_call_fails(server: Any) -> None:
    client = GuardedClient(server)
    before = client._client._guard.verifier

    with pytest.raises(TypeError):
        client.send("tools/call", {"name": object()})
    assert client._client._guard.verifier is before


def test_inside_an_event_loop_there_is_an_async_front(server: Server) -> None:
    async def visit() -> tuple[bool, bool, bool]:
        alice = AsyncGuardedClient(server, scopes=["diary.read"])
        read = await alice.read("diary://today")
        prompt = await alice.get_prompt("summary")
        return read.ok, prompt.ok, (await alice.send("prompts/list")).ok

    assert anyio.run(visit) == (True, True, True)


def test_a_server_that_is_not_protected_is_told_what_to_write(line: Line) -> None:
    with pytest.raises(ValueError, match=r"write|protect the server first: ToolGuard"):
        GuardedClient(diary(line))


def test_where_the_framework_verifies_a_token_of_its_own_is_asked_for(
    line: Line, issuer: LocalIssuer
) -> None:
    server = authenticated(line, Issued(issuer))
    server.tool()(requires_auth(_whoami))
    ToolGuard(verifier="framework", audience=issuer.audience, issuer=issuer.issuer).protect(server)

    with pytest.raises(ValueError, match="the framework verifies here: give token="):
        GuardedClient(server)
    assert call_as(server, "_whoami", token=issuer.mint("bob")).text == "bob"
    assert call_as(server, "_whoami", user=None).status == 401


async def _whoami(*, user_id: str) -> str:
    return user_id
