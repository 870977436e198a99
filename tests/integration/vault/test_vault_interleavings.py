"""Whatever users, replicas and the service do in whatever order: each user has their own tokens.

The service replaces a refresh token at each use, and refuses one that was used: a grant that two
replicas refresh at once, or that an older one replaces, would be lost there, and is counted.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
from contextlib import suppress

import pytest

from support.vault_world import World, in_world
from toolguard.errors import ConnectionRequiredError
from toolguard.vault import Vault

REPLICAS = 3
# For each database; the variable is for a longer search.
ROUNDS = int(os.environ.get("TOOLGUARD_INTERLEAVINGS", "24"))
ACTIONS = ("fetch", "fetch", "fetch fresh", "connect", "disconnect", "time passes")


class Round:
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
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        if action == "connect":
            async with self.connecting:
                self.world.service.user = user
                # One that is connected is asked for what is missing.
                await self.world.connect(user, f"scope-{next(self.numbers)}")
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

    async def fetch(self, user: str, *, fresh: bool = False) -> None:
        vault = self.random.choice(self.vaults)
        try:
            connection = await vault.fetch(self.world.request(user, fresh=fresh))
        except ConnectionRequiredError:
            if user in self.disconnected or user not in self.connected:
                return
            raise
        assert self.world.service.owners[connection.token] == user


@pytest.mark.parametrize("seed", range(4))
def test_no_interleaving_loses_a_grant_or_gives_it_to_another(database_url: str, seed: int) -> None:
    async def test(world: World) -> None:
        vaults = [world.vault, *(world.replica() for _ in range(REPLICAS - 1))]
        world.service.delay = 0.001
        for number in range(ROUNDS // 4 or 1):
            await Round(world, vaults, seed * 100_000 + number).run()
        assert world.service.refused == 0

    in_world(database_url, test)
