"""Processes of a vault: each fetches many times at once, or dies at a step of a refresh.

Run as ``python -m endurance.vault_process`` with their tasks, as JSON, on the standard input. Says
their ids; when it is told to begin, what came of the tasks, null for a process that was killed.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, NoReturn, TypeAlias

from toolguard.connections import CachedConnections, ConnectionRequest
from toolguard.errors import ConnectionTokenError
from toolguard.principal import Principal
from toolguard.vault import Endpoints, OAuthProvider, Vault

__all__ = ["ISSUER", "NAME", "STEPS", "Step", "Task", "asked", "open_vault"]

ISSUER = "https://auth.test"
NAME = "service"
Step: TypeAlias = Literal["claimed", "sent", "answered", "written"]
STEPS: tuple[Step, ...] = ("claimed", "sent", "answered", "written")


@dataclass(frozen=True)
class Task:
    """What a process does.

    Attributes:
        database: the URL of the vault's database.
        service: the origin of the service.
        user: the user to fetch for.
        calls: how many times, at once.
        dies_at: the step of a refresh right after which the process is killed.
        later: the seconds by which its clock is ahead.
    """

    database: str
    service: str
    user: str
    calls: int = 1
    dies_at: Step | None = None
    later: float = 0.0


def open_vault(task: Task) -> Vault:
    """Return the vault of a task."""
    provider = OAuthProvider(
        title="Service",
        client_id="vault",
        client_secret="secret",
        endpoints=Endpoints(f"{task.service}/authorize", f"{task.service}/token"),
    )
    return Vault(
        task.database,
        keys=[b"k" * 32],
        connections={NAME: provider},
        clock=lambda: time.time() + task.later,
    )


def asked(user: str, *, fresh: bool = False) -> ConnectionRequest:
    """Return what a tool asks for, for this user."""
    caller = Principal(user, ISSUER, expires_at=time.time() + 3_600)
    return ConnectionRequest(NAME, (), caller, None, fresh=fresh)


async def perform(task: Task, told: Connection) -> dict[str, int]:
    """Fetch as often as the task says; return how often there was which token or error.

    Args:
        task: what to do.
        told: gets None when all is ready; a message to it is the start.
    """
    vault = open_vault(task)
    if task.dies_at is not None:
        _die_after(vault, task.dies_at)
    # As a guard has it.
    provider = CachedConnections(vault, not_connected_after=2)
    await provider.warm_up()
    told.send(None)
    await asyncio.to_thread(told.recv)

    async def fetch() -> str:
        try:
            return (await provider.fetch(asked(task.user))).token
        except ConnectionTokenError as error:
            return type(error).__name__

    found = Counter(await asyncio.gather(*(fetch() for _ in range(task.calls))))
    await provider.aclose()
    return dict(found)


def _die_after(vault: Vault, step: Step) -> None:
    """Let the process be killed right after a step; after "sent" the service kills it."""
    steps: dict[Step, tuple[Any, str]] = {
        "claimed": (vault.store, "claim"),
        "answered": (vault.clients[NAME], "refresh"),
        "written": (vault.store, "replace"),
    }
    if step not in steps:
        return
    holder, name = steps[step]
    before: Callable[..., Any] = getattr(holder, name)

    async def killed(*arguments: Any) -> NoReturn:
        await before(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("it lives on")

    setattr(holder, name, killed)


def _perform_and_tell(task: Task, told: Connection) -> None:
    told.send(asyncio.run(perform(task, told)))


def _received(connection: Connection) -> dict[str, int] | None:
    try:
        received: dict[str, int] | None = connection.recv()
    except EOFError:
        return None
    return received


def _main() -> None:
    # Forks of this process, which has imported what takes longer than the tasks.
    context = multiprocessing.get_context("fork")
    connections, ids = [], []
    for given in json.loads(sys.stdin.readline()):
        ours, theirs = context.Pipe()
        process = context.Process(target=_perform_and_tell, args=(Task(**given), theirs))
        process.start()
        theirs.close()
        connections.append(ours)
        ids.append(process.pid)
    for connection in connections:
        assert connection.recv() is None, "it is not ready"
    print(json.dumps(ids), flush=True)
    sys.stdin.readline()
    for connection in connections:
        connection.send("begin")
    print(json.dumps([_received(connection) for connection in connections]))


if __name__ == "__main__":
    _main()
