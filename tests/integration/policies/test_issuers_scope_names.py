"""Short names of scopes in tools, requestable ones in everything a client reads."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import InsufficientScopeError, Issuer, Refusals, ToolGuard, requires_scopes
from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.parsing.scope_token import is_requestable
from toolguard.testing import LocalIssuer, call_as
from toolguard.testing.strategies import scope_tokens
from toolguard.tokens import issuers
from toolguard.tokens.issuers import ScopeNames as Public

try_sdk = pytest.importorskip("mcp.server.mcpserver")
API = "api://00001111-aaaa-2222-bbbb-3333cccc4444"
SERVER = "https://mcp.test/mcp"
PREFIXES = scope_tokens().filter(is_requestable)
ENTRA = LocalIssuer.like("entra", algorithm="ES256")


def server_of(*needed: str, described: Issuer | None = None, **settings: Any) -> Any:
    server = try_sdk.MCPServer("notes")

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_scopes(*needed)
    async def read_notes() -> str:
        """Return the notes."""
        return "notes"

    known = ENTRA.described if described is None else described
    ToolGuard(issuers=[known], resource=SERVER, audience=SERVER, **settings).protect(server)
    return server


def test_a_stranger_is_told_the_requestable_name() -> None:
    refused = call_as(server_of("read"), "read_notes", {}, user=None, token=None)

    assert refused.status == 401
    assert refused.challenge is not None
    assert refused.challenge.scope == (f"{API}/read",)


def test_a_token_with_the_short_name_is_served() -> None:
    answer = call_as(
        server_of("read"), "read_notes", {}, user=None, token=ENTRA.mint("alice", scopes=["read"])
    )

    assert answer.status == 200


def test_step_up_names_requestable_scopes_everywhere() -> None:
    token = ENTRA.mint("alice", scopes=["read"])
    refused = call_as(server_of("read", "write"), "read_notes", {}, user=None, token=token)

    assert refused.status == 403
    assert refused.challenge is not None
    assert set(refused.challenge.scope) <= {f"{API}/read", f"{API}/write"}
    assert f"{API}/write" in refused.challenge.scope
    assert f"{API}/write" in str(refused.challenge.error_description)


def test_scopes_of_the_call_are_asked_for_by_their_requestable_names() -> None:
    server = try_sdk.MCPServer("notes")

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_scopes("notebook.{notebook}.read")
    async def read_notes(notebook: str) -> str:
        """Return the notes."""
        return notebook

    ToolGuard(issuers=[ENTRA.described], resource=SERVER, audience=SERVER).protect(server)
    ask = {"notebook": "7"}

    refused = call_as(server, "read_notes", ask, user=None, token=ENTRA.mint("alice"))
    assert refused.challenge is not None
    assert refused.challenge.scope == (f"{API}/notebook.7.read",)
    token = ENTRA.mint("alice", scopes=["notebook.7.read"])
    assert call_as(server, "read_notes", ask, user=None, token=token).status == 200


def test_a_hierarchy_is_of_short_names() -> None:
    server = server_of("read", scope_hierarchy={"write": ["read"]})

    token = ENTRA.mint("alice", scopes=["write"])
    assert call_as(server, "read_notes", {}, user=None, token=token).status == 200
    refused = call_as(server, "read_notes", {}, user=None, token=ENTRA.mint("alice"))
    assert refused.challenge is not None
    assert refused.challenge.scope == (f"{API}/read",)


def test_the_metadata_names_requestable_scopes() -> None:
    guard = ToolGuard(issuers=[ENTRA.described], resource=SERVER)
    server = try_sdk.MCPServer("notes")

    @server.tool()  # type: ignore[untyped-decorator]
    @requires_scopes("read")
    async def read_notes() -> str:
        """Return the notes."""
        return "notes"

    guard.protect(server)
    assert guard.metadata()["scopes_supported"] == [f"{API}/read"]
    assert guard.scopes_supported == ("read",)


def test_a_scope_declared_by_its_requestable_name_is_refused() -> None:
    with pytest.raises(ValueError, match="write 'read'"):
        server_of(f"{API}/read")
    with pytest.raises(ValueError, match="write 'read'"):
        server_of("read", scope_hierarchy={"write": [f"{API}/read"]})
    with pytest.raises(ValueError, match="write 'read'"):
        server_of("read", refusals=Refusals(initial_scopes=[f"{API}/read"]))


@pytest.mark.parametrize(
    ("name", "described", "in_token"),
    [
        (
            "cognito",
            issuers.cognito("eu-west-1_Example", clients=["x"], resource_server="notes"),
            "notes/read",
        ),
        ("xsuaa", None, "read"),
    ],
)
def test_scopes_with_a_prefix_in_tokens_are_read_without_it(
    name: Any, described: Issuer | None, in_token: str
) -> None:
    local = LocalIssuer.like(name, algorithm="ES256")
    known = local.described
    if described is not None:
        known = described.with_settings(keys=known.keys, audience=local.audience)
    server = server_of("read", described=known)

    served = call_as(
        server, "read_notes", {}, user=None, token=local.mint("alice", scopes=[in_token])
    )
    assert served.status == 200
    claims = {**local.claims("alice"), "scope": "read other/read"}
    refused = call_as(server, "read_notes", {}, user=None, token=local.sign(claims))
    assert refused.status == 403
    assert refused.challenge is not None
    assert refused.challenge.scope == (known.scope_names.requested("read"),)


def test_an_error_keeps_short_names_for_python_and_shows_clients_the_others() -> None:
    error = InsufficientScopeError(["read", "write"], token_scopes=["openid", "read"])
    error.request_name = ScopeNames("api://a/").requested

    assert error.missing_scopes == ("write",)
    assert json.loads(error.to_json()) == {
        "error": "insufficient_scope",
        "scope": "openid api://a/read api://a/write",
        "error_description": "Token missing required scopes: api://a/write",
        "missing_scopes": ["api://a/write"],
        "token_scopes": ["openid", "api://a/read"],
        "required_scopes": ["api://a/read", "api://a/write"],
    }


@pytest.mark.parametrize("in_tokens", [False, True])
@given(
    shorts=st.lists(scope_tokens(), unique=True, max_size=5),
    prefix=PREFIXES,
)
def test_names_are_a_bijection(in_tokens: bool, shorts: list[str], prefix: str) -> None:
    names = ScopeNames(prefix, in_tokens=in_tokens)
    try:
        names.check(shorts)
    except ValueError:
        return
    requested = [names.requested(short) for short in shorts]

    assert len(set(requested)) == len(shorts)
    assert list(names.read(requested if in_tokens else shorts)) == shorts


@given(
    scopes=st.lists(scope_tokens(), max_size=5),
    short=scope_tokens(),
    prefix=PREFIXES,
)
def test_a_token_grants_only_what_a_client_asked_for(
    scopes: list[str], short: str, prefix: str
) -> None:
    names = ScopeNames(prefix, in_tokens=True)

    assert (short in names.read(scopes)) <= (names.requested(short) in scopes)


def test_single_scopes_may_be_named() -> None:
    names = Public("api://a/", named={"admin": "https://b.test/admin"})

    assert names.requested("admin") == "https://b.test/admin"
    with pytest.raises(ValueError, match="write 'admin'"):
        names.check(["https://b.test/admin"])
    assert SAME.read(["a", "a"]) == ("a", "a")


@pytest.mark.parametrize(
    "make",
    [
        lambda: ScopeNames("a b"),
        lambda: ScopeNames('a"'),
        lambda: ScopeNames(named={"a": "x", "b": "x"}),
        lambda: ScopeNames(named={"a": "b", "b": "c"}),
        lambda: ScopeNames("p.", named={"a": "p.b"}),
    ],
)
def test_names_that_are_no_bijection_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match=r"name|scope"):
        make()
