"""Do signatures hold up to the public Wycheproof vectors?

``json_web_signature_test.json`` of C2SP/wycheproof, read from ``../shared/vectors`` beside the
repository or from the folder that ``TOOLGUARD_VECTORS`` names. The payloads are mostly no JSON, so
what is tested is the signature check, not the claims.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.counted_keys import Keys
from toolguard.errors import InvalidTokenError
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import KeySource, StaticKeys

FOLDER = Path(
    os.environ.get("TOOLGUARD_VECTORS")
    or Path(__file__).resolve().parents[4] / "shared" / "vectors"
)
FILE = FOLDER / "json_web_signature_test.json"

SHARED_SECRET = "an HMAC is no signature that a server without the secret can check"
ONE_ALGORITHM = "the key is for PS256 and the header says PS384: one key, one algorithm"
UNREGISTERED = "the key is for ES521, which no registry knows: ES512 is meant"
# The vectors call these valid. They are refused for a reason, each with its own.
REFUSED_BY_POLICY = {
    1: ("algorithm", SHARED_SECRET),
    348: ("algorithm", SHARED_SECRET),
    352: ("algorithm", SHARED_SECRET),
    357: ("algorithm", SHARED_SECRET),
    358: ("algorithm", SHARED_SECRET),
    359: ("algorithm", SHARED_SECRET),
    372: ("malformed", "there is a question mark in its header segment"),
    373: ("malformed", "there is a question mark in its payload segment"),
    376: ("algorithm", SHARED_SECRET),
    377: ("algorithm", SHARED_SECRET),
    346: ("key", ONE_ALGORITHM),
    350: ("key", ONE_ALGORITHM),
    347: ("key", UNREGISTERED),
    351: ("key", UNREGISTERED),
}

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"the Wycheproof vectors are not at {FOLDER}"
)


def outcome(token: str, jwk: Mapping[str, Any]) -> bytes | str:
    """Return the payload, or the reason why the token or its key is refused."""
    keys = source(jwk)
    verifier = JWTVerifier(issuer="https://auth.example.com", audience="anyone", keys=keys)
    try:
        jws = verifier._read(token)
        verifier._signer(jws, verifier.issuer, refreshed=True)
    except InvalidTokenError as error:
        return error.reason
    return jws.payload


def source(jwk: Mapping[str, Any]) -> KeySource:
    try:
        return StaticKeys({"keys": [jwk]})
    except ValueError:
        # Not one key in it is fit to check a signature with.
        return Keys()


def cases() -> Iterator[tuple[int, str, bytes | str]]:
    for group in json.loads(FILE.read_bytes())["testGroups"]:
        jwk = group.get("public", group["private"])
        for case in group["tests"]:
            yield case["tcId"], case["result"], outcome(case["jws"], jwk)


@pytest.fixture(scope="module")
def results() -> dict[str, dict[int, bytes | str]]:
    by_result: dict[str, dict[int, bytes | str]] = {"valid": {}, "invalid": {}}
    for number, result, found in cases():
        by_result[result][number] = found
    return by_result


def accepted(found: Mapping[int, bytes | str]) -> set[int]:
    return {number for number, payload in found.items() if isinstance(payload, bytes)}


def test_the_vectors_are_the_ones_the_exceptions_were_written_for(
    results: dict[str, dict[int, bytes | str]],
) -> None:
    assert (len(results["valid"]), len(results["invalid"])) == (46, 355)
    assert len(REFUSED_BY_POLICY) == 14


def test_every_invalid_vector_is_refused(results: dict[str, dict[int, bytes | str]]) -> None:
    assert accepted(results["invalid"]) == set()


def test_every_consistent_valid_vector_is_accepted(
    results: dict[str, dict[int, bytes | str]],
) -> None:
    assert accepted(results["valid"]) == set(results["valid"]) - set(REFUSED_BY_POLICY)
    assert len(accepted(results["valid"])) == 32


def test_every_exception_is_refused_for_its_own_reason(
    results: dict[str, dict[int, bytes | str]],
) -> None:
    found = {number: results["valid"][number] for number in REFUSED_BY_POLICY}

    assert found == {number: reason for number, (reason, _) in REFUSED_BY_POLICY.items()}


def test_an_accepted_vector_yields_what_was_signed(
    results: dict[str, dict[int, bytes | str]],
) -> None:
    assert results["valid"][18] == b"foo"
    assert results["valid"][259] == b""
