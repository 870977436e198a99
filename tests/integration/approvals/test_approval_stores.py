"""Does one yes permit one call: these arguments, this caller, within the time?"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from support.approving import ALICE, NOW, WITHIN, binding, question
from toolguard.approvals.approval import Approval, ApprovalStore, Asker, PersonAnswer
from toolguard.approvals.memory import MAX_OF_ASKER, MemoryApprovals
from toolguard.approvals.table import ApprovalTable
from toolguard.errors import ApprovalUnavailableError
from toolguard.vault import KeySeal
from toolguard.vault.database import Database

SEAL = KeySeal([b"k" * 32])
PAY = binding(amount=1)
UNTIL = NOW + WITHIN


def in_store(url: str, use: Callable[[ApprovalStore], Awaitable[None]]) -> None:
    async def main() -> None:
        database = Database(url)
        try:
            await use(ApprovalTable(database, SEAL))
        finally:
            await database.aclose()

    asyncio.run(main() if url else _async(use))


async def _async(use: Callable[[ApprovalStore], Awaitable[None]]) -> None:
    await use(MemoryApprovals())


@pytest.fixture(params=["memory", "database"])
def url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind; empty for none."""
    if request.param == "memory":
        return ""
    return str(request.getfixturevalue("tmp_path_url"))


def test_a_yes_permits_one_call(url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        assert not await store.use(PAY.digest, NOW)
        assert await store.answer(asked, "approved", NOW, UNTIL)

        assert await store.use(PAY.digest, NOW)
        assert not await store.use(PAY.digest, NOW)
        found = await store.find("id", NOW)
        assert found is not None
        assert found.state == "used"

    in_store(url, test)


@pytest.mark.parametrize(
    "other",
    [
        binding(amount=2),
        binding(amount=1, more=None),
        binding(tool="pay2", amount=1),
        binding(Asker(ALICE.issuer, "bob", ALICE.client), amount=1),
        binding(Asker(ALICE.issuer, ALICE.subject, "other"), amount=1),
        binding(Asker("https://other.test", ALICE.subject, ALICE.client), amount=1),
        replace(PAY, server="https://other.test/mcp"),
        replace(PAY, function="tools.pay_more"),
        replace(PAY, rule="other"),
    ],
    ids=str,
)
def test_a_yes_permits_no_other_call(url: str, other: Any) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        await store.answer(asked, "approved", NOW, UNTIL)

        assert not await store.use(other.digest, NOW)
        assert await store.use(PAY.digest, NOW)

    in_store(url, test)


def test_a_yes_ends_with_its_time(url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        await store.answer(asked, "approved", NOW, UNTIL)

        assert not await store.use(PAY.digest, UNTIL)
        assert await store.find("id", UNTIL) is None

    in_store(url, test)


@pytest.mark.parametrize("later", [0.0, WITHIN])
@pytest.mark.parametrize("first", ["approved", "refused"])
def test_an_answer_is_given_once_and_in_time(url: str, first: PersonAnswer, later: float) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        is_first = await store.answer(asked, first, NOW + later, UNTIL)

        assert is_first is (later == 0)
        assert not await store.answer(asked, "approved", NOW + later, UNTIL)
        assert await store.use(PAY.digest, NOW) is (first == "approved" and is_first)

    in_store(url, test)


def test_the_same_call_is_asked_about_once_until_it_is_over(url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        assert await store.ask(question(PAY, "second"), NOW) == asked
        await store.answer(asked, "refused", NOW, UNTIL)
        assert (await store.ask(question(PAY, "third"), NOW)).state == "refused"

        again = await store.ask(question(PAY, "fourth", UNTIL), UNTIL)
        assert (again.id, again.state) == ("fourth", "pending")
        assert not await store.answer(asked, "approved", UNTIL, UNTIL + WITHIN)

    in_store(url, test)


def test_a_used_yes_does_not_answer_the_next_question(url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await store.ask(question(PAY), NOW)
        await store.answer(asked, "approved", NOW, UNTIL)
        await store.use(PAY.digest, NOW)
        again = await store.ask(question(PAY, "second"), NOW)

        assert (again.id, again.state) == ("second", "pending")
        assert not await store.answer(asked, "approved", NOW, UNTIL)
        assert not await store.use(PAY.digest, NOW)

    in_store(url, test)


def test_questions_of_one_caller_are_bounded(url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        await store.ask(question(binding(Asker("https://i", "bob", "c")), "bob's"), NOW - 10)
        for each in range(MAX_OF_ASKER + 5):
            await store.ask(question(binding(amount=each), str(each), NOW + each / 100), NOW)

        found = [await store.find(str(each), NOW) for each in range(MAX_OF_ASKER + 5)]
        assert sum(each is not None for each in found) == MAX_OF_ASKER
        assert found[0] is None
        assert await store.find("bob's", NOW) is not None

    in_store(url, test)


def test_of_two_answers_and_two_calls_at_once_one_counts(database_url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        for turn in range(10):
            of = binding(amount=turn)
            asked = await store.ask(question(of, str(turn)), NOW)
            answers = [store.answer(asked, "approved", NOW, UNTIL) for _ in range(2)]
            calls = [store.use(of.digest, NOW) for _ in range(2)]
            first, second, *ran = await asyncio.gather(*answers, *calls)
            ran += await asyncio.gather(*(store.use(of.digest, NOW) for _ in range(4)))

            assert first + second == 1
            assert sum(ran) == 1

    in_store(database_url, test)


def test_of_many_questions_at_once_about_one_call_one_is_kept(database_url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        asked = await asyncio.gather(*(store.ask(question(PAY, str(i)), NOW) for i in range(8)))

        assert len({each.id for each in asked}) == 1

    in_store(database_url, test)


MOVES = st.sampled_from(["ask", "yes", "no", "call", "other call", "later"])


@given(moves=st.lists(MOVES, max_size=25))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("is_kept", [False, True], ids=["memory", "database"])
def test_calls_that_ran_never_outnumber_answers(moves: list[str], *, is_kept: bool) -> None:
    async def test(store: ApprovalStore) -> None:
        now, given_, ran, count = NOW, 0, 0, 0
        last: Approval | None = None
        valid_until = 0.0  # of the yes that is not used
        for move in moves:
            if move == "ask":
                count += 1
                last = await store.ask(question(PAY, str(count), now), now)
            elif move in ("yes", "no") and last is not None:
                answer: PersonAnswer = "approved" if move == "yes" else "refused"
                if await store.answer(last, answer, now, now + WITHIN) and move == "yes":
                    given_, valid_until = given_ + 1, now + WITHIN
            elif move == "call":
                is_run = await store.use(PAY.digest, now)
                assert is_run is (now < valid_until)
                ran, valid_until = ran + is_run, 0.0
            elif move == "other call":
                assert not await store.use(binding(amount=2).digest, now)
            elif move == "later":
                now += WITHIN / 2
            assert ran <= given_

    with tempfile.TemporaryDirectory() as folder:
        in_store(f"sqlite:///{folder}/vault.db" if is_kept else "", test)


@pytest.mark.parametrize(
    "change", ["state = 'approved'", "state = 'approved', expires_at = 1e12", "owner = 'bob'"]
)
def test_a_row_that_was_changed_in_the_database_approves_nothing(
    tmp_path_url: str, change: str
) -> None:
    async def main() -> None:
        database = Database(tmp_path_url)
        store = ApprovalTable(database, SEAL)
        asked = await store.ask(question(PAY), NOW)
        if "owner" in change:
            await store.answer(asked, "approved", NOW, UNTIL)
        async with database.connect() as db:
            await db.execute(text(f"UPDATE vault_approval SET {change}"))

        assert not await store.use(PAY.digest, NOW)
        assert await store.find("id", NOW) is None
        await database.aclose()

    asyncio.run(main())


def test_what_is_asked_is_sealed_in_the_database(tmp_path_url: str) -> None:
    async def main() -> None:
        database = Database(tmp_path_url)
        asked = replace(question(PAY), facts={"arguments": "needle"})
        await ApprovalTable(database, SEAL).ask(asked, NOW)
        async with database.connect() as db:
            row = (await db.execute(text("SELECT * FROM vault_approval"))).one()
        await database.aclose()

        assert "needle" not in repr(row)
        assert "needle" not in repr(asked)

    asyncio.run(main())


def test_a_database_that_is_away_means_try_again(tmp_path_url: str) -> None:
    async def test(store: ApprovalStore) -> None:
        with pytest.raises(ApprovalUnavailableError, match="try again"):
            await store.use(PAY.digest, NOW)

    in_store(tmp_path_url.replace("vault.db", "absent/vault.db"), test)
