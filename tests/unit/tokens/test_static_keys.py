"""What may be given as keys, and how strictly is it read?"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from support.client_keys import private_key
from toolguard.tokens.keys import KeySet, KeySetError, StaticKeys, parse_json

RSA = private_key("RS256")
# RFC 7515, appendix A.3.1.
P256_JWK = {
    "kid": "a",
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
JWKS = {"keys": [P256_JWK]}


def pem_of(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded


@pytest.mark.parametrize(
    "given_keys",
    [
        JWKS,
        json.dumps(JWKS),
        b" \n" + json.dumps(JWKS).encode(),
        KeySet.from_jwks(JWKS),
    ],
)
def test_static_keys_are_a_set_in_any_form(given_keys: Any) -> None:
    source = StaticKeys(given_keys)
    assert [key.kid for key in source.find("a", "ES256")] == ["a"]
    assert source.find("b", "ES256") == ()


def test_a_static_pem_key_verifies_whatever_name_a_token_gives() -> None:
    for pem in (pem_of(RSA.public_key()), pem_of(RSA.public_key()).decode()):
        source = StaticKeys(pem)
        for kid in (None, "a", "b"):
            assert [key.algorithms for key in source.find(kid, "PS384")] == [
                {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
            ]
        assert source.find("a", "ES256") == ()


def test_a_static_pem_key_with_a_name_is_found_by_that_name() -> None:
    source = StaticKeys(pem_of(ed25519.Ed25519PrivateKey.generate().public_key()), kid="a")
    assert source.find("a", "EdDSA")
    assert source.find("b", "EdDSA") == ()


def test_one_named_key_makes_names_count() -> None:
    source = StaticKeys({"keys": [P256_JWK, {**P256_JWK, "kid": None}]})
    assert source.find("a", "ES256")
    assert source.find("b", "ES256") == ()


def test_static_keys_are_never_refreshed() -> None:
    source = StaticKeys(JWKS)
    asyncio.run(source.refresh())
    assert source.report_bad_signature("a") is False


PRIVATE_PEM = RSA.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
)


@pytest.mark.parametrize(
    ("given_keys", "reason"),
    [
        pytest.param(PRIVATE_PEM, "private key", id="bytes of a private key"),
        pytest.param(PRIVATE_PEM.decode(), "private key", id="text of a private key"),
        ("", "not a public key"),
        ("secret", "not a public key"),
        (b"\xff\xfe", "not a public key"),
        ("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "not a public key"),
        pytest.param(
            pem_of(ed448.Ed448PrivateKey.generate().public_key()),
            "the key is on a curve",
            id="another curve",
        ),
        (pem_of(rsa.RSAPublicNumbers(65537, (1 << 1023) + 1).public_key()), "1024 bits"),
        ({}, "list"),
        ({"keys": [{**P256_JWK, "issuer": ["https://a.test"]}]}, "an issuer that is not a string"),
        ('{"keys": []', "JSON"),
    ],
)
def test_unusable_static_keys_are_a_mistake_at_construction(given_keys: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        StaticKeys(given_keys)
    assert "secret" not in str(caught.value).replace("keep it secret", "")
    assert caught.value.__cause__ is None


def test_a_name_is_only_given_to_a_pem_key() -> None:
    with pytest.raises(ValueError, match="names of their own"):
        StaticKeys(JWKS, kid="b")


# JSON


@pytest.mark.parametrize(
    "document",
    [
        b'\xef\xbb\xbf{"keys": []}',
        '{"keys": []}'.encode("utf-16"),
        b'{"keys": "\xff"}',
        b"",
        b"<html></html>",
        b'{"keys": []} trailing',
        b"{'keys': []}",
        b'{"keys": [], "keys": []}',
        b'[{"kid": "a", "kid": "b"}]',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 4_301 + b"}",
        b"[]",
        b"[" * 50_000 + b"]" * 50_000,
        b'{"a":' * 50_000,
    ],
)
def test_json_that_is_not_strict_is_refused(document: bytes) -> None:
    with pytest.raises(KeySetError):
        parse_json(document)


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_json_or_refused(document: bytes) -> None:
    try:
        value = parse_json(document)
    except KeySetError:
        return
    assert value == json.loads(document.decode("utf-8"))
