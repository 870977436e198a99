"""Client authentication: what a token endpoint is shown, and that nobody else is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from support.client_keys import private_key
from toolguard.connections.client_auth import (
    ClientCredentials,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJWT,
)

ENDPOINT = "https://auth.example.com/token"
NOW = 1_800_000_000.75


def pem(key: Any, encryption: serialization.KeySerializationEncryption | None = None) -> bytes:
    encoded: bytes = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        encryption or serialization.NoEncryption(),
    )
    return encoded


def shown(algorithm: str = "ES256", **settings: Any) -> dict[str, str]:
    """Return the parameters with which a client shows its assertion."""
    values = {"key_id": "k1", "algorithm": algorithm, **settings}
    auth = PrivateKeyJWT("mcp-server", private_key(algorithm), **values)
    credentials = auth.credentials(ENDPOINT, NOW)
    assert credentials.authorization is None
    return dict(credentials.parameters)


def claims(assertion: str, algorithm: str = "ES256") -> dict[str, Any]:
    """Return what the assertion says, once its signature has been checked."""
    key = private_key(algorithm).public_key()
    options: Any = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    decoded: dict[str, Any] = jwt.decode(assertion, key, algorithms=[algorithm], options=options)
    return decoded


# Secrets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("client_id", "secret", "decoded"),
    [
        ("mcp-server", "s3cret", "mcp-server:s3cret"),
        # RFC 6749 §2.3.1 and appendix B.
        (
            "https://mcp.example.com/",
            "a:b c+d%e&f",
            "https%3A%2F%2Fmcp.example.com%2F:a%3Ab+c%2Bd%25e%26f",
        ),
        ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "\N{EURO SIGN}", "caf%C3%A9:%E2%82%AC"),
    ],
)
def test_basic_form_encodes_id_and_secret_before_it_joins_them(
    client_id: str, secret: str, decoded: str
) -> None:
    credentials = ClientSecretBasic(client_id, secret).credentials(ENDPOINT, NOW)

    assert credentials.authorization == "Basic " + base64.b64encode(decoded.encode()).decode()
    assert credentials.parameters == {}


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
)
def test_whatever_is_in_them_a_server_gets_id_and_secret_back(client_id: str, secret: str) -> None:
    header = ClientSecretBasic(client_id, secret).credentials(ENDPOINT, NOW).authorization

    assert header is not None
    first, colon, second = base64.b64decode(header.removeprefix("Basic ")).decode().partition(":")
    assert (unquote_plus(first), colon, unquote_plus(second)) == (client_id, ":", secret)
    assert header.isprintable()


def test_post_puts_id_and_secret_into_the_form_and_nothing_into_the_header() -> None:
    credentials = ClientSecretPost("mcp-server", "a:b c").credentials(ENDPOINT, NOW)

    assert credentials == ClientCredentials(
        {"client_id": "mcp-server", "client_secret": "a:b c"}, None
    )


@pytest.mark.parametrize("kind", [ClientSecretBasic, ClientSecretPost])
def test_a_secret_is_not_shown_and_not_empty(kind: Any) -> None:
    assert repr(kind("mcp-server", "canary")) == f"{kind.__name__}(client_id='mcp-server')"
    with pytest.raises(ValueError, match="client_secret is empty: is a variable unset"):
        kind("mcp-server", "")
    with pytest.raises(ValueError, match="write client_id="):
        kind("", "secret")


def test_credentials_show_nothing_of_themselves() -> None:
    credentials = ClientCredentials({"client_secret": "canary"}, "Basic canary")

    assert repr(credentials) == "ClientCredentials()"


# Assertions ------------------------------------------------------------------------------------


def test_an_assertion_says_what_rfc_7523_asks_for() -> None:
    parameters = shown()

    assertion = parameters.pop("client_assertion")
    assert parameters == {
        "client_id": "mcp-server",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    }
    said = claims(assertion)
    assert len(said.pop("jti")) >= 22
    assert said == {
        "iss": "mcp-server",
        "sub": "mcp-server",
        "aud": "https://auth.example.com/token",
        "iat": 1_800_000_000,
        "exp": 1_800_000_060,
    }
    assert jwt.get_unverified_header(assertion) == {"typ": "JWT", "alg": "ES256", "kid": "k1"}


def test_no_two_assertions_have_one_id() -> None:
    ids = {claims(shown()["client_assertion"])["jti"] for _ in range(200)}

    assert len(ids) == 200


def test_an_assertion_is_for_the_issuer_where_that_is_set() -> None:
    assertion = shown(audience="https://auth.example.com")["client_assertion"]

    assert claims(assertion)["aud"] == "https://auth.example.com"


def test_an_assertion_expires_as_soon_as_it_is_told_to() -> None:
    said = claims(shown(lifetime=1)["client_assertion"])

    assert said["exp"] - said["iat"] == 1


def test_a_server_may_know_the_key_by_its_certificate() -> None:
    thumbprint = base64.urlsafe_b64encode(hashlib.sha256(b"certificate").digest()).decode()
    settings = {"key_id": None, "certificate_thumbprint": thumbprint}

    header = jwt.get_unverified_header(shown("PS256", **settings)["client_assertion"])

    assert header == {"typ": "JWT", "alg": "PS256", "x5t#S256": thumbprint}


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
)
def test_every_asymmetric_algorithm_signs(algorithm: str) -> None:
    assertion = shown(algorithm)["client_assertion"]

    assert claims(assertion, algorithm)["sub"] == "mcp-server"


@pytest.mark.parametrize(
    ("made_for", "algorithm"), [("RS256", "RS256"), ("ES384", "ES384"), ("EdDSA", "EdDSA")]
)
def test_the_key_says_how_it_signs_and_may_come_as_text(made_for: str, algorithm: str) -> None:
    key = private_key(made_for)

    for given_as in (key, pem(key), pem(key).decode()):
        auth = PrivateKeyJWT("mcp-server", given_as, key_id="k1")
        assertion = auth.credentials(ENDPOINT, NOW).parameters["client_assertion"]
        assert claims(assertion, algorithm)["iss"] == "mcp-server"


@pytest.mark.parametrize("algorithm", ["HS256", "none", "RS256", "ES384", "", "es256"])
def test_a_key_signs_with_no_algorithm_but_its_own(algorithm: str) -> None:
    with pytest.raises(ValueError, match="write algorithm='ES256'"):
        PrivateKeyJWT("mcp-server", private_key("ES256"), key_id="k1", algorithm=algorithm)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(public_exponent=65_537, key_size=1_024),
        lambda: ec.generate_private_key(ec.SECP256K1()),
        lambda: ec.generate_private_key(ec.SECP192R1()),
        ed448.Ed448PrivateKey.generate,
        lambda: dsa.generate_private_key(key_size=1_024),
    ],
    ids=["RSA 1024", "secp256k1", "P-192", "Ed448", "DSA"],
)
def test_a_key_that_is_too_weak_or_unusual_is_refused(make: Callable[[], Any]) -> None:
    key = make()

    for given_as in (key, pem(key)):
        with pytest.raises(ValueError, match=r"RSA key of 2,048 bits or more"):
            PrivateKeyJWT("mcp-server", given_as, key_id="k1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "canary",
        "-----BEGIN PRIVATE KEY-----\ncanary\n-----END PRIVATE KEY-----\n",
        pem(private_key(), serialization.BestAvailableEncryption(b"canary")),
        private_key()
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "text", "broken", "with a password", "public"],
)
def test_what_is_no_private_key_is_refused_without_being_shown(text: str | bytes) -> None:
    with pytest.raises(ValueError, match="this is not a private key") as caught:
        PrivateKeyJWT("mcp-server", text, key_id="k1")

    assert "canary" not in repr(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"key_id": None}, 'write key_id="..."'),
        ({"key_id": ""}, 'write key_id="..."'),
        ({"lifetime": 61}, "write lifetime=60 or less"),
        ({"lifetime": 0}, "write lifetime=60 or less"),
        ({"audience": ""}, "write audience="),
    ],
)
def test_misuse_is_told_what_to_write(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PrivateKeyJWT("mcp-server", private_key(), **{"key_id": "k1", **settings})
    with pytest.raises(ValueError, match="write client_id="):
        PrivateKeyJWT("", private_key(), key_id="k1")


def test_a_signing_client_shows_its_name_only() -> None:
    auth = PrivateKeyJWT("mcp-server", private_key(), key_id="k1")

    assert repr(auth) == "<PrivateKeyJWT: mcp-server with ES256>"
