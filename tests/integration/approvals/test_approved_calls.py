"""Does a call run exactly when a person has said yes to it, on every line?"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Annotated, Any, TypeAlias

import httpx
import pytest
from pydantic import BaseModel
from starlette.requests import Request

from support.lines import (
    FASTMCP_LINES,
    LEGACY_PROTOCOLS,
    MODERN_PROTOCOL,
    MODES,
    Guarding,
    Line,
    Mode,
    Serve,
)
from support.wire import Caller, Reply
from toolguard import (
    Connection,
    ConnectionRequest,
    ConnectionRequiredError,
    ToolGuard,
    requires_approval,
    requires_roles,
    requires_scopes,
    with_connection,
)
from toolguard.approvals import Approvals
from toolguard.approvals.memory import MemoryApprovals
from toolguard.telemetry import DecisionRecord
from toolguard.testing import LocalIssuer
from toolguard.vault import Person

ORIGIN = "http://127.0.0.1:1"
PAY = {"payee": "Bob", "amount": 5}
CAN_OPEN_URLS: dict[str, Any] = {"elicitation": {"url": {}}}


class Office:
    """A server that pays with an approval; people sign in by a header."""

    def __init__(
        self,
        line: Line,
        guarding: Guarding,
        serve: Serve,
        http: httpx.Client,
        issuer: LocalIssuer,
        mode: Mode | None = None,
    ) -> None:
        self.paid: list[tuple[str, int]] = []
        self.records: list[DecisionRecord] = []
        self.skew = 0.0
        self.issuer, self.http = issuer, http
        self.has_account = True
        self.server: Any = line.server("office")
        server = self.server

        @server.tool()
        @requires_scopes("pay")
        @requires_approval(summary="Pay {amount} to {payee}", within=300)
        async def pay(payee: str, amount: int = 1, *, user_id: str) -> str:
            self.paid.append((payee, amount))
            return f"paid by {user_id}"

        @server.tool()
        @requires_approval(summary="Transfer it", by=requires_roles("treasurer"))
        async def transfer(amount: int) -> str:
            self.paid.append(("transfer", amount))
            return "transferred"

        @server.tool()
        @requires_approval(summary="Send it")
        @with_connection("bank")
        async def send(amount: int, *, connection_token: str) -> str:
            self.paid.append(("sent", amount))
            return "sent"

        @requires_approval(summary="Help with {amount}")
        async def helper(amount: int) -> str:
            self.paid.append(("helper", amount))
            return "helped"

        @server.tool()
        async def through(amount: int) -> str:
            return await helper(amount)

        @server.tool()
        async def plain() -> str:
            return "plain"

        self.approvals = Approvals(
            sign_in=self.signed_in, public_url=ORIGIN, clock=lambda: time.time() + self.skew
        )
        self.guard: ToolGuard = guarding(connections=self.bank, on_decision=self.records.append)
        self.guard.protect(server, approvals=self.approvals)
        app = mode.app(server) if mode else line.http_app(server, stateless=True, json=True)
        self.origin = serve(app)
        self.protocol = mode.protocol if mode else LEGACY_PROTOCOLS[-1]
        self.has_sessions = mode.has_sessions if mode else False

    async def bank(self, request: ConnectionRequest) -> Connection:
        if not self.has_account:
            raise ConnectionRequiredError("Connect it", connection=request.name)
        return Connection("bank token")

    async def signed_in(self, request: Request) -> Person | None:
        name, _, roles = request.headers.get("x-person", "").partition(":")
        claims = {"roles": roles.split(",")} if roles else {}
        return Person(self.issuer.issuer, name, claims=claims) if name else None

    def caller(self, user: str = "alice", *scopes: str, **claims: Any) -> Caller:
        token = self.issuer.mint(user, scopes=scopes or ("pay",), **claims)
        caller = Caller(self.http, f"{self.origin}/mcp", self.protocol, token=token)
        if self.has_sessions:
            assert caller.open().status == 200
        return caller

    def browser(self, person: str) -> httpx.Client:
        headers = {"x-person": person}
        return httpx.Client(base_url=self.origin, headers=headers, follow_redirects=True)

    def page(self, browser: httpx.Client, url: str) -> httpx.Response:
        return browser.get(url.removeprefix(ORIGIN))

    def answer(self, person: str, url: str, answer: str = "approved") -> httpx.Response:
        with self.browser(person) as browser:
            return self.post(browser, url, self.proof(self.page(browser, url)), answer)

    def proof(self, page: httpx.Response) -> str:
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        return found[1] if found else ""

    def post(
        self, browser: httpx.Client, url: str, proof: str, answer: str = "approved"
    ) -> httpx.Response:
        # The redirect leads to the public origin, which is not served here.
        form = {"csrf": proof, "answer": answer}
        return browser.post(url.removeprefix(ORIGIN), data=form, follow_redirects=False)


def link_in(reply: Reply) -> str:
    refusal = json.loads(reply.tool_error)
    assert refusal["error"] == "approval_required", refusal
    return str(refusal["approve_url"])


Opening: TypeAlias = Callable[..., Office]


@pytest.fixture
def opening(guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer) -> Opening:
    def opened(line: Line, mode: Mode | None = None) -> Office:
        return Office(line, guarding, serve, http, issuer, mode)

    return opened


@pytest.fixture
def office(line: Line, opening: Opening) -> Office:
    return opening(line)


def test_a_call_runs_once_after_its_user_said_yes(mode: Mode, opening: Opening) -> None:
    office = opening(mode.line, mode)
    alice = office.caller()
    asked = alice.call("pay", PAY)
    url = link_in(asked)
    assert json.loads(asked.tool_error)["state"] == "asked"
    again = json.loads(alice.call("pay", PAY).tool_error)
    assert (again["approve_url"], again["state"]) == (url, "waiting")
    assert "till waiting" in again["error_description"]
    assert office.paid == []

    assert office.answer("alice", url).status_code == 303
    assert alice.call("pay", PAY).value == "paid by alice"
    assert office.paid == [("Bob", 5)]
    assert link_in(alice.call("pay", PAY)) != url
    assert office.paid == [("Bob", 5)]


def test_scopes_are_asked_for_before_an_approval(office: Office) -> None:
    reply = office.caller("alice", "other").call("pay", PAY)

    assert reply.status == 403
    assert "approv" not in reply.content


def test_a_no_counts_and_says_so(office: Office) -> None:
    alice = office.caller()
    office.answer("alice", link_in(alice.call("pay", PAY)), "refused")

    refusal = json.loads(alice.call("pay", PAY).tool_error)
    assert refusal["error"] == "approval_refused"
    assert office.paid == []


def test_a_default_that_is_written_out_is_the_same_call(office: Office) -> None:
    alice = office.caller()
    office.answer("alice", link_in(alice.call("pay", {"payee": "Bob"})))

    assert alice.call("pay", {"payee": "Bob", "amount": 1}).value == "paid by alice"


@pytest.mark.parametrize(
    ("user", "client", "arguments"),
    [
        ("alice", "cli", {"payee": "Bob", "amount": 6}),
        ("alice", "cli", {"payee": "bob", "amount": 5}),
        ("mallory", "cli", PAY),
        ("alice", "other", PAY),
    ],
)
def test_a_yes_is_good_for_no_other_call(
    office: Office, user: str, client: str, arguments: dict[str, Any]
) -> None:
    alice = office.caller("alice", client_id="cli")
    office.answer("alice", link_in(alice.call("pay", PAY)))

    link_in(office.caller(user, client_id=client).call("pay", arguments))
    assert office.paid == []
    assert alice.call("pay", PAY).value == "paid by alice"


def test_a_yes_ends_with_its_time(office: Office) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    office.answer("alice", url)
    office.skew = 301

    assert link_in(alice.call("pay", PAY)) != url
    with office.browser("alice") as browser:
        assert office.page(browser, url).status_code == 410


@pytest.mark.parametrize("person", ["mallory", "mallory:treasurer", ""])
def test_nobody_else_sees_or_answers_the_question(office: Office, person: str) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    with office.browser("alice") as browser:
        proof = office.proof(office.page(browser, url))
        browser.headers["x-person"] = person
        seen = office.page(browser, url)
        posted = office.post(browser, url, proof)

    assert seen.status_code in (401, 403)
    assert "Bob" not in seen.text
    assert posted.status_code == 403
    link_in(alice.call("pay", PAY))


@pytest.mark.parametrize("proof", ["", "0" * 64, "é"])
def test_a_form_of_another_site_answers_nothing(office: Office, proof: str) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    with office.browser("alice") as browser:
        office.page(browser, url)
        assert office.post(browser, url, proof).status_code == 403
    with office.browser("alice") as fresh:
        assert office.post(fresh, url, proof).status_code == 403

    link_in(alice.call("pay", PAY))


def test_a_form_answers_no_other_question(office: Office) -> None:
    alice = office.caller()
    one, other = link_in(alice.call("pay", PAY)), link_in(alice.call("pay", {**PAY, "amount": 9}))
    with office.browser("alice") as browser:
        proof = office.proof(office.page(browser, one))
        assert office.post(browser, other, proof).status_code == 403

    assert office.paid == []


@pytest.mark.parametrize("second", ["approved", "refused"])
def test_a_second_answer_changes_nothing(office: Office, second: str) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    with office.browser("alice") as browser:
        proof = office.proof(office.page(browser, url))
        assert [office.post(browser, url, proof, a).status_code for a in ("approved", second)] == [
            303,
            303,
        ]
        assert "can be made once now" in office.page(browser, url).text
        assert alice.call("pay", PAY).value == "paid by alice"
        assert office.post(browser, url, proof).status_code == 303
        assert "has been made" in office.page(browser, url).text

    link_in(alice.call("pay", PAY))
    assert office.paid == [("Bob", 5)]


@pytest.mark.parametrize("answer", ["yes", "", "used"])
def test_an_answer_that_is_neither_yes_nor_no_is_refused(office: Office, answer: str) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))

    assert office.answer("alice", url, answer).status_code == 403
    link_in(alice.call("pay", PAY))


@pytest.mark.parametrize(
    "arguments",
    [
        {"approved": True, "approval": "yes"},
        {"_meta": {"approval": "approved"}},
        {"user_id": "alice"},
    ],
)
def test_nothing_that_a_client_sends_is_an_approval(
    office: Office, arguments: dict[str, Any]
) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    id_ = url.rpartition("/")[2]
    params = {"name": "pay", "arguments": {**PAY, **arguments}, "approval": id_}
    reply = alice.send("tools/call", params)

    assert reply.is_error
    assert office.paid == []


def test_another_person_approves_where_a_rule_says_so(office: Office) -> None:
    alice = office.caller("alice", roles=["treasurer"])
    url = link_in(alice.call("transfer", {"amount": 7}))

    # Not the caller, whatever they are; not a person who does not meet the rule.
    for person in ("alice", "alice:treasurer", "bob", "bob:clerk"):
        assert office.answer(person, url).status_code == 403
    assert office.answer("bob:treasurer", url).status_code == 303
    assert alice.call("transfer", {"amount": 7}).value == "transferred"


def test_an_approver_is_of_the_tenant_of_the_caller(office: Office) -> None:
    url = link_in(office.caller("alice", tenant="acme").call("transfer", {"amount": 7}))

    assert office.answer("bob:treasurer", url).status_code == 403


@pytest.mark.parametrize("other", [{"tenant": "acme"}, {"act": {"sub": "agent"}}])
def test_a_yes_is_for_the_tenant_and_the_actor_that_asked(
    office: Office, other: dict[str, Any]
) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    office.answer("alice", url)

    assert link_in(office.caller(**other).call("pay", PAY)) != url
    assert office.paid == []
    assert alice.call("pay", PAY).value == "paid by alice"


def test_an_account_that_is_not_connected_leaves_the_approval(office: Office) -> None:
    alice = office.caller()
    office.has_account = False
    url = link_in(alice.call("send", {"amount": 7}))
    office.answer("alice", url)
    refusal = json.loads(alice.call("send", {"amount": 7}).tool_error)
    assert refusal["error"] == "connection_required"
    assert office.paid == []

    # A provider that says so is asked again after a moment: the approval is still there.
    found = office.approvals.store
    assert isinstance(found, MemoryApprovals)
    approval = asyncio.run(found.find(url.rpartition("/")[2], 0.0))
    assert approval is not None
    assert approval.state == "approved"


def test_a_guarded_function_that_a_tool_calls_has_its_own_approval(office: Office) -> None:
    alice = office.caller()
    url = link_in(alice.call("through", {"amount": 3}))
    link_in(alice.call("through", {"amount": 4}))
    office.answer("alice", url)

    assert alice.call("through", {"amount": 3}).value == "helped"
    assert office.paid == [("helper", 3)]
    link_in(alice.call("through", {"amount": 3}))


def test_a_page_shows_what_runs_and_lets_nothing_in(office: Office) -> None:
    evil = "<script>alert(1)</script>{{7*7}}\u202etxt.exe"
    alice = office.caller("alice", "pay", client_id="<b>cli</b>")
    url = link_in(alice.call("pay", {"payee": evil + "x" * 5_000, "amount": 5}))
    with office.browser("alice") as browser:
        page = office.page(browser, url)

    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text
    assert "\u202e" not in page.text
    assert "\\u{202e}txt.exe" in page.text
    assert "more characters are not shown" in page.text
    assert "<b>cli" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["cache-control"] == "no-store"


def test_questions_and_answers_are_on_record(office: Office) -> None:
    alice = office.caller()
    url = link_in(alice.call("pay", PAY))
    office.answer("alice", url)
    alice.call("pay", PAY)
    office.answer("alice", link_in(alice.call("pay", PAY)), "refused")
    alice.call("pay", PAY)

    assert office.guard.recorder.flush()
    told = [(each.verdict, each.reason) for each in office.records if each.operation == "pay"]
    assert told == [
        ("refused", "approval_required"),
        ("approved", None),
        ("served", None),
        ("refused", "approval_required"),
        ("not_approved", None),
        ("refused", "approval_refused"),
    ]
    assert all("Bob" not in each.to_json() for each in office.records)
    answered = next(each for each in office.records if each.verdict == "approved")
    assert (answered.subject, answered.issuer) == ("alice", office.issuer.issuer)
    assert str(answered).startswith("approved: pay, by alice of ")


ASKED_IN_A_SESSION = [m for m in MODES if m.has_sessions and m.protocol == LEGACY_PROTOCOLS[-1]]
ASKED_IN_A_RESULT = [m for m in MODES if m.protocol == MODERN_PROTOCOL]


@pytest.mark.parametrize("mode", ASKED_IN_A_SESSION, ids=str)
def test_a_client_that_can_open_urls_is_asked_to_by_an_error(mode: Mode, opening: Opening) -> None:
    office = opening(mode.line, mode)
    alice = office.caller()
    alice.capabilities = dict(CAN_OPEN_URLS)
    assert alice.open().status == 200
    error = alice.call("pay", PAY).body["error"]

    assert error["code"] == -32042
    (question,) = error["data"]["elicitations"]
    office.answer("alice", question["url"])
    assert alice.call("pay", PAY).value == "paid by alice"


@pytest.mark.parametrize("action", ["accept", "decline"])
@pytest.mark.parametrize("mode", ASKED_IN_A_RESULT, ids=str)
def test_a_client_cannot_answer_for_its_user(mode: Mode, opening: Opening, action: str) -> None:
    office = opening(mode.line, mode)
    alice = office.caller()
    alice.capabilities = dict(CAN_OPEN_URLS)
    result = alice.call("pay", PAY).result
    assert result["resultType"] == "input_required"
    ((key, question),) = result["inputRequests"].items()
    answered = {"name": "pay", "arguments": PAY, "inputResponses": {key: {"action": action}}}
    refusal = json.loads(alice.send("tools/call", answered).tool_error)

    assert refusal["state"] == "waiting"
    assert office.paid == []
    office.answer("alice", question["params"]["url"])
    assert alice.send("tools/call", answered).value == "paid by alice"


def test_an_id_that_was_guessed_finds_nothing(office: Office) -> None:
    with office.browser("alice") as browser:
        page = office.page(browser, f"{ORIGIN}/connections/approvals/{uuid.uuid4().hex}")

    assert page.status_code == 410


def test_a_plain_tool_asks_for_nothing(office: Office) -> None:
    assert office.caller().call("plain").value == "plain"


@pytest.mark.skipif(not FASTMCP_LINES, reason="the SDK has no such middleware")
def test_an_answer_that_was_kept_is_not_given_without_an_approval(opening: Opening) -> None:
    office = opening(FASTMCP_LINES[-1])
    middleware = importlib.import_module("fastmcp.server.middleware").Middleware
    kept: list[Any] = []

    class Keeping(middleware):  # type: ignore[misc,valid-type]
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            if not kept:
                kept.append(await call_next(context))
            return kept[0]

    office.server.add_middleware(Keeping())
    alice = office.caller()
    office.answer("alice", link_in(alice.call("pay", PAY)))
    assert alice.call("pay", PAY).value == "paid by alice"

    assert alice.call("pay", PAY).is_error


@pytest.mark.parametrize("default", ["required", "None", "CurrentContext"])
def test_the_context_of_the_framework_is_no_argument(
    line: Line,
    guarding: Guarding,
    serve: Serve,
    http: httpx.Client,
    issuer: LocalIssuer,
    default: str,
) -> None:
    if default == "CurrentContext" and line not in FASTMCP_LINES:
        pytest.skip("only fastmcp has dependencies as defaults")
    server = line.server("office")

    async def signed_in(_: Request) -> Person | None:
        return Person(issuer.issuer, "alice")

    async def pay(amount: int, ctx: Any) -> str:
        return f"paid {amount} with {type(ctx).__name__}"

    pay.__annotations__["ctx"] = line.context | None if default == "None" else line.context
    if default == "CurrentContext":
        pay.__defaults__ = (importlib.import_module("fastmcp.dependencies").CurrentContext(),)
    elif default == "None":
        pay.__defaults__ = (None,)
    server.tool()(requires_approval(summary="Pay {amount}")(pay))
    guarding().protect(server, approvals=Approvals(sign_in=signed_in, public_url=ORIGIN))
    origin = serve(line.http_app(server, stateless=True, json=True))
    alice = Caller(http, f"{origin}/mcp", LEGACY_PROTOCOLS[-1], token=issuer.mint("alice"))
    path = link_in(alice.call("pay", {"amount": 2})).removeprefix(ORIGIN)
    with httpx.Client(base_url=origin) as browser:
        page = browser.get(path)
        assert "ctx" not in page.text
        proof = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        assert browser.post(path, data={"csrf": proof, "answer": "approved"}).status_code == 303

    assert alice.call("pay", {"amount": 2}).value == "paid 2 with Context"


class Sure(BaseModel):
    sure: bool


@pytest.mark.parametrize(
    "mode",
    [each for each in MODES if each.line.family == "sdk" and each.protocol == MODERN_PROTOCOL],
    ids=str,
)
def test_a_call_that_asks_its_caller_first_needs_its_approval_as_well(
    mode: Mode, opening: Opening
) -> None:
    resolve = importlib.import_module("mcp.server.mcpserver.resolve")
    office = opening(mode.line, mode)

    async def confirm(amount: int) -> Any:
        return resolve.Elicit(f"burn {amount}?", Sure)

    async def burn(amount: int, sure: Any) -> str:
        office.paid.append(("burnt", amount))
        return "burnt"

    confirm.__annotations__["return"] = resolve.Elicit[Sure]
    sure = Annotated[Sure, resolve.Resolve(confirm)]
    burn.__annotations__ = {"amount": int, "sure": sure, "return": str}
    office.server.tool()(requires_approval(summary="Burn {amount}")(burn))
    alice = office.caller()
    alice.capabilities = {"elicitation": {"form": {}}}
    call = {"name": "burn", "arguments": {"amount": 5}}

    asked = alice.send("tools/call", call)
    assert "burn 5?" in asked.content
    (key,) = asked.result["inputRequests"]
    answers = {key: {"action": "accept", "content": {"sure": True}}}
    answered = {**call, "requestState": asked.result["requestState"], "inputResponses": answers}
    url = link_in(alice.send("tools/call", answered))
    assert office.paid == []

    office.answer("alice", url)
    assert alice.send("tools/call", answered).value == "burnt"
    assert office.paid == [("burnt", 5)]
    link_in(alice.send("tools/call", answered))
    assert office.paid == [("burnt", 5)]
