"""Are look-ups of kept grants measured, and held to the limit of their database?

``python -m tests.endurance --hits 5000`` is the measurement.
"""

from __future__ import annotations

from pathlib import Path

from endurance.hits import HitFigures, measure_hits


def test_each_look_up_of_a_kept_grant_is_measured(tmp_path: Path) -> None:
    figures = measure_hits(tmp_path, 20, ["sqlite"])

    assert len(figures.milliseconds["sqlite"]) == 20
    assert "20 hits of 100 users" in str(figures)


def test_a_store_hit_that_is_too_slow_at_the_median_is_a_fault() -> None:
    quick, slow = [0.5, 0.6, 99.0], [0.5, 2.1, 2.2]

    assert HitFigures({"sqlite": quick, "postgres": quick}).faults == []
    assert HitFigures({"postgres": slow}).faults == [
        "postgres: a store hit takes more than 2.0 ms at the median"
    ]
