"""Is the deployment of ``examples/deploy`` right: nginx, TLS, two workers, and a real client?"""

from __future__ import annotations

import base64
import importlib
import io
import json
import shutil
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from support.certificates import Certificates, make_certificates
from support.deployed import Nginx, Worker
from support.redis_server import RedisServer
from support.vault_database import postgres_cluster
from toolguard.audit.doctor.command import run_doctor
from toolguard.testing import LocalIssuer, Loopback

pytest.importorskip("mcp.server.mcpserver", reason="the example is written for mcp 2.x")
pytest.importorskip("opentelemetry", reason="the example needs the extra otel")


@dataclass
class Deployment:
    """The running deployment."""

    url: str
    issuer: LocalIssuer
    certificates: Certificates
    workers: list[Worker]

    @property
    def endpoint(self) -> str:
        return f"{self.url}/mcp"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.certificates.authority))

    def client(self) -> httpx.Client:
        return httpx.Client(verify=self.trust, timeout=30, trust_env=False)

    @asynccontextmanager
    async def connected(self, token: str) -> AsyncIterator[tuple[Any, list[Any]]]:
        """Connect the client of the SDK; yield it with the responses that it got."""
        mcp: Any = importlib.import_module("mcp")
        http: Any = importlib.import_module("httpx2")
        transport: Any = importlib.import_module("mcp.client.streamable_http")
        seen: list[Any] = []

        async def note(response: Any) -> None:
            seen.append(response)

        async with http.AsyncClient(
            headers={"authorization": f"Bearer {token}"},
            verify=self.trust,
            event_hooks={"response": [note]},
            timeout=30,
            trust_env=False,
        ) as web:
            opened = transport.streamable_http_client(self.endpoint, http_client=web)
            async with mcp.Client(opened) as client:
                yield client, seen


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Return a folder that other users may enter: Postgres and nginx change theirs."""
    made = Path(tempfile.mkdtemp(prefix="tg-deploy-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def deployment(directory: Path) -> Iterator[Deployment]:
    certificates = make_certificates(directory)
    database, key = directory / "postgres", base64.b64encode(b"k" * 32).decode()
    database.mkdir()
    with ExitStack() as stack:
        listener = stack.enter_context(Loopback())
        logs = [directory / f"worker{number}.log" for number in range(2)]
        workers = [Worker("support.deployed_server:app", log) for log in logs]
        nginx = Nginx(directory, workers, certificates)
        issuer = LocalIssuer(listener.url, audience=f"{nginx.url}/mcp", algorithm="ES256")
        listener.start(issuer.app)
        environ = {
            "MCP_SERVER_URL": issuer.audience,
            "TOOLGUARD_ISSUER": issuer.issuer,
            "TOOLGUARD_SECRET": "s" * 32,
            "TOOLGUARD_CACHE_KEYS": key,
            "TOOLGUARD_VAULT_KEYS": key,
            "DATABASE_URL": stack.enter_context(postgres_cluster(database)),
            "REDIS_URL": stack.enter_context(RedisServer(directory)).url,
            "GITHUB_CLIENT_ID": "id",
            "GITHUB_CLIENT_SECRET": "hidden",
            "SIGN_IN_CLIENT_ID": "server",
            "SIGN_IN_CLIENT_SECRET": "hidden",
        }
        for worker in workers:
            worker.environ.update(environ)
            worker.launch()
            stack.callback(worker.stop)
        for worker in workers:
            worker.wait()
        stack.enter_context(nginx)
        yield Deployment(nginx.url, issuer, certificates, workers)


def message(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def test_a_real_client_calls_a_tool_through_the_proxy(deployment: Deployment) -> None:
    async def call() -> list[str]:
        token = deployment.issuer.mint("alice", scopes=["notes.read"])
        async with deployment.connected(token) as (client, _):
            answers = [await client.call_tool("read_note", {"name": f"{n}"}) for n in range(4)]
        return [each.content[0].text for each in answers]

    assert anyio.run(call) == [f"{n} of alice" for n in range(4)]


def test_a_call_without_a_token_keeps_its_challenge(deployment: Deployment) -> None:
    with deployment.client() as client:
        answer = client.post(deployment.endpoint, json=message("tools/list"))

    assert answer.status_code == 401
    metadata = f"{deployment.url}/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{metadata}"' in answer.headers["www-authenticate"]


def test_a_missing_scope_reaches_the_client_as_403(deployment: Deployment) -> None:
    async def call() -> Any:
        token = deployment.issuer.mint("alice", scopes=["notes.read"])
        async with deployment.connected(token) as (client, seen):
            with pytest.raises(Exception, match="write"):
                await client.call_tool("write_note", {"name": "a"})
        return next(each for each in seen if each.status_code == 403)

    challenge = anyio.run(call).headers["www-authenticate"]
    assert challenge.startswith('Bearer error="insufficient_scope", scope="')
    assert "notes.write" in challenge


def test_the_metadata_is_served_at_the_well_known_address(deployment: Deployment) -> None:
    with deployment.client() as client:
        found = client.get(f"{deployment.url}/.well-known/oauth-protected-resource/mcp").json()

    assert found["resource"] == deployment.endpoint
    assert found["authorization_servers"] == [deployment.issuer.issuer]
    assert set(found["scopes_supported"]) == {"notes.read", "notes.write"}


def test_events_pass_the_proxy_before_the_call_ends(
    deployment: Deployment, directory: Path
) -> None:
    released = directory / "released"

    async def call() -> str:
        async def release(*_: Any) -> None:
            released.touch()

        token = deployment.issuer.mint("alice", scopes=["notes.read"])
        with anyio.fail_after(60):
            async with deployment.connected(token) as (client, _):
                answer = await client.call_tool(
                    "wait_for", {"path": str(released)}, progress_callback=release
                )
        text: str = answer.content[0].text
        return text

    assert anyio.run(call) == "released"


def test_the_doctor_finds_no_fault_in_the_deployment(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(deployment.certificates.authority))
    out, token = io.StringIO(), deployment.issuer.mint("alice", scopes=["notes.read"])

    status = run_doctor(deployment.endpoint, out, token=token, as_json=True)
    found = json.loads(out.getvalue())
    assert status == 0, found
    assert [(each["code"], each["level"]) for each in found] == [("cors", "note")]


def test_health_is_for_the_orchestrator_only(deployment: Deployment) -> None:
    with deployment.client() as client:
        assert client.get(f"{deployment.url}/readyz").status_code == 404
        assert client.get(f"{deployment.url}/healthz").status_code == 404
        for worker in deployment.workers:
            assert client.get(f"{worker.url}/readyz").json() == {"ready": True, "missing": []}


def test_a_request_for_another_host_is_refused(deployment: Deployment) -> None:
    with deployment.client() as client:
        answer = client.get(f"{deployment.url}/mcp", headers={"host": "evil.example"})

    assert answer.status_code == 421


def test_a_connect_link_is_served_through_the_proxy(deployment: Deployment) -> None:
    async def link() -> str:
        token = deployment.issuer.mint("alice", scopes=["notes.read"])
        async with deployment.connected(token) as (client, _):
            answer = await client.session.call_tool("list_issues", {}, allow_input_required=True)
        return json.dumps(answer.model_dump(mode="json", by_alias=True))

    text = anyio.run(link)
    address = text[text.index(f"{deployment.url}/connections/link/") :]
    with deployment.client() as client:
        answer = client.get(address.partition('"')[0].partition("\\")[0])

    assert answer.status_code in (302, 303)
    assert answer.headers["location"].startswith(f"{deployment.issuer.issuer}/authorize?")


def test_each_decision_is_a_line_of_the_workers_log(deployment: Deployment) -> None:
    worker = deployment.workers[0]
    token = deployment.issuer.mint("hidden-name", scopes=["notes.read"])
    headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    call = message("tools/call", name="read_note", arguments={"name": "hidden-note"})
    with deployment.client() as client:
        # Not through the proxy, which might choose the other worker.
        client.post(f"{worker.url}/mcp", json={**call, "id": "marked"}, headers=headers)

    record = json.loads(worker.wait_for_line('"request_id": "marked"'))
    assert (record["operation"], record["verdict"]) == ("read_note", "served")
    log = worker.log.read_text("utf-8")
    assert "hidden-name" not in log
    assert "hidden-note" not in log
