"""What happens to a token that somebody made to get in, or to make the server fall over?

Every line of the tables is an attack or a mistake with a name, and the reason it is refused for.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.utils import base64url_decode, base64url_encode, raw_to_der_signature

from support.trusted import CLAIMS, ES256, ISSUER, NOW, RS256, issuing, mint, verify
from toolguard.errors import InvalidTokenError
from toolguard.tokens.jws import MAX_TOKEN_LENGTH, parse

(JWK,) = ES256.jwks()["keys"]
PUBLIC = jwt.PyJWK(JWK).key
PEM = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
DER = PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
KID = ES256.key_id
# A good header, but for the brace at its end.
STARTED = f'{{"alg":"ES256","kid":"{KID}"'.encode()
GOOD = mint(headers={"typ": "at+jwt"})
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


def b64(data: bytes) -> str:
    return base64url_encode(data).decode()


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def headed(**header: Any) -> str:
    """Return a token with these header members as they are, null ones too."""
    members = {"alg": "ES256", "kid": KID, **header}
    return ES256.sign_bytes(to_json(CLAIMS), headers=to_json(members))


def reason(token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        verify(token)
    return caught.value.reason


def unsigned(header: dict[str, Any], signature: bytes = b"") -> str:
    return f"{b64(to_json(header))}.{PAYLOAD}.{b64(signature)}"


def hmac_signed(secret: bytes, algorithm: str = "HS256", **header: Any) -> str:
    """Return a token whose MAC is right for whoever takes ``secret`` for a shared one."""
    signing_input = f"{b64(to_json({'alg': algorithm, 'kid': KID, **header}))}.{PAYLOAD}"
    digest = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}[algorithm]
    return f"{signing_input}.{b64(hmac.new(secret, signing_input.encode(), digest).digest())}"


FORGED = {
    # RFC 8725 §3.2, §2.1: no signature at all, under every spelling.
    "alg none": (unsigned({"alg": "none"}), "malformed"),
    "alg none, something in the place of the signature": (
        unsigned({"alg": "none", "kid": KID}, b"x"),
        "algorithm",
    ),
    "alg None": (unsigned({"alg": "None"}, b"x"), "algorithm"),
    "alg nOnE": (unsigned({"alg": "nOnE"}, b"x"), "algorithm"),
    "alg NONE": (unsigned({"alg": "NONE"}, b"x"), "algorithm"),
    "alg empty": (unsigned({"alg": ""}, b"x"), "algorithm"),
    "alg null": (unsigned({"alg": None}, b"x"), "algorithm"),
    "alg missing": (unsigned({"kid": KID}, b"x"), "algorithm"),
    "alg a list": (unsigned({"alg": ["ES256"]}, b"x"), "algorithm"),
    "alg an object": (unsigned({"alg": {"ES256": 1}}, b"x"), "algorithm"),
    "alg in lower case": (mint(headers={"alg": "es256"}), "algorithm"),
    "alg with a space": (mint(headers={"alg": "ES256 "}), "algorithm"),
    "alg with a NUL": (mint(headers={"alg": "ES256\0"}), "algorithm"),
    "alg in full-width letters": (mint(headers={"alg": "\uff25\uff33256"}), "algorithm"),
    "alg of another curve": (mint(headers={"alg": "ES384"}), "key"),
    "alg of another family": (mint(headers={"alg": "RS256"}), "key"),
    "alg of another padding": (
        RS256.sign(CLAIMS, headers={"alg": "PS256"}),
        "key",
    ),
    "alg of an unusual curve": (mint(headers={"alg": "ES256K"}), "algorithm"),
    # CVE-2022-29217 and its kin: the public key as a shared secret.
    "HS256 with the PEM text": (hmac_signed(PEM), "algorithm"),
    "HS256 with the PEM text, stripped": (hmac_signed(PEM.strip()), "algorithm"),
    "HS256 with the DER bytes": (hmac_signed(DER), "algorithm"),
    "HS256 with the JWK text": (hmac_signed(to_json(JWK)), "algorithm"),
    "HS256 with the JWKS text": (hmac_signed(to_json({"keys": [JWK]})), "algorithm"),
    "HS256 with nothing": (hmac_signed(b""), "algorithm"),
    "HS384 with the PEM text": (hmac_signed(PEM, "HS384"), "algorithm"),
    "HS512 with the PEM text": (hmac_signed(PEM, "HS512"), "algorithm"),
    # CVE-2022-21449 and other signatures that are none.
    "ES256 with r and s zero": (f"{HEADER}.{PAYLOAD}.{b64(bytes(64))}", "signature"),
    "ES256 with r zero, s one": (f"{HEADER}.{PAYLOAD}.{b64(bytes(63) + b'1')}", "signature"),
    "ES256 of all ones": (f"{HEADER}.{PAYLOAD}.{b64(bytes([255]) * 64)}", "signature"),
    "ES256 in DER": (
        f"{HEADER}.{PAYLOAD}."
        + b64(raw_to_der_signature(base64url_decode(SIGNATURE), PUBLIC.curve)),
        "signature",
    ),
    "a signature cut short": (f"{HEADER}.{PAYLOAD}.{SIGNATURE[:84]}", "signature"),
    "no payload": (f"{HEADER}..{SIGNATURE}", "malformed"),
    "a signature with more behind it": (GOOD + "AAAA", "signature"),
    "a signature of one byte": (f"{HEADER}.{PAYLOAD}.AA", "signature"),
    "the signature of another token": (
        f"{HEADER}.{PAYLOAD}.{mint(sub='bob').split('.')[2]}",
        "signature",
    ),
    "the payload of another token": (
        f"{HEADER}.{mint(sub='bob').split('.')[1]}.{SIGNATURE}",
        "signature",
    ),
    "a key of somebody else": (issuing().sign(CLAIMS, headers={"kid": KID}), "signature"),
    "a key of somebody else, RSA": (
        issuing("RS256").sign(CLAIMS, headers={"kid": RS256.key_id}),
        "signature",
    ),
}

# Texts that are not the compact serialization of RFC 7515 §7.1, most of them next to a good token.
MISSHAPEN = {
    "nothing": "",
    "a dot": ".",
    "two dots": "..",
    "three dots": "...",
    "a space": " ",
    "a NUL": "\0",
    "two segments": f"{HEADER}.{PAYLOAD}",
    "four segments": f"{GOOD}.AAAA",
    "six segments": f"{GOOD}.AAAA.AAAA.AAAA",
    "a dot before": f".{GOOD}",
    "a dot behind": f"{GOOD}.",
    "two dots inside": f"{HEADER}..{PAYLOAD}.{SIGNATURE}",
    "no header": f".{PAYLOAD}.{SIGNATURE}",
    "no signature": f"{HEADER}.{PAYLOAD}.",
    "a space before": f" {GOOD}",
    "a space behind": f"{GOOD} ",
    "a newline behind": f"{GOOD}\n",
    "a carriage return behind": f"{GOOD}\r",
    "a NUL behind": f"{GOOD}\0",
    "a tab inside": f"{HEADER}\t.{PAYLOAD}.{SIGNATURE}",
    "a newline in the signature": f"{HEADER}.{PAYLOAD}.{SIGNATURE[:8]}\n{SIGNATURE[8:]}",
    "a no-break space behind": f"{GOOD}\u00a0",
    "a byte order mark before": f"\ufeff{GOOD}",
    "a zero-width space inside": f"{HEADER}.\u200b{PAYLOAD}.{SIGNATURE}",
    "a full stop of another script": GOOD.replace(".", "\u3002"),
    "a one-dot leader for a dot": GOOD.replace(".", "\u2024"),
    "a Cyrillic letter for a Latin one": GOOD.replace("e", "\u0435"),
    "a full-width digit": f"{HEADER}.{PAYLOAD}.\uff10{SIGNATURE[1:]}",
    "a lone surrogate": f"{GOOD}\ud800",
    "padding on the header": f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
    "padding on the payload": f"{HEADER}.{PAYLOAD}==.{SIGNATURE}",
    "padding on the signature": f"{GOOD}==",
    "padding of one sign too few": f"{GOOD}=",
    "padding and more": f"{GOOD}==AA",
    "the alphabet of base64": f"{HEADER}.{PAYLOAD}.+{SIGNATURE[1:]}",
    "a segment of impossible length": f"{HEADER}.{PAYLOAD}.{SIGNATURE}AAA",
    "stray bits behind the signature": GOOD[:-1] + chr(ord(GOOD[-1]) + 1),
    "a comma, as of two headers": f"{GOOD},{GOOD}",
    "the scheme before it": f"Bearer {GOOD}",
    "quotes around it": f'"{GOOD}"',
    "percent escapes": GOOD.replace(".", "%2E"),
    "disclosures of an SD-JWT": f"{GOOD}~WyJhIiwiYiJd~",
    "the JSON serialization": json.dumps(
        {"protected": HEADER, "payload": PAYLOAD, "signature": SIGNATURE}
    ),
    "the JSON serialization around the compact one": '{"payload":"' + GOOD + '"}',
    "a header of raw JSON": f"{STARTED.decode()}}}.{PAYLOAD}.{SIGNATURE}",
    "one character too many": "A" * (MAX_TOKEN_LENGTH + 1),
    "a megabyte": "A" * 1_000_000,
    "a megabyte of dots": "." * 1_000_000,
    "a good token of more than 16 KiB": mint(pad="x" * MAX_TOKEN_LENGTH),
    "the token of another world": "ya29.a0AfH6SMBx-opaque",
}

# Headers under a good signature.
HEADERS = {
    # RFC 7515 §4.1.11: what is critical and not understood makes the token invalid.
    "crit with an unknown extension": ({"crit": ["exp"], "exp": NOW}, "malformed"),
    "crit with a known parameter": ({"crit": ["kid"]}, "malformed"),
    "crit empty": ({"crit": []}, "malformed"),
    "crit null": ({"crit": None}, "malformed"),
    "crit a string": ({"crit": "b64"}, "malformed"),
    "b64 false": ({"b64": False, "crit": ["b64"]}, "malformed"),
    "b64 false, not critical": ({"b64": False}, "malformed"),
    "b64 true": ({"b64": True}, "malformed"),
    "zip": ({"zip": "DEF"}, "malformed"),
    "enc": ({"enc": "A256GCM"}, "malformed"),
    # CVE-2018-0114 and RFC 8725 §3.10.
    "jwk, the good key": ({"jwk": JWK}, "key"),
    "jwk null": ({"jwk": None}, "key"),
    "jku": ({"jku": "https://evil.example/jwks.json"}, "key"),
    "jku of the issuer": ({"jku": f"{ISSUER}/jwks.json"}, "key"),
    "x5u": ({"x5u": "http://169.254.169.254/latest/meta-data"}, "key"),
    "x5c": ({"x5c": ["MIIB"]}, "key"),
    # RFC 8725 §3.10: a key id is looked up and nothing else.
    "kid a path": ({"kid": "../../../../dev/null"}, "key"),
    "kid SQL": ({"kid": f"{KID}' UNION SELECT '{KID}"}, "key"),
    "kid a command": ({"kid": f"{KID}|id"}, "key"),
    "kid a URL": ({"kid": f"https://evil.example/{KID}"}, "key"),
    "kid with CRLF": ({"kid": f"{KID}\r\nSet-Cookie: a=b"}, "key"),
    "kid with a NUL": ({"kid": f"{KID}\0"}, "key"),
    "kid in another case": ({"kid": KID.upper()}, "key"),
    "kid with a space": ({"kid": f"{KID} "}, "key"),
    "kid empty": ({"kid": ""}, "key"),
    "kid null": ({"kid": None}, "key"),
    "kid a number": ({"kid": 1}, "key"),
    "kid a list": ({"kid": [KID]}, "key"),
    "kid an object": ({"kid": {KID: 1}}, "key"),
    "kid of 257 characters": ({"kid": "k" * 257}, "key"),
    "kid of 64 KiB": ({"kid": "k" * 65_536}, "malformed"),
    "kid with a lone surrogate": ({"kid": "\ud800"}, "malformed"),
    # RFC 8725 §3.12: other kinds of JWT, where they say so.
    "typ of a logout token": ({"typ": "logout+jwt"}, "type"),
    "typ of a security event": ({"typ": "secevent+jwt"}, "type"),
    "typ of a DPoP proof": ({"typ": "dpop+jwt"}, "type"),
    "typ of a client assertion": ({"typ": "client-authentication+jwt"}, "type"),
    "typ of an ID-JAG": ({"typ": "oauth-id-jag+jwt"}, "type"),
    "typ of an SD-JWT": ({"typ": "dc+sd-jwt"}, "type"),
    "typ of a key binding": ({"typ": "kb+jwt"}, "type"),
    "typ of an introspection response": ({"typ": "token-introspection+jwt"}, "type"),
    "typ of an authorization request": ({"typ": "oauth-authz-req+jwt"}, "type"),
    "typ JOSE": ({"typ": "JOSE"}, "type"),
    "typ with a prefix of another tree": ({"typ": "text/at+jwt"}, "type"),
    "typ with two prefixes": ({"typ": "application/application/at+jwt"}, "type"),
    "typ with a space": ({"typ": "at+jwt "}, "type"),
    "typ with a parameter": ({"typ": "at+jwt;v=1"}, "type"),
    "typ empty": ({"typ": ""}, "type"),
    "typ null": ({"typ": None}, "type"),
    "typ a list": ({"typ": ["at+jwt"]}, "type"),
    "typ with a letter that only looks like one": ({"typ": "\u0430t+jwt"}, "type"),
}

# Headers that are not a strict JSON object, under a good signature; most are nearly a good one.
HEADER_TEXTS = {
    "alg twice": b'{"alg":"none",' + STARTED[1:] + b"}",
    "alg twice, the good one first": STARTED + b',"alg":"none"}',
    "alg twice, one escaped": STARTED + b',"\\u0061lg":"none"}',
    "kid twice": b'{"kid":"k0",' + STARTED[1:] + b"}",
    "a list": b'["ES256"]',
    "a string": b'"ES256"',
    "a number": b"1",
    "null": b"null",
    "a comma at the end": STARTED + b",}",
    "a comment": STARTED + b"/**/}",
    "single quotes": STARTED.replace(b'"', b"'") + b"}",
    "something behind": STARTED + b"}x",
    "two objects": STARTED + b'}{"alg":"none"}',
    "a NUL behind": STARTED + b"}\0",
    "a byte order mark": b"\xef\xbb\xbf" + STARTED + b"}",
    "UTF-16": f"{STARTED.decode()}}}".encode("utf-16"),
    "UTF-32": f"{STARTED.decode()}}}".encode("utf-32"),
    "no UTF-8": STARTED + b',"x":"\xff"}',
    "an overlong UTF-8 form": STARTED + b',"x":"\xc0\xaf"}',
    "NaN": STARTED + b',"x":NaN}',
    "nested deeply": STARTED + b',"x":' + b"[" * 5_000 + b"]" * 5_000 + b"}",
}


@pytest.mark.parametrize(("token", "expected"), FORGED.values(), ids=FORGED)
def test_a_forged_token_is_refused(token: str, expected: str) -> None:
    assert reason(token) == expected


@pytest.mark.parametrize("token", MISSHAPEN.values(), ids=MISSHAPEN)
def test_a_misshapen_token_is_refused(token: str) -> None:
    assert reason(token) == "malformed"


@pytest.mark.parametrize(("header", "expected"), HEADERS.values(), ids=HEADERS)
def test_a_signed_token_with_a_hostile_header_is_refused(
    header: dict[str, Any], expected: str
) -> None:
    assert reason(headed(**header)) == expected


@pytest.mark.parametrize("header", HEADER_TEXTS.values(), ids=HEADER_TEXTS)
def test_a_header_that_is_no_strict_json_is_refused(header: bytes) -> None:
    assert reason(ES256.sign_bytes(to_json(CLAIMS), headers=header)) == "malformed"


def test_every_single_bit_counts() -> None:
    accepted = []
    for position, character in enumerate(GOOD):
        for bit in range(7):
            flipped = chr(ord(character) ^ (1 << bit))
            try:
                verify(GOOD[:position] + flipped + GOOD[position + 1 :])
            except InvalidTokenError:
                continue
            accepted.append((position, bit))
    assert accepted == []


def test_an_encrypted_token_is_said_to_be_encrypted(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InvalidTokenError, match="encrypted") as caught:
        ES256.verifier().verify_now(f"{GOOD}.AAAA.AAAA")
    assert caught.value.reason == "encrypted"
    assert "sign access tokens without encrypting them; Auth0 encrypts those" in caplog.text


@pytest.mark.parametrize("kid", ["", "k" * 257, "k\n1", "k\0", "k\u2028"], ids=ascii)
def test_a_key_id_that_is_not_short_and_printable_is_not_looked_up(kid: str) -> None:
    with pytest.raises(InvalidTokenError, match="kid header"):
        parse(mint(headers={"kid": kid}))


def test_a_key_id_may_have_256_characters() -> None:
    assert parse(mint(headers={"kid": "k" * 256})).kid == "k" * 256
    assert parse(mint(headers={"kid": "k"})).kid == "k"


def test_a_token_may_have_16384_characters() -> None:
    header = b64(b'{"alg":"ES256"}')
    longest = f"{header}..".ljust(16_384, "A")

    assert len(parse(longest).signature) > 8_000
    with pytest.raises(InvalidTokenError, match="too long"):
        parse(f"{longest}A")


def test_the_parts_of_a_token_do_not_show() -> None:
    assert repr(parse(GOOD)) == "CompactJWS()"
