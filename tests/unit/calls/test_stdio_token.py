"""Where does the token of a stdio server come from, and what if it is not there?"""

from __future__ import annotations

import asyncio
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.traces import failure, left_behind
from toolguard import InvalidTokenError, MissingTokenError, Principal, ToolGuard
from toolguard.calls.message import Frame, MessageContext
from toolguard.calls.stdio import StdioToken
from toolguard.parts.environment import secret
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.settings import from_environment
from toolguard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")
URL = "https://mcp.test/mcp"
SECRETS = {
    "TOOLGUARD_ACCESS_TOKEN": "of-alice",
    "DESCOPE_MANAGEMENT_KEY": "K2-management",
    "TOOLGUARD_CACHE_KEYS": "cache-key",
    "TOOLGUARD_SECRET": "sealing-secret-of-replicas",
}


class Names:
    """Takes a token ``of-alice`` for one of Alice's; says of ``old`` that it has expired."""

    async def verify(self, token: str) -> Principal:
        if token == "old":
            raise InvalidTokenError("expired", "The token has expired")
        prefix, _, user = token.partition("-")
        if prefix != "of":
            raise InvalidTokenError("malformed", "The token cannot be read")
        return Principal(user, "https://issuer.test", expires_at=math.inf)


def guard(**settings: Any) -> ToolGuard:
    return ToolGuard(**{"verifier": Names(), "audience": URL, **settings})


def asks(made: ToolGuard, policy: Policy) -> str | None:
    """Return the user as whom one message over stdio is served; None for no caller."""

    async def ask() -> str | None:
        call = OperationCall("tool", "x")
        door = Frame(made, MessageContext(await made.stdio_auth()))
        principal = await door.enter(policy, call).authorize(call)
        return None if principal is None else principal.user_id

    return asyncio.run(ask())


def settled(path: Path, age: float = 60.0) -> None:
    """Make ``path`` look as if it had been written a while ago."""
    at = path.stat().st_mtime - age
    os.utime(path, (at, at))


@pytest.fixture(autouse=True)
def environ(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("toolguard.parts.environment._withheld", {})
    for name in (*SECRETS, "TOOLGUARD_ACCESS_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def file(tmp_path: Path, environ: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "token"
    path.write_text("of-alice\n")
    environ.setenv("TOOLGUARD_ACCESS_TOKEN_FILE", str(path))
    return path


# --- out of the environment


def test_secrets_leave_the_environment_once_stdio_starts(environ: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        environ.setenv(name, value)
    show = "import os; print(*os.environ.values(), sep='\\n')"

    made = guard()
    with made.serving_stdio():
        child = subprocess.run(
            [sys.executable, "-c", show], check=True, timeout=120, capture_output=True, text=True
        )
        assert asks(made, Policy()) == "alice"

    assert [value for value in SECRETS.values() if value in child.stdout] == []
    assert secret("TOOLGUARD_CACHE_KEYS") == "cache-key"


def test_the_management_key_leaves_the_environment_once_it_is_read(
    environ: pytest.MonkeyPatch,
) -> None:
    settings = {
        "DESCOPE_MCP_WELL_KNOWN_URL": (
            "https://api.descope.com/v1/apps/agentic/P2a/MS2b/.well-known/openid-configuration"
        ),
        "MCP_SERVER_URL": URL,
        "DESCOPE_MANAGEMENT_KEY": "K2-management",
    }
    for name, value in settings.items():
        environ.setenv(name, value)

    made = [from_environment(os.environ, {})["connections"] for _ in range(2)]

    assert "DESCOPE_MANAGEMENT_KEY" not in os.environ
    assert [each._management_key for each in made] == ["K2-management"] * 2
    from_environment(settings, {})
    assert settings["DESCOPE_MANAGEMENT_KEY"], "a mapping of the caller's own is left as it is"


def test_a_server_that_starts_again_keeps_its_token(environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TOOLGUARD_ACCESS_TOKEN", "of-alice")
    made = guard()

    for _ in range(2):
        with made.serving_stdio():
            assert asks(made, Policy()) == "alice"


def test_a_token_and_a_file_at_once_are_refused(file: Path, environ: pytest.MonkeyPatch) -> None:
    environ.setenv("TOOLGUARD_ACCESS_TOKEN", "of-alice")

    message = "^set one of TOOLGUARD_ACCESS_TOKEN and TOOLGUARD_ACCESS_TOKEN_FILE, not both$"
    with pytest.raises(ValueError, match=message), guard().serving_stdio():
        pass


@given(st.text("\r\n", max_size=3))
def test_newlines_at_the_end_are_not_part_of_the_token(end: str) -> None:
    environ = {"TOOLGUARD_ACCESS_TOKEN": f"of-alice{end}"}
    token = StdioToken.taken_from(environ)

    assert token is not None
    assert (token.read(), environ) == ("of-alice", {})
    assert "alice" not in repr(token)


# --- out of a file


def test_a_token_in_a_file_is_read_again_when_it_changes(file: Path) -> None:
    made = guard()
    with made.serving_stdio():
        assert asks(made, Policy()) == "alice"
        file.write_text("of-bobby\r\n")
        assert asks(made, Policy()) == "bobby"
        other = file.with_name("other")
        other.write_text("of-carol")
        other.replace(file)
        assert asks(made, Policy()) == "carol"


def test_a_file_that_has_not_changed_is_not_read_again(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    really = Path.open

    def counted(path: Path, *given: Any) -> Any:
        opened.append(path)
        return really(path, *given)

    monkeypatch.setattr(Path, "open", counted)
    settled(file)
    token = StdioToken(path=str(file))

    assert {token.read() for _ in range(5)} == {"of-alice"}
    assert opened == [file]


def test_two_writes_within_one_tick_are_told_apart(file: Path) -> None:
    token = StdioToken(path=str(file))
    before = file.stat()
    assert token.read() == "of-alice"
    file.write_text("of-carol\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert token.read() == "of-carol"


def _remove(file: Path) -> None:
    file.unlink()


def _empty(file: Path) -> None:
    file.write_text("\n")


def _grow(file: Path) -> None:
    file.write_text("x" * 65_537)


def _replace_with_directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _replace_with_loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _replace_with_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (_remove, "is not there"),
        (_empty, "is empty"),
        (_grow, "is too large"),
        (_replace_with_directory, "is not a file"),
        (_replace_with_pipe, "is not a file"),
        (_replace_with_loop, "cannot be read"),
    ],
)
def test_a_file_without_a_token_closes_what_needs_one(file: Path, harm: Any, problem: str) -> None:
    made = guard()
    with made.serving_stdio():
        assert asks(made, Policy()) == "alice"
        harm(file)
        with pytest.raises(MissingTokenError) as refused:
            asks(made, Policy())
        assert str(refused.value) == (
            f"The file that TOOLGUARD_ACCESS_TOKEN_FILE names {problem}: write an access token "
            "to it"
        )
        assert asks(made, Policy(public=True)) is None


@pytest.mark.parametrize("content", ["old", "é", "of alice", "\x00", "\ud800"])
def test_a_bad_token_leaves_public_operations_open(file: Path, content: str) -> None:
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    made = guard()
    with made.serving_stdio():
        with pytest.raises(InvalidTokenError):
            asks(made, Policy())
        assert asks(made, Policy(public=True)) is None


@pytest.mark.parametrize("by", ["TOOLGUARD_ACCESS_TOKEN", "TOOLGUARD_ACCESS_TOKEN_FILE"])
def test_a_whole_header_is_told_what_to_write(
    tmp_path: Path, environ: pytest.MonkeyPatch, by: str
) -> None:
    (tmp_path / "token").write_text("Bearer of-alice")
    environ.setenv(by, str(tmp_path / "token") if by.endswith("FILE") else "bearer of-alice")
    made = guard()
    with made.serving_stdio(), pytest.raises(InvalidTokenError) as refused:
        asks(made, Policy())

    said = str(refused.value).replace("The file that TOOLGUARD_ACCESS_TOKEN_FILE names", by)
    assert said == f"{by} has Bearer in it: write the token alone"


@pytest.mark.parametrize(
    ("by", "remedy"),
    [
        (
            "TOOLGUARD_ACCESS_TOKEN",
            "start this server with a new {}, or name a file in {}_FILE".format(
                *["TOOLGUARD_ACCESS_TOKEN"] * 2
            ),
        ),
        (
            "TOOLGUARD_ACCESS_TOKEN_FILE",
            "write a new one to the file that TOOLGUARD_ACCESS_TOKEN_FILE names",
        ),
    ],
)
def test_an_expired_token_says_how_to_renew_it(
    tmp_path: Path, environ: pytest.MonkeyPatch, by: str, remedy: str
) -> None:
    (tmp_path / "token").write_text("old")
    environ.setenv(by, str(tmp_path / "token") if by.endswith("FILE") else "old")
    made = guard()
    with made.serving_stdio(), pytest.raises(InvalidTokenError) as refused:
        asks(made, Policy())

    assert str(refused.value) == f"The access token has expired: {remedy}"


def test_without_a_token_only_what_is_public_is_open(caplog: pytest.LogCaptureFixture) -> None:
    made = guard()
    hint = (
        "Set TOOLGUARD_ACCESS_TOKEN or TOOLGUARD_ACCESS_TOKEN_FILE in the environment of this "
        "stdio server"
    )
    with made.serving_stdio():
        with pytest.raises(MissingTokenError, match=f"^{hint}$"):
            asks(made, Policy())
        assert asks(made, Policy(public=True)) is None
    assert f"only public operations can be used: {hint}" in caplog.messages


@pytest.mark.parametrize(
    "error",
    [
        InvalidTokenError("malformed", "The token cannot be read"),
        RuntimeError("a fault"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_a_token_that_cannot_be_verified_is_left_in_no_variable(
    environ: pytest.MonkeyPatch, error: BaseException
) -> None:
    class Failing:
        async def verify(self, token: str) -> Principal:
            del token
            raise error

    environ.setenv("TOOLGUARD_ACCESS_TOKEN", "of-alice-in-wonderland")
    made = guard(verifier=Failing())
    with made.serving_stdio():
        raised = failure(lambda: asks(made, Policy()))

    assert raised is error
    assert left_behind(raised, "of-alice-in-wonderland") == []


def test_a_token_beside_a_file_is_left_in_no_variable(
    file: Path, environ: pytest.MonkeyPatch
) -> None:
    environ.setenv("TOOLGUARD_ACCESS_TOKEN", "of-alice-in-wonderland")

    raised = failure(lambda: StdioToken.taken_from(os.environ))

    assert "not both" in str(raised)
    assert left_behind(raised, "of-alice-in-wonderland") == []


def test_a_bound_token_is_no_bearer_token_over_stdio(environ: pytest.MonkeyPatch) -> None:
    class Bound:
        async def verify(self, token: str) -> Principal:
            return Principal(token, "https://issuer.test", expires_at=math.inf, jkt="thumbprint")

    environ.setenv("TOOLGUARD_ACCESS_TOKEN", "of-alice")
    made = guard(verifier=Bound())
    with made.serving_stdio(), pytest.raises(InvalidTokenError, match="bound to a key"):
        asks(made, Policy())


def test_a_bearer_token_is_refused_over_stdio_where_tokens_are_bound(
    environ: pytest.MonkeyPatch,
) -> None:
    environ.setenv("TOOLGUARD_ACCESS_TOKEN", ISSUER.mint("alice"))
    settings = {"verifier": ISSUER.verifier(), "audience": ISSUER.audience}

    optional = guard(**settings, dpop="optional")
    with optional.serving_stdio():
        assert asks(optional, Policy()) == "alice"
    environ.setenv("TOOLGUARD_ACCESS_TOKEN", ISSUER.mint("alice"))
    required = guard(**settings, dpop="required")
    with required.serving_stdio(), pytest.raises(InvalidTokenError, match="Only tokens that"):
        asks(required, Policy())
