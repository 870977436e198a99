"""How does a challenge name the schemes DPoP and Bearer?"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.errors import (
    InsufficientScopeError,
    InvalidProofError,
    InvalidTokenError,
    MissingTokenError,
    NonceRequiredError,
    ToolGuardError,
)
from toolguard.http.challenge import Challenge, challenge_for, parse
from toolguard.testing.strategies import challenges

METADATA = "https://mcp.test/.well-known/oauth-protected-resource/mcp"
START = f'scope="read", resource_metadata="{METADATA}"'


def header(refusal: ToolGuardError, *, scheme: str = "Bearer", offers_bearer: bool = True) -> str:
    if isinstance(refusal, InvalidTokenError):
        refusal.scheme = scheme
    challenge = challenge_for(
        refusal,
        resource_metadata=METADATA,
        default_scope=("read",),
        algs=("ES256", "EdDSA"),
        offers_bearer=offers_bearer,
    )
    assert challenge is not None
    assert parse(challenge.header) == replace(
        challenge, scheme=challenge.scheme if challenge.error and offers_bearer else "Bearer"
    )
    return challenge.header


def test_a_missing_token_is_asked_for_by_both_schemes() -> None:
    assert header(MissingTokenError()) == f'Bearer {START}, DPoP algs="ES256 EdDSA"'
    assert header(MissingTokenError(), offers_bearer=False) == (f'DPoP {START}, algs="ES256 EdDSA"')


def test_the_fault_stands_in_the_challenge_of_its_scheme() -> None:
    fault = 'error="invalid_token", error_description="Why"'
    refusal = InvalidTokenError("signature", "Why")

    assert header(refusal) == (
        f'Bearer error="invalid_token", {START}, error_description="Why", DPoP algs="ES256 EdDSA"'
    )
    assert header(refusal, scheme="DPoP") == f'Bearer {START}, DPoP {fault}, algs="ES256 EdDSA"'


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (InvalidProofError("time", "The DPoP proof is old"), "invalid_dpop_proof"),
        (NonceRequiredError("abc"), "use_dpop_nonce"),
    ],
)
def test_a_fault_of_the_proof_stands_with_dpop(refusal: ToolGuardError, error: str) -> None:
    assert f', DPoP error="{error}", ' in header(refusal)
    assert header(refusal, offers_bearer=False).startswith(f'DPoP error="{error}", {START}')


@pytest.mark.parametrize("offers_bearer", [True, False])
def test_a_missing_scope_has_one_form(offers_bearer: bool) -> None:
    assert header(InsufficientScopeError(["write"]), offers_bearer=offers_bearer) == (
        f'Bearer error="insufficient_scope", scope="write", resource_metadata="{METADATA}", '
        'error_description="Token missing required scopes: write"'
    )


@given(challenges(), st.booleans(), st.sampled_from(["Bearer", "DPoP"]))
def test_a_challenge_with_dpop_is_read_as_it_was_written(
    challenge: Challenge, offers_bearer: bool, scheme: str
) -> None:
    made = replace(
        challenge,
        algs=("ES256",),
        offers_bearer=offers_bearer,
        scheme=scheme,
        resource_metadata=METADATA,
    )
    expected = scheme if made.error and offers_bearer else "Bearer"

    assert parse(made.header) == replace(made, scheme=expected)


@pytest.mark.parametrize(
    "text",
    [
        'DPoP algs="ES256", Bearer scope="read"',
        'Bearer scope="read", Bearer scope="write"',
        'Bearer scope="read", Basic realm="x"',
        'Bearer scope="read", DPoP algs="ES256", algs="none"',
        'Bearer scope="read", DPoP',
    ],
)
def test_challenges_in_another_order_or_number_are_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which of the sentences does not matter
        parse(text)
