"""Which of the ways of speaking to a framework are tried?"""

from __future__ import annotations

from itertools import combinations

import pytest

from support.lines import ALL_MODES, LINES, MODES, Line, Mode


def settings(mode: Mode) -> tuple[object, ...]:
    return mode.protocol, mode.stateless, mode.json


@pytest.mark.parametrize("line", LINES, ids=str)
@pytest.mark.parametrize(("one", "other"), [*combinations(range(3), 2)])
def test_every_pair_of_settings_is_tried_on_every_line(line: Line, one: int, other: int) -> None:
    def pairs(modes: list[Mode]) -> set[tuple[object, object]]:
        known = (settings(mode) for mode in modes if mode.line == line)
        return {(each[one], each[other]) for each in known}

    assert pairs(MODES) == pairs(ALL_MODES)


@pytest.mark.skipif(len(LINES) < 2, reason="half of the modes are tried on another line")
def test_all_settings_together_are_tried_on_one_line() -> None:
    assert {settings(mode) for mode in MODES} == {settings(mode) for mode in ALL_MODES}
