"""What does a file of rules say, and what is answered to a mistake in it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard import (
    all_of,
    any_of,
    public,
    requires_auth,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.gateway.configuration import Upstream, read_configuration
from toolguard.gateway.rules import rules_of
from toolguard.parts.toml_file import Table
from toolguard.policies.by_name import PoliciesByName

HEAD = """
issuer = "https://auth.example.com"
audience = "https://mcp.example.com/mcp"
"""
FILE = (
    HEAD
    + """
[rules]
hour = "time.read"

[upstream]
command = ["serve"]
"""
)
VAULT = """
[connections.github]
client_id = "Iv1"
client_secret_env = "SECRET"
"""


recent = requires_recent_auth(max_age=300, acr_values=["phr"])


def guard_of(value: object) -> GuardDecorator:
    (guard,) = rules_of(Table("rules.toml", {"hour": value}, ("rules",))).values()
    return guard


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ("time.read", requires_scopes("time.read")),
        (["time.read", "time.set"], requires_scopes("time.read", "time.set")),
        ("notes.{folder}.read", requires_scopes("notes.{folder}.read")),
        ({"scopes": "read", "roles": ["owner"]}, all_of("read", requires_roles("owner"))),
        ({"any_of": ["admin", {"roles": "owner"}]}, any_of("admin", requires_roles("owner"))),
        ({"any_of": [["a", "b"], "c"]}, requires_scopes(any_of(all_of("a", "b"), "c"))),
        (
            {"permissions": ["read"], "tenants": ["acme"], "clients": ["app"]},
            all_of(requires_permissions("read"), requires_tenant("acme"), requires_client("app")),
        ),
        ({"max_age": 300, "acr_values": ["phr"]}, recent),
        ({"authenticated": True}, requires_auth),
        ({"public": True}, public),
    ],
)
def test_a_rule_is_the_guard_that_its_value_says(value: object, same: GuardDecorator) -> None:
    assert guard_of(value).policy == same.policy


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("", "write a scope"),
        ([], "write a scope"),
        ({}, "write a scope"),
        (True, "write a scope"),
        ("two words", "'two words'"),
        ({"role": ["a"]}, "nothing is called role: write roles"),
        ({"roles": []}, 'write roles = ["..."]'),
        ({"roles": [1]}, 'write roles = ["..."]'),
        ({"any_of": ["one"]}, "with two or more"),
        ({"any_of": ["a", {"public": True}]}, "any_of() takes rules"),
        ({"public": True, "roles": ["a"]}, "write { public = true } by itself"),
        ({"public": False}, "write { public = true } by itself"),
        ({"authenticated": "yes"}, "write { authenticated = true } by itself"),
        ({"max_age": "old"}, "write max_age = 300, in seconds"),
        ({"max_age": True}, "write max_age = 300, in seconds"),
        ({"max_age": 0}, "in seconds"),
    ],
)
def test_a_rule_that_says_nothing_is_refused(value: object, said: str) -> None:
    with pytest.raises(ValueError, match=r"rules\.toml: rules\.hour is ") as caught:
        guard_of(value)

    assert said in str(caught.value)


@given(st.recursive(st.text() | st.integers() | st.booleans(), st.lists, max_leaves=5))
def test_no_value_opens_an_operation_unless_it_says_so(value: Any) -> None:
    for asked in (value, {"scopes": value}, {"public": value}, {"any_of": value}):
        try:
            rules = rules_of(Table("rules.toml", {"hour": asked}, ("rules",)))
        except ValueError:
            continue
        policy = PoliciesByName(rules).policy("tool", "hour")
        assert policy is not None
        assert policy.public == (asked == {"public": True})
        assert policy.public or policy.formula is not None


MISTAKES = [
    ("[rules]", "[rule]", {}, "nothing is called rule: write rules"),
    ('hour = "time.read"', "", {}, "rules is {}: write [rules]"),
    ('hour = "time.read"', '"tol:x" = "a"', {}, "unknown prefix 'tol:'"),
    ('issuer = "https://auth.example.com"', "", {}, "set issuer"),
    ('issuer = "https://auth.example.com"', "issuer = 7", {}, "issuer is 7: write issuer ="),
    ("https://auth.example.com", "http://auth.example.com", {}, "issuer holds 'http://auth"),
    ("https://auth.example.com", "auth0:", {}, "issuer holds 'auth0:'"),
    ('audience = "https://mcp.example.com/mcp"', "", {}, "set audience to the address"),
    ('audience = "https://mcp.example.com/mcp"', 'audience = "notes"', {}, "which server this is"),
    ("[rules]", 'default = "open"\n[rules]', {}, "default='open'"),
    ("[rules]", "unauthorized_tools = 1\n[rules]", {}, "unauthorized_tools=1"),
    ('command = ["serve"]', "", {}, "name exactly one upstream"),
    ('command = ["serve"]', 'command = [""]', {}, "upstream.command is ['']: write command ="),
    (
        'command = ["serve"]',
        'command = ["serve"]\nurl = "https://a.example"',
        {},
        "name exactly one upstream",
    ),
    (
        'command = ["serve"]',
        'url = "http://a.example/mcp"',
        {},
        "write https, or http to this machine",
    ),
    ('command = ["serve"]', 'url = "https://a:b@c.example/mcp"', {}, "'URL' cannot be used"),
    ('["serve"]', '["serve"]\ntimout = 5', {}, "upstream.timout: write timeout"),
    ('["serve"]', '["serve"]\ntimeout = 0', {}, "upstream.timeout is 0: write seconds"),
    (
        '["serve"]',
        '["serve"]\nmax_callers = 1.5',
        {},
        "upstream.max_callers is 1.5: write a number",
    ),
    ('["serve"]', '["serve"]\nshared = "yes"', {}, "upstream.shared is 'yes': write true or false"),
    (
        '["serve"]',
        '["serve"]\ntoken = "x"',
        {},
        'must not hold a secret: write token_env = "VARIABLE"',
    ),
    ('["serve"]', '["serve"]\ntoken_env = "X"', {}, "it is not for a command"),
    ('command = ["serve"]', 'url = "https://a.example"\ntoken_env = "X"', {}, "has no X: set it"),
    ('command = ["serve"]', 'url = "https://a.example"\ncwd = "/"', {}, "it is not for a url"),
    ('["serve"]', '["serve"]\npass_env = ["X"]', {}, "the environment has no X"),
    ('["serve"]', '["serve"]\npass_env = ["TOOLGUARD_SECRET"]', {}, "the gateway's own"),
    ('["serve"]', '["serve"]\npass_env = ["SECRET"]' + VAULT, {"SECRET": "x"}, "a secret of"),
    ('["serve"]', '["serve"]\nenv = { TOOLGUARD_X = "1" }', {}, "write the name of a variable"),
    ('["serve"]', '["serve"]\nenv = { A = 1 }', {}, "upstream.env.A is 1"),
    ('["serve"]', '["serve"]\nconnection = "github"', {}, "connection_env is missing: write"),
    (
        'command = ["serve"]',
        'url = "https://a.example"\nconnection = "github"',
        {},
        "not a connection here: write [connections.github]",
    ),
    (
        'command = ["serve"]',
        'url = "https://a.example"\nconnection = "gitlab"' + VAULT,
        {"SECRET": "x"},
        "write one of github, or [connections.gitlab]",
    ),
    (
        'command = ["serve"]',
        'url = "https://a.example"\nconnection = "github"\nshared = true',
        {},
        "each caller has their own",
    ),
]


@pytest.mark.parametrize(("before", "after", "environ", "said"), MISTAKES)
def test_a_mistake_in_the_file_is_answered_by_a_sentence(
    before: str,
    after: str,
    environ: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOOLGUARD_VAULT_KEYS", "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s=")
    path = tmp_path / "rules.toml"
    assert before in FILE
    path.write_text(FILE.replace(before, after))

    with pytest.raises(ValueError, match=r"rules\.toml") as caught:
        read_configuration(path, environ)

    assert said in str(caught.value)


def test_an_operation_without_a_rule_is_refused_by_default(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)

    assert read_configuration(path, {}).guard.default == "deny"


def test_the_command_line_says_which_upstream_instead_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE)

    assert read_configuration(path, {}, command=["other", "-x"]).upstream.command == ("other", "-x")
    assert read_configuration(path, {}, url="https://a.example/mcp").upstream.command == ()


def test_the_environment_says_what_the_file_leaves_out(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text(FILE.replace(HEAD, ""))
    environ = {
        "TOOLGUARD_ISSUER": "auth0:acme.eu.auth0.com",
        "MCP_SERVER_URL": "https://mcp.example.com/mcp",
    }

    guard = read_configuration(path, environ).guard

    assert guard.issuers == ("https://acme.eu.auth0.com/",)
    assert guard.resource == "https://mcp.example.com/mcp"


def test_no_secret_is_in_what_a_configuration_shows(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    settings = 'url = "https://a.example/s3cret/mcp?key=s3cret"\ntoken_env = "T"'
    path.write_text(FILE.replace('command = ["serve"]', settings))

    found = read_configuration(path, {"T": "s3cret", "S": "t0p"})

    assert found.upstream.token == "s3cret"
    assert "s3cret" not in f"{found!r} {found.upstream}"
    assert str(found.upstream) == "https://a.example"
    assert "s3cret" not in repr(Upstream(command=("serve", "--key", "s3cret")))


def test_every_setting_of_the_guard_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    more = """
client_id = ["app"]
resource = "https://public.example.com/mcp"
initial_scopes = ["time.read"]
unauthorized_tools = "hide"
default = "authenticated"
hosts = ["mcp.internal:8000"]

[scope_hierarchy]
"time.write" = ["time.read"]
"""
    path.write_text(FILE.replace("[rules]", f"{more}\n[rules]"))

    found = read_configuration(path, {})

    assert found.guard.resource == "https://public.example.com/mcp"
    assert found.guard.initial_scopes == ("time.read",)
    assert found.guard.unauthorized_tools == "hide"
    assert found.guard.default == "authenticated"
    assert set(found.guard.scope_hierarchy.expand(["time.write"])) == {"time.write", "time.read"}
    assert found.hosts == ("mcp.internal:8000",)
