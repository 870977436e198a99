"""Tokens of an authorization server of another make: the npm package oidc-provider."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import httpx
import pytest

from support.lines import LINES, Server
from support.node_packages import installed
from toolguard import Issuer, ToolGuard, requires_machine, requires_scopes
from toolguard.testing import call_as
from toolguard.tokens.issuers import BasicClient, Introspection

PACKAGE = "oidc-provider@9.5.1"
JOB = ("job", "a-secret-of-the-job")
FOR_JWT, FOR_OPAQUE = "https://mcp.test/jwt", "https://mcp.test/opaque"


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    script = installed(tmp_path_factory.mktemp("oidc"), "oidc_provider.mjs", PACKAGE)
    command = ["node", script.name]
    with subprocess.Popen(
        command, cwd=script.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def token_for(origin: str, resource: str) -> str:
    form = {"grant_type": "client_credentials", "resource": resource, "scope": "notes.read"}
    answer = httpx.post(f"{origin}/token", data=form, auth=JOB)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["access_token"])


def guarded(guard: ToolGuard) -> Server:
    server = LINES[0].server("notes")

    @server.tool()
    @requires_machine
    @requires_scopes("notes.read")
    async def read() -> str:
        return "read"

    return guard.protect(server)


def test_rotated_keys_cause_no_401(origin: str) -> None:
    server = guarded(ToolGuard(issuer=origin, audience=FOR_JWT))
    tokens: list[str] = []
    for _ in range(4):
        tokens.append(token_for(origin, FOR_JWT))
        answers = [call_as(server, "read", token=token) for token in tokens]
        assert [each.status for each in answers] == [200] * len(tokens)
        assert httpx.post(f"{origin}/rotate").status_code == 200


def test_a_token_for_another_server_is_refused(origin: str) -> None:
    server = guarded(ToolGuard(issuer=origin, audience="https://other.test/mcp"))

    assert call_as(server, "read", token=token_for(origin, FOR_JWT)).status == 401


@pytest.mark.parametrize("signed", [False, True])
def test_opaque_tokens_are_introspected_until_they_are_revoked(origin: str, signed: bool) -> None:
    asking = Introspection(BasicClient(*JOB), signed=signed)
    guard = ToolGuard(issuer=Issuer(origin, introspection=asking), audience=FOR_OPAQUE)
    server, token = guarded(guard), token_for(origin, FOR_OPAQUE)

    assert call_as(server, "read", token=token).status == 200
    revoked = httpx.post(f"{origin}/token/revocation", data={"token": token}, auth=JOB)
    assert revoked.status_code == 200
    assert call_as(server, "read", token=token).status == 401
