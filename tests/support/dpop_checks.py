"""The checks of the MCP conformance suite for a server with bound tokens (SEP-1932), by name.

From the scenario ``auth/dpop-server-validation`` of its pull request 395, and from the issue 369
that asked for it. Each request is one that opens a session or asks what the server is, as there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from support.lines import MODERN_PROTOCOL
from support.wire import Reply, message, request_headers
from toolguard.testing import LocalIssuer
from toolguard.testing.proofs import ProofKey

__all__ = ["CHECKS", "REJECTED", "Prober", "nonce_flow"]

#: What the suite calls a proper rejection: 401, with a challenge of the scheme DPoP.
REJECTED = "401 DPoP"
# Outside of the window of 300 s by as much as the suite allows for clocks in whole seconds.
_OUTSIDE = 303


@dataclass(frozen=True)
class Prober:
    """A client that sends what it is told to.

    Attributes:
        http: sends the requests.
        endpoint: where they go.
        url: the URL of the endpoint as its clients know it.
        protocol: the revision it speaks.
        issuer: the issuer of its tokens.
        key: the key that they are bound to.
    """

    http: httpx.Client
    endpoint: str
    url: str
    protocol: str
    issuer: LocalIssuer
    key: ProofKey

    def token(self, **settings: Any) -> str:
        """Return a token that is bound to the key."""
        return self.issuer.mint(scopes=["calendar.read"], key=self.key, **settings)

    def send(self, token: str, *proofs: str, scheme: str = "DPoP") -> Reply:
        """Send the first message of a client, with these credentials."""
        modern = self.protocol == MODERN_PROTOCOL
        start = {
            "protocolVersion": self.protocol,
            "capabilities": {},
            "clientInfo": {"name": "prober", "version": "1"},
        }
        method = "server/discover" if modern else "initialize"
        body = message(self.protocol, method, None if modern else start)
        headers = [*request_headers(self.protocol, body).items()]
        headers += [("authorization", f"{scheme} {token}"), *(("dpop", each) for each in proofs)]
        return Reply.of(self.http.post(self.endpoint, json=body, headers=headers))

    def outcome(self, token: str, *proofs: str, scheme: str = "DPoP") -> str:
        """Return the status, and the scheme of the challenge that the suite looks for."""
        reply = self.send(token, *proofs, scheme=scheme)
        looked_for = "dpop" if scheme == "DPoP" else "bearer|dpop"
        has = re.search(
            rf"(?:^|,)\s*({looked_for})(?:\s|$|,)", reply.challenge or "", re.IGNORECASE
        )
        return f"{reply.status} DPoP" if has else str(reply.status)

    def prove(self, token: str, **changed: object) -> str:
        """Return a proof for the message."""
        return self.key.prove("POST", self.url, token, **changed)  # type: ignore[arg-type]


def _with(kind: str) -> Callable[[Prober], str]:
    """Send a proof that is invalid in a way that has a name."""

    def check(prober: Prober) -> str:
        token = prober.token()
        return prober.outcome(token, *prober.key.prove_invalid(kind, "POST", prober.url, token))

    return check


def _aged(seconds: int) -> Callable[[Prober], str]:
    def check(prober: Prober) -> str:
        token = prober.token()
        return prober.outcome(token, prober.prove(token, iat=int(time.time()) + seconds))

    return check


def _valid(prober: Prober) -> str:
    token = prober.token()
    return prober.outcome(token, prober.prove(token))


def _get(prober: Prober) -> str:
    token = prober.token()
    return prober.outcome(token, prober.prove(token, htm="GET"))


def _as_bearer(prober: Prober) -> str:
    token = prober.token()
    return prober.outcome(token, prober.prove(token), scheme="Bearer")


def _of_another_key(prober: Prober) -> str:
    """RFC 9449 §7.1, and the issue: it is the token that is not valid."""
    token = prober.issuer.mint(scopes=["calendar.read"], key=ProofKey())
    reply = prober.send(token, prober.prove(token))
    assert 'DPoP error="invalid_token"' in str(reply.challenge)
    return prober.outcome(token, prober.prove(token))


def _for_another_server(prober: Prober) -> str:
    token = prober.token(aud="https://not-this-server.example.com/mcp")
    return prober.outcome(token, prober.prove(token))


def _twice(prober: Prober) -> str:
    token = prober.token()
    proof = prober.prove(token)
    prober.outcome(token, proof)
    return prober.outcome(token, proof)


#: Each check that is refused, by its name there; a valid request comes first.
CHECKS: Mapping[str, Callable[[Prober], str]] = {
    "AcceptsValidProof": _valid,
    "RejectsTamperedSignature": _with("wrong_signature"),
    "RejectsMissingJti": _with("without_id"),
    "RejectsWrongTyp": _with("other_type"),
    "RejectsHtuMismatch": _with("other_host"),
    "RejectsHtmMismatch": _get,
    "RejectsPrivateKeyInJwk": _with("private_key"),
    "RejectsWrongAth": _with("hash_of_another_token"),
    "RejectsBearerScheme": _as_bearer,
    "RejectsDuplicateDpopHeader": _with("repeated"),
    "RejectsMissingHtm": _with("without_method"),
    "RejectsMissingHtu": _with("without_target"),
    "RejectsMissingIat": _with("without_time"),
    "RejectsMissingJwk": _with("without_key"),
    "RejectsAthAbsent": _with("without_token_hash"),
    "RejectsMalformedProof": _with("not_a_token"),
    "RejectsCnfJktMismatch": _of_another_key,
    "RejectsStaleIat": _aged(-_OUTSIDE),
    "RejectsFutureIat": _aged(_OUTSIDE),
    "RejectsAlgNone": _with("unsigned"),
    "RejectsAlgSymmetric": _with("symmetric"),
    "RejectsWrongAudience": _for_another_server,
    "RejectsWith401Challenge": _with("wrong_signature"),
    # In the words of the pull request, though not among its checks: servers need not see these.
    "replay": _twice,
}


def nonce_flow(prober: Prober) -> list[str]:
    """Return the outcomes of the check NonceFlow: without a nonce, with it, with a wrong one."""
    token = prober.token()
    first = prober.send(token, prober.prove(token))
    assert 'DPoP error="use_dpop_nonce"' in str(first.challenge)
    nonce = first.headers["dpop-nonce"]
    return [
        str(first.status),
        prober.outcome(token, prober.prove(token, nonce=nonce)),
        prober.outcome(token, prober.prove(token, nonce="definitely-not-the-nonce")),
    ]
