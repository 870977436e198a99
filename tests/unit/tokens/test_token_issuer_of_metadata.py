"""AD FS: the metadata names the ``iss`` of access tokens beside the issuer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import LocalIssuer
from toolguard.tokens import issuers
from toolguard.tokens.issuers import Issuer
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.jwt import JWTVerifier

SERVER = "https://mcp.test/mcp"
NAMED = "http://fs.corp.example/trust"
LOCAL = LocalIssuer.like("adfs", algorithm="ES256", audience=SERVER)
ADFS = issuers.adfs("adfs.example.com")
URL = "https://adfs.example.com/adfs"


class Metadata:
    """Serves the metadata and the keys of AD FS, and counts the requests."""

    def __init__(self, **members: Any) -> None:
        self.members = {"issuer": URL, "jwks_uri": f"{URL}/keys", **members}
        self.fetched: list[str] = []
        self.is_down = False

    def __call__(self, url: str, timeout: float) -> bytes:
        self.fetched.append(url)
        if self.is_down:
            raise KeysUnavailableError("HTTP 500")
        return json.dumps(LOCAL.jwks() if url.endswith("/keys") else self.members).encode()

    def verifier(self, issuer: Issuer = ADFS) -> JWTVerifier:
        return JWTVerifier.of(issuer, audience=SERVER, keys=JWKS(issuer=URL, fetch=self))


def verified(verifier: JWTVerifier, iss: str) -> str:
    return asyncio.run(verifier.verify(LOCAL.mint("alice", iss=iss))).issuer


def test_the_issuer_of_tokens_is_read_from_the_metadata() -> None:
    verifier = Metadata(access_token_issuer=NAMED).verifier()

    for iss in (NAMED, ADFS.names[0], NAMED):
        assert verified(verifier, iss) == iss
    with pytest.raises(InvalidTokenError, match="another issuer"):
        verified(verifier, "http://other.example/trust")


@pytest.mark.parametrize(
    "members",
    [{}, {"access_token_issuer": None}, {"access_token_issuer": 5}, {"access_token_issuer": ""}],
)
def test_metadata_without_it_adds_no_issuer(members: dict[str, Any]) -> None:
    metadata = Metadata(**members)
    verifier = metadata.verifier()

    for iss in (NAMED, "", NAMED):
        with pytest.raises(InvalidTokenError, match="another issuer"):
            verified(verifier, iss)
    assert len(metadata.fetched) == 2
    assert verified(verifier, ADFS.names[0]) == ADFS.names[0]


def test_an_unknown_issuer_is_an_outage_while_nothing_could_be_read() -> None:
    metadata = Metadata(access_token_issuer=NAMED)
    metadata.is_down = True

    with pytest.raises(KeysUnavailableError):
        verified(metadata.verifier(), NAMED)


@pytest.mark.parametrize(
    "issuer",
    [issuers.adfs("adfs.example.com", access_token_issuer="urn:fs"), Issuer(URL)],
)
def test_a_given_name_is_the_only_one(issuer: Issuer) -> None:
    metadata = Metadata(access_token_issuer=NAMED)

    with pytest.raises(InvalidTokenError, match="another issuer"):
        verified(metadata.verifier(issuer), NAMED)
    assert metadata.fetched == []


def test_a_name_that_was_read_does_not_change() -> None:
    metadata = Metadata(access_token_issuer=NAMED)
    verifier = metadata.verifier()
    verified(verifier, NAMED)
    metadata.members["access_token_issuer"] = "http://other.example/trust"
    keys = verifier._keys
    assert isinstance(keys, JWKS)
    keys._location.forget()
    keys._location.find(lambda url: metadata(url, 1), 0.0)

    assert keys.token_issuer == NAMED
