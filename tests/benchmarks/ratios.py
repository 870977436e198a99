"""How much slower is one thing than another, measured in one run?

The two take turns, so that a machine whose speed drifts slows both; what is printed is the
median of the pairwise ratios, with the quartiles.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

Batch = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Ratio:
    """The cost of ``name`` relative to its baseline."""

    name: str
    aim: str
    median: float
    low: float
    high: float
    seconds: float
    baseline_seconds: float

    def __str__(self) -> str:
        return (
            f"{self.name:<58} {self.median:6.3f}  [{self.low:.3f} .. {self.high:.3f}]"
            f"  aim {self.aim:<9}"
            f" {self.seconds * 1e6:9.1f} µs / {self.baseline_seconds * 1e6:.1f} µs"
        )


async def compare(
    name: str, aim: str, measured: Batch, baseline: Batch, *, size: int, rounds: int = 31
) -> Ratio:
    """Time batches of ``size`` calls of both in turn and return the ratio per call."""
    await measured()
    await baseline()
    pairs = []
    for turn in range(rounds):
        order = (measured, baseline) if turn % 2 else (baseline, measured)
        times = {batch: await _time(batch) for batch in order}
        pairs.append((times[measured] / size, times[baseline] / size))
    ratios = sorted(a / b for a, b in pairs)
    low, median, high = statistics.quantiles(ratios, n=4)
    return Ratio(
        name,
        aim,
        median,
        low,
        high,
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


async def _time(batch: Batch) -> float:
    start = time.perf_counter()
    await batch()
    return time.perf_counter() - start


def run(*comparisons: Callable[[], Awaitable[Ratio]]) -> None:
    """Run the comparisons one after the other and print a line for each."""
    for comparison in comparisons:
        print(asyncio.run(_as_coroutine(comparison)), flush=True)


async def _as_coroutine(comparison: Callable[[], Awaitable[Ratio]]) -> Ratio:
    return await comparison()
