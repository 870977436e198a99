"""Hold a deployment under load while what it depends on fails, and count."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from endurance.load import Answer, Call, Caller, Tally, calling
from endurance.world import World
from support.deployed import Worker

__all__ = ["Figures", "endure"]

_HOUR = 3_600.0
# How often each connection calls all tools in a phase, at least; a turn may have begun before it.
_TURNS = 2
# A shorter run kills a worker once only: each start of one takes seconds.
_LONG = 60.0
_SCOPES = {"alice": ["notes.read", "notes.write"], "bob": ["notes.read"], "carol": ["notes.write"]}
_ALL_WELL, _AGAIN = "all is well", "all is well again"


@dataclass(frozen=True)
class Figures:
    """What came of it.

    Attributes:
        seconds: how long the load was on.
        tally: the calls.
        memory: the resident memory of each worker at the start and at the end, in MiB; the first
            one was killed and started again in between.
        unrecorded: the answers without a record.
        gone: those of them that were in the memory of the killed worker.
        records_lost: what the workers counted as lost.
    """

    seconds: float
    tally: Tally
    memory: list[tuple[float, float]]
    unrecorded: int
    gone: int
    records_lost: int

    @property
    def unrecovered(self) -> list[Call]:
        """The calls in the last phase that were not answered as in the first."""
        failed = ("outage of keys", "outage of the vault", "lost")
        return [c for c in self.tally.calls if c.phase == _AGAIN and c.answer in failed]

    @property
    def faults(self) -> list[str]:
        """What must not be, in words; empty if all is well."""
        counted = {
            "wrong answers": len(self.tally.wrong),
            "calls lost that were not in flight at a killed worker": len(
                self.tally.lost_without_reason
            ),
            "outages after everything was up again": len(self.unrecovered),
            "records lost": self.records_lost + self.unrecorded - self.gone,
        }
        return [f"{number} {name}" for name, number in counted.items() if number]

    def __str__(self) -> str:
        tally = self.tally
        rows = [
            f"calls               {len(tally.calls)} in {self.seconds:.0f} s",
            f"wrong answers       {len(tally.wrong)}",
            f"calls lost          {tally.count('lost')}",
            f"  not in flight     {len(tally.lost_without_reason)}",
            f"503                 {tally.count('outage of keys')}",
            f"vault unavailable   {tally.count('outage of the vault')}",
            f"outages at the end  {len(self.unrecovered)}",
            f"records lost        {self.records_lost + self.unrecorded - self.gone}",
            f"  killed meanwhile  {self.gone}",
            *(
                f"memory of worker {n}  {before:.0f} MiB at the start, {after:.0f} at the end"
                for n, (before, after) in enumerate(self.memory)
            ),
            "",
        ]
        for phase, answers in tally.by_phase.items():
            told = ", ".join(f"{name} {number}" for name, number in answers.most_common())
            rows.append(f"{phase}: {told}")
        rows += [f"WRONG {call.phase}: {call.detail[:300]}" for call in tally.wrong[:10]]
        lost = tally.lost_without_reason[:10]
        rows += [f"LOST {call.phase}: {call.detail[:300]}" for call in lost]
        rows += [f"AT THE END {call.detail[:300]}" for call in self.unrecovered[:10]]
        return "\n".join(rows)


def endure(directory: Path, seconds: float, connections: int = 2) -> Figures:
    """Run everything in ``directory`` for about so long, and return what was counted.

    Args:
        directory: an empty folder, which other users may enter.
        seconds: for how long; starts of workers come on top, and each phase takes as long as every
            caller needs to call every tool.
        connections: how many each caller has.
    """
    with World(directory) as world:
        return asyncio.run(_Endurance(world, seconds, connections).run())


class _Endurance:
    """One run.

    Args:
        world: everything that runs.
        seconds: for how long, at least.
        connections: how many each caller has.
    """

    def __init__(self, world: World, seconds: float, connections: int) -> None:
        self._world = world
        self._tally = Tally()
        self._tokens: dict[str, str] = {}
        self._seconds = seconds
        self._connections = connections
        self._load: list[asyncio.Task[None]] = []
        # A long run goes through the phases more than once.
        self._rounds = max(1, round(seconds / 150))
        self._span = seconds / (self._rounds * 7 + 2)

    async def run(self) -> Figures:
        """Run the load and the faults."""
        self._mint()
        trust = ssl.create_default_context(cafile=str(self._world.certificates.authority))
        started = time.monotonic()
        self._tally.phase = _ALL_WELL
        url = self._world.issuer.audience
        load = self._load = [
            asyncio.create_task(calling(caller, url, trust, self._tally, f"{number}"))
            for number, caller in enumerate(self._callers() * self._connections)
        ]
        try:
            await self._in_phase(_ALL_WELL)
            before = self._memory()
            for _ in range(self._rounds):
                await self._faults()
            await asyncio.to_thread(self._world.wait_until_ready)
            await self._in_phase(_AGAIN)
            done = [task for task in load if task.done()]
        finally:
            for task in load:
                task.cancel()
            await asyncio.gather(*load, return_exceptions=True)
        for task in done:
            task.result()
        after = self._memory()
        lost = await asyncio.to_thread(self._world.records_lost)
        for worker in self._world.workers:
            await asyncio.to_thread(worker.stop)  # which hands out all records
        unrecorded, gone = self._tally.unrecorded(self._world.records)
        memory = list(zip(before, after, strict=True))
        took = time.monotonic() - started
        return Figures(took, self._tally, memory, unrecorded, gone, lost)

    def _callers(self) -> list[Caller]:
        def holds(name: str) -> Callable[[], str | None]:
            return lambda: self._tokens.get(name)

        refused: dict[str, Answer] = {"read": "invalid_token", "mail": "invalid_token"}
        return [
            Caller("alice", holds("alice"), dict.fromkeys(("read", "write", "mail"), "served")),
            Caller(
                "bob",
                holds("bob"),
                {"read": "served", "write": "insufficient_scope", "mail": "served"},
            ),
            Caller(
                "carol",
                holds("carol"),
                {"read": "insufficient_scope", "write": "served", "mail": "not_connected"},
            ),
            Caller("alice", holds("expired"), refused),
            Caller("alice", holds("elsewhere"), refused),
            Caller("stranger", lambda: None, {"read": "missing_token", "mail": "missing_token"}),
        ]

    def _mint(self) -> None:
        issuer = self._world.issuer
        for name, scopes in _SCOPES.items():
            self._tokens[name] = issuer.mint(name, scopes=scopes, expires_in=_HOUR / 2)
        self._tokens["expired"] = issuer.mint_expired("alice", scopes=["notes.read"])
        self._tokens["elsewhere"] = issuer.mint_wrong_audience("alice", scopes=["notes.read"])

    async def _faults(self) -> None:
        world = self._world
        worker = world.workers[0]
        await self._in_phase("the key is rotated", self._rotate)
        await self._in_phase("Redis is down", world.redis.kill, world.redis.start)
        await self._in_phase("Postgres is down", world.postgres.kill, world.postgres.start)
        await self._in_phase("the clock is an hour ahead", self._ahead, self._back)
        if self._seconds >= _LONG:
            await self._in_phase("a worker is killed", lambda: self._kill(worker), worker.start)
        await self._in_phase(
            "a worker starts while the issuer is down", self._restart_alone, world.start_issuer
        )
        await self._in_phase("the issuer is back")

    async def _in_phase(
        self,
        name: str,
        begin: Callable[[], object] = lambda: None,
        end: Callable[[], object] = lambda: None,
    ) -> None:
        self._tally.phase = name
        await asyncio.to_thread(begin)
        turns = self._tally.turns
        wanted = {f"{number}": turns[f"{number}"] + _TURNS for number in range(len(self._load))}
        await asyncio.sleep(self._span)
        while any(turns[name] < number for name, number in wanted.items()):
            if any(task.done() for task in self._load):
                return  # it has failed, which the end of the run tells
            await asyncio.sleep(0.05)
        await asyncio.to_thread(end)

    def _kill(self, worker: Worker) -> None:
        self._tally.kills.append(time.monotonic())
        worker.kill()

    def _restart_alone(self) -> None:
        self._world.stop_issuer()
        self._kill(self._world.workers[0])
        self._world.workers[0].start()

    def _rotate(self) -> None:
        self._world.issuer.rotate()
        self._mint()

    def _ahead(self) -> None:
        """Move the clock; what was minted before is then expired, and must not be accepted."""
        self._move(_HOUR, keep="expired")

    def _back(self) -> None:
        self._move(-_HOUR)

    def _move(self, seconds: float, keep: str | None = None) -> None:
        old = self._tokens["alice"]
        self._tally.moves.append(time.monotonic())
        self._world.clock.move(seconds)
        self._mint()
        if keep is not None:
            self._tokens[keep] = old
        self._tally.moves.append(time.monotonic())

    def _memory(self) -> list[float]:
        return [_resident(worker.pid) for worker in self._world.workers]


def _resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(found) / 1_024
