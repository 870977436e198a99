"""What does a guard cost over HTTP? ``python -m tests.benchmarks``; prints, asserts no time.

A server process of its own for each arm on one core, a raw keep-alive client on the other. The
arms take turns, batch by batch; a ratio is that of two batches of one round, and what is printed
is the median over the rounds, with the quartiles.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import chain, product
from typing import Literal

from toolguard.testing import LocalIssuer

from .arms import ALGORITHMS, ARMS, LINES, MODES, RECORD_ARMS, SCOPE, Trust
from .wire import MODERN, Connection, request

__all__: list[str] = []

_LEGACY = "2025-11-25"
_AUDIENCE = "http://127.0.0.1:8000/mcp"
_FEW, _MANY = 10, 5_000
# Rounds of a race, however slow the machine is.
_FEWEST = 2


@dataclass(frozen=True)
class Effort:
    """How long a race takes, and how many calls an arm makes in a turn."""

    seconds: float
    size: int


@dataclass(frozen=True)
class Arm:
    """What takes its turn in a race.

    Attributes:
        name: what it is called in the table.
        connection: to its server.
        prepare: returns so many requests.
        status: what each of them is answered with.
    """

    name: str
    connection: Connection
    prepare: Callable[[int], list[bytes]]
    status: int = 200


@dataclass(frozen=True)
class Lap:
    """What one batch took for each call, in µs: on the clock, and of the server's CPU."""

    wall: float
    cpu: float


class Issuers:
    """Who mints the tokens, one issuer for each algorithm."""

    def __init__(self) -> None:
        self._issuers: dict[str, LocalIssuer] = {
            name: LocalIssuer("https://issuer.test", audience=_AUDIENCE, algorithm=name)
            for name in ALGORITHMS
        }

    @property
    def trusts(self) -> list[Trust]:
        """What servers have to know of them."""
        return [
            Trust(each.issuer, each.audience, each.algorithm, each.jwks()["keys"][0])
            for each in self._issuers.values()
        ]

    def mint(self, algorithm: str, scope: str = SCOPE) -> str:
        """Return a new token."""
        return self._issuers[algorithm].mint("alice", scopes=[scope])


def race(arms: Sequence[Arm], effort: Effort) -> list[list[Lap]]:
    """Let the arms take turns; return what each one took, round by round."""
    for arm in arms:  # what happens once does not count
        _lap(arm, max(effort.size // 2, 1))
    laps: list[list[Lap]] = [[] for _ in arms]
    end = time.monotonic() + effort.seconds
    while len(laps[0]) < _FEWEST or time.monotonic() < end:
        turn = len(laps[0])
        for index in range(len(arms)):
            at = (index + turn) % len(arms)
            laps[at].append(_lap(arms[at], effort.size))
    return laps


def _lap(arm: Arm, size: int) -> Lap:
    requests, connection = arm.prepare(size), arm.connection
    used, begun = connection.cpu(), time.perf_counter_ns()
    statuses = {connection.status(each) for each in requests}
    wall, cpu = time.perf_counter_ns() - begun, connection.cpu() - used
    if statuses != {arm.status}:
        raise RuntimeError(f"{arm.name}: {connection.exchange(requests[-1])!r}")
    return Lap(wall / size / 1e3, cpu / size / 1e3)


def _told(name: str, arms: Sequence[Arm], laps: Sequence[Sequence[Lap]]) -> str:
    """Return the row of a race; the first arm is what the others are held against."""
    first = laps[0]
    wall = statistics.median(lap.wall for lap in first)
    cpu = statistics.median(lap.cpu for lap in first)
    cells = [f"{name:<30} {wall:5.0f} µs, CPU {cpu:5.0f}"]
    for arm, taken in zip(arms[1:], laps[1:], strict=True):
        pairs = list(zip(taken, first, strict=True))
        low, ratio, high = statistics.quantiles((a.wall / b.wall for a, b in pairs), n=4)
        extra = statistics.median(a.wall - b.wall for a, b in pairs)
        cpu = statistics.median(a.cpu / b.cpu for a, b in pairs)
        cells.append(
            f"{arm.name} {ratio:.2f} [{low:.2f}..{high:.2f}] {extra:+5.0f} µs, CPU {cpu:.2f} "
            f"{statistics.median(a.cpu - b.cpu for a, b in pairs):+5.0f} µs"
        )
    return "  |  ".join([*cells, f"{len(first)} rounds"])


# --- the servers


@contextmanager
def _served(
    line: str, arm: str, tools: int, trusts: list[Trust], core: int | None
) -> Iterator[int]:
    """Run a server in a process of its own; yields its port."""
    modes = list(MODES)
    if tools != _FEW:  # measured in one way only, as so many take long to register
        trusts, modes = trusts[:1], modes[:1]
    words = [line, arm, ",".join(modes), str(tools), "-" if core is None else str(core)]
    with subprocess.Popen(
        [sys.executable, "-m", f"{__package__}.serving", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([asdict(each) for each in trusts]) + "\n")
        process.stdin.flush()
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()
            process.kill()


def _cores() -> tuple[int, int] | tuple[None, None]:
    """Return the cores of server and client; None where they cannot be had."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)


# --- what is measured


@dataclass(frozen=True)
class Bench:
    """One line's servers, ready to be measured."""

    issuers: Issuers
    connections: dict[tuple[str, int], Connection]

    def arm(
        self,
        name: str,
        mode: str,
        algorithm: str,
        revision: str,
        *,
        tokens: Callable[[int], list[str]],
        tools: int = _FEW,
        status: int = 200,
    ) -> Arm:
        """Return one arm, with its session if it needs one."""
        connection, path = self.connections[name, tools], f"/{mode}/{algorithm}"
        session = None
        if not MODES[mode][0]:
            session = connection.open_session(path, revision, tokens(1)[0])
        params = {"name": "echo", "arguments": {"text": "x"}}

        def prepare(size: int) -> list[bytes]:
            return [
                request(path, revision, token, "tools/call", params, session)
                for token in tokens(size)
            ]

        return Arm(name, connection, prepare, status)

    def seen(self, algorithm: str, scope: str = SCOPE) -> Callable[[int], list[str]]:
        """Return what gives one token again and again."""
        token = self.issuers.mint(algorithm, scope)
        return lambda size: [token] * size

    def new(self, algorithm: str) -> Callable[[int], list[str]]:
        """Return what gives another token each time."""
        return lambda size: [self.issuers.mint(algorithm) for _ in range(size)]


def _records(bench: Bench, line: str, effort: Effort) -> Iterator[str]:
    """Yield what decision records cost, held against a guard that makes none."""
    for revision in _revisions(line):
        seen = bench.seen("RS256")
        arms = [bench.arm(each, "JSON", "RS256", revision, tokens=seen) for each in RECORD_ARMS]
        yield _told(f"records {revision}", arms, race(arms, effort))


def _revisions(line: str) -> list[str]:
    return [_LEGACY] if line in {"mcp1", "fastmcp3"} else [_LEGACY, MODERN]


def _cells(bench: Bench, line: str, effort: Effort) -> Iterator[str]:
    revisions = _revisions(line)
    ages: tuple[Literal["seen", "new"], ...] = ("seen", "new")
    for revision, mode, algorithm, age in product(revisions, MODES, ALGORITHMS, ages):
        if revision == MODERN and not MODES[mode][0]:
            continue  # it knows no sessions
        tokens = bench.seen(algorithm) if age == "seen" else bench.new(algorithm)
        arms = [bench.arm(each, mode, algorithm, revision, tokens=tokens) for each in ARMS]
        name = f"{mode} {algorithm} {age} {revision}"
        yield _told(name, arms, race(arms, effort))
    for revision in revisions:
        yield _refusals(bench, revision, effort)
    for tools in (_FEW, _MANY):
        seen = bench.seen("RS256")
        arms = [
            bench.arm(each, "JSON", "RS256", _LEGACY, tokens=seen, tools=tools) for each in ARMS[:2]
        ]
        yield _told(f"JSON RS256 seen, {tools} tools", arms, race(arms, effort))


def _refusals(bench: Bench, revision: str, effort: Effort) -> str:
    served = bench.arm("toolguard", "JSON", "RS256", revision, tokens=bench.seen("RS256"))
    poor = bench.seen("RS256", "calendar.read")
    refused = bench.arm("toolguard", "JSON", "RS256", revision, tokens=poor, status=403)
    arms = [served, Arm("403", refused.connection, refused.prepare, refused.status)]
    return _told(f"served, then 403 {revision}", arms, race(arms, effort))


def _measure(line: str, effort: Effort, *, only_records: bool) -> None:
    server_core, client_core = _cores()
    issuers = Issuers()
    with ExitStack() as stack:
        wanted = [(arm, _FEW) for arm in RECORD_ARMS]
        if not only_records:
            wanted += [(arm, _FEW) for arm in ARMS if arm not in RECORD_ARMS]
            wanted += [(arm, _MANY) for arm in ARMS[:2]]
        connections = {}
        for arm, tools in wanted:
            served = _served(line, arm, tools, issuers.trusts, server_core)
            port = stack.enter_context(served)
            connections[arm, tools] = Connection(port)
            stack.callback(connections[arm, tools].close)
        if client_core is not None:
            os.sched_setaffinity(0, {client_core})
        try:
            bench = Bench(issuers, connections)
            cells = iter(()) if only_records else _cells(bench, line, effort)
            for row in chain(cells, _records(bench, line, effort)):
                print(f"{line:<8}  {row}", flush=True)
        finally:
            if client_core is not None and server_core is not None:
                os.sched_setaffinity(0, {server_core, client_core})


def _import_cost() -> str:
    code = "import time; t = time.process_time(); import toolguard; print(time.process_time() - t)"
    command = [sys.executable, "-c", code]
    taken = [float(subprocess.check_output(command, text=True)) * 1e3 for _ in range(9)]
    low, median, high = statistics.quantiles(taken, n=4)
    return f"import toolguard: {median:.0f} ms CPU [{low:.0f}..{high:.0f}]"


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.benchmarks")
    parser.add_argument("--quick", action="store_true", help="about a minute for each line")
    parser.add_argument("--line", choices=LINES, action="append", help="which; by default all")
    parser.add_argument("--records", action="store_true", help="only what decision records cost")
    given = parser.parse_args()
    effort = Effort(1.5, 15) if given.quick else Effort(12, 30)
    if None in _cores():
        print("one core for server and client: the figures say little")
    for line in given.line or LINES:
        _measure(line, effort, only_records=given.records)
    print(_import_cost())


if __name__ == "__main__":
    _main()
