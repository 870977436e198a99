"""The examples of one file each run, and show what they say that they show."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from support.wire import Caller, Reply
from toolguard import ToolGuard
from toolguard.cli import main
from toolguard.dev.vendors import VendorServer
from toolguard.testing import GuardedClient, LocalIssuer, Loopback

pytest.importorskip("fastmcp", reason="the examples are written for fastmcp")

EXAMPLES = Path(__file__).parents[3] / "examples"
ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def issuer() -> Iterator[LocalIssuer]:
    """Serve the keys and the metadata of one issuer."""
    with Loopback() as loopback:
        issuer = LocalIssuer(loopback.url, audience=f"{ORIGIN}/mcp")
        loopback.start(issuer.app)
        yield issuer


def example(path: str, issuers: str, url: str = f"{ORIGIN}/mcp", **more: str) -> Any:
    """Return an example that was imported with these settings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DESCOPE_MCP_WELL_KNOWN_URL", raising=False)
        for name, text in {"TOOLGUARD_ISSUER": issuers, "MCP_SERVER_URL": url, **more}.items():
            patch.setenv(name, text)
        return imported(EXAMPLES / path)


def imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def serving(app: Any, token: str | None, endpoint: str = "/mcp") -> Iterator[Caller]:
    with Loopback() as loopback, httpx.Client(base_url=loopback.url, timeout=30) as http:
        loopback.start(app)
        caller = Caller(http, endpoint, token=token)
        caller.open()
        yield caller


def called(app: Any, token: str | None, tool: str, **arguments: Any) -> Reply:
    with serving(app, token) as caller:
        return caller.call(tool, arguments)


@pytest.mark.parametrize(
    "path",
    [
        "fastapi_mount.py:mcp",
        "fastmcp_migration/after.py",
        "issuer_presets.py",
        "lowlevel.py",
        "over_stdio.py",
        "roles_and_tenants.py",
    ],
)
def test_the_audit_finds_nothing_open_in_an_example(
    path: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if path.startswith("fastapi"):
        pytest.importorskip("fastapi")
    if path.startswith("lowlevel"):
        pytest.importorskip("mcp_types", reason="it is written for mcp 2")
    monkeypatch.setenv("TOOLGUARD_ISSUER", "https://auth.example.com")
    monkeypatch.setenv("MCP_SERVER_URL", f"{ORIGIN}/mcp")

    assert main(["audit", "--check", str(EXAMPLES / path)]) == 0, capsys.readouterr()


# --- FastAPI


@pytest.fixture(scope="module")
def fastapi_mount(issuer: LocalIssuer) -> Iterator[Caller]:
    pytest.importorskip("fastapi")
    url = f"{ORIGIN}/notes/mcp"
    app = example("fastapi_mount.py", issuer.issuer, url).app
    with serving(app, issuer.mint("alice", scopes=["notes.read"], aud=url), "/notes/mcp") as on:
        yield on


def test_a_mounted_server_serves_its_caller(fastapi_mount: Caller) -> None:
    assert "a note of alice" in fastapi_mount.call("list_notes").content


def test_a_mounted_server_asks_for_the_missing_scope(fastapi_mount: Caller) -> None:
    answer = fastapi_mount.call("add_note", {"text": "tea"})

    assert answer.status == 403
    assert 'scope="notes.read notes.write"' in answer.headers["www-authenticate"]


def test_a_mounted_server_is_described_at_the_root_of_the_host(fastapi_mount: Caller) -> None:
    refusal = Caller(fastapi_mount.http, "/notes/mcp").call("list_notes")
    path = "/.well-known/oauth-protected-resource/notes/mcp"

    assert refusal.status == 401
    assert ORIGIN + path in refusal.headers["www-authenticate"]
    assert fastapi_mount.http.get(path).json()["resource"] == f"{ORIGIN}/notes/mcp"


def test_routes_beside_a_mounted_server_stay_open(fastapi_mount: Caller) -> None:
    assert fastapi_mount.http.get("/health").json() == {"ok": True}


# --- the low-level server


@pytest.mark.parametrize(
    ("tool", "scopes", "status"),
    [
        ("forecast", ["weather.read"], 200),
        ("forecast", [], 403),
        ("warn_everybody", ["weather.read"], 403),
        ("about", None, 200),
        ("forecast", None, 401),
    ],
)
def test_the_low_level_example_is_guarded_by_name(
    issuer: LocalIssuer, tool: str, scopes: list[str] | None, status: int
) -> None:
    pytest.importorskip("mcp_types", reason="it is written for mcp 2")
    token = None if scopes is None else issuer.mint("alice", scopes=scopes)
    server = example("lowlevel.py", issuer.issuer).server

    answer = called(server.streamable_http_app(stateless_http=True), token, tool)

    assert answer.status == status


# --- stdio


def test_a_server_over_stdio_serves_the_subject_of_its_token(issuer: LocalIssuer) -> None:
    messages: list[dict[str, Any]] = [
        {
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-11-25",
                "capabilities": {},
                "clientInfo": {"name": "test", "version": "1"},
            },
        },
        {"method": "notifications/initialized"},
        {
            "id": 2,
            "method": "tools/call",
            "params": {"name": "read_file", "arguments": {"name": "a"}},
        },
        {
            "id": 3,
            "method": "tools/call",
            "params": {"name": "delete_file", "arguments": {"name": "a"}},
        },
    ]
    environment = {
        **os.environ,
        "TOOLGUARD_ISSUER": issuer.issuer,
        "MCP_SERVER_URL": f"{ORIGIN}/mcp",
        "TOOLGUARD_ACCESS_TOKEN": issuer.mint("alice", scopes=["files.read"]),
    }
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "over_stdio.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for each in messages:
            server.stdin.write(json.dumps({"jsonrpc": "2.0", **each}) + "\n")
        server.stdin.flush()
        answers: dict[int, Any] = {}
        while not {2, 3} <= answers.keys():
            answer = json.loads(server.stdout.readline())
            answers[answer.get("id")] = answer.get("result")
        server.stdin.close()

    assert answers[2]["content"][0]["text"] == "a of alice"
    assert answers[3]["isError"]
    assert json.loads(answers[3]["content"][0]["text"])["missing_scopes"] == ["files.delete"]


# --- roles, tenants, checks


@pytest.fixture(scope="module")
def invoices() -> Any:
    return example("roles_and_tenants.py", "https://auth.example.com").mcp


PAY: dict[str, Any] = {"invoice": "1", "amount": 10}
ACCOUNTANT: dict[str, Any] = {"scopes": ["invoices.pay"], "roles": ["accountant"]}


@pytest.mark.parametrize(
    ("caller", "tool", "arguments", "outcome"),
    [
        (ACCOUNTANT, "pay", PAY, "ok"),
        (ACCOUNTANT, "pay", {**PAY, "amount": 2_000}, ("invoices.large",)),
        (ACCOUNTANT, "pay", {**PAY, "amount": 200_000}, "denied"),
        ({"scopes": ["invoices.pay"]}, "pay", PAY, "denied"),
        ({"scopes": ["invoices.read"], "tenant": "a"}, "list_invoices", {"tenant_id": "a"}, "ok"),
        (
            {"scopes": ["invoices.read"], "tenant": "a"},
            "list_invoices",
            {"tenant_id": "b"},
            "denied",
        ),
        ({"scopes": ["invoices.admin"], "tenant": "a"}, "list_invoices", {"tenant_id": "a"}, "ok"),
        ({"scopes": ["invoices.read"]}, "nightly_report", {}, "denied"),
    ],
)
def test_each_requirement_of_the_invoices_holds(
    invoices: Any, caller: dict[str, Any], tool: str, arguments: dict[str, Any], outcome: object
) -> None:
    answer = GuardedClient(invoices, user="alice", **caller).call(tool, arguments)

    found = "ok" if answer.ok else answer.missing_scopes or "denied"
    assert found == outcome


def test_an_old_sign_in_of_an_owner_is_challenged(invoices: Any) -> None:
    owner = GuardedClient(invoices, user="alice", roles=["owner"], auth_time=1)

    assert owner.call("delete_invoice", {"invoice": "1"}).status == 401


def test_a_job_without_a_user_reads_its_report(invoices: Any) -> None:
    job = GuardedClient(invoices, user="nightly", scopes=["invoices.read"], client_id="nightly")

    assert job.call("nightly_report", {}).ok


# --- two vendors


def test_people_of_two_vendors_are_served_by_one_server() -> None:
    with ExitStack() as stack:
        vendors = []
        for name in ("keycloak", "okta"):
            loopback = stack.enter_context(Loopback())
            vendor = VendorServer(name, origin=loopback.url, scopes=["wiki.read"])
            loopback.start(vendor.app)
            vendors.append((name, vendor))
        issuers = " ".join(f"{name}:{vendor.described.url}" for name, vendor in vendors)
        app = example("issuer_presets.py", issuers).mcp.http_app(stateless_http=True)
        caller = stack.enter_context(serving(app, None))
        for _, vendor in vendors:
            caller.token = vendor.issuer.mint("alice", scopes=["wiki.read"], aud=f"{ORIGIN}/mcp")
            said = caller.call("read_page", {"title": "home"}).content

            assert f"home for alice of {vendor.described.url}" in said


# --- from fastmcp's auth


@pytest.fixture(scope="module", params=["before", "after"])
def notes(request: pytest.FixtureRequest, issuer: LocalIssuer) -> tuple[str, Any]:
    keys, path = f"{issuer.issuer}/jwks", f"fastmcp_migration/{request.param}.py"
    return request.param, example(path, issuer.issuer, JWKS_URL=keys).mcp


def test_the_migrated_server_serves_the_same_callers(
    notes: tuple[str, Any], issuer: LocalIssuer
) -> None:
    token = issuer.mint("alice", scopes=["notes.read"])

    assert "a note of alice" in called(notes[1].http_app(), token, "list_notes").content


def test_the_migrated_server_asks_for_a_missing_scope(
    notes: tuple[str, Any], issuer: LocalIssuer
) -> None:
    name, mcp = notes
    token = issuer.mint("alice", scopes=["notes.read"])

    answer = called(mcp.http_app(), token, "add_note", text="tea")

    if name == "before":
        assert answer.status == 200
        assert "Unknown tool" in answer.content
    else:
        assert answer.status == 403
        assert 'scope="notes.read notes.write"' in answer.headers["www-authenticate"]


def test_the_migrated_server_lists_what_can_be_stepped_up_to(
    notes: tuple[str, Any], issuer: LocalIssuer
) -> None:
    name, mcp = notes
    with serving(mcp.http_app(), issuer.mint("alice", scopes=["notes.read"])) as caller:
        listed = set(caller.tools())

    assert ("add_note" in listed) == (name == "after")


def test_a_check_of_fastmcp_is_still_asked_behind_a_guard() -> None:
    auth = importlib.import_module("fastmcp.server.auth")
    mcp = importlib.import_module("fastmcp").FastMCP("notes")

    @mcp.tool(auth=auth.require_scopes("notes.read"))  # type: ignore[untyped-decorator,unused-ignore]
    async def list_notes() -> str:
        return "notes"

    ToolGuard(issuer="https://auth.example.com", audience=f"{ORIGIN}/mcp").protect(mcp)

    assert GuardedClient(mcp, scopes=["notes.read"]).call("list_notes", {}).ok
    assert not GuardedClient(mcp, scopes=[]).call("list_notes", {}).ok
