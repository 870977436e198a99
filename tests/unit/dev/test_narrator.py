"""How the demo is told: in which lines, colours and order."""

from __future__ import annotations

import io

import pytest

from toolguard.dev.story.mcp_client import HTTPExchange, Outcome
from toolguard.dev.story.narrator import Narrator, UnexpectedStepError

MCP = "http://127.0.0.1:8000/mcp"
ISSUER = "http://127.0.0.1:8800/P2dev"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def exchange(
    status: int = 200, about: str = "", *, method: str = "POST", url: str = MCP, challenge: str = ""
) -> HTTPExchange:
    headers = {"www-authenticate": challenge} if challenge else {}
    line = {200: "HTTP/1.1 200 OK", 403: "HTTP/1.1 403 Forbidden"}.get(status, f"HTTP/1.1 {status}")
    return HTTPExchange(method, url, about, status, line, headers)


def outcome(*exchanges: HTTPExchange) -> Outcome:
    return Outcome(
        ok=True,
        data=None,
        text="",
        connect_form=None,
        connect_url=None,
        exchanges=exchanges,
        exchange=exchanges[-1],
    )


STEP_UP = outcome(
    exchange(about="initialize"),
    exchange(202, "notifications/initialized"),
    exchange(method="GET"),
    exchange(401, "initialize"),
    exchange(method="GET", url=f"{ISSUER}/.well-known/openid-configuration"),
    exchange(201, url=f"{ISSUER}/register"),
    exchange(about="authorization_code", url=f"{ISSUER}/token"),
    exchange(about="tools/call create"),
    exchange(about="tools/list"),
    exchange(method="DELETE"),
)


def told(*visits: str, brief: bool = False) -> list[str]:
    out = io.StringIO()
    Narrator(out, {}).outcome(STEP_UP, visits, brief=brief)
    return [line.strip() for line in out.getvalue().splitlines() if "<" not in line]


def test_the_story_leaves_out_the_greetings_of_the_protocol() -> None:
    assert told("Sign in | Allow?") == [
        "> POST http://127.0.0.1:8000/mcp   (initialize)",
        "> GET http://127.0.0.1:8800/P2dev/.well-known/openid-configuration",
        "> POST http://127.0.0.1:8800/P2dev/register",
        "* in the browser: Sign in | Allow?",
        "> POST http://127.0.0.1:8800/P2dev/token   (authorization_code)",
        "> POST http://127.0.0.1:8000/mcp   (tools/call create)",
    ]


def test_in_brief_only_tokens_and_calls_are_told() -> None:
    assert told(brief=True) == [
        "> POST http://127.0.0.1:8800/P2dev/token   (authorization_code)",
        "> POST http://127.0.0.1:8000/mcp   (tools/call create)",
    ]


def test_pages_that_led_to_no_token_are_told_at_the_end() -> None:
    assert told("Allow?", "Go back", brief=True)[-1] == "* in the browser: Go back"


def test_colours_are_for_terminals_only() -> None:
    shown: list[str] = []
    for out, environ in (
        (Terminal(), {"TERM": "xterm"}),
        (Terminal(), {"NO_COLOR": "1"}),
        (Terminal(), {"TERM": "dumb"}),
        (io.StringIO(), {"TERM": "xterm"}),
    ):
        Narrator(out, environ).exchange(exchange(403))
        shown.append(out.getvalue())

    assert "\x1b[31m    < HTTP/1.1 403 Forbidden\x1b[0m" in shown[0]
    assert not any("\x1b" in text for text in shown[1:])


def test_on_a_terminal_long_lines_are_folded_and_lose_nothing() -> None:
    out = Terminal()
    challenge = "Bearer " + ", ".join(f'name{number}="value"' for number in range(30))

    Narrator(out, {"NO_COLOR": "1"}).exchange(exchange(403, challenge=challenge))

    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 100
    assert f"WWW-Authenticate: {challenge}" in " ".join(line.strip() for line in lines)


def test_a_challenge_stays_in_one_line_where_nobody_reads_it_on_a_terminal() -> None:
    out = io.StringIO()
    challenge = "Bearer " + ", ".join(f'name{number}="value"' for number in range(30))

    Narrator(out, {}).exchange(exchange(403, challenge=challenge))

    assert f"    < WWW-Authenticate: {challenge}\n" in out.getvalue()


def test_a_step_is_held_against_what_is_expected() -> None:
    out = io.StringIO()
    narrator = Narrator(out, {})
    narrator.step("Something happens.")
    narrator.expect((200, []), (200, []))

    with pytest.raises(UnexpectedStepError, match="expected 403, found 200"):
        narrator.expect(403, 200)
    narrator.failed("expected 403, found 200")

    assert out.getvalue() == ("\n 1. Something happens.\n    step 1: expected 403, found 200\n")
