"""What does a verifier promise to those who configure it and those who call it?"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from support.counted_keys import Keys, published
from support.trusted import CLAIMS, ES256, ISSUER, NOW, RS256, claims, issuing, mint
from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import FrozenClock
from toolguard.tokens.jwt import DEFAULT_ALGORITHMS, JWTVerifier, Verifier
from toolguard.tokens.keys import Key, KeySource

ES256_KEY = published(ES256)
RS256_KEY = published(RS256)


def verifier(keys: KeySource | None = None, **settings: Any) -> JWTVerifier:
    """Return a verifier of the issuer's tokens; ``settings`` come before its own."""
    return ES256.verifier(**{"keys": keys or Keys(ES256_KEY), **settings})


def refusal(token: str, **settings: Any) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifier(**settings).verify(token))
    return caught.value.reason


def without_waiting(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run ``coroutine`` as far as its first suspension, and fail if it has one."""
    with pytest.raises(StopIteration) as stopped:
        coroutine.send(None)
    return stopped.value.value


# --- what comes out


def test_a_good_token_gives_its_principal() -> None:
    principal = verifier().verify_now(ES256.sign(CLAIMS))

    assert principal is not None
    assert (principal.user_id, principal.issuer, principal.client_id) == (
        "alice",
        "https://auth.example.com",
        "desktop",
    )
    assert principal.scopes == ("read", "write")
    assert principal.expires_at == 1_800_000_600
    assert dict(principal.claims) == CLAIMS


def test_permissions_count_as_scopes_only_where_the_server_says_so() -> None:
    token = mint(permissions=["delete"])

    plain = verifier().verify_now(token)
    widened = verifier(permissions_are_scopes=True).verify_now(token)

    assert plain is not None
    assert plain.scopes == ("read", "write")
    assert widened is not None
    assert widened.scopes == ("read", "write", "delete")


def test_a_caller_without_a_subject_is_a_principal_without_a_user() -> None:
    principal = verifier().verify_now(mint(sub=None))

    assert principal is not None
    assert principal.user_id is None


def test_a_jwt_verifier_is_a_verifier() -> None:
    checked: Verifier = verifier()

    assert asyncio.run(checked.verify(mint())).user_id == "alice"


# --- algorithms


@pytest.mark.parametrize("algorithm", DEFAULT_ALGORITHMS)
def test_every_default_algorithm_is_verified(algorithm: Any) -> None:
    # RFC 9864 §2.2: Ed25519 is what EdDSA means for such a key; PyJWT has the older name only.
    issuer = issuing("EdDSA" if algorithm == "Ed25519" else algorithm)
    source = Keys(replace(published(issuer), algorithms=frozenset({algorithm})))

    principal = verifier(source).verify_now(issuer.mint("alice", headers={"alg": algorithm}))

    assert principal is not None
    assert principal.user_id == "alice"


def test_an_algorithm_outside_the_configured_ones_is_refused() -> None:
    assert refusal(mint(), algorithms=["RS256"]) == "algorithm"


def test_a_key_serves_only_the_algorithms_it_was_published_for() -> None:
    pss_only = replace(RS256_KEY, algorithms=frozenset({"PS256"}))

    class AnyKey(Keys):
        def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
            return (pss_only,)

    assert refusal(RS256.sign(CLAIMS), keys=AnyKey()) == "signature"


def test_a_key_of_another_kind_than_it_says_verifies_nothing() -> None:
    mislabelled = replace(ES256_KEY, material=RS256_KEY.material)

    assert refusal(mint(), keys=Keys(mislabelled)) == "signature"


# --- keys


def test_nothing_is_awaited_while_the_keys_are_at_hand() -> None:
    assert without_waiting(verifier().verify(mint())).user_id == "alice"


def test_missing_keys_are_said_to_be_missing_without_io() -> None:
    source = Keys(ES256_KEY, fetched=False)

    assert verifier(source).verify_now(mint()) is None
    assert source.refreshes == 0


def test_missing_keys_are_fetched_once_and_the_token_judged_by_them() -> None:
    source = Keys(ES256_KEY, fetched=False)

    assert asyncio.run(verifier(source).verify(mint())).user_id == "alice"
    assert source.refreshes == 1


def test_a_key_replaced_under_its_old_name_is_fetched_again() -> None:
    before = issuing()
    source = Keys(ES256_KEY, replaced=(replace(published(before), kid=ES256.key_id),))
    verifying = verifier(source)

    earlier = before.mint("alice", headers={"kid": ES256.key_id})
    assert asyncio.run(verifying.verify(earlier)).user_id == "alice"
    assert asyncio.run(verifying.verify(mint())).user_id == "alice"
    assert source.refreshes == 1


def test_a_key_that_never_verified_is_not_fetched_again() -> None:
    source = Keys(ES256_KEY)

    assert refusal(ES256.mint_wrong_key(), keys=source) == "signature"
    assert source.refreshes == 0


def test_a_forged_signature_costs_at_most_one_refresh() -> None:
    source = Keys(ES256_KEY)
    verifying = verifier(source)
    verifying.verify_now(mint())

    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifying.verify(ES256.mint_wrong_key()))

    assert caught.value.reason == "signature"
    assert source.refreshes == 1


def test_a_source_that_suspects_every_key_does_not_get_a_forged_token_in() -> None:
    class Suspicious(Keys):
        def report_bad_signature(self, kid: str | None) -> bool:
            return True

    source = Suspicious(ES256_KEY)
    forged, verifying = ES256.mint_wrong_key(), verifier(source)
    verifying.verify_now(mint())

    assert verifying.verify_now(forged) is None
    with pytest.raises(InvalidTokenError, match="signature"):
        asyncio.run(verifying.verify(forged))
    assert source.refreshes == 1


def test_a_source_that_cannot_say_even_after_a_refresh_is_an_outage() -> None:
    class Silent(Keys):
        def find(self, kid: str | None, algorithm: str) -> None:
            return None

    source = Silent()

    with pytest.raises(KeysUnavailableError):
        asyncio.run(verifier(source).verify(mint()))
    assert source.refreshes == 3


def test_an_outage_is_passed_on_as_it_is() -> None:
    class Down(Keys):
        def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
            raise KeysUnavailableError("The issuer does not answer", retry_after=7)

    with pytest.raises(KeysUnavailableError) as caught:
        asyncio.run(verifier(Down()).verify(mint()))
    assert caught.value.retry_after == 7


def test_an_unknown_key_is_refused() -> None:
    assert refusal(mint(headers={"kid": "k2"})) == "key"


def test_a_token_without_kid_is_tried_with_every_fitting_key() -> None:
    source = Keys(published(issuing()), ES256_KEY)

    assert verifier(source).verify_now(mint(headers={"kid": None})) is not None


def test_a_refused_token_causes_no_fetch_before_its_form_is_right() -> None:
    source = Keys(ES256_KEY, fetched=False)
    check = verifier(source).verify

    for token in ("", "a.b.c", mint(headers={"alg": "none"}), mint(headers={"typ": "dpop+jwt"})):
        with pytest.raises(InvalidTokenError):
            asyncio.run(check(token))
    assert source.refreshes == 0


def test_claims_of_a_forged_token_are_not_read() -> None:
    expired_and_forged = ES256.mint_wrong_key(exp=1)

    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(verifier().verify(expired_and_forged))
    assert caught.value.reason == "signature"


# --- issuer


def test_the_issuer_may_be_the_one_the_keys_discovered() -> None:
    source = Keys(ES256_KEY, fetched=False, issuer=ISSUER)
    discovering = verifier(source, issuer=None)

    assert discovering.issuer is None
    assert discovering.verify_now(mint()) is None
    assert asyncio.run(discovering.verify(mint())).issuer == "https://auth.example.com"
    assert discovering.issuer == "https://auth.example.com"


def test_no_token_is_good_while_the_issuer_is_unknown() -> None:
    source = Keys(ES256_KEY, issuer=None)

    with pytest.raises(KeysUnavailableError):
        asyncio.run(verifier(source, issuer=None).verify(mint()))
    with pytest.raises(KeysUnavailableError):
        asyncio.run(verifier(source, issuer=None).verify(mint(iss=None)))


def test_two_issuers_do_not_vouch_for_each_other() -> None:
    assert refusal(mint(), issuer="https://other.example.com") == "issuer"


# --- time


@pytest.mark.parametrize(
    ("changes", "now", "reason"),
    [
        ({"exp": NOW}, NOW - 1, None),
        ({"exp": NOW}, NOW + 29, None),
        ({"exp": NOW}, NOW + 30, "expired"),
        ({"exp": NOW + 0.5}, NOW + 30, None),
        ({"exp": NOW + 0.5}, NOW + 30.5, "expired"),
        ({"exp": 0}, NOW, "expired"),
        ({"nbf": NOW + 30}, NOW, None),
        ({"nbf": NOW + 31}, NOW, "not_yet_valid"),
        ({"iat": NOW + 30}, NOW, None),
        ({"iat": NOW + 30.5}, NOW, "not_yet_valid"),
        ({"iat": None}, NOW, None),
        ({"exp": None}, NOW, "claims"),
    ],
)
def test_a_token_is_valid_between_nbf_and_exp_with_leeway(
    changes: dict[str, Any], now: float, reason: str | None
) -> None:
    token = mint(**changes)
    settings: dict[str, Any] = {"leeway": 30, "clock": lambda: now}

    if reason is None:
        assert verifier(**settings).verify_now(token) is not None
    else:
        assert refusal(token, **settings) == reason


def test_clocks_may_differ_by_five_seconds_where_nothing_else_is_said() -> None:
    assert verifier().verify_now(mint(exp=NOW - 4, iat=NOW + 5)) is not None
    assert refusal(mint(exp=NOW - 5)) == "expired"
    assert refusal(mint(nbf=NOW + 6)) == "not_yet_valid"


def test_the_clock_is_read_for_every_token() -> None:
    clock = FrozenClock(NOW)
    ticking = verifier(clock=clock)
    token = mint()

    assert ticking.verify_now(token) is not None
    clock.advance(3_600)
    with pytest.raises(InvalidTokenError) as caught:
        ticking.verify_now(token)
    assert caught.value.reason == "expired"


# --- types of tokens


@pytest.mark.parametrize(
    "typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt", "JWT", "jwt"]
)
def test_the_usual_types_of_access_tokens_are_accepted(typ: str) -> None:
    assert verifier().verify_now(mint(headers={"typ": typ})) is not None


def test_only_explicitly_typed_tokens_are_accepted_where_the_server_says_so() -> None:
    strict: dict[str, Any] = {"token_types": {"application/AT+jwt"}}

    assert verifier(**strict).verify_now(mint(headers={"typ": "at+jwt"})) is not None
    assert refusal(mint(headers={"typ": "JWT"}), **strict) == "type"
    assert refusal(mint(), **strict) == "type"


def test_a_type_of_ones_own_can_be_accepted() -> None:
    token = mint(headers={"typ": "application/okta-internal-at+jwt"})

    assert refusal(token) == "type"
    assert refusal(mint(headers={"typ": "o\u212ata"}), token_types=["okta"]) == "type"
    assert verifier(token_types=["okta-internal-at+jwt"]).verify_now(token) is not None


@pytest.mark.parametrize(
    ("header", "changes"),
    [
        ({"typ": "at+jwt"}, {"nonce": "n"}),
        ({}, {"nonce": "n", "typ": "Bearer"}),
        ({}, {"nonce": "n", "token_use": "access"}),
        ({}, {"nonce": "n", "token_type": "access_token"}),
        ({}, {"drn": "DS"}),
        ({}, {"typ": ["Bearer"]}),
        ({}, {"events": ["login"]}),
        ({}, {"amr": ["pwd"], "azp": "web", "sid": "s", "auth_time": NOW - 60}),
    ],
    ids=str,
)
def test_access_tokens_that_resemble_other_kinds_are_accepted(
    header: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert verifier().verify_now(mint(headers=header, **changes)) is not None


# --- what is not told


def test_no_refusal_holds_anything_of_the_token() -> None:
    secret = "s3cr3t-c4n4ry"
    canary = claims(sub=secret, jti=secret, scope=secret, custom=secret)
    tokens = [
        ES256.sign({**canary, "exp": 1}),
        ES256.sign({**canary, "aud": secret}),
        ES256.sign({**canary, "iss": secret}),
        ES256.sign({**canary, "cnf": {}}),
        ES256.sign({**canary, "nonce": "n"}),
        ES256.sign_bytes(b'{"sub":"' + secret.encode() + b'",}'),
        ES256.sign(canary, headers={"kid": secret}),
        ES256.sign(canary, headers={"alg": secret}),
        ES256.sign(canary, headers={"typ": secret}),
        ES256.sign(canary, headers={"crit": [secret]}),
        f"{secret}.{secret}.{secret}",
        secret + ES256.sign(canary) + secret,
    ]

    for token in tokens:
        with pytest.raises(InvalidTokenError) as caught:
            verifier().verify_now(token)
        error = caught.value
        assert error.__cause__ is None
        assert error.__context__ is None
        assert secret not in f"{error} {error!r} {error.to_json()}"
        # RFC 6750 §3, and what clients read challenges with: no quote, backslash or equals sign.
        assert re.fullmatch(r"[A-Za-z0-9 ,.]+", error.error_description)
