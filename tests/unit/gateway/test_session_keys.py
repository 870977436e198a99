"""Which callers share a session with the upstream?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from toolguard.gateway.session import Credential
from toolguard.gateway.sessions import key_of
from toolguard.principal import Principal

ALICE = Principal("alice", "https://auth.test", "app", "acme")


@pytest.mark.parametrize(
    "other",
    [
        {"user_id": "bob"},
        {"user_id": None},
        {"issuer": "https://other.test"},
        {"client_id": "another-app"},
        {"tenant_id": "other"},
        {"jkt": "thumbprint"},
        {"claims": {"act": {"sub": "agent"}}},
    ],
)
def test_callers_who_differ_share_nothing(other: dict[str, Any]) -> None:
    assert key_of(ALICE) != key_of(replace(ALICE, **other))
    assert key_of(None) != key_of(replace(ALICE, **other))


def test_a_caller_keeps_the_session_with_another_token() -> None:
    assert key_of(ALICE) == key_of(replace(ALICE, scopes=("more",), expires_at=9.0))


def test_all_callers_share_one_session_where_that_is_written() -> None:
    assert key_of(ALICE, shared=True) == key_of(replace(ALICE, user_id="bob"), shared=True)


def test_a_credential_is_not_shown() -> None:
    assert "s3cret" not in f"{Credential('Bearer s3cret')!r} {Credential('Bearer s3cret')}"
