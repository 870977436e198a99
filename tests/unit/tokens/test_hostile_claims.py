"""What happens to a token that the issuer did sign, and that is not meant for this server?

Or not meant as an access token, or not to be read in one way only. Every line of the tables has a
name; the controls are what must still get in, with no scope more than was granted.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from support.trusted import AUDIENCE, CLAIMS, ES256, ISSUER, NOW, RS256, mint, verify
from toolguard.errors import InvalidTokenError

GRANTED = ("read", "write")


def reason(token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        verify(token)
    return caught.value.reason


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def raw(member: str) -> bytes:
    """Return good claims as JSON text, with ``member`` written into it as it is."""
    return to_json(CLAIMS)[:-1] + b"," + member.encode("utf-8", "surrogatepass") + b"}"


def without(claim: str, member: str) -> bytes:
    """Return good claims as JSON text, with ``member`` in the place of ``claim``."""
    rest = {name: value for name, value in CLAIMS.items() if name != claim}
    return to_json(rest)[:-1] + b"," + member.encode() + b"}"


# Payloads that are not a strict JSON object, under a good signature.
PAYLOAD_TEXTS = {
    "empty": b"",
    "a list": b"[]",
    "a list of claims": b"[" + to_json(CLAIMS) + b"]",
    "a string": b'"alice"',
    "a number": b"1",
    "null": b"null",
    "a token inside a token": mint().encode(),
    "bytes": bytes(range(256)),
    "UTF-16": json.dumps(CLAIMS).encode("utf-16"),
    "UTF-16 without a mark": json.dumps(CLAIMS).encode("utf-16-le"),
    "UTF-32": json.dumps(CLAIMS).encode("utf-32"),
    "a byte order mark": b"\xef\xbb\xbf" + to_json(CLAIMS),
    "Latin-1": raw('"name":"x"').replace(b'"x"', b'"\xe9"'),
    "an encoded surrogate": raw('"name":"\ud800"'),
    "an escaped lone surrogate": raw('"name":"\\ud800"'),
    "an escaped lone surrogate as a name": raw('"\\uDC00":1'),
    "escaped surrogates in the wrong order": raw('"name":"\\udc00\\ud800"'),
    "a control character in a string": raw('"name":"a\tb"'),
    "a NUL behind": to_json(CLAIMS) + b"\0",
    "something behind": to_json(CLAIMS) + b"x",
    "two objects": to_json(CLAIMS) + to_json(CLAIMS),
    "cut short": to_json(CLAIMS)[:-1],
    "a comma at the end": to_json(CLAIMS)[:-1] + b",}",
    "a comment": to_json(CLAIMS) + b"//",
    # Two readings of one token: one library takes the first, another the last.
    "sub twice": raw('"sub":"admin"'),
    "sub twice, the same": raw('"sub":"alice"'),
    "sub twice, one escaped": raw('"\\u0073ub":"admin"'),
    "aud twice": raw('"aud":"https://other.example.com"'),
    "exp twice": raw(f'"exp":{NOW + 10**6}'),
    "scope twice": raw('"scope":"admin"'),
    "a member twice, deep inside": raw('"a":[{"b":{"c":1,"c":2}}]'),
    # Numbers that are none.
    "NaN": raw('"x":NaN'),
    "Infinity": raw('"x":Infinity'),
    "minus Infinity": raw('"x":-Infinity'),
    "a float beyond all floats": raw('"x":1e999'),
    "a number with a plus": raw('"x":+1'),
    "a number in hexadecimal": raw('"x":0x10'),
    "a number with a leading zero": raw('"x":01'),
    "a number with an underscore": raw('"x":1_0'),
    "exp NaN": without("exp", '"exp":NaN'),
    "exp Infinity": without("exp", '"exp":Infinity'),
    "exp beyond all floats": without("exp", '"exp":1e400'),
    # Recursion.
    "33 lists inside each other": raw('"x":' + "[" * 32 + "]" * 32),
    "5,000 lists inside each other": raw('"x":' + "[" * 5_000 + "]" * 5_000),
    "2,000 objects inside each other": raw('"x":' + '{"":' * 2_000 + "1" + "}" * 2_000),
    "10,000 open brackets": b"[" * 10_000,
    "5,000 lists and an escape": raw('"y":"\\u0041","x":' + "[" * 5_000 + "]" * 5_000),
}

# Claims under a good signature. RFC 7519 §4.1, RFC 9068 §4.
CLAIM_CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "iss with a slash": ({"iss": f"{ISSUER}/"}, "issuer"),
    "iss without its last letter": ({"iss": ISSUER[:-1]}, "issuer"),
    "iss as a part of the good one": ({"iss": "https://auth"}, "issuer"),
    "iss with the good one as its prefix": ({"iss": f"{ISSUER}.evil.example"}, "issuer"),
    "iss with a path": ({"iss": f"{ISSUER}/tenant"}, "issuer"),
    "iss with the good one at its end": ({"iss": f"https://evil.example/{ISSUER}"}, "issuer"),
    "iss in capitals": ({"iss": ISSUER.upper()}, "issuer"),
    "iss with http": ({"iss": "http://auth.example.com"}, "issuer"),
    "iss with a port": ({"iss": f"{ISSUER}:443"}, "issuer"),
    "iss with a space": ({"iss": f"{ISSUER} "}, "issuer"),
    "iss with a NUL": ({"iss": f"{ISSUER}\0"}, "issuer"),
    "iss with a letter that only looks like one": (
        {"iss": ISSUER.replace("a", "\u0430")},
        "issuer",
    ),
    "iss a list": ({"iss": [ISSUER]}, "issuer"),
    "iss an object": ({"iss": {ISSUER: True}}, "issuer"),
    "iss a number": ({"iss": 1}, "issuer"),
    "iss empty": ({"iss": ""}, "issuer"),
    "iss missing": ({"iss": None}, "issuer"),
    "aud missing": ({"aud": None}, "audience"),
    "aud empty": ({"aud": ""}, "audience"),
    "aud an empty list": ({"aud": []}, "audience"),
    "aud of another server": ({"aud": "https://other.example.com/mcp"}, "audience"),
    "aud of others": ({"aud": ["https://other.example.com", "account"]}, "audience"),
    "aud of the issuer": ({"aud": ISSUER}, "audience"),
    "aud of the client": ({"aud": "desktop"}, "audience"),
    "aud a list in a list": ({"aud": [[AUDIENCE]]}, "audience"),
    "aud an object": ({"aud": {AUDIENCE: True}}, "audience"),
    "aud a number": ({"aud": 1}, "audience"),
    "aud true": ({"aud": True}, "audience"),
    "aud with a number beside": ({"aud": [AUDIENCE, 1]}, "audience"),
    "aud with null beside": ({"aud": [None, AUDIENCE]}, "audience"),
    "aud separated by spaces": ({"aud": f"other {AUDIENCE}"}, "audience"),
    "aud separated by commas": ({"aud": f"other,{AUDIENCE}"}, "audience"),
    "aud a prefix": ({"aud": AUDIENCE[:-1]}, "audience"),
    "aud with more behind": ({"aud": f"{AUDIENCE}x"}, "audience"),
    "aud with two slashes": ({"aud": f"{AUDIENCE}//"}, "audience"),
    "aud a pattern": ({"aud": "https://*.example.com/mcp"}, "audience"),
    "aud everything": ({"aud": "*"}, "audience"),
    "exp missing": ({"exp": None}, "claims"),
    "exp passed": ({"exp": NOW - 301}, "expired"),
    "exp zero": ({"exp": 0}, "expired"),
    "exp zero, as a float": ({"exp": 0.0}, "expired"),
    "exp negative": ({"exp": -1}, "claims"),
    "exp a string": ({"exp": str(NOW + 600)}, "claims"),
    "exp true": ({"exp": True}, "claims"),
    "exp false": ({"exp": False}, "claims"),
    "exp a list": ({"exp": [NOW + 600]}, "claims"),
    "exp an object": ({"exp": {}}, "claims"),
    "exp in milliseconds": ({"exp": (NOW + 600) * 1000}, "claims"),
    "exp after the year 9999": ({"exp": 253_402_300_800}, "claims"),
    "exp of 300 digits": ({"exp": 10**300}, "claims"),
    "exp of 310 digits": ({"exp": 10**310}, "claims"),
    "exp a date": ({"exp": "2099-01-01T00:00:00Z"}, "claims"),
    "nbf in the future": ({"nbf": NOW + 301}, "not_yet_valid"),
    "nbf a string": ({"nbf": "0"}, "claims"),
    "nbf true": ({"nbf": True}, "claims"),
    "nbf beyond all dates": ({"nbf": 10**400}, "claims"),
    "iat in the future": ({"iat": NOW + 301}, "not_yet_valid"),
    "iat a string": ({"iat": str(NOW)}, "claims"),
    "iat false": ({"iat": False}, "claims"),
    "iat negative": ({"iat": -1}, "claims"),
    "sub a number": ({"sub": 1}, "claims"),
    "sub with a newline": ({"sub": "alice\nbob"}, "claims"),
    "sub with a null": ({"sub": "alice\x00"}, "claims"),
    "sub with a control character": ({"sub": "alice\x85"}, "claims"),
    "sub a list": ({"sub": ["alice"]}, "claims"),
    "sub an object": ({"sub": {"id": "alice"}}, "claims"),
    "jti a number": ({"jti": 1}, "claims"),
    # RFC 9449 §7.2 and RFC 8705 §3.
    "bound by DPoP": ({"cnf": {"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}}, "bound"),
    "bound to a certificate": (
        {"cnf": {"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN"}},
        "bound",
    ),
    "bound to nothing": ({"cnf": {}}, "bound"),
    "bound to something unknown": ({"cnf": "x"}, "bound"),
    # RFC 8725 §3.12.
    "an ID token with a nonce": ({"nonce": "n-0S6_WzA2Mj"}, "type"),
    "an ID token with a nonce and scopes": ({"nonce": "n", "scope": "openid"}, "type"),
    "an ID token with at_hash": ({"at_hash": "77QmUPtjPfzWtF2AnpK9RQ"}, "type"),
    "an ID token with c_hash": ({"c_hash": "LDktKdoQak3Pk0cnXxCltA"}, "type"),
    "an ID token of a framework": ({"token_type": "id_token"}, "type"),
    "an ID token of Keycloak": ({"typ": "ID"}, "type"),
    "an ID token of Cognito": ({"token_use": "id"}, "type"),
    "a refresh token of Keycloak": ({"typ": "Refresh"}, "type"),
    "an offline token of Keycloak": ({"typ": "Offline"}, "type"),
    "a refresh token of Descope": ({"drn": "DSR"}, "type"),
    "a refresh token of a framework": ({"token_type": "refresh"}, "type"),
    "a refresh token of a framework, spelled out": ({"token_type": "refresh_token"}, "type"),
    "a logout token of Keycloak": ({"typ": "Logout"}, "type"),
    "a logout token": (
        {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
        "type",
    ),
    "an ID token with s_hash": ({"s_hash": "LDktKdoQak3Pk0cnXxCltA"}, "type"),
    "a DPoP proof by its method": ({"htm": "POST"}, "type"),
    "a DPoP proof by its URL": ({"htu": AUDIENCE}, "type"),
    "a DPoP proof by its token": ({"ath": "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"}, "type"),
    "a client assertion": ({"sub": ISSUER}, "type"),
    "an SD-JWT by its digests": ({"_sd": ["x"]}, "type"),
    "an SD-JWT by its algorithm": ({"_sd_alg": "sha-256"}, "type"),
    "a credential": ({"vct": "https://example.com/id"}, "type"),
    "an introspection response": ({"token_introspection": {"active": True}}, "type"),
}

# What must still get in, with exactly these scopes.
CONTROLS: dict[str, tuple[str, tuple[str, ...]]] = {
    "typ at+jwt": (mint(headers={"typ": "at+jwt"}), GRANTED),
    "no typ": (mint(), GRANTED),
    "RS256": (RS256.sign(CLAIMS), GRANTED),
    "x5t, as Entra sends it": (
        mint(headers={"x5t": "CNv0OI3RwqlHFEVnaoMAshCH2XE"}),
        GRANTED,
    ),
    "an unknown header parameter": (mint(headers={"cty": "x", "nonce": "n"}), GRANTED),
    "white space in the header": (
        ES256.sign_bytes(
            to_json(CLAIMS),
            headers=f' {{"alg" :\n"ES256",\t"kid":"{ES256.key_id}" }}\r\n'.encode(),
        ),
        GRANTED,
    ),
    "white space in the payload": (ES256.sign_bytes(b"\n" + to_json(CLAIMS) + b" "), GRANTED),
    "a list of audiences": (mint(aud=["x", AUDIENCE]), GRANTED),
    "one audience in a list": (mint(aud=[AUDIENCE]), GRANTED),
    "exp on the last second of the year 9999": (mint(exp=253_402_300_799), GRANTED),
    "nbf at the beginning of time": (mint(nbf=0), GRANTED),
    "times with fractions": (
        mint(exp=NOW + 0.5, iat=NOW - 0.5, nbf=NOW),
        GRANTED,
    ),
    "times with an exponent": (ES256.sign_bytes(without("exp", '"exp":1.9e9')), GRANTED),
    "letters of other scripts": (
        mint(name="\u0416\u00e9\u4e2d\U0001f600"),
        GRANTED,
    ),
    "an escaped pair of surrogates": (ES256.sign_bytes(raw('"name":"\\ud83d\\ude00"')), GRANTED),
    "raw UTF-8": (ES256.sign_bytes(raw('"name":"\u4e2d\U0001f600"')), GRANTED),
    "many claims": (ES256.sign({**CLAIMS, **{f"c{n}": [n] for n in range(200)}}), GRANTED),
    "32 levels": (ES256.sign_bytes(raw('"x":' + "[" * 31 + "]" * 31)), GRANTED),
    "32 levels, and more than one list": (
        ES256.sign_bytes(raw('"y":[[]],"x":' + "[" * 31 + "]" * 31)),
        GRANTED,
    ),
    "wide": (
        mint(tenants={f"t{n}": {"roles": ["r"]} for n in range(100)}),
        GRANTED,
    ),
    "no scope": (mint(scope=None), ()),
    "an empty scope": (mint(scope=""), ()),
    "a list of scopes": (mint(scope=["read"]), ("read",)),
    # RFC 6749 §3.3: a space separates and nothing else does.
    "scopes with a tab": (mint(scope="read\twrite"), ("read\twrite",)),
    "scopes with a newline": (mint(scope="read\nwrite"), ("read\nwrite",)),
    "scopes with a no-break space": (mint(scope="read\u00a0write"), ("read\u00a0write",)),
    "scopes with a comma": (mint(scope="read,write"), ("read,write",)),
    "scopes with two spaces": (mint(scope="read  write"), GRANTED),
    "scopes in an object": (mint(scope={"admin": True}), ()),
    "scopes with numbers": (mint(scope=[1, "read", None]), ("read",)),
}


@pytest.mark.parametrize("payload", PAYLOAD_TEXTS.values(), ids=PAYLOAD_TEXTS)
def test_a_signed_payload_that_is_no_strict_json_is_refused(payload: bytes) -> None:
    assert reason(ES256.sign_bytes(payload)) == "malformed"


@pytest.mark.parametrize("digits", [4_000, 5_000])
def test_a_time_of_thousands_of_digits_is_refused(digits: int) -> None:
    # Which of the two depends on the limit of this Python for the digits of a number.
    assert reason(ES256.sign_bytes(without("exp", '"exp":' + "9" * digits))) in (
        "malformed",
        "claims",
    )


@pytest.mark.parametrize("claim", ["iss", "aud", "exp", "nbf", "iat", "sub", "jti", "cnf"])
def test_a_claim_that_is_null_is_refused(claim: str) -> None:
    assert reason(ES256.sign({**CLAIMS, claim: None})) in ("issuer", "audience", "claims", "bound")


@pytest.mark.parametrize(("changes", "expected"), CLAIM_CHANGES.values(), ids=CLAIM_CHANGES)
def test_a_signed_token_that_is_not_meant_for_this_server_is_refused(
    changes: dict[str, Any], expected: str
) -> None:
    assert reason(mint(**changes)) == expected


@pytest.mark.parametrize(("token", "scopes"), CONTROLS.values(), ids=CONTROLS)
def test_a_good_token_is_accepted_with_its_scopes_and_no_more(
    token: str, scopes: tuple[str, ...]
) -> None:
    assert verify(token).scopes == scopes
