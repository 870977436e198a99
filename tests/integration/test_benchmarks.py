"""Do the servers that are measured serve what is measured?"""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from benchmarks.arms import ARMS, LINES, RECORD_ARMS, SCOPE, Trust, app
from benchmarks.wire import Connection, request
from toolguard.testing import LocalIssuer, Loopback


@pytest.mark.parametrize("arm", sorted({*ARMS, *RECORD_ARMS}))
@pytest.mark.parametrize("line", LINES)
def test_each_arm_of_the_benchmark_serves_a_call(line: str, arm: str) -> None:
    issuer = LocalIssuer(audience="http://127.0.0.1:8000/mcp")
    trust = Trust(issuer.issuer, issuer.audience, issuer.algorithm, issuer.jwks()["keys"][0])
    token = issuer.mint("alice", scopes=[SCOPE])
    params = {"name": "echo", "arguments": {"text": "hello"}}

    with Loopback(app(line, arm, "JSON", trust, 2)) as server:
        connection = Connection(urlsplit(server.url).port or 0)
        sent = request("/mcp", "2025-11-25", token, "tools/call", params)
        head, body = connection.exchange(sent)
        connection.close()

    assert head.startswith(b"HTTP/1.1 200 ")
    assert b'"isError":false' in body
    assert b"hello" in body
