"""Whatever users, replicas and the service do in whatever order: each user has their own tokens.

``python -m tests.endurance --interleavings 10000`` is the longer search.
"""

from __future__ import annotations

import pytest

from support.interleavings import interleave
from toolguard.vault.store import GrantStore

ROUNDS = 10  # for each database


def test_no_interleaving_loses_a_grant_or_gives_it_to_another(database_url: str) -> None:
    found = interleave(database_url, range(ROUNDS))

    assert (found.rounds, found.refused, found.faults) == (ROUNDS, 0, [])


def test_a_refresh_that_two_replicas_make_is_counted(
    tmp_path_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def claim(*_: object) -> bool:
        return True

    monkeypatch.setattr(GrantStore, "claim", claim)

    found = interleave(tmp_path_url, range(ROUNDS))

    assert found.refused > 0
    assert len(found.faults) > 0
