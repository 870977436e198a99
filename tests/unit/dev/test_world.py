"""The world file: what is built in, and what is refused with a sentence that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY
from toolguard.dev.oauth.config import (
    Lifetimes,
    World,
    WorldError,
    builtin_world,
    load_world,
    parse_world,
)
from toolguard.dev.oauth.identity import collect_facts, provider_claims, read_identity
from toolguard.dev.oauth.policies import UserFacts
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.registration import is_approved

SMALL = """
project_id = "P2mine"
default_scopes = ["read"]
approved_redirects = ["http://127.0.0.1:*/*"]

[[resources]]
url = "HTTP://127.0.0.1:8000/mcp/"
client_id = "server"

[scopes]
read = "Read things"

[[tenants]]
id = "acme"
name = "Acme"
domains = ["acme.example"]
provider = "entra"

[[users]]
id = "ann"
name = "Ann"
email = "Ann@ACME.example"

[[policies]]
name = "Everybody"
when = ["any"]
grant = ["read"]
"""


def test_the_built_in_world_has_the_four_people_of_the_scenario() -> None:
    world = builtin_world()
    assert [(user.id, user.email, user.tenant_id) for user in world.users] == [
        ("alice", "alice@tenant-a.example", "tenant-a"),
        ("bob", "bob@tenant-a.example", "tenant-a"),
        ("carol", "carol@tenant-b.example", "tenant-b"),
        ("dora", "dora@tenant-a.example", "tenant-a"),
    ]
    assert [collect_facts(world, user).permissions for user in world.users] == [
        ("scheduler",),
        (),
        (),
        ("scheduler",),
    ]


def test_the_built_in_policy_is_the_two_rules_of_the_scenario() -> None:
    assert [
        (rule.name, [str(condition) for condition in rule.conditions], rule.grant, rule.along)
        for rule in builtin_world().rules
    ] == [
        (
            "Scheduler Write Access",
            ['user.tenantIds contains "tenant-a"', 'user.permissions contains "scheduler"'],
            ("mcp:calendar.write", "mcp:calendar.readonly"),
            ("outbound.token.fetch",),
        ),
        (
            "Read-Only Access for All Others",
            ["any"],
            ("mcp:calendar.readonly",),
            ("outbound.token.fetch",),
        ),
    ]


def test_tenants_sign_in_in_the_style_of_their_provider() -> None:
    world = builtin_world()
    assert [(tenant.id, tenant.provider) for tenant in world.tenants] == [
        ("tenant-a", "okta"),
        ("tenant-b", "entra"),
    ]


@pytest.mark.parametrize(
    ("uri", "is_known"),
    [
        ("https://claude.ai/api/mcp/auth_callback", True),
        ("https://claude.com/api/mcp/auth_callback", True),
        ("https://claude.ai/api/mcp/auth_callback/x", False),
        ("https://chatgpt.com/connector/oauth/FLLrQdlez6Uf", True),
        ("https://chatgpt.com/connector_platform_oauth_redirect", True),
        ("https://chatgpt.com/connector", False),
        ("https://chat.openai.com/oauth/callback/x", True),
        ("claude://oauth-callback/x", True),
        ("cursor://anysphere.cursor-mcp/oauth/callback", True),
        ("https://vscode.dev/redirect", True),
        ("https://vscode.dev/redirect?url=https://evil.example", False),
        ("http://127.0.0.1:33418/", True),
        ("http://localhost:6274/oauth/callback", True),
        ("https://claude.ai.evil.example/api/mcp/auth_callback", False),
    ],
)
def test_the_built_in_world_knows_where_clients_are_today(uri: str, *, is_known: bool) -> None:
    assert is_approved(builtin_world(), uri) is is_known


def test_the_built_in_vault_grants_what_its_examples_ask_for() -> None:
    scopes = builtin_world().connections["google-calendar"]

    assert set(scopes) == {CALENDAR, CALENDAR_READONLY}


def test_a_file_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "world.toml"
    path.write_text(SMALL)
    world = load_world(path)
    assert world.project_id == "P2mine"
    assert world.users[0].email == "ann@acme.example"
    assert world.resources[0].url == "http://127.0.0.1:8000/mcp"
    assert world.lifetimes == Lifetimes()


def test_an_error_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "world.toml"
    path.write_text(SMALL.replace("entra", "google"))
    with pytest.raises(WorldError, match=r'world\.toml: tenant 1: provider is "okta" or "entra"'):
        load_world(path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "world.toml"
    path.write_bytes(SMALL.encode() + b"# \xff")
    with pytest.raises(WorldError, match="not UTF-8"):
        load_world(path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ('project_id = "P2mine"', "project_id = ", r"not TOML: .*line 2"),
        ('project_id = "P2mine"', "", "project_id is missing"),
        ("P2mine", "mine", r'write project_id = "P2dev"'),
        ("P2mine", "P/../mine", r'write project_id = "P2dev"'),
        ('project_id = "P2mine"', 'project_id = "P2mine"\nusres = 1', "usres means nothing here"),
        ('default_scopes = ["read"]', 'default_scopes = "read"', "default_scopes is a list"),
        ('default_scopes = ["read"]', 'default_scopes = ["wr"]', r"'wr' is not under \[scopes\]"),
        ('grant = ["read"]', 'grant = ["wr"]', r"policy 1: 'wr' is not under \[scopes\]"),
        ('when = ["any"]', 'when = ["all"]', 'policy 1: rule "Everybody", condition 1'),
        ('when = ["any"]', "when = []", "policy 1: .* has no conditions"),
        ('name = "Everybody"', 'name = "Everybody"\nwehn = 1', "policy 1: wehn means nothing"),
        ("[[policies]]", "[[policy]]", r"write \[\[policies\]\]"),
        ("ACME.example", "other.example", "user 1: no tenant has the domain 'other.example'"),
        ("Ann@ACME.example", "ann", "user 1: email = 'ann' is not valid"),
        ('id = "ann"', 'id = "a nn"', "user 1: id = 'a nn' is not valid"),
        ('id = "ann"', "id = 1", "user 1: id is a text"),
        ('domains = ["acme.example"]', 'domains = ["ACME.example"]', "in lower case"),
        ('domains = ["acme.example"]', "domains = []", "no tenant has the domain"),
        ('read = "Read things"', "", "no scopes are defined"),
        ('read = "Read things"', "read = 1", "scopes: read is a text"),
        ("HTTP://127.0.0.1:8000/mcp/", "127.0.0.1", "is not the URL of a resource"),
        ("http://127.0.0.1:*/*", "https://*.example/*", "approved_redirects: .*not a redirect"),
        ("http://127.0.0.1:*/*", "javascript://a/*", "approved_redirects: .*not safe"),
        ("[scopes]", "[connections]\ngithub = 1\n[scopes]", "connections: github is a list"),
        ("[scopes]", "lifetimes = 5\n[scopes]", "resource 1: lifetimes means nothing"),
        ("[scopes]", "[[lifetimes]]\n[scopes]", "lifetimes is a table"),
        ("[scopes]", "[lifetimes]\naccess_token = 0\n[scopes]", "lifetimes: access_token is a num"),
        ("[scopes]", "[lifetimes]\ncode = true\n[scopes]", "lifetimes: code is a number"),
        ("[scopes]", "[lifetimes]\nacess_token = 9\n[scopes]", "lifetimes: acess_token means noth"),
    ],
)
def test_a_mistake_is_refused_with_its_place(before: str, after: str, message: str) -> None:
    assert before in SMALL
    with pytest.raises(WorldError, match=message):
        parse_world(SMALL.replace(before, after))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ('[[users]]\nid="ann"\nname="B"\nemail="b@acme.example"', "user 'ann' is defined twice"),
        (
            '[[users]]\nid="bea"\nname="B"\nemail="ann@acme.example"',
            "e-mail address 'ann@acme.example' is defined twice",
        ),
        (
            '[[tenants]]\nid="b"\nname="B"\ndomains=["acme.example"]\nprovider="okta"',
            "domain 'acme.example' is defined twice",
        ),
        (
            '[[resources]]\nurl="http://127.0.0.1:8000/mcp"\nclient_id="other"',
            "resource 'http://127.0.0.1:8000/mcp' is defined twice",
        ),
        (
            '[[resources]]\nurl="http://127.0.0.1:9000"\nclient_id="server"',
            "client_id 'server' is defined twice",
        ),
    ],
)
def test_what_must_be_unique_is(table: str, message: str) -> None:
    with pytest.raises(WorldError, match=message):
        parse_world(SMALL + table)


def test_the_domain_selects_the_tenant_in_any_case() -> None:
    tenant = builtin_world().tenant_for("Somebody@Tenant-B.Example")
    assert tenant is not None
    assert tenant.id == "tenant-b"


@pytest.mark.parametrize(
    "email", ["", "alice", "a@b.tenant-a.example", "tenant-a.example@evil.example"]
)
def test_no_other_domain_selects_one(email: str) -> None:
    assert builtin_world().tenant_for(email) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:8000/mcp", "HTTP://127.0.0.1:8000/mcp"])
def test_a_resource_is_found_by_its_url(url: str) -> None:
    found = builtin_world().resource(url)
    assert found is not None
    assert found.url == "http://127.0.0.1:8000/mcp"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8000/mcp/admin",
        "http://127.0.0.1:8000/",
        "http://127.0.0.1:8001/mcp",
        "http://127.0.0.1:8000/mcp?a=1",
        "https://127.0.0.1:8000/mcp",
        "",
    ],
)
def test_no_other_url_finds_it(url: str) -> None:
    assert builtin_world().resource(url) is None


def test_a_world_takes_more_resources_and_stays_as_it_was() -> None:
    world = builtin_world()
    more = world.with_resources("http://127.0.0.1:9000", MCP_AGAIN, "http://127.0.0.1:9001/mcp")
    assert [(item.url, item.client_id) for item in more.resources] == [
        ("http://127.0.0.1:8000/mcp", "calendar-server"),
        ("http://127.0.0.1:9000", "server-2"),
        ("http://127.0.0.1:9001/mcp", "server-3"),
    ]
    assert len(world.resources) == 1
    with pytest.raises(WorldError, match="is not the URL of a resource"):
        world.with_resources("ftp://127.0.0.1")


MCP_AGAIN = "http://127.0.0.1:8000/mcp/"


def test_a_secret_in_the_file_is_not_in_the_representation() -> None:
    world = parse_world(SMALL.replace('"server"', '"server"\nclient_secret = "s3cret"'))
    assert world.resources[0].client_secret == "s3cret"
    assert "s3cret" not in repr(world)


def entra_world() -> World:
    text = SMALL.replace('provider = "entra"', 'provider = "entra"\npermissions = {Ops = ["op"]}')
    return parse_world(text.replace('name = "Ann"', 'name = "Ann"\ngroups = ["Ops", "Others"]'))


def test_okta_names_groups_and_they_map_to_permissions() -> None:
    world = builtin_world()
    claims = provider_claims(world.tenants[0], world.users[0])
    assert claims["groups"] == ["Everyone", "Schedulers"]
    assert claims["email"] == "alice@tenant-a.example"
    assert read_identity(world.tenants[0], claims).permissions == ("scheduler",)


def test_entra_gives_ids_of_groups_and_they_map_to_permissions() -> None:
    world = entra_world()
    claims = provider_claims(world.tenants[0], world.users[0])
    assert all(len(group) == 36 for group in claims["groups"])
    assert "email" not in claims
    assert collect_facts(world, world.users[0]) == UserFacts(("acme",), ("op",))


def test_a_provider_speaks_for_its_own_people_only() -> None:
    world = builtin_world()
    claims = {**provider_claims(world.tenants[0], world.users[0]), "email": world.users[2].email}
    with pytest.raises(Refusal, match="a user of another tenant"):
        read_identity(world.tenants[0], claims)
