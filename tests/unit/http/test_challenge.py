"""Is a challenge read as it was meant, by strict readers and by the sloppy ones that exist?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    InsufficientAuthenticationError,
    InsufficientScopeError,
    InvalidTokenError,
    KeysUnavailableError,
    MalformedCredentialsError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.http.challenge import Challenge, ChallengeScopes, challenge_for, parse
from toolguard.testing.strategies import challenges, scope_tokens

METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"


def header(refusal: ToolGuardError, scopes: ChallengeScopes = "required") -> str | None:
    challenge = challenge_for(
        refusal, resource_metadata=METADATA, default_scope=("profile",), scopes=scopes
    )
    return None if challenge is None else challenge.header


# --- the exact texts


def test_without_credentials_the_challenge_says_what_to_ask_for_and_names_no_error() -> None:
    assert header(MissingTokenError(scopes=["calendar.read", "calendar.list"])) == (
        'Bearer scope="calendar.read calendar.list", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"'
    )


def test_without_credentials_and_a_known_operation_the_default_scope_is_asked_for() -> None:
    assert header(MissingTokenError()) == (
        'Bearer scope="profile", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp"'
    )


def test_a_bad_token_is_challenged_with_the_default_scope() -> None:
    assert header(InvalidTokenError("expired", "The access token has expired")) == (
        'Bearer error="invalid_token", scope="profile", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", '
        'error_description="The access token has expired"'
    )


def test_malformed_credentials_are_challenged_without_a_scope() -> None:
    assert header(MalformedCredentialsError("Send exactly one Authorization header")) == (
        'Bearer error="invalid_request", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", '
        'error_description="Send exactly one Authorization header"'
    )


def test_missing_scopes_are_challenged_with_all_that_the_operation_needs() -> None:
    refusal = InsufficientScopeError(
        ["calendar.read", "calendar.write"], token_scopes=["profile", "calendar.read"]
    )

    assert header(refusal) == (
        'Bearer error="insufficient_scope", scope="calendar.read calendar.write", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", '
        'error_description="Token missing required scopes: calendar.write"'
    )


def test_for_clients_that_replace_their_scopes_the_held_ones_are_named_first() -> None:
    refusal = InsufficientScopeError(
        ["calendar.read", "calendar.write"], token_scopes=["profile", "calendar.read"]
    )

    assert header(refusal, "combined") == (
        'Bearer error="insufficient_scope", scope="profile calendar.read calendar.write", '
        'resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", '
        'error_description="Token missing required scopes: calendar.write"'
    )


def test_a_required_scope_that_a_held_one_includes_is_named_in_both_modes() -> None:
    # With a hierarchy, "write" stands for "read": it is required and not missing.
    refusal = InsufficientScopeError(
        ["read", "list"], token_scopes=["write"], missing_scopes=["list"]
    )

    assert parse(str(header(refusal))).scope == ("read", "list")
    assert parse(str(header(refusal, "combined"))).scope == ("write", "list", "read")


@pytest.mark.parametrize(
    "refusal",
    [
        AccessDeniedError(),
        KeysUnavailableError("The issuer cannot be reached"),
        GuardNotConfiguredError("No guard"),
        ConnectionRequiredError("Connect mail", connection="mail"),
        ToolGuardError("something else"),
    ],
    ids=lambda refusal: refusal.error,
)
def test_a_refusal_that_no_token_would_change_carries_no_challenge(refusal: ToolGuardError) -> None:
    assert header(refusal) is None


def test_without_any_scope_the_parameter_is_left_out() -> None:
    challenge = challenge_for(MissingTokenError(), resource_metadata=METADATA)

    assert challenge is not None
    assert challenge.header == f'Bearer resource_metadata="{METADATA}"'


def test_a_held_scope_that_a_client_could_misread_is_not_repeated() -> None:
    refusal = InsufficientScopeError(["read"], token_scopes=["resource_metadata=https://evil", "é"])

    assert parse(str(header(refusal, "combined"))).scope == ("read",)


@pytest.mark.parametrize(
    "text",
    [
        "scope=evil",
        'a "quoted" word',
        "back\\slash",
        "naïve",
        "two\r\nlines",
        "a\tb",
        "\x00",
        "\x7f",
        "",
    ],
)
def test_an_unsendable_description_is_left_out_of_the_challenge(text: str) -> None:
    assert header(InvalidTokenError("claims", text)) == (
        f'Bearer error="invalid_token", scope="profile", resource_metadata="{METADATA}"'
    )


# --- refusals


@pytest.mark.parametrize(
    "bad",
    [
        '"',
        "\\",
        "=",
        "\r\n",
        "\n",
        "\t",
        "\x00",
        "\x1f",
        "\x7f",
        "é",
        "\u2028",
        'x", scope="evil',
        "scope=evil",
        "a\r\nSet-Cookie: a",
    ],
)
@pytest.mark.parametrize("name", ["error", "error_description"])
def test_a_text_that_cannot_be_quoted_is_refused(name: str, bad: str) -> None:
    values = {"error": "invalid_token", name: f"a{bad}b"}

    with pytest.raises(ValueError, match=f"^{name} cannot be sent in a challenge: "):
        Challenge(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scope",
    ["", " ", "a b", 'a"b', "a\\b", "a=b", "scope=evil", "a\tb", "a\r\nb", "é", "\x00", "\x7f"],
)
def test_a_scope_that_cannot_be_asked_for_is_refused(scope: str) -> None:
    with pytest.raises(ValueError, match=r"^this scope cannot be asked for in a challenge: "):
        Challenge(scope=("read", scope))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mcp.example.com",
        "ftp://mcp.example.com",
        "javascript:alert(1)",
        "https://",
        "https://mcp.example.com/a b",
        'https://mcp.example.com/"',
        "https://mcp.example.com/\\",
        "https://mcp.example.com/\r\n",
        "https://mcp.example.com/?scope=evil",
        "https://mcp.exämple.com/",
        " https://mcp.example.com/",
    ],
)
def test_metadata_that_is_no_plain_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"^resource_metadata is not a URL: "):
        Challenge(resource_metadata=url)


def test_an_empty_error_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^error cannot be sent in a challenge: ''$"):
        Challenge(error="")


@pytest.mark.parametrize("others", [{}, {"scope": ("read",)}, {"resource_metadata": METADATA}])
def test_a_description_of_no_error_is_refused(others: dict[str, Any]) -> None:
    with pytest.raises(
        ValueError, match=r"^error_description goes with an error \(RFC 6750 §3\.1\)$"
    ):
        Challenge(error_description="why", **others)


def test_a_challenge_without_a_parameter_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a challenge needs at least one parameter$"):
        Challenge()


# --- the header, held against the standard and against the readers that exist

_TCHAR = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def read_strictly(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Read a challenge letter by letter (RFC 9110 §5.6.2, §5.6.4, §11.2, §11.3)."""
    scheme, space, rest = text.partition(" ")
    assert scheme
    assert space
    assert set(scheme) <= set(_TCHAR)
    parameters: list[tuple[str, str]] = []
    while True:
        name, equals, rest = rest.partition("=")
        assert name
        assert equals
        assert set(name) <= set(_TCHAR)
        assert rest[0] == '"'
        value, position = "", 1
        while rest[position] != '"':
            if rest[position] == "\\":
                position += 1
            assert rest[position] == "\t" or " " <= rest[position] <= "~"
            value += rest[position]
            position += 1
        parameters.append((name, value))
        rest = rest[position + 1 :]
        if not rest:
            return scheme, parameters
        assert rest[:2] == ", "
        rest = rest[2:]


def read_as_the_official_clients_do(name: str, text: str) -> str | None:
    match = re.search(rf'{name}=(?:"([^"]+)"|([^\s,]+))', text)
    return None if match is None else match[1] or match[2]


def present(challenge: Challenge) -> list[tuple[str, str]]:
    ordered: list[tuple[str, Any]] = [
        ("error", challenge.error),
        ("scope", " ".join(challenge.scope)),
        ("resource_metadata", challenge.resource_metadata),
        ("error_description", challenge.error_description),
        ("acr_values", " ".join(challenge.acr_values)),
        ("max_age", None if challenge.max_age is None else str(challenge.max_age)),
    ]
    return [(name, value) for name, value in ordered if value]


@given(challenges())
def test_what_is_built_parses_back_equal(challenge: Challenge) -> None:
    assert parse(challenge.header) == challenge


@given(challenges())
def test_what_is_built_is_what_a_strict_reader_reads_in_the_fixed_order(
    challenge: Challenge,
) -> None:
    assert read_strictly(challenge.header) == ("Bearer", present(challenge))


@given(challenges())
def test_what_is_built_is_visible_ascii_on_one_line(challenge: Challenge) -> None:
    assert all(0x20 <= byte <= 0x7E for byte in challenge.header.encode("ascii"))


@given(challenges())
def test_an_empty_scope_is_never_sent(challenge: Challenge) -> None:
    assert 'scope=""' not in challenge.header


@given(challenges())
@pytest.mark.parametrize("name", ["scope", "resource_metadata", "error"])
def test_the_official_clients_read_our_parameter_and_no_bait(
    name: str, challenge: Challenge
) -> None:
    expected = dict(present(challenge)).get(name)

    assert read_as_the_official_clients_do(name, challenge.header) == expected


@given(
    st.text(),
    st.lists(scope_tokens(), min_size=1),
    st.lists(st.text()),
    st.sampled_from(("required", "combined")),
)
def test_whatever_a_refusal_holds_its_challenge_can_be_sent(
    text: str, required: list[str], held: list[str], scopes: ChallengeScopes
) -> None:
    for refusal in (
        InvalidTokenError("claims", text),
        MalformedCredentialsError(text),
        MissingTokenError(text, scopes=required),
        InsufficientScopeError(required, token_scopes=held),
    ):
        sent = header(refusal, scopes)
        assert sent is not None
        assert read_strictly(sent)[0] == "Bearer"
        assert read_as_the_official_clients_do("resource_metadata", sent) == METADATA


@given(st.lists(scope_tokens(), min_size=1), st.lists(scope_tokens()))
def test_the_challenge_asks_for_what_is_required_in_the_declared_order(
    required: list[str], held: list[str]
) -> None:
    refusal = InsufficientScopeError(required, token_scopes=held)
    sendable = tuple(dict.fromkeys(scope for scope in required if "=" not in scope))

    assert parse(str(header(refusal))).scope == sendable
    assert set(parse(str(header(refusal, "combined"))).scope) == {
        scope for scope in (*held, *required) if "=" not in scope
    }


# --- length


LONG = [f"scope.{number}.{'x' * 60}" for number in range(40)]


def test_a_long_challenge_leaves_out_its_description_then_the_held_scopes() -> None:
    brief = InsufficientScopeError(LONG, token_scopes=[])
    held = InsufficientScopeError(LONG[:30], token_scopes=LONG[30:] * 3)

    for challenge, scopes in (
        (header(brief), LONG),
        (header(held, "combined"), [*LONG[30:], *LONG[:30]]),
        (
            header(
                InsufficientScopeError(LONG, token_scopes=[f"held.{x}" for x in LONG]), "combined"
            ),
            LONG,
        ),
    ):
        assert challenge is not None
        assert parse(challenge).scope == tuple(scopes)
        assert parse(challenge).error_description is None


@given(st.integers(1, 100), st.integers(1, 20_000), st.integers(0, 100))
def test_no_challenge_is_longer_than_its_limit(count: int, length: int, held: int) -> None:
    needed = [f"n{number}.{'x' * (length // count)}" for number in range(count)]
    granted = [f"h{number}.{'y' * (length // count)}" for number in range(held)]
    refusals = [
        InsufficientScopeError(needed, token_scopes=granted),
        MissingTokenError(scopes=needed),
        InsufficientAuthenticationError(max_age=60, scopes=needed),
    ]

    for refusal in refusals:
        sent = header(refusal, "combined")
        assert sent is not None
        assert len(sent) <= 4_096
        assert set(parse(sent).scope) in ({*needed}, {*needed, *granted}, set())


def test_an_age_that_is_no_number_of_seconds_is_refused() -> None:
    with pytest.raises(ValueError, match="max_age is a number of seconds"):
        Challenge(error="insufficient_user_authentication", max_age=-1)
    for sent in ("-1", "1.5", "an hour", "9" * 10):
        with pytest.raises(ValueError, match="max_age is not a number of seconds"):
            parse(f'Bearer error="x", scope="a", max_age="{sent}"')
