"""Which verifier accepts a token that is bound to a key, and in which way?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from toolguard import Issuer, ToolGuard
from toolguard.errors import InvalidTokenError
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer
from toolguard.testing.proofs import ProofKey
from toolguard.tokens.introspection import (
    ConfirmedVerifier,
    HTTPAnswer,
    Introspection,
    IntrospectionVerifier,
)
from toolguard.tokens.introspection_client import BasicClient
from toolguard.tokens.proofs import DPoP
from toolguard.tokens.proofs.presented import verified

SERVER = "https://mcp.test/mcp"
KEY = ProofKey()
LOCAL = LocalIssuer("https://a.test", audience=SERVER, algorithm="ES256")
OTHER = LocalIssuer("https://b.test", audience=SERVER, algorithm="ES256")
CLIENT = BasicClient("server", "secret")


class Endpoint:
    """An introspection endpoint with one answer."""

    def __init__(self, **members: Any) -> None:
        usual = {"active": True, "iss": LOCAL.issuer, "sub": "alice", "aud": SERVER, "exp": 9e9}
        answer = {name: value for name, value in {**usual, **members}.items() if value is not None}
        self.body = json.dumps(answer).encode()

    async def __call__(
        self, url: str, body: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer:
        del url, body, headers, timeout
        return HTTPAnswer(200, "", self.body)


def introspecting(**members: Any) -> IntrospectionVerifier:
    described = Issuer(
        LOCAL.issuer, introspection=Introspection(CLIENT, endpoint="https://a.test/introspect")
    )
    return IntrospectionVerifier(described, audience=SERVER, post=Endpoint(**members))


def confirming(**members: Any) -> ConfirmedVerifier:
    described = LOCAL.described.with_settings(
        introspection=Introspection(CLIENT, endpoint="https://a.test/introspect"), confirm=True
    )
    return ConfirmedVerifier.asking(described, audience=SERVER, post=Endpoint(**members))


def bound(verifier: Any, token: str) -> str | None:
    """Return the key that a token is bound to, according to a verifier of bound tokens."""
    principal = asyncio.run(verifier.verify_bound(token))
    assert isinstance(principal, Principal)
    return principal.jkt


def is_refused(verification: Any) -> bool:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verification)
    return caught.value.reason == "bound"


def test_a_bound_token_is_verified_as_bound_and_never_as_bearer() -> None:
    verifier, token = LOCAL.verifier(), LOCAL.mint(key=KEY)

    for _ in range(2):  # the second time it is remembered
        assert is_refused(verifier.verify(token))
        assert bound(verifier, token) == KEY.thumbprint
    with pytest.raises(InvalidTokenError, match="is not accepted as a bearer token"):
        verifier.verify_now(token)


def test_a_bearer_token_is_never_verified_as_bound() -> None:
    verifier, token = LOCAL.verifier(), LOCAL.mint()

    for _ in range(2):
        assert is_refused(verifier.verify_bound(token))
        assert asyncio.run(verifier.verify(token)).jkt is None


@pytest.mark.parametrize(
    "confirmation",
    [
        *(None, {}, [], "x", 7, {"jkt": None}, {"jkt": 7}, {"jkt": "x"}, {"jkt": "A" * 44}),
        *({"x5t#S256": KEY.thumbprint}, {"jwk": KEY.jwk}, {"jkt": [KEY.thumbprint]}),
        {"jkt": KEY.thumbprint, "x5t#S256": KEY.thumbprint},
        {"jkt": KEY.thumbprint + "="},
    ],
)
def test_a_token_that_is_bound_in_another_way_is_refused(confirmation: Any) -> None:
    claims = {**LOCAL.claims(), "cnf": confirmation}
    verifier, token = LOCAL.verifier(), LOCAL.sign(claims)

    assert is_refused(verifier.verify(token))
    assert is_refused(verifier.verify_bound(token))


@pytest.mark.parametrize("kind", ["DPoP", "dpop", "Bearer", None])
def test_an_introspected_token_is_bound_by_its_confirmation(kind: str | None) -> None:
    verifier = introspecting(cnf={"jkt": KEY.thumbprint}, token_type=kind)

    assert bound(verifier, "opaque") == KEY.thumbprint
    assert is_refused(verifier.verify("opaque"))


def test_an_introspected_token_that_names_no_key_is_refused_as_bound() -> None:
    assert is_refused(introspecting().verify_bound("opaque"))
    for verification in ("verify", "verify_bound"):
        assert is_refused(getattr(introspecting(token_type="DPoP"), verification)("opaque"))


def test_a_confirmed_token_is_bound_to_the_key_in_its_claims() -> None:
    token = LOCAL.mint(key=KEY)

    assert bound(confirming(), token) == KEY.thumbprint
    assert bound(confirming(cnf={"jkt": KEY.thumbprint}), token) == KEY.thumbprint
    assert is_refused(confirming().verify(token))


def test_a_confirmed_token_that_its_issuer_binds_to_another_key_is_refused() -> None:
    other = {"jkt": ProofKey().thumbprint}

    for verification in (
        confirming(cnf=other).verify_bound(LOCAL.mint(key=KEY)),
        confirming(cnf=other).verify(LOCAL.mint()),
    ):
        with pytest.raises(InvalidTokenError, match="confirmed for another subject"):
            asyncio.run(verification)


def guard_of(*, dpop: Any = "optional", **modes: Any) -> ToolGuard:
    issuers = [
        LOCAL.described.with_settings(dpop=modes.get("a")),
        OTHER.described.with_settings(dpop=modes.get("b")),
    ]
    return ToolGuard(issuers=issuers, audience=SERVER, dpop=dpop)


@pytest.mark.parametrize(
    ("mode", "accepts_bound", "accepts_bearer"),
    [("off", False, True), ("optional", True, True), ("required", True, False)],
)
def test_an_issuers_own_mode_comes_before_the_guards(
    mode: str, accepts_bound: bool, accepts_bearer: bool
) -> None:
    guard = guard_of(b=mode)

    def accepts(key: ProofKey | None) -> bool:
        try:
            asyncio.run(verified(guard, OTHER.mint(key=key), bound=key is not None))
        except InvalidTokenError as refusal:
            assert refusal.reason == "bound"  # noqa: PT017 - either is an outcome
            return False
        return True

    assert (accepts(KEY), accepts(None)) == (accepts_bound, accepts_bearer)
    assert guard.dpop_mode(OTHER.issuer) == mode
    assert guard.dpop_mode(LOCAL.issuer) == "optional"


def test_a_guard_checks_proofs_if_any_issuer_binds_its_tokens() -> None:
    assert guard_of(dpop="off").possession is None
    assert guard_of(dpop="off", b="optional").possession is not None


def test_an_issuer_that_is_added_later_may_bind_its_tokens() -> None:
    guard = ToolGuard(issuers=[LOCAL.described], audience=SERVER)
    assert "dpop_signing_alg_values_supported" not in guard.metadata()

    guard.add_issuer(OTHER.described.with_settings(dpop="optional"))
    checking = guard.possession
    guard.add_issuer(Issuer("https://c.test", dpop="required"))

    assert guard.metadata()["dpop_signing_alg_values_supported"]
    assert guard.possession is checking is not None  # what it remembers stays
    assert guard.dpop_mode(LOCAL.issuer) == "off"


class Own:
    """A verifier that knows no bound tokens."""

    async def verify(self, token: str) -> Principal:
        return Principal.from_claims({"sub": token, "cnf": {"jkt": "x"}})


def test_a_verifier_that_knows_no_bound_tokens_cannot_accept_any() -> None:
    for verifier in (Own(), "framework"):
        with pytest.raises(ValueError, match=r"dpop= needs a verifier with an async verify_bound"):
            ToolGuard(verifier=verifier, audience=SERVER, dpop=DPoP())


def test_a_verifier_that_ignores_a_confirmation_is_not_believed() -> None:
    guard = ToolGuard(verifier=Own(), audience=SERVER)

    assert is_refused(verified(guard, "alice", bound=False))
    assert is_refused(verified(guard, "alice", bound=True))


def test_an_unknown_mode_of_an_issuer_is_refused() -> None:
    with pytest.raises(ValueError, match="dpop='on': write one of 'off'"):
        Issuer("https://a.test", dpop="on")  # type: ignore[arg-type]
