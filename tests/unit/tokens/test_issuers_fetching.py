"""When may an endpoint be asked again?"""

from __future__ import annotations

import pytest

from toolguard.tokens.fetching import parse_retry_after


@pytest.mark.parametrize("value", ["", "soon", "-1", "1.5", "\u0661", "Thu, 99 Jan 1970"])
def test_a_time_that_cannot_be_read_is_none(value: str) -> None:
    assert parse_retry_after(value, 0.0) is None


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("9" * 400, 86_400),
        ("Thu, 01 Jan 1970 00:00:30 GMT", 30),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 86_400),
    ],
)
def test_a_time_is_seconds_or_a_date_within_a_day(value: str, seconds: int) -> None:
    assert parse_retry_after(value, 10.0 if seconds == 0 else 0.0) == seconds
