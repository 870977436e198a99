"""A client that proves the possession of its key with each request (RFC 9449)."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import httpx

from support.wire import Caller, Reply
from toolguard.testing.proofs import ProofKey

__all__ = ["Prover", "ProvingCaller"]


class Prover(httpx.Auth):
    """Sends a token that is bound to a key, with a new proof for each request.

    Args:
        key: the key.
        token: the token.
        url: the URL of the server, as its clients know it.
    """

    def __init__(self, key: ProofKey, token: str, url: str = "https://mcp.test/mcp") -> None:
        self.key = key
        self.token = token
        self.url = url
        self.nonce: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Sign the request, and once more if the server has a new nonce."""
        request.headers["authorization"] = f"DPoP {self.token}"
        for _ in range(2):
            request.headers["dpop"] = self.key.prove(
                request.method, self.url, self.token, nonce=self.nonce
            )
            response = yield request
            asks = "use_dpop_nonce" in response.headers.get("www-authenticate", "")
            self.nonce = response.headers.get("dpop-nonce", self.nonce)
            if not asks:
                return


class ProvingCaller(Caller):
    """An MCP client whose requests carry proofs; what it sends can be changed.

    Args:
        http: sends the requests.
        endpoint: the URL of the MCP endpoint.
        protocol: the revision it speaks.
        prover: signs the requests.
    """

    def __init__(self, http: httpx.Client, endpoint: str, protocol: str, prover: Prover) -> None:
        super().__init__(http, endpoint, protocol)
        self.prover = prover

    def post(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Reply:
        """Send exactly this, with a proof."""
        response = self.http.post(self.endpoint, json=body, headers=headers, auth=self.prover)
        return Reply.of(response)
