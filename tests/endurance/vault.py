"""Hold a vault in Postgres to what it promises about refreshes, with several processes, and count.

Many calls of one user at expiry in four processes; Postgres killed and started again under load;
a process killed after each step of a refresh. The service replaces a refresh token at each use.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from endurance.vault_process import ISSUER, NAME, STEPS, Step, Task, asked, open_vault
from support.vault_database import PostgresCluster
from toolguard.errors import ConnectionRequiredError, ConnectionTokenError
from toolguard.testing import Loopback
from toolguard.vault import Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = ["VaultFigures", "hold_vault"]

_PROCESSES = 4
_USERS = 8
# Longer than a refresh is claimed.
_LATER = 31.0
# After these steps the service has replaced the refresh token, and the new one is lost.
_SPENT: tuple[Step, ...] = ("sent", "answered")


class Service:
    """A token endpoint that replaces refresh tokens: each is good for one refresh."""

    def __init__(self, lifetime: int) -> None:
        self.lifetime = lifetime
        self.delay = 0.0
        self.victims: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.usable: set[str] = set()
        self.refreshes = Counter[str]()
        self.refused = Counter[str]()
        self.app = Starlette(routes=[Route("/token", self._token, methods=["POST"])])

    def grant(self, user: str, *, is_expired: bool = False) -> Grant:
        now = time.time()
        access_token, refresh_token = self._new(user)
        expires_at = now - 1 if is_expired else now + self.lifetime
        return Grant(access_token, refresh_token, expires_at=expires_at, obtained_at=now - 3_600)

    def _new(self, user: str) -> tuple[str, str]:
        number = len(self.owners)
        tokens = f"access-{number}", f"refresh-{number}"
        self.owners |= dict.fromkeys(tokens, user)
        self.usable.add(tokens[1])
        return tokens

    async def _token(self, request: Request) -> JSONResponse:
        sent = dict(parse_qsl((await request.body()).decode()))["refresh_token"]
        user = self.owners[sent]
        if sent not in self.usable:
            self.refused[user] += 1
            return JSONResponse({"error": "invalid_grant"}, 400)
        self.usable.remove(sent)
        self.refreshes[user] += 1
        access_token, refresh_token = self._new(user)
        if user in self.victims:
            os.kill(self.victims.pop(user), signal.SIGKILL)
        if self.delay:
            await asyncio.sleep(self.delay)
        tokens = {"access_token": access_token, "refresh_token": refresh_token}
        return JSONResponse({**tokens, "token_type": "Bearer", "expires_in": self.lifetime})


@dataclass
class VaultFigures:
    """What came of it.

    Attributes:
        at_once: the calls of one user at expiry, in four processes.
        refreshes: how often the service was asked for that.
        answers: the calls under load while Postgres was killed, by what they got.
        kills: how often Postgres was killed.
        refreshed: how often the service was asked meanwhile.
        lost: the grants that were lost meanwhile, though the service had lost none.
        foreign: the tokens that came to another user.
        deaths: what the next call got after a process was killed, by step.
        faults: what must not be, in words.
    """

    at_once: int = 0
    refreshes: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    refreshed: int = 0
    lost: int = 0
    foreign: int = 0
    deaths: dict[Step, Counter[str]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        deaths = [
            f"killed when {step:9} {', '.join(f'{n} {what}' for what, n in found.items())}"
            for step, found in self.deaths.items()
        ]
        return "\n".join(
            [
                f"calls at expiry       {self.at_once} in {_PROCESSES} processes",
                f"  refreshes           {self.refreshes}",
                f"Postgres killed       {self.kills} times",
                f"  calls               {self.answers.total()}: {dict(self.answers)}",
                f"  refreshes           {self.refreshed}",
                f"  grants lost         {self.lost}",
                f"  tokens of others    {self.foreign}",
                *deaths,
            ]
        )


def hold_vault(directory: Path, *, calls: int, kills: int, rounds: int) -> VaultFigures:
    """Run all of it.

    Args:
        directory: a folder that other users may enter: Postgres runs as one of them.
        calls: the calls of one user at expiry.
        kills: how often Postgres is killed.
        rounds: how often a process is killed at each step.
    """
    cluster = PostgresCluster(directory)
    cluster.start()
    # Refreshed from a second after they are issued: 60 before they expire.
    service = Service(lifetime=61)
    try:
        with Loopback(service.app) as server:
            return asyncio.run(_Trial(cluster, service, server.url).run(calls, kills, rounds))
    finally:
        cluster.kill()


class _Trial:
    """A vault in Postgres, a service, and what was counted."""

    def __init__(self, cluster: PostgresCluster, service: Service, url: str) -> None:
        self._cluster = cluster
        self._service = service
        self._url = url
        self._figures = VaultFigures()

    async def run(self, calls: int, kills: int, rounds: int) -> VaultFigures:
        await self._expire_at_once(calls)
        await self._kill_postgres(kills)
        for step in STEPS:
            self._figures.deaths[step] = Counter()
        for number in range(rounds):
            await self._kill_processes(number)
        return self._figures

    async def _expire_at_once(self, calls: int) -> None:
        service, figures = self._service, self._figures
        service.delay = 0.2
        async with self._vault() as vault:
            await self._connect(vault, "crowd", is_expired=True)
        tasks = [self._task("crowd", calls=calls // _PROCESSES)] * _PROCESSES
        found = await _in_processes(tasks, {})
        service.delay = 0.0
        tokens = sum((Counter(each) for each in found if each is not None), Counter[str]())
        figures.at_once, figures.refreshes = tokens.total(), service.refreshes["crowd"]
        if figures.refreshes != 1 or len(tokens) != 1 or tokens.total() != calls:
            figures.faults.append(f"{calls} calls at expiry: {dict(tokens)}")

    async def _kill_postgres(self, kills: int) -> None:
        service, figures = self._service, self._figures
        users = [f"user-{number}" for number in range(_USERS)]
        async with self._vault() as one, self._vault() as other:
            for user in users:
                await self._connect(one, user)
            stop = asyncio.Event()
            callers = [
                asyncio.ensure_future(self._call(vault, user, stop))
                for user in users
                for vault in (one, other)
            ]
            for _ in range(kills):
                await asyncio.sleep(random.uniform(0.5, 2.0))
                await asyncio.to_thread(self._cluster.kill)
                await asyncio.sleep(random.uniform(0.0, 0.5))
                await asyncio.to_thread(self._cluster.start)
                figures.kills += 1
            stop.set()
            await asyncio.gather(*callers)
            # A refresh of a moment ago may still be claimed by a process that could not release it.
            later = open_vault(self._task("", later=_LATER))
            for user in users:
                await self._count(later, user, at_the_end=True)
            await later.aclose()
        figures.refreshed = sum(service.refreshes[user] for user in users)
        figures.lost = sum(service.refused[user] for user in users)
        if figures.lost or figures.foreign or figures.answers["ConnectionRequiredError"]:
            figures.faults.append(f"{figures.lost} grants lost, {figures.foreign} tokens of others")

    async def _call(self, vault: Vault, user: str, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._count(vault, user)
            await asyncio.sleep(random.uniform(0.0, 0.1))

    async def _count(self, vault: Vault, user: str, *, at_the_end: bool = False) -> None:
        figures = self._figures
        try:
            token = (await vault.fetch(asked(user))).token
        except ConnectionTokenError as error:
            figures.answers[type(error).__name__] += 1
            if at_the_end:
                figures.faults.append(f"at the end, {user} got {error!r}")
            return
        figures.answers["served"] += 1
        figures.foreign += self._service.owners[token] != user

    async def _kill_processes(self, number: int) -> None:
        users: dict[Step, str] = {step: f"{step}-{number}" for step in STEPS}
        async with self._vault() as vault:
            for user in users.values():
                await self._connect(vault, user, is_expired=True)
        tasks = [self._task(user, dies_at=step) for step, user in users.items()]
        found = await _in_processes(tasks, self._service.victims)
        if found != [None] * len(STEPS):
            self._figures.faults.append(f"a process was not killed: {found}")
        later = open_vault(self._task("", later=_LATER))
        for step, user in users.items():
            self._check_death(step, user, await self._outcome(later, user))
        await later.aclose()

    def _check_death(self, step: Step, user: str, outcome: str) -> None:
        self._figures.deaths[step][outcome] += 1
        expected = "connect again" if step in _SPENT else "served"
        if outcome != expected:
            self._figures.faults.append(f"{user}: {outcome} instead of {expected}")

    async def _outcome(self, vault: Vault, user: str) -> str:
        try:
            token = (await vault.fetch(asked(user))).token
        except ConnectionRequiredError:
            return "connect again"
        except ConnectionTokenError as error:
            return type(error).__name__
        return "served" if self._service.owners[token] == user else "token of another"

    async def _connect(self, vault: Vault, user: str, *, is_expired: bool = False) -> None:
        owner = Owner(ISSUER, user)
        grant = self._service.grant(user, is_expired=is_expired)
        await vault.keep(GrantKey(owner, NAME), grant, owner)

    def _task(
        self, user: str, *, calls: int = 1, dies_at: Step | None = None, later: float = 0.0
    ) -> Task:
        return Task(self._cluster.url, self._url, user, calls, dies_at, later)

    @asynccontextmanager
    async def _vault(self) -> AsyncIterator[Vault]:
        vault = open_vault(self._task(""))
        try:
            yield vault
        finally:
            await vault.aclose()


async def _in_processes(tasks: list[Task], victims: dict[str, int]) -> list[dict[str, int] | None]:
    """Perform tasks, all beginning at once; None for each process that was killed.

    Args:
        tasks: the tasks.
        victims: gets the processes that the service is to kill, by their user.
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), str(root / "tests")])}
    pipe = subprocess.PIPE
    parent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "endurance.vault_process"),
        stdin=pipe,
        stdout=pipe,
        env=environment,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    parent.stdin.write(json.dumps([asdict(task) for task in tasks]).encode() + b"\n")
    for task, pid in zip(tasks, json.loads(await parent.stdout.readline()), strict=True):
        if task.dies_at == "sent":
            victims[task.user] = pid
    out, _ = await parent.communicate(b"begin\n")
    found: list[dict[str, int] | None] = json.loads(out)
    return found
