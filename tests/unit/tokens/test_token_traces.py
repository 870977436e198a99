"""Does a token stand in a variable of ours when its verification has failed?"""

from __future__ import annotations

import asyncio
from traceback import walk_tb
from typing import Any

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from support.callers import Desk, person
from support.counted_keys import published
from support.traces import failure, left_behind
from support.trusted import AUDIENCE, CLAIMS, ES256, NOW, issuing, mint
from toolguard.calls.message import MessageContext
from toolguard.calls.request import RequestAuth
from toolguard.errors import KeysUnavailableError, ToolGuardError
from toolguard.frameworks.framework_verifier import FrameworkVerifier
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.tokens.keys import Key
from toolguard.tokens.proofs.presented import verified
from toolguard.tokens.trust import TrustedIssuers

KEY = published(ES256)


class Failing:
    """A source of keys that fails at one of its methods."""

    def __init__(self, at: str, error: BaseException | None) -> None:
        self.at, self.error = at, error
        self.keys: tuple[Key, ...] | None = None

    def _reach(self, at: str) -> None:
        if self.at == at and self.error is not None:
            raise self.error

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
        self._reach("find")
        if self.at == "report_bad_signature":
            return (published(issuing()),)
        return None

    def report_bad_signature(self, kid: str | None) -> bool:
        self._reach("report_bad_signature")
        return False

    async def refresh(self) -> None:
        self._reach("refresh")


BAD = {
    **{name: ES256.mint_invalid(name, "alice") for name in INVALID_TOKENS},
    "empty": "",
    "no token": "quite-a-long-secret-that-is-none",
    "too long": "a" * 20_000,
    "claims": mint(sub=""),
    "no json": ES256.sign_bytes(b'{"sub":"alice-and-bob",}'),
    "lone surrogate": "\ud800 and something secret",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("remember", [0, 1024])
def test_a_refused_token_is_left_in_no_variable(name: str, remember: int) -> None:
    verifier = ES256.verifier(remember=remember)
    for _ in range(2):
        for run in (
            lambda: verifier.verify_now(BAD[name]),
            lambda: asyncio.run(verifier.verify(BAD[name])),
        ):
            assert left_behind(failure(run), BAD[name]) == []


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("kind", ["verifier", "trust", "guard", "nested"])
def test_a_token_refused_by_another_guard_is_left_in_no_variable(kind: str, *, bound: bool) -> None:
    token, principal = mint(), person("alice", jkt="thumbprint" if bound else None)
    stranger = issuing().verifier()
    inner, outer = Desk(stranger), RequestAuth(token, principal, Desk(ES256.verifier()))
    verifiers: dict[str, Any] = {"verifier": stranger, "trust": TrustedIssuers((stranger,))}

    async def ask() -> None:
        if kind == "guard":
            await verified(inner, token, bound=bound)
        elif kind == "nested":
            await MessageContext(outer).principal(inner)
        elif bound:
            await verifiers[kind].verify_bound(token)
        else:
            await verifiers[kind].verify(token)

    raised = failure(lambda: asyncio.run(ask()))

    assert isinstance(raised, ToolGuardError)
    # The representation of the request leaves its token out.
    assert [each for each in left_behind(raised, token) if each.endswith(": token")] == []


def test_a_remembered_token_that_expires_is_left_in_no_variable() -> None:
    now = [NOW]
    verifier = ES256.verifier(clock=lambda: now[0])
    token = ES256.sign(CLAIMS)
    assert verifier.verify_now(token) is not None
    now[0] += 3_600

    assert left_behind(failure(lambda: verifier.verify_now(token)), token) == []


@pytest.mark.parametrize("at", ["find", "report_bad_signature", "refresh", "nowhere"])
@pytest.mark.parametrize(
    "error", [KeysUnavailableError("down"), RuntimeError("a fault"), KeyboardInterrupt()], ids=repr
)
def test_a_token_is_left_in_no_variable_when_its_keys_cannot_be_had(
    at: str, error: BaseException
) -> None:
    verifier = ES256.verifier(keys=Failing(at, error))
    token = mint()

    raised = failure(lambda: asyncio.run(verifier.verify(token)))

    assert left_behind(raised, token) == []


def test_an_error_of_the_source_keeps_its_traceback_and_variables() -> None:
    raised = failure(
        lambda: ES256.verifier(keys=Failing("find", ValueError("x"))).verify_now(mint())
    )

    frames = [frame for frame, _ in walk_tb(raised.__traceback__)]
    assert frames[-1].f_locals["at"] == "find"
    assert "_holds" not in [frame.f_code.co_name for frame in frames]
    assert "verify_now" in [frame.f_code.co_name for frame in frames]


def test_an_error_raised_again_disturbs_no_coroutine_that_it_came_through() -> None:
    error = KeysUnavailableError("down")
    verifier = ES256.verifier(keys=Failing("find", error))
    seen: list[str] = []

    async def first(go_on: asyncio.Event) -> None:
        try:
            await verifier.verify(mint())
        except KeysUnavailableError:
            await go_on.wait()
            seen.append("went on")

    async def main() -> None:
        go_on = asyncio.Event()
        task = asyncio.ensure_future(first(go_on))
        await asyncio.sleep(0)
        with pytest.raises(KeysUnavailableError):
            await verifier.verify(mint())
        go_on.set()
        await task

    asyncio.run(main())
    assert seen == ["went on"]


@pytest.mark.parametrize(
    "facts",
    [
        {"token": "another-token-than-was-sent"},
        {"claims": {"cnf": {}}},
        {"claims": {"active": "false"}},
        {"claims": {"aud": "https://other.example.com"}},
        {"resource": "https://other.example.com"},
        {"subject": None, "claims": {"sub": ""}},
        {"expires_at": 1},
    ],
    ids=str,
)
def test_what_the_framework_verified_is_left_in_no_variable(facts: dict[str, Any]) -> None:
    token = mint()
    usual = {"token": token, "client_id": "c", "scopes": [], "subject": "alice"}
    user = AuthenticatedUser(AccessToken(**{**usual, "expires_at": NOW + 60, **facts}))
    verifier = FrameworkVerifier(AUDIENCE, clock=lambda: NOW)

    raised = failure(lambda: asyncio.run(verifier.verify_request({"user": user}, token)))

    assert left_behind(raised, token) == []
