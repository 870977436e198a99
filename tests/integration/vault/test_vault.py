"""Does the vault give each caller the tokens of their own accounts, fresh and refreshed once?"""

from __future__ import annotations

import asyncio

import pytest
from starlette.responses import JSONResponse, PlainTextResponse

from support.vault_world import ORIGIN, World, in_world
from toolguard import requires_scopes
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionUnavailableError,
)
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.refreshing import Refresher

ALICE = Owner("https://auth.test", "alice")
ALICE_S_SERVICE = (ALICE.issuer, ALICE.id, "service")


def test_a_caller_who_is_not_connected_gets_a_link_of_their_own(database_url: str) -> None:
    async def test(world: World) -> None:
        first, second = await world.link("alice"), await world.link("bob")

        assert first.startswith(f"{ORIGIN}/connections/link/")
        assert first != second

    in_world(database_url, test)


def test_what_a_user_connects_is_theirs_alone(database_url: str) -> None:
    async def test(world: World) -> None:
        page = await world.connect("alice")

        assert "You can close this window" in page.text
        assert (await world.fetch("alice")).scopes == ("read",)
        with pytest.raises(ConnectionRequiredError):
            await world.fetch("bob")

    in_world(database_url, test)


def test_missing_scopes_are_asked_for_beside_those_that_were_granted(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect("alice", "read")
        with pytest.raises(ConnectionRequiredError) as caught:
            await world.fetch("alice", "write")
        assert caught.value.missing_scopes == ("write",)

        await world.connect("alice", "write")

        assert (await world.fetch("alice", "write")).scopes == ("read", "write")

    in_world(database_url, test)


def test_a_token_is_refreshed_ahead_of_its_expiry_once_for_all_replicas(
    database_url: str,
) -> None:
    async def test(world: World) -> None:
        await world.connect()
        before = (await world.fetch()).token
        world.service.delay = 0.05
        replicas = [world.replica() for _ in range(3)]
        world.now += 3_600

        calls = [each.fetch(world.request()) for each in replicas for _ in range(30)]
        tokens = {connection.token for connection in await asyncio.gather(*calls)}

        assert len(tokens) == 1
        assert before not in tokens
        assert world.service.refreshes == 1
        await asyncio.gather(*(each.aclose() for each in replicas))

    in_world(database_url, test)


def test_a_token_that_is_still_good_is_served_while_another_process_refreshes(
    database_url: str,
) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_580
        kept = (await world.vault.store.of(ALICE))[0]
        assert await world.vault.store.claim(kept, "other", world.now, world.now + 30)

        assert (await world.fetch()).token == kept.grant.access_token
        assert world.service.refreshes == 0

    in_world(database_url, test)


def test_a_refused_refresh_becomes_connect_again_and_is_not_repeated(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.service.refresh_tokens.clear()
        world.now += 3_600

        for _ in range(2):
            with pytest.raises(ConnectionRequiredError) as caught:
                await world.fetch()
            assert caught.value.connect_url is not None
        assert world.service.refreshes == 1
        await world.connect()
        assert (await world.fetch()).token

    in_world(database_url, test)


@pytest.mark.parametrize(
    ("status", "error"), [(503, ConnectionUnavailableError), (429, ConnectionRateLimitedError)]
)
def test_a_fault_of_the_service_is_no_reason_to_connect_again(
    tmp_path_url: str, status: int, error: type[Exception]
) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.service.fault = lambda: PlainTextResponse("", status, {"retry-after": "3"})
        world.now += 3_600

        with pytest.raises(error):
            await world.fetch()
        world.service.fault = None
        world.now += 4
        assert (await world.fetch()).token

    in_world(tmp_path_url, test)


def test_garbage_of_the_service_loses_no_grant(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        before = (await world.fetch()).token
        world.now += 3_550
        world.service.fault = lambda: JSONResponse({"access_token": ["odd"]})

        assert (await world.fetch()).token == before
        world.service.fault = None
        world.now += 3
        assert (await world.fetch()).token != before

    in_world(tmp_path_url, test)


def test_a_process_that_dies_after_the_answer_leads_to_connect_again(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_600
        kept = (await world.vault.store.of(ALICE))[0]
        assert await world.vault.store.claim(kept, "dying", world.now, world.now + 30)
        await world.vault.clients["service"].refresh(kept.grant)
        world.now += 31

        with pytest.raises(ConnectionRequiredError, match="again"):
            await world.fetch()

    in_world(database_url, test)


def test_a_database_that_is_away_at_the_write_back_loses_nothing(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_600
        world.service.meanwhile = lambda: world.sql("ALTER TABLE vault_grant RENAME TO away")

        async def sleep(_: float) -> None:
            await world.sql("ALTER TABLE away RENAME TO vault_grant")

        refresher = Refresher(world.vault.store, world.vault.clients, world.clock, sleep)
        kept = (await world.vault.store.of(ALICE))[0]
        fresh = await refresher.refreshed(kept, refused=False)
        assert (await world.fetch()).token == fresh.access_token

    in_world(tmp_path_url, test)


def test_a_process_that_dies_before_it_asks_loses_nothing(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_600
        kept = (await world.vault.store.of(ALICE))[0]
        assert await world.vault.store.claim(kept, "dying", world.now, world.now + 30)
        world.now += 31

        assert (await world.fetch()).token != kept.grant.access_token

    in_world(database_url, test)


def test_a_refused_token_of_a_wrong_clock_is_refreshed(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        world.now += 86_400
        await world.connect()
        before = await world.fetch()
        world.now -= 86_400

        assert (await world.fetch("alice", fresh=True)).token != before.token

    in_world(tmp_path_url, test)


def test_many_refusals_of_one_token_lead_to_one_refresh(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 60

        await asyncio.gather(*(world.fetch("alice", fresh=True) for _ in range(20)))
        await world.fetch("alice", fresh=True)

        assert world.service.refreshes == 1

    in_world(database_url, test)


def test_what_is_refreshed_during_a_disconnect_is_revoked(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_600
        world.service.meanwhile = lambda: world.vault.disconnect(*ALICE_S_SERVICE)

        with pytest.raises(ConnectionRequiredError):
            await world.fetch()
        assert world.service.refresh_tokens <= set(world.service.revoked)

    in_world(database_url, test)


def test_an_expired_grant_that_came_during_a_refresh_is_refreshed(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        world.now += 3_600
        tokens = world.service.tokens({}, "alice")
        expired = Grant(
            tokens["access_token"],
            tokens["refresh_token"],
            scopes=("read",),
            expires_at=world.now - 1,
            obtained_at=world.now - 3_600,
        )
        world.service.meanwhile = lambda: world.vault.keep(
            GrantKey(ALICE, "service"), expired, ALICE
        )

        connection = await world.fetch()

        assert connection.expires_at == world.now + 3_600
        assert (world.service.refreshes, world.service.refused) == (2, 0)

    in_world(database_url, test)


def test_a_person_forgotten_while_connecting_has_no_connection(database_url: str) -> None:
    async def test(world: World) -> None:
        world.service.meanwhile = lambda: world.vault.forget(ALICE.issuer, ALICE.id)

        assert (await world.connect()).status_code == 410
        assert await world.vault.list(ALICE.issuer, ALICE.id) == []
        assert world.service.refresh_tokens == set(world.service.revoked)

    in_world(database_url, test)


def test_a_forgotten_person_has_no_connection_and_no_open_link(database_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        link = await world.link("alice", "write")

        assert await world.vault.forget("https://auth.test", "alice") == 1

        assert await world.vault.list("https://auth.test", "alice") == []
        assert len(world.service.revoked) == 1
        async with world.browser() as browser:
            assert (await browser.get(link)).status_code == 410

    in_world(database_url, test)


def test_a_caller_without_the_scope_gets_nothing_even_if_connected(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        await world.connect()
        strict = world.replica(allow={"service": requires_scopes("mcp:service")})

        with pytest.raises(ConnectionDeniedError):
            await strict.fetch(world.request())
        await strict.aclose()

    in_world(tmp_path_url, test)


def test_a_tenant_is_connected_only_by_a_caller_who_may(tmp_path_url: str) -> None:
    async def test(world: World) -> None:
        with pytest.raises(ConnectionRequiredError) as caught:
            await world.fetch("alice", tenant_id="acme")
        assert caught.value.connect_url is None
        world.vault = world.replica(tenant_connectors={"service": requires_scopes("mcp:use")})

        page = await world.connect("alice", tenant_id="acme")

        assert "You can close this window" in page.text
        assert (await world.fetch("bob", tenant_id="acme")).token
        with pytest.raises(ConnectionRequiredError):
            await world.fetch("bob", tenant_id="other")
        with pytest.raises(ConnectionRequiredError):
            await world.fetch("alice")

    in_world(tmp_path_url, test)
