"""A guard that trusts several issuers: which one is a token held against?"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.counted_keys import Keys, published
from toolguard import ConnectionRequest, Issuer, ToolGuard
from toolguard.connections import CachedConnections, ConnectionRouter, StaticConnections
from toolguard.connections.per_issuer import of_issuers
from toolguard.connections.server import APIKey, ServerConnections
from toolguard.errors import ConnectionDeniedError, InvalidTokenError, KeysUnavailableError
from toolguard.http.identity import told_client
from toolguard.principal import Principal
from toolguard.testing import LocalIssuer
from toolguard.tokens.introspection import JWTOrOpaqueVerifier
from toolguard.tokens.issuer_names import read_names
from toolguard.tokens.issuers import google
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import Key, StaticKeys
from toolguard.tokens.trust import TrustedIssuers, trusted

SERVER = "https://mcp.test/mcp"
A = LocalIssuer("https://a.test", algorithm="ES256")
B = LocalIssuer("https://b.test", algorithm="ES256")
STRANGER = LocalIssuer("https://stranger.test", algorithm="ES256")


def described(local: LocalIssuer, **settings: Any) -> Issuer:
    return Issuer(local.issuer, **{"keys": StaticKeys(local.jwks()), **settings})


def guard_of(*issuers: Issuer, **settings: Any) -> ToolGuard:
    return ToolGuard(issuers=issuers, audience=SERVER, **settings)


def reason(guard: ToolGuard, token: str) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        asyncio.run(guard.verifier.verify(token))
    return caught.value.reason


def test_a_token_of_any_trusted_issuer_is_accepted() -> None:
    guard = guard_of(described(A), described(B))

    for local in (A, B, A, B):
        principal = asyncio.run(guard.verifier.verify(local.mint("alice")))
        assert (principal.issuer, principal.user_id) == (local.issuer, "alice")


def test_a_token_signed_by_another_trusted_issuer_is_refused() -> None:
    guard = guard_of(described(A), described(B))

    forged = B.sign({**A.claims("alice")}, headers={"kid": A.key_id})
    assert reason(guard, forged) == "signature"
    assert reason(guard, B.sign(A.claims("alice"))) == "key"


def test_an_unknown_issuer_causes_no_key_look_up() -> None:
    class Watched(Keys):
        def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
            raise AssertionError((kid, algorithm))

    guard = guard_of(described(A, keys=Watched()), described(B, keys=Watched()))

    assert reason(guard, STRANGER.mint("alice")) == "issuer"
    for claims in ({}, {"iss": None}, {"iss": ["https://a.test"]}, {"iss": "https://a.test/"}):
        assert reason(guard, A.sign({**STRANGER.claims("alice"), **claims})) == "issuer"


def test_a_token_with_two_issuers_is_refused() -> None:
    guard = guard_of(described(A), described(B))

    assert reason(guard, A.sign_bytes(b'{"iss":"https://a.test","iss":"https://b.test"}')) == (
        "malformed"
    )


def test_each_issuer_has_its_own_audience_and_settings() -> None:
    guard = guard_of(described(A, audience="api://a"), described(B, leeway=60))

    assert reason(guard, A.mint("alice")) == "audience"
    assert reason(guard, B.mint("alice", aud="api://a")) == "audience"
    assert reason(guard, A.mint("alice", aud="api://a", expires_in=-30)) == "expired"
    assert asyncio.run(guard.verifier.verify(A.mint("alice", aud="api://a"))).user_id == "alice"
    assert asyncio.run(guard.verifier.verify(B.mint("alice", expires_in=-30))).user_id == "alice"
    assert guard.leeway == 5


def test_an_outage_of_one_issuer_leaves_the_other_alone() -> None:
    class Down(Keys):
        def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...] | None:
            raise KeysUnavailableError("down")

    guard = guard_of(described(A, keys=Down()), described(B))

    assert asyncio.run(guard.verifier.verify(B.mint("bob"))).user_id == "bob"
    with pytest.raises(KeysUnavailableError):
        asyncio.run(guard.verifier.verify(A.mint("alice")))


@pytest.mark.parametrize(("down", "ready"), [((), True), (("a",), True), (("a", "b"), False)])
def test_all_issuers_are_warmed_up_and_one_is_enough(down: tuple[str, ...], ready: bool) -> None:
    asked = []

    class Fetched(StaticKeys):
        def __init__(self, name: str, local: LocalIssuer) -> None:
            super().__init__(local.jwks())
            self.name = name

        async def warm_up(self) -> None:
            asked.append(self.name)
            if self.name in down:
                raise KeysUnavailableError("down")

    guard = guard_of(described(A, keys=Fetched("a", A)), described(B, keys=Fetched("b", B)))

    assert bool(asyncio.run(guard.ready())) is ready
    assert asked == ["a", "b"]


def test_an_issuer_is_added_while_the_guard_serves() -> None:
    guard = guard_of(described(A))
    assert isinstance(guard.verifier, JWTVerifier)
    assert reason(guard, B.mint("alice")) == "issuer"

    guard.add_issuer(described(B))

    for local in (A, B):
        assert asyncio.run(guard.verifier.verify(local.mint("alice"))).issuer == local.issuer
    assert guard.metadata()["authorization_servers"] == ["https://a.test", "https://b.test"]


def test_an_issuer_is_added_to_the_short_form() -> None:
    guard = ToolGuard(issuer="https://a.test", audience=SERVER)

    guard.add_issuer(described(B))

    assert asyncio.run(guard.verifier.verify(B.mint("alice"))).issuer == "https://b.test"


def test_no_issuer_is_added_to_a_verifier_of_your_own() -> None:
    guard = ToolGuard(verifier=A.verifier(), audience=SERVER)

    with pytest.raises(ValueError, match="issuers="):
        guard.add_issuer(described(B))


@pytest.mark.parametrize(
    ("issuers", "said"),
    [
        ([], "list"),
        ([Issuer("https://a.test"), Issuer("https://a.test")], "'https://a.test'"),
        (
            [Issuer("https://a.test"), Issuer("https://b.test", names=["https://a.test"])],
            "two issuers have the same iss",
        ),
        (
            [
                Issuer("https://a.test/x"),
                Issuer("https://b.test", names=["https://a.test/{any}"], members={"any": None}),
            ],
            "two issuers have the same iss",
        ),
        (
            [
                Issuer(
                    f"https://{name}.test", names=["https://x.test/{any}"], members={"any": None}
                )
                for name in "ab"
            ],
            "two issuers have the same iss",
        ),
    ],
)
def test_issuers_that_claim_the_same_tokens_are_refused(issuers: list[Issuer], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        guard_of(*issuers)


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "https://a.test"},
        {"well_known_url": "https://a.test"},
        {"verifier": A.verifier()},
    ],
)
def test_issuers_go_with_no_other_source_of_trust(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="issuers="):
        guard_of(described(B), **settings)


def test_something_that_is_no_issuer_is_refused() -> None:
    with pytest.raises(TypeError, match="Issuer"):
        ToolGuard(issuers=["https://a.test"], audience=SERVER)  # type: ignore[list-item]


def test_the_metadata_lists_every_issuer() -> None:
    guard = guard_of(described(A), described(B, published=["https://b.test/x", "https://b.test/y"]))

    assert guard.metadata()["authorization_servers"] == [
        "https://a.test",
        "https://b.test/x",
        "https://b.test/y",
    ]
    assert repr(guard) == (
        f"<ToolGuard: {SERVER} trusts https://a.test, https://b.test/x, https://b.test/y>"
    )


# --- one subject, two people


def test_one_subject_at_two_issuers_owns_two_sessions() -> None:
    guard = guard_of(described(A), described(B))
    keys = {asyncio.run(guard.verifier.verify(local.mint("alice"))).owner_key for local in (A, B)}

    assert len(keys) == 2


CLIENTS = st.none() | st.sampled_from(["", "c", "https://a.test c", "https://b.test c"])


@given(
    st.tuples(st.sampled_from([A.issuer, B.issuer]), CLIENTS),
    st.tuples(st.sampled_from([A.issuer, B.issuer]), CLIENTS),
)
def test_two_issuers_never_share_a_client_as_frameworks_are_told(
    one: tuple[str, str | None], other: tuple[str, str | None]
) -> None:
    guard = guard_of(described(A), described(B))
    told = [
        told_client(Principal("alice", issuer, client_id), guard.verifier)
        for issuer, client_id in (one, other)
    ]

    same = one[0] == other[0] and (one[1] or "") == (other[1] or "")
    assert (told[0] == told[1]) is same


def test_with_one_issuer_frameworks_are_told_the_client_as_it_is() -> None:
    principal = Principal("alice", A.issuer, "c")

    assert told_client(principal, trusted([described(A)], [SERVER], lambda: 0.0)) == "c"


def connected(guard: ToolGuard, local: LocalIssuer, name: str = "calendar") -> str:
    token = local.mint("alice")
    principal = asyncio.run(guard.verifier.verify(token))
    assert guard.connections is not None
    request = ConnectionRequest(name, (), principal, token)
    return asyncio.run(guard.connections.fetch(request)).token


def test_connections_are_those_of_the_first_issuers_users() -> None:
    table = StaticConnections({"calendar": {"alice": "of alice at a"}})
    guard = guard_of(described(A), described(B), connections=table)

    assert connected(guard, A) == "of alice at a"
    with pytest.raises(ConnectionDeniedError):
        connected(guard, B)


def test_an_issuer_may_share_the_connections_of_the_first() -> None:
    table = StaticConnections({"calendar": {"alice": "of alice"}})
    guard = guard_of(described(A), described(B, shares_connections=True), connections=table)

    assert connected(guard, B) == "of alice"


@pytest.mark.parametrize("cached", [False, True])
def test_a_connection_of_the_server_is_for_users_of_every_issuer(cached: bool) -> None:
    own = ServerConnections({"calendar": APIKey(lambda: "of the server")})
    table = StaticConnections({"mail": "of somebody"})
    routed = ConnectionRouter({"calendar": own}, default=table)
    provider = CachedConnections(routed) if cached else routed
    guard = guard_of(described(A), described(B), connections=provider)

    assert connected(guard, A) == connected(guard, B) == "of the server"
    with pytest.raises(ConnectionDeniedError):
        connected(guard, B, "mail")


def test_an_issuer_added_later_gets_no_connections() -> None:
    table = StaticConnections({"calendar": {"alice": "of alice at a"}})
    guard = guard_of(described(A), connections=table)

    guard.add_issuer(described(B))
    guard.add_issuer(described(STRANGER))

    assert connected(guard, A) == "of alice at a"
    for local in (B, STRANGER):
        with pytest.raises(ConnectionDeniedError):
            connected(guard, local)
    asyncio.run(guard.aclose())


def test_one_issuer_has_its_connections_directly() -> None:
    table = StaticConnections({"calendar": {"alice": "of alice"}})

    assert of_issuers(table, A.verifier()) is table
    assert of_issuers(None, A.verifier()) is None


# --- routing


def test_routes_are_bounded_and_forgotten_without_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolguard.tokens.trust._MAX_ROUTES", 4)
    guard = guard_of(described(A), described(B))
    verifier = guard.verifier
    assert isinstance(verifier, TrustedIssuers)

    for number in range(10):
        token = B.mint(f"user-{number}")
        assert verifier.verify_now(token) == verifier.verify_now(token)
        assert len(verifier._routes) <= 4


def test_a_refused_token_leaves_no_route() -> None:
    verifier = guard_of(described(A), described(B)).verifier
    assert isinstance(verifier, TrustedIssuers)

    with pytest.raises(InvalidTokenError):
        verifier.verify_now(B.mint_expired("alice"))
    assert verifier._routes == {}


def test_keys_that_are_missing_are_said_to_be_missing() -> None:
    source = Keys(published(B), fetched=False)
    verifier = guard_of(described(A), described(B, keys=source)).verifier
    assert isinstance(verifier, TrustedIssuers)

    assert verifier.verify_now(B.mint("bob")) is None
    assert asyncio.run(verifier.verify(B.mint("bob"))).user_id == "bob"


def test_several_issuers_are_one_verifier() -> None:
    trust = guard_of(described(A), described(B, audience="api://notes")).verifier
    assert isinstance(trust, TrustedIssuers)

    assert trust.audiences == (SERVER, "api://notes")
    assert repr(trust) == "<TrustedIssuers: https://a.test, https://b.test>"
    assert list(trust.figures()) == []


def test_jwts_and_opaque_tokens_of_one_issuer_have_one_verifier() -> None:
    guard = guard_of(described(A), google("app", keys=StaticKeys(B.jwks()), id_tokens=True))
    assert isinstance(guard.verifier, TrustedIssuers)

    assert [type(each) for each in guard.verifier.verifiers] == [JWTVerifier, JWTOrOpaqueVerifier]


def test_trust_in_nobody_and_in_nobody_in_particular_are_mistakes() -> None:
    with pytest.raises(ValueError, match="at least one"):
        TrustedIssuers([])
    discovered = JWTVerifier(issuer=A.issuer, audience=SERVER, keys=StaticKeys(A.jwks()))
    known = JWTVerifier.of(described(B), audience=SERVER)
    with pytest.raises(ValueError, match=re.escape("write JWTVerifier.of(Issuer(...))")):
        TrustedIssuers([known, discovered])


@pytest.mark.parametrize(
    ("names", "members", "fault"),
    [
        (["https://id.test/a", ""], {}, "a name of an issuer is empty"),
        (["https://id.test/{tenant}"], {"tenant": map(str, range(100_001))}, "at most"),
    ],
)
def test_the_names_of_an_issuer_are_given_and_bounded(
    names: list[str], members: Any, fault: str
) -> None:
    with pytest.raises(ValueError, match=fault):
        read_names(names, members, {})
