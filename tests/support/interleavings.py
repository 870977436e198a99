"""Random interleavings of users, replicas and refreshes of one vault.

The service replaces a refresh token at each use, and refuses one that was used: a grant that two
replicas refresh at once, or that an older one replaces, would be lost there, and is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from support.vault_world import World, in_world
from toolguard.errors import ConnectionRequiredError
from toolguard.vault import Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = ["Interleaved", "interleave"]

REPLICAS = 3
ACTIONS = ("fetch", "fetch", "fetch fresh", "connect", "disconnect", "time passes")


@dataclass
class Interleaved:
    """What came of some rounds.

    Attributes:
        rounds: how many there were.
        steps: what users did, by action.
        refreshes: how often the service was asked for new tokens.
        refused: how often it was sent a token that had been used.
        faults: what must not be, in words, with the number of its round.
    """

    rounds: int = 0
    steps: Counter[str] = field(default_factory=Counter)
    refreshes: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    def __add__(self, other: Interleaved) -> Interleaved:
        return Interleaved(
            self.rounds + other.rounds,
            self.steps + other.steps,
            self.refreshes + other.refreshes,
            self.refused + other.refused,
            self.faults + other.faults,
        )


def interleave(database: str, numbers: Iterable[int]) -> Interleaved:
    """Run rounds on one database, each with users of its own.

    Args:
        database: the URL of an empty database.
        numbers: the seeds of the rounds.
    """
    found = Interleaved()

    async def run(world: World) -> None:
        vaults = [world.vault, *(world.replica() for _ in range(REPLICAS - 1))]
        world.service.delay = 0.001
        for number in numbers:
            a_round = _Round(world, vaults, number)
            try:
                await a_round.run()
            except (AssertionError, ConnectionRequiredError) as error:
                found.faults.append(f"round {number}: {error!r}")
            if world.service.refused > found.refused:
                found.faults.append(f"round {number}: a refresh token was used twice")
            found.refused = world.service.refused
            found.rounds += 1
            found.steps += a_round.steps
        found.refreshes = world.service.refreshes

    in_world(database, run)
    return found


class _Round:
    """Some users of their own, who do something at the same time."""

    def __init__(self, world: World, vaults: list[Vault], number: int) -> None:
        self.world = world
        self.vaults = vaults
        self.random = random.Random(number)
        self.users = [f"{name}-{number}" for name in ("alice", "bob")]
        self.numbers = itertools.count()
        self.connecting = asyncio.Lock()  # the services sign in one person at a time
        self.connected: set[str] = set()
        self.disconnected: set[str] = set()
        self.steps = Counter[str]()

    async def run(self) -> None:
        for user in self.users:
            if self.random.random() < 0.8:
                await self.do("connect", user)
        for _ in range(2):
            steps = [
                (self.random.choice(ACTIONS), self.random.choice(self.users)) for _ in range(8)
            ]
            await asyncio.gather(*(self.do(*step) for step in steps))
        self.world.now += 3_700
        for user in self.connected - self.disconnected:
            await self.fetch(user)

    async def do(self, action: str, user: str) -> None:
        self.steps[action] += 1
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        if action == "connect":
            await self.connect(user)
            self.connected.add(user)
        elif action == "disconnect":
            self.disconnected.add(user)
            await self.random.choice(self.vaults).disconnect(
                self.world.issuer.issuer or "", user, "service"
            )
        elif action == "time passes":
            self.world.now += self.random.choice((5.0, 3_550.0, 3_700.0))
        elif user in self.connected and user not in self.disconnected:
            await self.fetch(user, fresh=action == "fetch fresh")
        else:
            with suppress(ConnectionRequiredError):
                await self.fetch(user, fresh=action == "fetch fresh")

    async def connect(self, user: str) -> None:
        """Connect the user's account, on the pages for one in five: they take longest."""
        world, scope = self.world, f"scope-{next(self.numbers)}"
        if self.random.random() < 0.2:
            async with self.connecting:
                world.service.user = user
                # One that is connected is asked for what is missing.
                await world.connect(user, scope)
            return
        answer = world.service.tokens({}, user)
        await asyncio.sleep(0)
        grant = Grant(
            answer["access_token"],
            answer["refresh_token"],
            scopes=(scope,),
            expires_at=world.now + answer["expires_in"],
            obtained_at=world.now,
        )
        owner = Owner(world.issuer.issuer or "", user)
        await self.random.choice(self.vaults).keep(GrantKey(owner, "service"), grant, owner)

    async def fetch(self, user: str, *, fresh: bool = False) -> None:
        vault = self.random.choice(self.vaults)
        try:
            connection = await vault.fetch(self.world.request(user, fresh=fresh))
        except ConnectionRequiredError:
            if user in self.disconnected or user not in self.connected:
                return
            raise
        assert self.world.service.owners[connection.token] == user, "a token of another user"
