"""Which headers does a guard read?"""

from __future__ import annotations

import pytest

from toolguard.http.middleware import SentHeaders

REVISION = b"mcp-protocol-version"


def test_one_pass_finds_everything_a_guard_reads() -> None:
    sent = SentHeaders(
        [
            (b"host", b"mcp.example.com"),
            (b"authorization", b"Bearer abc"),
            (b"content-length", b"2"),
            (REVISION, b" 2025-11-25\t"),
            (b"mcp-session-id", b"s\xe9"),
            (b"last-event-id", b"e"),
        ]
    )

    assert sent.authorization == [b"Bearer abc"]
    assert sent.revision == "2025-11-25"
    assert (sent.sessions, sent.events) == (["s\xe9"], ["e"])


@pytest.mark.parametrize("name", [b"mcp-session-id", b"Mcp-Session-Id", b"mcp_session-id"])
def test_a_session_is_found_in_every_spelling_of_its_header(name: bytes) -> None:
    assert SentHeaders([(name, b"a"), (b"mcp-session-id", b"b")]).sessions == ["a", "b"]


@pytest.mark.parametrize("name", [b"last-event-id", b"LAST_EVENT-ID"])
def test_an_event_is_found_in_every_spelling_of_its_header(name: bytes) -> None:
    assert SentHeaders([(name, b"1")]).events == ["1"]
    assert SentHeaders([(b"last.event-id", b"1")]).events == []


@pytest.mark.parametrize(
    ("values", "revision"),
    [
        ([], None),
        ([b"2026-07-28"], "2026-07-28"),
        ([b"2026-07-28", b" 2026-07-28 "], "2026-07-28"),
        ([b"2026-07-28", b"2025-11-25"], None),
        ([b"2026-07-28\n"], None),
        ([b"2026-7-28"], None),
        ([b""], None),
    ],
)
def test_a_revision_counts_only_if_it_is_one(values: list[bytes], revision: str | None) -> None:
    assert SentHeaders([(REVISION, value) for value in values]).revision == revision
