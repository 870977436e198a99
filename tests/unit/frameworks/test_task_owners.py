"""Who may ask after which background task of mcp 1.x?"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from toolguard.frameworks.task_owners import TaskOwners
from toolguard.principal import Principal

ALICE = Principal("alice", "https://auth.test", client_id="desktop")
CALLERS = st.sampled_from(
    [
        ALICE,
        replace(ALICE, user_id="bob"),
        replace(ALICE, issuer="https://other.test"),
        replace(ALICE, client_id="phone"),
        None,
    ]
)
TASKS = st.sampled_from(["1", "2", "3"])


@given(st.dictionaries(TASKS, CALLERS), CALLERS, TASKS)
def test_a_task_is_the_callers_who_started_it(
    started: dict[str, Principal | None], caller: Principal | None, task: str
) -> None:
    owners = TaskOwners()
    for each, owner in started.items():
        owners.note(each, owner)

    assert owners.owns(caller, task) is (task in started and started[task] == caller)


def test_a_caller_without_a_subject_owns_no_task() -> None:
    owners, nameless = TaskOwners(), replace(ALICE, user_id=None)

    owners.note("1", nameless)

    assert not owners.owns(nameless, "1")


def test_a_caller_with_many_tasks_ends_those_of_no_other() -> None:
    owners, bob = TaskOwners(max_tasks=2), replace(ALICE, user_id="bob")
    owners.note("hers", ALICE)

    for number in range(3):
        owners.note(str(number), bob)

    assert owners.of(bob, ["0", "1", "2"]) == {"1", "2"}
    assert owners.owns(ALICE, "hers")


def test_the_task_that_was_asked_after_last_is_kept() -> None:
    owners = TaskOwners(max_tasks=2)
    owners.note("1", ALICE)
    owners.note("2", ALICE)

    assert owners.owns(ALICE, "1")
    owners.note("3", ALICE)

    assert owners.of(ALICE, ["1", "2", "3"]) == {"1", "3"}


def test_callers_beyond_the_limit_forget_the_longest_idle() -> None:
    owners = TaskOwners(max_owners=1)
    owners.note("1", ALICE)

    owners.note("2", replace(ALICE, user_id="bob"))

    assert not owners.owns(ALICE, "1")
