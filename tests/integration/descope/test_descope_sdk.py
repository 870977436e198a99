"""Descope: does the SDK's API work: tokens, scopes, connections, and which object answers?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.projects import APP, KEY, MCP, Project, anywhere, sdk
from toolguard import descope
from toolguard.calls.message import Frame, MessageContext, as_current
from toolguard.descope import DescopeConfig, DescopeMCP, InsufficientScopeError
from toolguard.descope.default import Default
from toolguard.errors import (
    AccessDeniedError,
    ConnectionDeniedError,
    GuardNotConfiguredError,
    InvalidTokenError,
    KeysUnavailableError,
    ToolGuardError,
)

WELL_KNOWN = "https://api.descope.com/P2abc/.well-known/openid-configuration"
LOG = "toolguard.connections"


@pytest.fixture(autouse=True)
def default(monkeypatch: pytest.MonkeyPatch) -> Default[Any]:
    """Forget what other tests have made and named."""
    fresh: Default[Any] = Default()
    for module in ("client", "sdk", "checks"):
        monkeypatch.setattr(f"toolguard.descope.{module}.default", fresh)
    return fresh


# Tokens ----------------------------------------------------------------------------------------


@anywhere
def test_a_good_token_says_who_calls_in_the_words_of_the_sdk(
    project: Project, run: Callable[[Callable[[], Any]], Any]
) -> None:
    descope_mcp = sdk(project)
    token = project.issuer.mint("alice", scopes=["read", "write"], dct="acme", email="a@acme.test")

    result = run(lambda: descope_mcp.validate_token(token))

    assert {"exp", "iat"} <= set(result)
    assert {name: value for name, value in result.items() if name not in {"exp", "iat", "jti"}} == {
        "sub": "alice",
        "userId": "alice",
        "user_id": "alice",
        "user": {"email": "a@acme.test", "userId": "alice"},
        "email": "a@acme.test",
        "tenant": "acme",
        "tenantId": "acme",
        "dct": "acme",
        "scope": "read write",
        "scopes": ["read", "write"],
        "aud": MCP,
        "iss": project.issuer.issuer,
        "client_id": "test-client",
    }


def test_a_caller_who_is_no_user_has_no_user_id(project: Project) -> None:
    result = sdk(project).validate_token(project.issuer.mint(None, userId=5, tenant=["acme"]))

    assert {"sub", "userId", "user_id", "user", "tenant", "tenantId"} & set(result) == set()
    assert result["scopes"] == []


def test_names_for_the_user_that_disagree_become_the_one_that_was_verified(
    project: Project,
) -> None:
    result = sdk(project).validate_token(project.issuer.mint("alice", userId="bob", user_id="eve"))

    assert (result["sub"], result["userId"], result["user_id"]) == ("alice", "alice", "alice")


@anywhere
def test_whom_a_token_speaks_for(project: Project, run: Callable[[Callable[[], Any]], Any]) -> None:
    descope_mcp = sdk(project)

    assert run(lambda: descope_mcp.validate_token_and_get_user_id(project.token())) == "alice"


def test_a_token_that_names_no_user_speaks_for_none(project: Project) -> None:
    with pytest.raises(AccessDeniedError):
        sdk(project).validate_token_and_get_user_id(project.token(None))


@anywhere
def test_scopes_are_required_before_the_user_is_named(
    project: Project, run: Callable[[Callable[[], Any]], Any]
) -> None:
    descope_mcp, token = sdk(project), project.issuer.mint("alice", scopes=["read", "write"])
    ask = descope_mcp.validate_token_require_scopes_and_get_user_id

    assert run(lambda: ask(token, ["write", "read"])) == "alice"
    with pytest.raises(InsufficientScopeError) as caught:
        run(lambda: ask(token, ["read", "calendar.read"]))

    assert caught.value.to_dict() == {
        "error": "insufficient_scope",
        "scope": "read write calendar.read",
        "error_description": "Token missing required scopes: calendar.read",
        "missing_scopes": ["calendar.read"],
        "token_scopes": ["read", "write"],
        "required_scopes": ["read", "calendar.read"],
    }


def test_the_coroutines_do_what_the_functions_do(project: Project) -> None:
    descope_mcp, token = sdk(project), project.token("alice", "read")

    async def main() -> tuple[Any, ...]:
        return (
            await descope_mcp.avalidate_token(token),
            await descope_mcp.avalidate_token_and_get_user_id(token),
            await descope_mcp.avalidate_token_require_scopes_and_get_user_id(token, ["read"]),
        )

    assert asyncio.run(main()) == (descope_mcp.validate_token(token), "alice", "alice")

    async def refused() -> None:
        await descope_mcp.avalidate_token_require_scopes_and_get_user_id(token, ["write"])

    with pytest.raises(InsufficientScopeError):
        asyncio.run(refused())


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"aud": "https://other.test/mcp"}, "audience"),
        ({"aud": None}, "audience"),
        ({"iss": "https://other.test"}, "issuer"),
        ({"expires_in": -600}, "expired"),
    ],
)
def test_a_token_that_does_not_hold_up_is_refused_with_a_reason(
    project: Project, claims: Any, reason: str
) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        sdk(project).validate_token(project.token(**claims))

    assert caught.value.reason == reason


@given(st.text(max_size=60))
def test_any_text_is_a_good_token_or_one_of_our_errors(text: str) -> None:
    unreachable = DescopeMCP(
        "http://127.0.0.1:1/P2abc/.well-known/openid-configuration", mcp_server_url=MCP
    )
    with pytest.raises(ToolGuardError):
        unreachable.validate_token(text)


def test_an_issuer_that_cannot_be_reached_is_not_the_tokens_fault(project: Project) -> None:
    unreachable = DescopeMCP(
        "http://127.0.0.1:1/P2abc/.well-known/openid-configuration", mcp_server_url=MCP
    )

    with pytest.raises(KeysUnavailableError):
        unreachable.validate_token(project.token())


# Audiences -------------------------------------------------------------------------------------


def test_no_audience_is_refused_when_the_object_is_made() -> None:
    with pytest.raises(ValueError, match=r'mcp_server_url="https://.*MCP_SERVER_URL.*audience="P'):
        DescopeMCP(WELL_KNOWN, "K2key")


@pytest.mark.parametrize("settings", [{"mcp_server_url": ""}, {"audience": ""}, {"audience": []}])
def test_an_empty_audience_is_refused_as_well(settings: Any) -> None:
    with pytest.raises(ValueError, match="audience="):
        DescopeMCP(WELL_KNOWN, **settings)


def test_the_projects_own_convention_may_be_written_out(project: Project) -> None:
    descope_mcp = sdk(project, mcp_server_url=None, audience="Plocal")

    assert descope_mcp.validate_token_and_get_user_id(project.token(aud="Plocal")) == "alice"
    with pytest.raises(InvalidTokenError):
        descope_mcp.validate_token(project.token())


def test_an_audience_that_is_written_out_comes_before_the_url(project: Project) -> None:
    descope_mcp = sdk(project, audience="Plocal")

    assert descope_mcp.validate_token_and_get_user_id(project.token(aud="Plocal")) == "alice"
    with pytest.raises(InvalidTokenError):
        descope_mcp.validate_token(project.token(aud=MCP))
    assert descope_mcp.guard().resource == MCP


def test_one_call_may_ask_for_another_audience_and_for_no_other(project: Project) -> None:
    descope_mcp, token = sdk(project), project.token(aud="https://other.test/mcp")

    result = descope_mcp.validate_token(token, audience="https://other.test/mcp")

    assert result["aud"] == "https://other.test/mcp"
    with pytest.raises(InvalidTokenError):
        descope_mcp.validate_token(project.token(), audience="https://other.test/mcp")
    with pytest.raises(ValueError, match="audience="):
        descope_mcp.validate_token(token, audience="")


# Scopes ----------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "ab", "c.read", "c.write"])
GRANTS = st.lists(NAMES, max_size=4)


@given(held=GRANTS, needed=st.lists(NAMES, min_size=1, max_size=4), as_text=st.booleans())
def test_scopes_are_held_exactly_if_each_of_them_is(
    held: list[str], needed: list[str], as_text: bool
) -> None:
    result: Any = {"scope": " ".join(held)} if as_text else {"scopes": held}
    missing = tuple(dict.fromkeys(scope for scope in needed if scope not in held))
    if not missing:
        descope.require_scopes(result, needed)
        return
    with pytest.raises(InsufficientScopeError) as caught:
        descope.require_scopes(result, needed)

    assert caught.value.missing_scopes == missing


def test_a_text_of_scopes_is_not_taken_letter_by_letter() -> None:
    result: Any = {"scopes": "read"}

    with pytest.raises(InsufficientScopeError):
        descope.require_scopes(result, ["r", "e"])


def test_a_refusal_may_have_a_description_of_ones_own(project: Project) -> None:
    descope_mcp = sdk(project)

    with pytest.raises(InsufficientScopeError) as caught:
        descope_mcp.require_scopes({"scopes": []}, ["read"], "Ask for the calendar first")

    assert caught.value.to_dict()["error_description"] == "Ask for the calendar first"
    with pytest.raises(InsufficientScopeError, match=r"^Reading needs more$"):
        descope_mcp.validate_token_require_scopes_and_get_user_id(
            project.token(), ["read"], error_description="Reading needs more"
        )


@pytest.mark.parametrize(
    ("scopes", "error", "hint"),
    [
        ([], ValueError, "for any valid token leave the list out"),
        ("read write", TypeError, r"write \['read', 'write'\]"),
        (["a b"], ValueError, "is not a scope"),
    ],
)
def test_what_is_no_list_of_scopes_is_refused_and_never_passes(
    scopes: Any, error: type[Exception], hint: str
) -> None:
    descope_mcp = DescopeMCP(WELL_KNOWN, mcp_server_url=MCP)

    with pytest.raises(error, match=hint):
        descope.require_scopes({"scopes": ["read"]}, scopes)
    with pytest.raises(error, match=hint):
        descope_mcp.validate_token_require_scopes_and_get_user_id("a.b.c", scopes)
    with pytest.raises(error, match=hint):
        descope_mcp.create_auth_check(scopes)


# The functions of the module -------------------------------------------------------------------


def test_without_an_object_the_functions_say_what_to_do() -> None:
    with pytest.raises(GuardNotConfiguredError, match=r"no DescopeMCP yet: call init_descope_mcp"):
        descope.validate_token("a.b.c")


def test_the_functions_use_the_only_object_there_is(project: Project) -> None:
    sdk(project)
    token = project.token("alice", "read")

    assert descope.validate_token(token)["sub"] == "alice"
    assert descope.validate_token_and_get_user_id(token) == "alice"
    assert descope.validate_token_require_scopes_and_get_user_id(token, ["read"]) == "alice"
    assert descope.get_connection_token("alice", APP, access_token=token) == "ya29.alice"


def test_the_functions_do_not_choose_among_several(project: Project) -> None:
    sdk(project)
    sdk(project, mcp_server_url="https://other.test/mcp")

    with pytest.raises(GuardNotConfiguredError, match=r"several DescopeMCP: .*init_descope_mcp"):
        descope.validate_token(project.token())


def test_the_functions_use_the_one_that_was_named(project: Project) -> None:
    sdk(project, mcp_server_url="https://other.test/mcp")
    descope.init_descope_mcp(project.well_known_url, mcp_server_url=MCP, environ={})
    sdk(project, mcp_server_url="https://third.test/mcp")
    token = project.token("alice", "read")

    async def main() -> tuple[Any, ...]:
        return (
            (await descope.avalidate_token(token))["sub"],
            await descope.avalidate_token_and_get_user_id(token),
            await descope.avalidate_token_require_scopes_and_get_user_id(token, ["read"]),
        )

    assert asyncio.run(main()) == ("alice", "alice", "alice")


def test_what_is_left_out_comes_from_the_environment(project: Project) -> None:
    environ = {
        "DESCOPE_MCP_WELL_KNOWN_URL": project.well_known_url,
        "DESCOPE_MANAGEMENT_KEY": KEY,
        "MCP_SERVER_URL": MCP,
    }

    made = descope.init_descope_mcp(environ=environ)
    other = descope.init_descope_mcp(mcp_server_url="https://other.test/mcp", environ=environ)

    assert made.config == DescopeConfig(
        well_known_url=project.well_known_url, management_key=KEY, mcp_server_url=MCP
    )
    assert other.config.mcp_server_url == "https://other.test/mcp"
    assert descope.get_connection_token("bob", APP) == "ya29.bob"


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, "DESCOPE_MCP_WELL_KNOWN_URL"),
        ({"DESCOPE_MCP_WELL_KNOWN_URL": ""}, "DESCOPE_MCP_WELL_KNOWN_URL"),
        ({"DESCOPE_MCP_WELL_KNOWN_URL": WELL_KNOWN}, "MCP_SERVER_URL"),
        ({"DESCOPE_MCP_WELL_KNOWN_URL": WELL_KNOWN, "MCP_SERVER_URL": ""}, "MCP_SERVER_URL"),
    ],
)
def test_a_variable_that_is_missing_is_named(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        descope.init_descope_mcp(environ=environ)


# Secrets ---------------------------------------------------------------------------------------


def test_neither_key_nor_token_is_shown(project: Project) -> None:
    descope_mcp = sdk(project, management_key="K-secret")
    with pytest.raises(ToolGuardError) as caught:
        descope_mcp.get_connection_token("bob", APP, access_token=project.token())

    shown = [repr(descope_mcp), repr(descope_mcp.config), repr(caught.value), str(caught.value)]
    assert shown[0] == f"<DescopeMCP: Plocal for {MCP}>"
    assert not [text for text in shown if "K-secret" in text or "ey" in text.replace("key", "")]


# Hierarchies -----------------------------------------------------------------------------------

WRITE_INCLUDES_READ = {"calendar.write": ["calendar.read"]}
CHECKS: dict[str, Callable[[DescopeMCP, str], object]] = {
    "the method": lambda made, token: made.require_scopes(
        made.validate_token(token), ["calendar.read"]
    ),
    "the function": lambda made, token: descope.require_scopes(
        made.validate_token(token), ["calendar.read"]
    ),
    "validation": lambda made, token: made.validate_token_require_scopes_and_get_user_id(
        token, ["calendar.read"]
    ),
    "validation in a coroutine": lambda made, token: asyncio.run(
        made.avalidate_token_require_scopes_and_get_user_id(token, ["calendar.read"])
    ),
}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_scope_that_includes_another_is_enough_where_the_sdk_is_told_so(
    project: Project, check: Callable[[DescopeMCP, str], object]
) -> None:
    token = project.issuer.mint("alice", scopes=["calendar.write"])

    check(sdk(project, scope_hierarchy=WRITE_INCLUDES_READ), token)
    with pytest.raises(InsufficientScopeError):
        sdk(project).require_scopes(sdk(project).validate_token(token), ["calendar.read"])


def test_the_hierarchy_of_the_sdk_is_that_of_its_guards(project: Project) -> None:
    made = sdk(project, scope_hierarchy=WRITE_INCLUDES_READ)

    assert made.guard().scope_hierarchy is made.scope_hierarchy
    assert made.guard(scope_hierarchy={}).scope_hierarchy is not made.scope_hierarchy


def test_while_a_guard_serves_its_own_hierarchy_counts(project: Project) -> None:
    made = sdk(project)
    token = project.issuer.mint("alice", scopes=["calendar.write"])
    result = made.validate_token(token)

    def asks(hierarchy: dict[str, list[str]]) -> None:
        door = Frame(made.guard(scope_hierarchy=hierarchy), MessageContext(None))
        with as_current(door):
            descope.require_scopes(result, ["calendar.read"])

    asks(WRITE_INCLUDES_READ)
    with pytest.raises(InsufficientScopeError):
        asks({})


# Where code for the SDK is written differently ---------------------------------------------------


def test_a_method_takes_the_audience_by_position(project: Project) -> None:
    client, token = sdk(project), project.token()

    assert client.validate_token(token, MCP)["sub"] == "alice"
    with pytest.raises(InvalidTokenError, match=r"audience|server"):
        client.validate_token_and_get_user_id(token, "https://other.test/mcp")


@pytest.mark.parametrize("between", [(), (None,), (object(),)], ids=["none", "None", "a client"])
def test_a_function_takes_the_audience_after_a_client(
    project: Project, between: tuple[object, ...]
) -> None:
    sdk(project)
    validate: Any = descope.validate_token
    user_id_of: Any = descope.validate_token_and_get_user_id
    scoped: Any = descope.validate_token_require_scopes_and_get_user_id
    token = project.issuer.mint("alice", scopes=["read"])

    assert validate(token, *between, MCP)["sub"] == "alice"
    assert user_id_of(token, *between, [MCP]) == "alice"
    assert scoped(token, ["read"], *between, MCP) == "alice"
    with pytest.raises(InvalidTokenError):
        validate(token, *between, "https://other.test/mcp")


def test_a_client_that_is_named_does_not_replace_the_audience(project: Project) -> None:
    sdk(project)
    validate: Any = descope.validate_token

    assert validate(project.token(), descope_client=object())["sub"] == "alice"
    with pytest.raises(InvalidTokenError):
        validate(project.token(), descope_client=None, audience="https://other.test/mcp")


def test_a_client_goes_where_the_sdk_takes_one(project: Project) -> None:
    sdk(project)
    fetch: Any = descope.get_connection_token
    check: Any = descope.create_auth_check
    token = project.token()

    by_position = ("alice", APP, None, None, None, token, object())
    assert fetch(*by_position) == "ya29.alice"
    assert fetch("alice", APP, access_token=token, descope_client=None) == "ya29.alice"
    for made in (check(["read"], object()), check(["read"], descope_client=object())):
        context = SimpleNamespace(token=project.issuer.mint("alice", scopes=["read"]))
        assert asyncio.run(made(context)) is True


@pytest.mark.parametrize("key", ["", None])
def test_an_empty_management_key_is_none(project: Project, key: str | None) -> None:
    config = DescopeConfig(well_known_url=project.well_known_url, management_key=key)

    made = DescopeMCP(project.well_known_url, key, MCP)

    assert made.config.management_key is None
    with pytest.raises(ConnectionDeniedError, match="or a management key"):
        made.get_connection_token("alice", APP)
    with pytest.raises(ConnectionDeniedError, match="or a management key"):
        asyncio.run(descope.fetch_tenant_token(config, APP, "acme"))
    assert project.asked == []


def test_the_scopes_of_a_refusal_equal_lists_and_tuples() -> None:
    error: Any = InsufficientScopeError(["read", "write"], ["read"])

    assert error.missing_scopes == ["write"]
    assert error.missing_scopes == ("write",)
    assert error.required_scopes == ["read", "write"]
    assert error.token_scopes != ["write"]
    assert error.combined_scopes == ["read", "write"]
    assert hash(error.missing_scopes) == hash(("write",))


def test_the_server_url_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SERVER_URL", MCP)

    client = DescopeMCP("https://api.descope.com/P2abc/.well-known/openid-configuration", "key")

    assert client.config.mcp_server_url == MCP
    assert client.verifier.audiences == (MCP,)


def test_the_client_of_descope_needs_a_key() -> None:
    url = "https://api.descope.com/P2abc/.well-known/openid-configuration"

    with pytest.raises(ValueError, match=r'management_key="K2\.\.\."'):
        descope.get_descope_client(DescopeConfig(well_known_url=url))


def test_the_package_of_descope_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "https://api.descope.com/P2abc/.well-known/openid-configuration"
    monkeypatch.setitem(sys.modules, "descope", None)

    with pytest.raises(ModuleNotFoundError, match="write pip install descope"):
        descope.get_descope_client(DescopeConfig(well_known_url=url, management_key="key"))
