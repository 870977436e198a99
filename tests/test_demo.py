"""The demo: what it tells, how, and that it notices when a step differs."""

from __future__ import annotations

import io
import re

import anyio
import pytest

from toolguard.cli import main
from toolguard.dev import story
from toolguard.dev.client import Exchange
from toolguard.dev.narrator import Narrator, UnexpectedStepError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def told() -> str:
    out = io.StringIO()
    anyio.run(story.tell, Narrator(out, {}))
    return out.getvalue()


def test_the_steps_show_the_status_lines_of_the_wire_in_order(told: str) -> None:
    assert re.findall(r"^    < (HTTP\S+ .+)$", told, re.MULTILINE) == [
        "HTTP/1.1 401 Unauthorized",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 403 Forbidden",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
    ]


def test_the_challenge_is_shown_as_it_was_sent(told: str) -> None:
    assert re.search(
        r'^    < WWW-Authenticate: Bearer error="insufficient_scope", scope="mcp:calendar.write", '
        r'resource_metadata="http://127\.0\.0\.1:\d+/\.well-known/oauth-protected-resource/mcp", '
        r'error_description="Token missing required scopes: mcp:calendar.write"$',
        told,
        re.MULTILINE,
    )


def test_the_event_is_in_the_calendar_at_the_end(told: str) -> None:
    assert told.endswith("2030-01-07T10:00:00Z  Design review, created by alice.\n")


def test_no_token_is_told(told: str) -> None:
    assert "ya29." not in told
    assert "eyJ" not in told


def test_it_is_told_in_ascii(told: str) -> None:
    assert told.isascii()


def test_the_command_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == 0

    shown = capsys.readouterr()
    assert shown.out.startswith("toolguard demo: ")
    assert shown.err == ""


def test_a_step_that_differs_ends_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "SCOPE_HIERARCHY", {})  # now a writer cannot read

    assert main(["demo"]) == 1

    assert "step 6: expected" in capsys.readouterr().out


def exchange(status_line: str = "HTTP/1.1 200 OK", **headers: str) -> Exchange:
    status = int(status_line.split()[1])
    return Exchange("POST", "http://127.0.0.1/mcp", status, status_line, headers)


def test_colours_are_for_terminals_only() -> None:
    shown: list[str] = []
    for out, environ in (
        (Terminal(), {"TERM": "xterm"}),
        (Terminal(), {"NO_COLOR": "1"}),
        (Terminal(), {"TERM": "dumb"}),
        (io.StringIO(), {"TERM": "xterm"}),
    ):
        Narrator(out, environ).exchange(exchange("HTTP/1.1 403 Forbidden"))
        shown.append(out.getvalue())

    assert "\x1b[31m    < HTTP/1.1 403 Forbidden\x1b[0m" in shown[0]
    assert not any("\x1b" in text for text in shown[1:])


def test_on_a_terminal_long_lines_are_folded_and_lose_nothing() -> None:
    out = Terminal()
    header = ", ".join(f'name{number}="value"' for number in range(30))

    Narrator(out, {"NO_COLOR": "1"}).exchange(exchange(**{"x-long": header}), "X-Long")

    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert f"X-Long: {header}" in " ".join(line.strip() for line in lines)


def test_a_step_is_held_against_what_is_expected() -> None:
    narrator = Narrator(io.StringIO(), {})
    narrator.step("Something happens.")
    narrator.expect((200, []), (200, []))

    with pytest.raises(UnexpectedStepError, match=r"step 1: expected 403, found 200"):
        narrator.expect(403, 200)
