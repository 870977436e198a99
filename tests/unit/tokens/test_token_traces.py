"""Does a token stand in a variable of ours when its verification has failed?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from traceback import walk_tb
from typing import Any

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from support.counted_keys import published
from support.trusted import AUDIENCE, CLAIMS, ES256, NOW, issuing, mint
from toolguard.errors import KeysUnavailableError
from toolguard.frameworks.framework_verifier import FrameworkVerifier
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.tokens.keys import Key

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


def texts(value: object, depth: int = 0) -> Iterator[str]:
    """Yield the texts that a value holds, a few levels deep."""
    if isinstance(value, (str, bytes)):
        yield value if isinstance(value, str) else value.decode("latin-1")
    elif depth < 4:
        for item in parts_of(value):
            yield from texts(item, depth + 1)


def parts_of(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if is_dataclass(value):
        return [getattr(value, field.name, None) for field in fields(value)]
    return [vars(value)] if isinstance(value, (AuthenticatedUser, AccessToken)) else []


def left_behind(error: BaseException | None, secret: str) -> list[str]:
    """Return where in the frames of an error, and of its causes, a part of the token stands."""
    # The payload cannot be told from the claims it says; header and payload are what was signed.
    parts = [part for part in (secret, secret.rpartition(".")[0], secret[-40:]) if len(part) > 12]
    found = []
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            if not str(frame.f_globals.get("__name__")).startswith("toolguard."):
                continue
            for name, value in frame.f_locals.items():
                if any(part in text for text in texts(value) for part in parts):
                    found.append(f"{frame.f_code.co_name}: {name}")
        error = error.__cause__ or error.__context__
    return found


def failure(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:  # noqa: BLE001 - each kind of failure is looked at
        return error
    raise AssertionError("it did not fail")


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
