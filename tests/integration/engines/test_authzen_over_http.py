"""What does a policy decision point decide on every line, and how often is it asked?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse

from support.decision_points import FAULTS, PERMIT_ALL, DecisionPointImitation, Fault, hang
from support.lines import LINES, MODES, Guarding, Line, Mode, Serve
from support.wire import Caller, message, request_headers
from toolguard import Refusals, ToolGuard, requires
from toolguard.engines import AuthZEN, BearerClient, authzen
from toolguard.telemetry import DecisionRecord
from toolguard.testing import LocalIssuer, Loopback

KEY = "key-of-this-server"


@pytest.fixture
def point() -> Iterator[DecisionPointImitation]:
    """A decision point on loopback that knows this server."""
    with Loopback() as loopback:
        made = DecisionPointImitation(loopback.url, authorization=f"Bearer {KEY}")
        loopback.start(made.app)
        yield made


def engine_for(point: DecisionPointImitation, **settings: Any) -> AuthZEN:
    return authzen(point.url, client=BearerClient(KEY), **settings)


def office(line: Line, tools: int = 2) -> Any:
    server = line.server("office")
    for number in range(tools):

        def tool() -> str:
            return "done"

        server.tool(f"tool{number}")(tool)

    @server.resource("office://plan")
    def plan() -> str:
        return "plan"

    @server.resource("office://rooms/{room}")
    def room(room: str) -> str:
        return room

    @server.prompt()
    def speech(topic: str = "all") -> str:
        return topic

    line.complete_with(server, "monday")
    return server


Connect = Callable[..., Caller]


@pytest.fixture
def connect(
    mode: Mode, guarding: Guarding, issuer: LocalIssuer, serve: Serve, http: httpx.Client
) -> Connect:
    """Make callers of an office whose every operation an engine decides on."""

    def made(engine: AuthZEN, *, tools: int = 2, **settings: Any) -> Caller:
        guard = guarding(**settings)
        server = guard.protect(office(mode.line, tools), rules={"*": engine})
        url = serve(mode.app(server))
        caller = Caller(http, f"{url}/mcp", mode.protocol, token=issuer.mint("alice"))
        if mode.has_sessions:
            caller.open()
        return caller

    return made


def actions(point: DecisionPointImitation) -> list[tuple[str, str]]:
    """Return the method and the resource of each question."""
    return [(body["action"]["name"], body["resource"]["id"]) for _, body in point.asked]


def test_each_method_is_asked_about_once(connect: Connect, point: DecisionPointImitation) -> None:
    point.permitted = {("alice", PERMIT_ALL)}
    alice = connect(engine_for(point))

    assert alice.call("tool1").value == "done"
    assert alice.send("resources/read", {"uri": "office://plan"}).status == 200
    assert alice.send("resources/read", {"uri": "office://rooms/7"}).status == 200
    assert alice.send("prompts/get", {"name": "speech"}).status == 200
    completed = alice.send(
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "speech"},
            "argument": {"name": "topic", "value": "m"},
        },
    )
    assert completed.result["completion"]["values"] == ["monday"]

    assert actions(point) == [
        ("tools/call", "tool1"),
        ("resources/read", "office://plan"),
        ("resources/read", "office://rooms/7"),
        ("prompts/get", "speech"),
        ("completion/complete", "speech"),
    ]
    assert all(headers["authorization"] == f"Bearer {KEY}" for headers in point.headers)


def test_a_denial_is_a_denial_of_the_guard(connect: Connect, point: DecisionPointImitation) -> None:
    point.context = {"reason_admin": {"en": "policy C076E82F"}}
    alice = connect(engine_for(point))

    reply = alice.call("tool0")

    assert reply.denial["error"] == "access_denied"
    assert "C076" not in reply.content
    completed = alice.send(
        "completion/complete",
        {
            "ref": {"type": "ref/prompt", "name": "speech"},
            "argument": {"name": "topic", "value": "m"},
        },
    )
    assert completed.denial["error"] == "access_denied"


# Two hundred tools once on each line, a few in its other modes.
_FIRST = [next(mode for mode in MODES if mode.line == line) for line in LINES]
LISTS = [(mode, 200 if mode in _FIRST else 20) for mode in MODES]


@pytest.mark.parametrize(("mode", "count"), LISTS, ids=str)
def test_a_list_of_all_tools_is_one_request(
    connect: Connect, point: DecisionPointImitation, count: int
) -> None:
    point.permitted = {("alice", f"tool{n}") for n in range(0, count, 2)}
    alice = connect(engine_for(point), tools=count, refusals=Refusals(unauthorized_tools="hide"))

    listed: list[str] = []
    params: dict[str, Any] = {}
    while True:
        result = alice.send("tools/list", params).result
        listed += [each["name"] for each in result["tools"]]
        if not result.get("nextCursor"):
            break
        params = {"cursor": result["nextCursor"]}

    assert listed == [f"tool{n}" for n in range(0, count, 2)]
    assert [path for path, _ in point.asked] == ["/access/v1/evaluations"]


def test_a_template_stays_listed_and_its_resources_are_decided_on(
    connect: Connect, point: DecisionPointImitation
) -> None:
    alice = connect(engine_for(point), refusals=Refusals(unauthorized_tools="hide"))

    templates = alice.send("resources/templates/list").result["resourceTemplates"]

    assert [each["uriTemplate"] for each in templates] == ["office://rooms/{room}"]
    assert point.asked == []
    assert alice.send("resources/list").result["resources"] == []


@pytest.fixture
def once(guarding: Guarding, issuer: LocalIssuer, serve: Serve, http: httpx.Client) -> Connect:
    """Make callers in one mode only: what follows does not depend on it."""

    def made(engine: AuthZEN, guard: ToolGuard | None = None, **settings: Any) -> Caller:
        guard = guard or guarding(**settings)
        server = guard.protect(office(LINES[0]), rules={"*": engine})
        url = serve(LINES[0].http_app(server, stateless=True, json=True))
        return Caller(http, f"{url}/mcp", token=issuer.mint("alice"))

    return made


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_no_fault_of_the_decision_point_is_a_permit_or_a_denial(
    once: Connect, point: DecisionPointImitation, fault: Fault
) -> None:
    point.permitted = {(PERMIT_ALL, PERMIT_ALL)}
    alice = once(engine_for(point, timeout=1.0))
    point.fault = fault

    refused = json.loads(alice.call("tool0").tool_error)
    point.fault = None

    assert refused["error"] == "decision_unavailable"
    assert alice.call("tool0").value == "done"


def test_a_decision_point_that_hangs_holds_no_caller_up(
    once: Connect, point: DecisionPointImitation
) -> None:
    alice = once(engine_for(point, timeout=0.05), refusals=Refusals(unauthorized_tools="hide"))
    point.fault = hang

    assert json.loads(alice.call("tool0").tool_error)["error"] == "decision_unavailable"
    assert alice.tools().keys() == {"tool0", "tool1"}  # a list denies nothing that it cannot tell


def test_a_decision_point_that_is_gone_is_an_outage(once: Connect) -> None:
    with Loopback() as gone:
        engine = authzen(gone.url)

    refused = json.loads(once(engine).call("tool0").tool_error)

    assert refused["error"] == "decision_unavailable"


def test_a_denial_and_an_outage_are_told_apart_in_the_record(
    once: Connect, point: DecisionPointImitation, guarding: Guarding
) -> None:
    records: list[DecisionRecord] = []
    guard = guarding(on_decision=records.append)
    alice = once(engine_for(point), guard)
    point.context = {"reason_admin": {"en": "policy C076E82F"}}

    alice.call("tool0")
    point.fault = FAULTS["a server error"]
    alice.call("tool0")

    assert guard.recorder.flush()
    assert [(each.verdict, each.denied_by) for each in records] == [
        ("refused", "check AuthZEN: policy C076E82F"),
        ("outage", "check AuthZEN: no answer"),
    ]


def test_one_operation_asks_once_though_a_rule_asks_as_well(
    point: DecisionPointImitation,
    guarding: Guarding,
    issuer: LocalIssuer,
    serve: Serve,
    http: httpx.Client,
    line: Line,
) -> None:
    point.permitted = {("alice", "pay")}
    engine, server = engine_for(point), line.server("bank")

    @server.tool()
    @requires(engine)
    async def pay(amount: int) -> str:
        return str(amount)

    url = serve(line.http_app(guarding().protect(server, rules={"*": engine}), stateless=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))

    assert alice.call("pay", {"amount": 3}).value == "3"
    assert actions(point) == [("tools/call", "pay")]


def test_a_mapping_sees_the_validated_arguments(
    point: DecisionPointImitation,
    guarding: Guarding,
    issuer: LocalIssuer,
    serve: Serve,
    http: httpx.Client,
    line: Line,
) -> None:
    point.permitted = {("alice", "bob")}
    server = line.server("bank")
    engine = engine_for(
        point,
        never_sent=["pin"],
        mapping=lambda _, call: {
            "resource": {"type": "account", "id": call.arguments["to"]},
            "context": dict(call.arguments),
        },
    )

    @server.tool()
    @requires(engine)
    async def pay(to: str, pin: str, amount: int = 1) -> str:
        return f"{amount} to {to}"

    url = serve(line.http_app(guarding().protect(server), stateless=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))

    assert alice.call("pay", {"to": "bob", "pin": "1234"}).value == "1 to bob"
    assert alice.call("pay", {"to": "eve", "pin": "1234"}).is_error
    assert point.asked[0][1]["context"] == {"to": "bob", "amount": 1, "agent": "test-client"}
    assert "1234" not in json.dumps(point.asked)


def test_a_proxy_asks_for_the_server_behind_it(
    point: DecisionPointImitation, guarding: Guarding, issuer: LocalIssuer
) -> None:
    point.permitted = {("alice", "tool0")}
    guard = guarding()
    app = guard.asgi(JSONResponse("done"), rules={"*": engine_for(point)})
    headers = request_headers("2025-11-25", token=issuer.mint("alice"))

    async def called() -> list[Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            bodies = [message("2025-11-25", "tools/call", {"name": n}) for n in ("tool0", "tool1")]
            url = "http://mcp.test/mcp"
            replies = [await client.post(url, json=body, headers=headers) for body in bodies]
        await guard.aclose()
        return [reply.json() for reply in replies]

    passed, denied = asyncio.run(called())

    assert passed == "done"
    assert json.loads(denied["result"]["content"][0]["text"])["error"] == "access_denied"
    assert actions(point) == [("tools/call", "tool0"), ("tools/call", "tool1")]


@pytest.mark.parametrize("named", ["its own", "https://other.test"])
def test_a_guard_warms_up_and_closes_its_engines(
    point: DecisionPointImitation, guarding: Guarding, named: str
) -> None:
    assert point.document is not None
    if named != "its own":
        point.document["policy_decision_point"] = named
    guard = guarding()
    guard.protect(office(LINES[0]), rules={"*": engine_for(point)})

    async def lived() -> bool:
        found = await guard.ready()
        await guard.aclose()
        return bool(found)

    assert asyncio.run(lived()) is (named == "its own")
    assert len(point.discoveries) == 1
