"""Whatever an Issuer is set to: a token passes only if the setting of its fault allows it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import Issuer
from toolguard.errors import InvalidTokenError
from toolguard.testing import LocalIssuer
from toolguard.tokens.introspection import (
    BasicClient,
    HTTPAnswer,
    Introspection,
    IntrospectionVerifier,
)
from toolguard.tokens.issuers import ScopeNames
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import StaticKeys

NOW = 1_800_000_000
ISSUER, OTHER, BENEATH = "https://a.test", "https://b.test", "https://a.test/acme"
SERVER, ELSEWHERE = "https://mcp.test/mcp", "https://other.test/mcp"
LOCAL, STRANGER = (LocalIssuer(ISSUER, algorithm="ES256") for _ in range(2))
KEYS = StaticKeys(LOCAL.jwks())
GOOD: dict[str, Any] = {
    "iss": ISSUER,
    "aud": SERVER,
    "sub": "alice",
    "client_id": "app",
    "iat": NOW,
    "exp": NOW + 300,
}
Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a token, and the one setting that allows it.

    Attributes:
        claims: the claims that differ from a good token; None omits one.
        setting: the field of Issuer that allows it, and a value that does; None for no field.
        allowed: whether a value of this field allows it.
        headers: the headers that differ.
        key: who signs it.
    """

    claims: Settings = field(default_factory=dict)
    setting: tuple[str, Any] | None = None
    allowed: Callable[[Any], bool] = lambda _: False
    headers: Settings = field(default_factory=dict)
    key: LocalIssuer = LOCAL

    def token(self) -> str:
        made = {**GOOD, **self.claims}
        stated = {name: value for name, value in made.items() if value is not None}
        return self.key.sign(stated, headers={"typ": "at+jwt", **self.headers})

    def is_allowed(self, settings: Settings) -> bool:
        """Return whether the settings name the leniency."""
        if self.setting is None:
            return False
        name, _ = self.setting
        return name in settings and self.allowed(settings[name])


def holding(name: str, value: str) -> dict[str, Any]:
    """Return the fields of a fault that a list allows by naming a value."""
    return {"setting": (name, [value]), "allowed": lambda given: value in given}


def leeway(seconds: int) -> dict[str, Any]:
    return {"setting": ("leeway", seconds + 1), "allowed": lambda given: given >= seconds}


NEVER: dict[str, Fault] = {
    "no issuer": Fault({"iss": None}),
    "an issuer in a list": Fault({"iss": [ISSUER]}),
    "an audience that is a number": Fault({"aud": 5}),
    "no audience and no client": Fault({"aud": None, "client_id": None}),
    "an empty audience": Fault({"aud": []}),
    "another code's hash": Fault({"c_hash": "x"}),
    "a state's hash": Fault({"s_hash": "x"}),
    "a DPoP proof": Fault({"htm": "POST", "htu": SERVER}),
    "an SD-JWT": Fault({"_sd": []}),
    "a credential": Fault({"vct": "x"}),
    "a logout token": Fault({"events": {}}),
    "a signed introspection answer": Fault({"token_introspection": {"active": True}}),
    "an ID token of Cognito": Fault({"token_use": "id"}),
    "an ID token of Keycloak": Fault({"typ": "ID"}),
    "a refresh token": Fault({"typ": "Refresh"}),
    "a refresh token of Descope": Fault({"drn": "DSR"}),
    "an assertion": Fault({"sub": ISSUER}),
    "a bound token": Fault({"cnf": {"jkt": "x"}}),
    "no subject in sub": Fault({"sub": ""}),
    "a control character": Fault({"sub": "alice\n"}),
    "an actor without a name": Fault({"act": {}}),
    "no expiry": Fault({"exp": None}),
    "expired long ago": Fault({"exp": NOW - 301}),
    "of tomorrow": Fault({"nbf": NOW + 301}),
    "no algorithm": Fault(headers={"alg": "none"}),
    "a shared secret": Fault(headers={"alg": "HS256"}),
    "an extension": Fault(headers={"crit": ["exp"]}),
    "another key": Fault(key=STRANGER),
    "another key under a known name": Fault(headers={"kid": LOCAL.key_id}, key=STRANGER),
}
SOMETIMES: dict[str, Fault] = {
    "another issuer": Fault({"iss": OTHER}, **holding("names", OTHER)),
    "an issuer with a slash": Fault({"iss": f"{ISSUER}/"}, **holding("names", f"{ISSUER}/")),
    "an issuer beneath": Fault(
        {"iss": BENEATH},
        ("names", [BENEATH]),
        lambda given: BENEATH in given or f"{ISSUER}/{{tenant}}" in given,
    ),
    "another audience": Fault({"aud": ELSEWHERE}, **holding("audience", ELSEWHERE)),
    "no audience": Fault({"aud": None}, **holding("clients", "app")),
    "the hash of an access token": Fault({"at_hash": "x"}, **holding("may_carry", "at_hash")),
    "the nonce of an ID token": Fault(
        {"nonce": "n"}, **holding("may_carry", "nonce"), headers={"typ": "JWT"}
    ),
    "expired a minute ago": Fault({"exp": NOW - 60}, **leeway(60)),
    "of the next minute": Fault({"nbf": NOW + 60}, **leeway(60)),
    **{
        f"the type {typ}": Fault(headers={"typ": typ}, **holding("token_types", typ))
        for typ in ("id+jwt", "logout+jwt", "dpop+jwt", "oauth-id-jag+jwt")
    },
    **{
        f"a key in {name}": Fault(headers={name: "x"}, **holding("ignored_parameters", name))
        for name in ("jku", "jwk", "x5c", "x5u")
    },
}
FAULTS = {**NEVER, **SOMETIMES}


def some(*values: str) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), unique=True)


SETTINGS: dict[str, st.SearchStrategy[Any]] = {
    "names": some(ISSUER, f"{ISSUER}/", OTHER, BENEATH, f"{ISSUER}/{{tenant}}"),
    "members": st.just({"tenant": None}),
    "member_claims": st.sampled_from([{}, {"tenant": "sub"}]),
    "reads_token_issuer": st.booleans(),  # see test_token_issuer_of_metadata
    "published": some(OTHER),
    "key_issuer_claim": st.sampled_from([None, "sub"]),
    "audience": some(SERVER, ELSEWHERE),
    "clients": some("app", "other"),
    "algorithms": some("ES256", "RS256"),
    "token_types": some("at+jwt", "JWT", "id+jwt", "logout+jwt", "dpop+jwt", "oauth-id-jag+jwt"),
    "may_carry": some("at_hash", "nonce"),
    "must_carry": st.sampled_from([{}, {"client_id": None}, {"token_use": "access"}]),
    "must_carry_one_of": some("azp", "client_id"),
    "ignored_parameters": some("jku", "jwk", "x5c", "x5u"),
    "permissions_are_scopes": st.booleans(),
    "scope_names": st.sampled_from([ScopeNames("api://APP/"), ScopeNames("a.", in_tokens=True)]),
    "leeway": st.integers(0, 300),
    "shares_connections": st.booleans(),
}
# What is no matter of the claims: where things are, and how they are fetched.
NO_LENIENCY = {"url", "metadata_url", "metadata_issuer", "jwks_url", "keys", "network"} | {
    *("introspection", "confirm", "dpop")
}
any_settings = st.fixed_dictionaries({}, optional=SETTINGS).map(
    lambda drawn: {**drawn, "members": {"tenant": None}}
)
STRICT: dict[str, list[str]] = {
    "names": [ISSUER],
    "audience": [SERVER],
    "token_types": ["at+jwt", "JWT"],
}


def passes(token: str, settings: Settings) -> bool:
    described = Issuer(ISSUER, keys=KEYS, **settings)
    verifier = JWTVerifier.of(described, audience=SERVER, clock=lambda: float(NOW))
    try:
        return verifier.verify_now(token) is not None
    except InvalidTokenError:
        return False


def test_every_field_of_an_issuer_takes_part() -> None:
    known = {each.name for each in fields(Issuer) if each.init}

    assert known == SETTINGS.keys() | NO_LENIENCY


def test_a_good_token_passes_without_any_setting() -> None:
    assert passes(Fault().token(), {})


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_is_refused_without_any_setting(fault: Fault) -> None:
    assert not passes(fault.token(), {})


@pytest.mark.parametrize("fault", SOMETIMES.values(), ids=SOMETIMES)
def test_the_setting_named_for_a_fault_allows_it(fault: Fault) -> None:
    assert fault.setting is not None
    name, value = fault.setting

    assert fault.is_allowed({name: value})
    assert passes(fault.token(), {name: value})


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_all_other_leniencies_together_do_not_allow_it(fault: Fault) -> None:
    settings: dict[str, Any] = {name: [*values] for name, values in STRICT.items()}
    for other in SOMETIMES.values():
        assert other.setting is not None
        name, value = other.setting
        if fault.is_allowed({name: value}):
            continue
        settings[name] = value if name == "leeway" else [*settings.get(name, []), *value]

    assert passes(Fault().token(), settings)
    assert not passes(fault.token(), settings)


@given(fault=st.sampled_from([*FAULTS.values()]), settings=any_settings)
def test_no_other_setting_makes_a_fault_pass(fault: Fault, settings: Settings) -> None:
    assert not passes(fault.token(), settings) or fault.is_allowed(settings)


@given(
    first=st.sampled_from([*FAULTS.values()]),
    second=st.sampled_from([*FAULTS.values()]),
    settings=any_settings,
)
def test_each_of_two_faults_needs_its_own_setting(
    first: Fault, second: Fault, settings: Settings
) -> None:
    both = Fault({**first.claims, **second.claims}, headers={**first.headers, **second.headers})
    is_other = first.claims.keys() & second.claims.keys() or first.headers.keys() & second.headers
    if is_other or STRANGER in (first.key, second.key):
        return
    if passes(both.token(), settings):
        assert first.is_allowed(settings)
        assert second.is_allowed(settings)


IN_ANSWERS = {
    name: fault
    for name, fault in FAULTS.items()
    # The answer names its issuer by where it comes from; there is no header.
    if not fault.headers and fault.key is LOCAL and name != "no issuer"
}


@given(fault=st.sampled_from([*IN_ANSWERS.values()]), settings=any_settings)
def test_an_answer_of_introspection_obeys_the_same_law(fault: Fault, settings: Settings) -> None:
    claims = {**GOOD, **fault.claims, "active": True}
    body = json.dumps({name: each for name, each in claims.items() if each is not None}).encode()

    async def post(
        url: str, form: bytes, headers: Mapping[str, str], timeout: float
    ) -> HTTPAnswer | str:
        return HTTPAnswer(200, "", body)

    asking = Introspection(BasicClient("a", "b"), endpoint=f"{ISSUER}/introspect")
    verifier = IntrospectionVerifier(
        Issuer(ISSUER, introspection=asking, **settings),
        audience=SERVER,
        post=post,
        clock=lambda: float(NOW),
    )
    try:
        asyncio.run(verifier.verify("opaque"))
    except InvalidTokenError:
        return
    assert fault.is_allowed(settings)
