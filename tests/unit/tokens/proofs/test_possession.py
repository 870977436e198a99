"""Is a proof held to the request, once, until it is too old?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from toolguard.errors import InvalidProofError
from toolguard.testing import FrozenClock
from toolguard.testing.proofs import ProofKey
from toolguard.tokens.proofs import DPoP, MemoryReplays
from toolguard.tokens.proofs.possession import Possession

URL = "https://mcp.example.com/notes/mcp"
SECRET = b"s" * 32


def scope_of(proof: str, **facts: Any) -> dict[str, Any]:
    return {"method": "POST", "path": "/mcp", "headers": [(b"dpop", proof.encode())], **facts}


class Recording(MemoryReplays):
    """Remembers until when proofs are to be kept."""

    until = 0.0

    async def is_first(self, key: str, proof_id: bytes, until: float) -> bool:
        self.until = until
        return await super().is_first(key, proof_id, until)


def test_a_proof_is_remembered_for_longer_than_it_is_good() -> None:
    clock = FrozenClock(1_000)
    replays = Recording(clock=clock)
    checking = Possession(DPoP(replays=replays), URL, SECRET, clock)
    key = ProofKey(clock=clock)
    proof = scope_of(key.prove("POST", URL, "token"))

    clock.advance(300)  # its last moment
    asyncio.run(checking.check(proof, "token", key.thumbprint))
    with pytest.raises(InvalidProofError) as caught:
        asyncio.run(checking.check(proof, "token", key.thumbprint))

    assert caught.value.reason == "replay"
    assert replays.until > clock()


@pytest.mark.parametrize(
    ("facts", "url"),
    [
        ({}, URL),
        ({"raw_path": b"/mcp"}, URL),
        ({"raw_path": b"/mcp?session=1"}, URL),
        ({"path": "/a b", "raw_path": b"/a%20b"}, "https://mcp.example.com/a%20b"),
        ({"path": "/a b"}, "https://mcp.example.com/a%20b"),
        ({"path": "/\u00e9"}, "https://mcp.example.com/%C3%A9"),
    ],
)
def test_the_path_of_the_request_is_that_of_the_proof(facts: dict[str, Any], url: str) -> None:
    clock = FrozenClock(1_000)
    key = ProofKey(clock=clock)
    checking = Possession(DPoP(), URL, SECRET, clock)

    asyncio.run(
        checking.check(scope_of(key.prove("POST", url, "token"), **facts), "token", key.thumbprint)
    )
    assert checking.nonce is None
