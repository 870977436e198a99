"""One process of a vault: fetches many times at once when told to, or dies at a step of a refresh.

Run as ``python -m endurance.vault_process`` with its task, as JSON, on the standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
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

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


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


async def perform(task: Task) -> dict[str, int]:
    """Fetch as often as the task says; return how often there was which token or error."""
    vault = open_vault(task)
    if task.dies_at is not None:
        _die_after(vault, task.dies_at)
    # As a guard has it.
    provider = CachedConnections(vault, not_connected_after=2)
    await provider.warm_up()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await asyncio.to_thread(sys.stdin.readline)

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


if __name__ == "__main__":
    given = Task(**json.loads(sys.stdin.readline()))
    sys.stdout.write(json.dumps(asyncio.run(perform(given))) + "\n")
