"""Is a local issuer a real one: keys, rotation, claims, and what it serves?"""

from __future__ import annotations

import asyncio
import gc
import json
from collections import deque
from typing import Any, get_args

import httpx
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jwt.utils import base64url_decode
from starlette.applications import Starlette
from starlette.routing import Mount

from support.subjects import subjects
from toolguard.errors import InvalidTokenError
from toolguard.testing import FrozenClock
from toolguard.testing import issuer as issuers
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.testing.issuer import Algorithm, LocalIssuer
from toolguard.testing.loopback import Loopback
from toolguard.testing.strategies import scope_tokens
from toolguard.tokens.discovery import discovery_urls
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys

NOW = 1_800_000_000
ALGORITHMS: tuple[Algorithm, ...] = get_args(Algorithm)


def local(url: str = "https://issuer.test", *, algorithm: Algorithm = "ES256") -> LocalIssuer:
    return LocalIssuer(url, algorithm=algorithm, clock=lambda: NOW)


ISSUER = local()


def refusal(verifier: JWTVerifier, token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        verifier.verify_now(token)
    return caught.value.reason


def header(token: str) -> dict[str, Any]:
    return dict(jwt.get_unverified_header(token))


# --- keys


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_token_of_every_algorithm_is_good(algorithm: Algorithm) -> None:
    issuer = local(algorithm=algorithm)
    token = issuer.mint("alice", scopes=["read"])

    principal = issuer.verifier(algorithms=[algorithm]).verify_now(token)

    assert principal is not None
    assert (principal.user_id, principal.scopes) == ("alice", ("read",))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_another_library_verifies_its_tokens_with_its_published_key(algorithm: Algorithm) -> None:
    issuer = local(algorithm=algorithm)
    (key,) = jwt.PyJWKSet.from_dict(issuer.jwks()).keys

    payload = jwt.api_jws.decode(issuer.mint("alice"), key, algorithms=[algorithm])

    assert json.loads(payload)["sub"] == "alice"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_published_keys_hold_nothing_private(algorithm: Algorithm) -> None:
    (jwk,) = local(algorithm=algorithm).jwks()["keys"]

    assert jwk.keys() <= {"kty", "crv", "n", "e", "x", "y", "kid", "alg", "use", "key_ops"}


def public(issuer: LocalIssuer) -> list[str]:
    """Return what tells the published keys apart."""
    return [jwk.get("n") or jwk["x"] for jwk in issuer.jwks()["keys"]]


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_rotation_gives_another_key_every_time(algorithm: Algorithm) -> None:
    issuer = local(algorithm=algorithm)
    kids = {issuer.key_id, issuer.rotate(), issuer.rotate()}

    assert len(kids) == len(set(public(issuer))) == 3


def test_tokens_of_a_kept_key_stay_good() -> None:
    issuer = local()
    before = issuer.mint("alice")
    issuer.rotate()
    after = issuer.mint("alice")

    assert header(before)["kid"] != header(after)["kid"] == issuer.key_id
    assert issuer.verifier().verify_now(before)
    assert issuer.verifier().verify_now(after)


def test_tokens_of_a_dropped_key_are_refused() -> None:
    issuer = local()
    before = issuer.mint("alice")
    issuer.rotate(keep_old=False)

    assert refusal(issuer.verifier(), before) == "key"
    assert issuer.verifier().verify_now(issuer.mint("alice"))


def test_a_dropped_key_does_not_come_back() -> None:
    issuer = local(algorithm="RS256")
    (before,) = public(issuer)
    for _ in range(2):
        issuer.rotate(keep_old=False)
        assert public(issuer) != [before]


@pytest.fixture
def idle(monkeypatch: pytest.MonkeyPatch) -> deque[Any]:
    """The RSA keys that nobody uses; none in the beginning."""
    keys: deque[Any] = deque()
    monkeypatch.setattr(issuers, "_IDLE", keys)
    return keys


def test_two_issuers_never_share_a_key(idle: deque[Any]) -> None:
    first, second = local(algorithm="RS256"), local(algorithm="RS256")

    assert public(first) != public(second)
    assert not idle


def test_an_rsa_key_is_used_again_once_its_issuer_is_gone(idle: deque[Any]) -> None:
    issuer = local(algorithm="RS256")
    before = public(issuer)
    del issuer
    gc.collect()
    assert len(idle) == 1

    assert public(local(algorithm="RS256")) == before


def test_a_token_of_an_issuer_that_is_gone_is_refused(idle: deque[Any]) -> None:
    before = local(algorithm="RS256").mint("alice")
    gc.collect()
    assert len(idle) == 1

    assert refusal(local(algorithm="RS256").verifier(), before) == "key"


def test_the_keys_of_a_verifier_go_to_nobody_else(idle: deque[Any]) -> None:
    verifier = local(algorithm="RS256").verifier()
    gc.collect()

    assert not idle
    assert verifier.issuer == "https://issuer.test"


# --- claims


@given(
    user=subjects(20),
    scopes=st.lists(scope_tokens(), unique=True, max_size=10),
    lifetime=st.integers(1, 10**9),
)
def test_what_is_minted_is_what_the_verifier_reads(
    user: str, scopes: list[str], lifetime: int
) -> None:
    token = ISSUER.mint(user, scopes=scopes, expires_in=lifetime)

    principal = ISSUER.verifier().verify_now(token)

    assert principal is not None
    assert principal.user_id == user
    assert principal.scopes == tuple(scopes)
    assert principal.expires_at == NOW + lifetime


def test_a_token_is_what_rfc_9068_asks_for() -> None:
    claims = ISSUER.claims("alice", scopes=["read", "write"])

    assert header(ISSUER.mint("alice")) == {
        "alg": "ES256",
        "typ": "at+jwt",
        "kid": ISSUER.key_id,
    }
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "iss": "https://issuer.test",
        "aud": "https://mcp.test/mcp",
        "sub": "alice",
        "client_id": "test-client",
        "iat": NOW,
        "exp": NOW + 300,
        "scope": "read write",
    }


def test_claims_are_added_replaced_and_left_out() -> None:
    claims = ISSUER.claims("alice", sub="bob", email="bob@example.com", client_id=None, jti=None)

    assert claims["sub"] == "bob"
    assert claims["email"] == "bob@example.com"
    assert not {"client_id", "jti", "scope"} & claims.keys()


def test_a_token_may_have_no_subject() -> None:
    principal = ISSUER.verifier().verify_now(ISSUER.mint(None))

    assert principal is not None
    assert principal.user_id is None


def test_tenant_roles_and_permissions_have_claims() -> None:
    token = ISSUER.mint("alice", tenant="acme", roles=["admin"], permissions=["loans.read"])
    principal = ISSUER.verifier().verify_now(token)

    assert principal is not None
    assert principal.tenant_id == "acme"
    assert principal.roles == ("admin",)
    assert principal.permissions == ("loans.read",)


def test_scopes_in_one_string_are_not_taken_apart() -> None:
    with pytest.raises(TypeError, match=r"write scopes=\['read', 'write'\]"):
        ISSUER.mint("alice", scopes="read write")


def test_headers_are_added_replaced_and_left_out() -> None:
    assert header(ISSUER.mint("alice", headers={"typ": None, "x5t": "abc"})) == {
        "alg": "ES256",
        "kid": ISSUER.key_id,
        "x5t": "abc",
    }
    assert header(ISSUER.mint("alice", headers={"kid": None})) == {"typ": "at+jwt", "alg": "ES256"}


def decoded(token: str) -> dict[str, Any]:
    """Return the header and payload of a token, whose ES256 signature is good."""
    key = jwt.PyJWKSet.from_dict(ISSUER.jwks()).keys[0]
    signing_input, _, signature = token.rpartition(".")
    assert key.Algorithm.verify(signing_input.encode(), key.key, base64url_decode(signature))
    head, payload = map(base64url_decode, signing_input.split("."))
    return {"header": head, "payload": payload}


@pytest.mark.parametrize("stated", ["RS256", "ES384", "none", "", 7])
def test_whatever_a_header_states_the_signature_is_the_issuers(stated: object) -> None:
    token = ISSUER.mint("alice", headers={"alg": stated})

    assert json.loads(decoded(token)["header"])["alg"] == stated


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_any_header_and_any_payload_can_be_signed(head: bytes, payload: bytes) -> None:
    token = ISSUER.sign_bytes(payload, headers=head)

    assert decoded(token) == {"header": head, "payload": payload}


def test_any_claims_and_any_payload_can_be_signed() -> None:
    key = jwt.PyJWKSet.from_dict(ISSUER.jwks()).keys[0]

    def signed(token: str) -> bytes:
        decoded = jwt.api_jws.decode_complete(token, key, algorithms=["ES256"])
        return bytes(decoded["payload"])

    assert signed(ISSUER.sign({"iss": 5, "é": [None]})) == b'{"iss":5,"\\u00e9":[null]}'
    assert signed(ISSUER.sign_bytes(b"\xff")) == b"\xff"


def test_settings_of_the_verifier_come_before_the_issuers_own() -> None:
    verifier = ISSUER.verifier(audience="https://other.test/mcp", clock=lambda: NOW + 400)

    assert refusal(verifier, ISSUER.mint("alice")) == "audience"
    assert refusal(verifier, ISSUER.mint("alice", aud="https://other.test/mcp")) == "expired"


def test_a_verifier_may_trust_another_name_and_other_keys() -> None:
    other = local("https://other.test")
    verifier = ISSUER.verifier(issuer=other.issuer, keys=StaticKeys(other.jwks()))

    assert verifier.verify_now(other.mint("alice")) is not None
    forged = ISSUER.mint("alice", iss=other.issuer, headers={"kid": other.key_id})
    assert refusal(verifier, forged) == "signature"


def test_no_key_is_shown() -> None:
    assert repr(ISSUER) == "<LocalIssuer: https://issuer.test for https://mcp.test/mcp>"


# --- over HTTP


def get(app: Starlette, url: str) -> Any:
    """Return the JSON document that the application has at ``url``."""

    async def request() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.get(url)

    return asyncio.run(request()).raise_for_status().json()


@pytest.mark.parametrize("path", ["", "/", "/realms/acme", "/tenant/v2.0/"])
def test_every_place_of_discovery_has_the_metadata(path: str) -> None:
    issuer = local(f"https://issuer.test{path}")

    for url in discovery_urls(issuer.issuer):
        assert get(issuer.app, url) == issuer.metadata()
    assert get(issuer.app, issuer.metadata()["jwks_uri"]) == issuer.jwks()


def test_a_trailing_slash_of_an_issuer_changes_no_endpoint() -> None:
    with_slash, without = local("https://issuer.test/").metadata(), local().metadata()

    assert with_slash == {**without, "issuer": "https://issuer.test/"}


def test_it_can_be_mounted_at_the_path_of_its_issuer() -> None:
    issuer = local("https://issuer.test/P1")
    app = Starlette(routes=[Mount("/P1", issuer.app)])

    metadata = get(app, "https://issuer.test/P1/.well-known/openid-configuration")

    assert metadata == issuer.metadata()
    assert get(app, metadata["jwks_uri"]) == issuer.jwks()


def test_served_on_loopback_it_is_discovered_through_a_rotation() -> None:
    clock = FrozenClock(1_000)
    with Loopback() as server:
        issuer = LocalIssuer.like(
            "keycloak", issuer=f"{server.url}/realms/acme", algorithm="ES256", clock=lambda: NOW
        )
        server.start(issuer.app)
        keys = JWKS(issuer=issuer.issuer, clock=clock)
        verifier = JWTVerifier(
            issuer=issuer.issuer, audience=issuer.audience, keys=keys, clock=lambda: NOW
        )

        assert asyncio.run(verifier.verify(issuer.mint("alice"))).user_id == "alice"
        issuer.rotate()
        clock.advance(60)
        assert asyncio.run(verifier.verify(issuer.mint("bob"))).user_id == "bob"


def test_bad_tokens_are_refused_for_their_reason_with_discovered_keys_too() -> None:
    reasons: dict[str, str] = {}
    with Loopback() as server:
        issuer = local(server.url)
        server.start(issuer.app)
        keys = JWKS(issuer=issuer.issuer)
        verifier = JWTVerifier(
            issuer=issuer.issuer, audience=issuer.audience, keys=keys, clock=lambda: NOW
        )
        for name, token in issuer.invalid_tokens().items():
            with pytest.raises(InvalidTokenError) as caught:
                asyncio.run(verifier.verify(token))
            reasons[name] = caught.value.reason

    assert reasons == INVALID_TOKENS


def test_the_documents_say_what_the_methods_return() -> None:
    with Loopback() as server:
        issuer = local(server.url, algorithm="RS256")
        server.start(issuer.app)
        documents = [
            httpx.get(f"{server.url}/{path}").json()
            for path in (".well-known/oauth-authorization-server", "jwks")
        ]

    assert documents == [issuer.metadata(), issuer.jwks()]
    assert StaticKeys(documents[1]).find(issuer.key_id, "RS256")
