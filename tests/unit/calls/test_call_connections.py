"""Which connections does a call fetch, for whom, and what if that fails?"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest

from support.callers import NOW, TOKEN, Desk, person
from toolguard.calls.message import Frame, MessageContext
from toolguard.calls.request import RequestAuth
from toolguard.connections import Connection, ConnectionRequest
from toolguard.errors import (
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    GuardNotConfiguredError,
    ToolGuardError,
)
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.policies.scopes import Scope
from toolguard.principal import Principal
from toolguard.testing import ScriptedConnections

MAIL = ConnectionNeed("mail", (), "mail")
CALENDAR = ConnectionNeed("calendar", (), "calendar")
BOTH = Policy(connections=(MAIL, CALENDAR))


Connections = dict[str, Connection | None]


async def admitted(
    vault: Any,
    policy: Policy,
    principal: Principal | None = person(),  # noqa: B008 - a frozen value
) -> Connections:
    guard = Desk(connections=vault)
    token = None if principal is None else TOKEN
    return await connected(
        Frame(guard, MessageContext(RequestAuth(token, principal, guard))), policy
    )


async def connected(door: Frame, policy: Policy) -> Connections:
    call = OperationCall("tool", "read")
    frame = door.enter(policy, call)
    return await frame.connect(policy.connections, await frame.authorize(call), call)


def refusal(vault: Any, policy: Policy, principal: Principal | None = person()) -> ToolGuardError:  # noqa: B008 - a frozen value
    with pytest.raises(ToolGuardError) as caught:
        asyncio.run(admitted(vault, policy, principal))
    return caught.value


def test_connections_are_fetched_by_parameter_for_the_verified_caller() -> None:
    vault = ScriptedConnections({"mail": "mail-token", "calendar": "calendar-token"})

    connections = asyncio.run(admitted(vault, BOTH))

    tokens = {name: found and found.token for name, found in connections.items()}
    assert tokens == {"mail": "mail-token", "calendar": "calendar-token"}
    assert {(asked.principal, asked.access_token) for asked in vault.calls} == {(person(), TOKEN)}


def test_connections_are_fetched_at_the_same_time() -> None:
    class Meeting:
        """Gives nothing until everybody has asked."""

        def __init__(self) -> None:
            self.waiting = 0
            self.complete = anyio.Event()

        async def fetch(self, request: ConnectionRequest) -> Connection:
            self.waiting += 1
            if self.waiting == 2:
                self.complete.set()
            await self.complete.wait()
            return Connection(request.name)

    async def meet() -> Connections:
        with anyio.fail_after(10):
            return await admitted(Meeting(), BOTH)

    assert set(asyncio.run(meet())) == {"mail", "calendar"}


def test_without_a_provider_a_connection_is_refused_with_what_to_write() -> None:
    error = refusal(None, BOTH)

    assert isinstance(error, GuardNotConfiguredError)
    assert str(error).endswith("write ToolGuard(..., connections=...)")


@pytest.mark.parametrize("have", [[], ["calendar"]])
def test_of_several_connections_that_fail_the_first_declared_is_reported(have: list[str]) -> None:
    error = refusal(ScriptedConnections({name: f"{name}-token" for name in have}), BOTH)

    assert isinstance(error, ConnectionRequiredError)
    assert error.connection == "mail"


class Broken:
    """Fails as a provider may fail that somebody else wrote."""

    async def fetch(self, request: ConnectionRequest) -> Connection:
        raise LookupError(f"no answer for {request.access_token}")


def test_what_goes_wrong_in_a_provider_is_reported_without_its_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.DEBUG):
        error = refusal(Broken(), Policy(connections=(MAIL,)))

    assert isinstance(error, ConnectionResponseError)
    assert str(error) == "The provider of mail failed"
    assert (error.__cause__, error.__context__) == (None, None)
    (line,) = [each.getMessage() for each in caplog.records if each.name == "toolguard"]
    assert line.startswith(f"connection mail: LookupError in {__file__}:")
    assert TOKEN not in caplog.text


def test_an_expired_connection_is_not_handed_out() -> None:
    stale = ScriptedConnections({"mail": Connection("old", expires_at=NOW)})

    error = refusal(stale, Policy(connections=(MAIL,)))

    assert isinstance(error, ConnectionTokenError)
    assert error.connection == "mail"


@pytest.mark.parametrize("principal", [None, person(), person("alice", "read")])
def test_nothing_is_fetched_for_a_caller_who_is_refused(principal: Principal | None) -> None:
    vault = ScriptedConnections({"mail": "mail-token"})

    refusal(vault, Policy(Scope("send"), connections=(MAIL,)), principal)

    assert vault.calls == []
