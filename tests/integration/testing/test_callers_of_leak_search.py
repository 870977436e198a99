"""Who calls while a server is searched for leaks, and with what?"""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from support.lines import FASTMCP_LINES, Guarding, Line
from support.own_auth import Issued, authenticated
from toolguard import (
    OperationCall,
    Principal,
    Refusals,
    all_of,
    any_of,
    requires,
    requires_auth,
    requires_claim,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
    with_connection,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.testing import LeakError, LocalIssuer, assert_no_leaks
from toolguard.testing.leaks import search

_log = logging.getLogger("tests.mail")


async def _nothing(*, user_id: str) -> str:
    return "nothing"


GUARDS: dict[str, GuardDecorator] = {
    "two scopes": requires_scopes("b", "c"),
    "either of two": requires_scopes(any_of("b", "c")),
    "a scope of an argument": requires_scopes("calendar.{calendar_id}.write"),
    "scopes by a function": requires_scopes(lambda call: ["d", f"e.{call.arguments['amount']}"]),
    "a role and a permission": all_of(requires_roles("boss"), requires_permissions("pay")),
    "a tenant": requires_tenant("acme"),
    "the tenant of an argument": requires_tenant(tenant_from="calendar_id"),
    "a client": requires_client("https://*.example/app"),
    "a fresh and strong sign-in": all_of(
        requires_recent_auth(max_age=60), requires_recent_auth(acr_values=["mfa", "hwk"])
    ),
    "two strong sign-ins": all_of(
        requires_recent_auth(acr_values=["pwd", "mfa"]), requires_recent_auth(acr_values=["mfa"])
    ),
    "a check or a client": any_of(requires(lambda principal, call: False), requires_client("cli")),
}


@pytest.mark.parametrize("name", GUARDS)
def test_a_caller_with_what_a_guard_asks_for_gets_in(
    line: Line, guarding: Guarding, name: str
) -> None:
    server, ran = line.server("desk"), []

    @server.tool()
    @GUARDS[name]
    async def book(amount: int, calendar_id: str = "main", *, user_id: str) -> str:
        ran.append(user_id)
        return "booked"

    assert assert_no_leaks(guarding().protect(server), user="bob").ran == ("book",)
    assert set(ran) == {"bob"}


def test_the_connection_of_a_tenant_is_handed_out(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.tool()
    @with_connection("mail", tenant=True)
    async def read(*, connection_token: str) -> str:
        return connection_token

    with pytest.raises(LeakError) as caught:
        assert_no_leaks(guarding().protect(server))

    assert "token of connection mail" in {each.token for each in caught.value.leaks}


def test_what_only_a_function_knows_is_said_in_claims_and_arguments(
    line: Line, guarding: Guarding
) -> None:
    def small(principal: Principal, call: OperationCall) -> bool:
        return bool(call.arguments["amount"] == 7)

    server = line.server("desk")

    @server.tool()
    @requires(small)
    @requires_claim("plan", lambda plan: plan == "gold")
    async def pay(amount: int, to: str, *, user_id: str) -> str:
        return f"{amount} to {to}"

    guarding().protect(server)
    expected = r"searched in part only: pay refused every caller \(access_denied\)\. Give claims="
    with pytest.warns(UserWarning, match=expected):
        assert assert_no_leaks(server).refused == {"pay": "access_denied"}
    claims, arguments = {"pay": {"plan": "gold"}}, {"pay": {"amount": 7}}
    assert assert_no_leaks(server, claims=claims, arguments=arguments).ran == ("pay",)


def test_an_operation_that_fails_is_named(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.resource("mail://{folder}")
    @requires_auth
    async def folder(folder: str, *, user_id: str) -> str:
        if folder != "inbox":
            raise LookupError(folder)
        return "mail"

    guarding().protect(server)
    with pytest.warns(UserWarning, match=r"resource:mail://\{folder\} ended in an error"):
        assert_no_leaks(server)
    inbox = {"resource:mail://{folder}": {"uri": "mail://inbox"}}
    assert assert_no_leaks(server, arguments=inbox).ran == ("resource:mail://{folder}",)


def test_an_operation_that_never_answers_is_named(
    line: Line, guarding: Guarding, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "_PATIENCE", 0.0)
    server = line.server("desk")

    @server.tool()
    async def wait() -> str:
        await anyio.sleep_forever()
        return "never"

    guarding().protect(server)
    with pytest.warns(UserWarning, match=r"wait ended in an error \(no answer in 0 s\)"):
        assert_no_leaks(server)


def test_what_lists_hide_is_called(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.tool()
    @requires_roles("boss")
    async def pay(amount: int = 1, *, user_id: str) -> str:
        return "paid"

    guarding(refusals=Refusals(unauthorized_tools="hide-all")).protect(server)

    assert assert_no_leaks(server).ran == ("pay",)


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_lists_are_read_to_their_end(line: Line, guarding: Guarding) -> None:
    server = line.server("desk", list_page_size=1)

    @server.tool()
    async def first(amount: int) -> str:
        return "first"

    @server.tool()
    async def second(amount: int) -> str:
        return "second"

    assert assert_no_leaks(guarding().protect(server)).ran == ("first", "second")


def test_what_is_skipped_is_not_called(line: Line, guarding: Guarding) -> None:
    server = line.server("desk")

    @server.tool()
    async def delete_everything() -> str:
        raise AssertionError("it was called")

    report = assert_no_leaks(guarding().protect(server), skip={"delete_everything"})

    assert (report.ran, report.skipped) == ((), ("delete_everything",))


@pytest.mark.parametrize("how", ["arguments", "claims", "skip"])
def test_a_name_that_is_none_is_refused(line: Line, guarding: Guarding, how: str) -> None:
    server = line.server("desk")
    server.tool(name="read")(requires_auth(_nothing))
    guarding().protect(server)
    unknown: Any = {"raed": {}}

    with pytest.raises(ValueError, match="no operation is called raed: write one of read"):
        assert_no_leaks(server, **{how: unknown})


def test_a_server_that_is_not_protected_is_refused(line: Line) -> None:
    with pytest.raises(ValueError, match="protect the server first"):
        assert_no_leaks(line.server("open"))


def test_the_guards_own_verifier_takes_part_if_its_issuer_is_given(
    line: Line, issuer: LocalIssuer, guarding: Guarding
) -> None:
    class Talkative:
        async def verify(self, token: str) -> Principal:
            _log.info("verifying %s", token)
            return await issuer.verifier().verify(token)

    server = line.server("desk")
    server.tool(name="read")(requires_scopes("a")(_nothing))
    guarding(verifier=Talkative(), issuer=issuer.issuer).protect(server)

    assert assert_no_leaks(server).ran == ("read",)
    with pytest.raises(LeakError) as caught:
        assert_no_leaks(server, issuer=issuer)
    assert {each.where for each in caught.value.leaks} == {"tests.mail (INFO)"}


def test_what_the_framework_verifies_needs_an_issuer(
    line: Line, issuer: LocalIssuer, guarding: Guarding
) -> None:
    server = authenticated(line, Issued(issuer))
    server.tool(name="read")(requires_scopes("a")(_nothing))
    guarding(verifier="framework").protect(server)

    with pytest.raises(ValueError, match="give issuer="):
        assert_no_leaks(server)
    assert assert_no_leaks(server, issuer=issuer).ran == ("read",)
