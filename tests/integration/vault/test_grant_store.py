"""Does the store keep each grant for its owner only, and lose none?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from sqlalchemy import delete, insert, select, update

from toolguard.errors import ConnectionRequiredError, ConnectionUnavailableError
from toolguard.vault.database import Database
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.schema import GRANTS
from toolguard.vault.seals import KeySeal
from toolguard.vault.store import GrantStore

NOW = 1_800_000_000.0
OLD, NEW = b"o" * 32, b"n" * 32
ALICE = GrantKey(Owner("https://auth.test", "alice"), "github")
BOB = GrantKey(Owner("https://auth.test", "bob"), "github")
GRANT = Grant("gho_alice", "ghr_alice", scopes=("repo",), expires_at=NOW + 60, account="al")


def run(url: str, test: Callable[[GrantStore, Database], Awaitable[None]], *keys: bytes) -> None:
    async def main() -> None:
        database = Database(url)
        try:
            await test(GrantStore(database, KeySeal(keys or (OLD,))), database)
        finally:
            await database.aclose()

    asyncio.run(main())


def test_a_grant_is_returned_as_it_was_put(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        kept = await store.get(ALICE)

        assert kept is not None
        assert (kept.grant, kept.connected_at) == (GRANT, NOW)
        assert await store.get(BOB) is None

    run(database_url, test)


def test_a_row_moved_to_another_user_is_refused(database_url: str) -> None:
    async def test(store: GrantStore, database: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        async with database.connect() as db:
            await db.execute(update(GRANTS).values(owner="bob"))

        with pytest.raises(ConnectionRequiredError, match="again"):
            await store.get(BOB)

    run(database_url, test)


def test_no_token_and_no_account_name_is_in_the_clear(database_url: str) -> None:
    async def test(store: GrantStore, database: Database) -> None:
        await store.put(ALICE, replace(GRANT, account="al@github"), NOW)
        async with database.connect() as db:
            row = (await db.execute(select(GRANTS))).one()

        for secret in ("gho_alice", "ghr_alice", "al@github", "repo"):
            assert secret not in str(tuple(row))
        with pytest.raises(ConnectionUnavailableError, match="cannot open"):
            await GrantStore(database, KeySeal([NEW])).get(ALICE)

    run(database_url, test)


def test_only_one_of_many_claims_of_a_grant_succeeds(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        kept = await store.get(ALICE)
        assert kept is not None

        claims = [store.claim(kept, f"p{n}", NOW, NOW + 30) for n in range(20)]

        assert sum(await asyncio.gather(*claims)) == 1
        assert await store.claim(kept, "later", NOW + 31, NOW + 60)

    run(database_url, test)


def test_a_write_back_loses_to_a_grant_made_meanwhile(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        kept = await store.get(ALICE)
        assert kept is not None
        await store.put(ALICE, Grant("gho_again"), NOW)

        assert not await store.replace(kept, Grant("gho_refreshed"))
        again = await store.get(ALICE)
        assert again is not None
        assert again.grant == Grant("gho_again")

    run(database_url, test)


def test_a_write_back_loses_to_a_grant_deleted_and_made_again(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        kept = await store.get(ALICE)
        assert kept is not None
        await store.remove(ALICE)
        await store.put(ALICE, Grant("gho_of_another_account"), NOW)

        assert not await store.claim(kept, "late", NOW, NOW + 30)
        assert not await store.replace(kept, Grant("gho_refreshed"))

    run(database_url, test)


@pytest.mark.parametrize(("until", "is_free"), [(3_600, False), (86_400, True)])
def test_a_claim_by_a_clock_that_was_wrong_does_not_hold(
    database_url: str, until: float, is_free: bool
) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        kept = await store.get(ALICE)
        assert kept is not None
        assert await store.claim(kept, "dying", NOW, NOW + until)

        assert await store.claim(kept, "later", NOW + 1, NOW + 31) is is_free

    run(database_url, test)


def test_a_write_back_does_not_bring_a_forgotten_grant_back(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        await store.put(BOB, GRANT, NOW)
        kept = await store.get(ALICE)
        assert kept is not None

        assert await store.forget(ALICE.owner) == [kept]
        assert not await store.replace(kept, GRANT)
        assert await store.get(ALICE) is None
        assert await store.get(BOB) is not None

    run(database_url, test)


def test_resealing_moves_every_row_to_the_first_key(database_url: str) -> None:
    async def test(store: GrantStore, database: Database) -> None:
        for n in range(450):
            await store.put(replace(ALICE, owner=Owner("https://auth.test", f"u{n}")), GRANT, NOW)
        rotating = GrantStore(database, KeySeal([NEW, OLD]))

        assert await rotating.reseal() == 450
        assert await rotating.reseal() == 0
        after = GrantStore(database, KeySeal([NEW]))
        kept = await after.get(replace(ALICE, owner=Owner("https://auth.test", "u449")))
        assert kept is not None
        assert kept.grant == GRANT

    run(database_url, test)


def test_what_cannot_be_opened_is_forgotten_too(database_url: str) -> None:
    async def test(store: GrantStore, database: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        without_key = GrantStore(database, KeySeal([NEW]))

        assert await without_key.forget(ALICE.owner) == [None]
        assert await store.get(ALICE) is None

    run(database_url, test)


def test_a_person_sees_only_connections_of_their_own(database_url: str) -> None:
    async def test(store: GrantStore, _: Database) -> None:
        await store.put(BOB, GRANT, NOW)
        await store.put(replace(ALICE, connection="slack"), GRANT, NOW)
        await store.put(ALICE, GRANT, NOW)

        assert [kept.key.connection for kept in await store.of(ALICE.owner)] == ["github", "slack"]
        assert await store.remove(ALICE)
        assert [kept.key.connection for kept in await store.of(ALICE.owner)] == ["slack"]

    run(database_url, test)


def test_an_older_row_put_back_is_served_as_it_was(database_url: str) -> None:
    """The provider refuses its rotated refresh token; until it expires, it serves its owner."""

    async def test(store: GrantStore, database: Database) -> None:
        await store.put(ALICE, GRANT, NOW)
        async with database.connect() as db:
            old = (await db.execute(select(GRANTS))).one()
            await store.put(ALICE, Grant("gho_newer"), NOW)
            await db.execute(delete(GRANTS))
            await db.execute(insert(GRANTS).values(**old._mapping))

        kept = await store.get(ALICE)
        assert kept is not None
        assert kept.grant == GRANT

    run(database_url, test)
