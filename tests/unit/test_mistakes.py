"""Is each mistake of a first hour answered by a sentence: the fault, the value, what to write?"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from mcp.server import Server

import toolguard
from toolguard import (
    Refusals,
    StaticConnections,
    ToolGuard,
    approvals,
    connections,
    requires_auth,
    requires_scopes,
    vault,
    with_connection,
)
from toolguard.cli import main
from toolguard.connections import vendors
from toolguard.telemetry import JSONLines, Records
from toolguard.tokens import issuers
from toolguard.tokens.issuers import Issuer

ISSUER = "https://auth.example.com"
URL = "https://mcp.example.com/mcp"
WELL_KNOWN = f"{ISSUER}/.well-known/openid-configuration"
DESCOPE = "https://api.descope.com/{}/.well-known/openid-configuration"


class Mistake(NamedTuple):
    """Code that cannot be meant, and what its answer has to contain."""

    write: Callable[[], object]
    said: str


def guard(**settings: Any) -> Mistake:
    """Return a guard with one wrong setting; ``said`` is what its answer has to contain."""
    said = settings.pop("said")
    return Mistake(lambda: ToolGuard(**{"issuer": ISSUER, "audience": URL, **settings}), said)


def env(said: str, **variables: str | None) -> Mistake:
    """Return a guard from an environment with wrong variables; None is one that is not set."""
    given = {"MCP_SERVER_URL": URL, "TOOLGUARD_ISSUER": ISSUER, **variables}
    environ = {name: value for name, value in given.items() if value is not None}
    return Mistake(lambda: ToolGuard.from_env(environ), said)


def protect(said: str, **arguments: Any) -> Mistake:
    """Return a guard that protects a server with one wrong argument."""

    def write() -> object:
        server = arguments.pop("server", None) or Server("calendar")
        return ToolGuard(issuer=ISSUER, audience=URL).protect(server, **arguments)

    return Mistake(write, said)


def written(code: str, said: str) -> Mistake:
    """Return an expression with the public names."""
    return Mistake(lambda: eval(code, NAMES), said)


async def greet(name: str) -> str:
    return f"hello {name}"


async def reads(*, connection_token: str) -> str:
    return connection_token


async def yields() -> AsyncIterator[int]:
    yield 1


async def misspells(*, userId: str) -> str:  # noqa: N803 - the mistake
    return userId


NAMES: dict[str, Any] = {
    **{name: getattr(toolguard, name) for name in toolguard.__all__},
    **{name: getattr(issuers, name) for name in ("Introspection", "Issuer", "Network")},
    "issuers": issuers,
    "vendors": vendors,
    "vault": vault,
    "approvals": approvals,
    "connections": connections,
    "Records": Records,
    "JSONLines": JSONLines,
    "URL": URL,
    "ISSUER": ISSUER,
    "greet": greet,
    "reads": reads,
    "yields": yields,
    "misspells": misspells,
}

GUARD = [
    guard(said="exactly one of issuer=", issuer=None),
    guard(said='write Issuer("https://auth.example.com") (is a variable unset?)', issuer=""),
    guard(said="' ' is not an issuer: write https://auth.example.com", issuer=" "),
    guard(said="'auth.example.com' is not an issuer", issuer="auth.example.com"),
    guard(said="http only on this machine", issuer="http://auth.example.com"),
    guard(said="without user name, query and fragment", issuer=f"{ISSUER}?x=1"),
    guard(said="well_known_url= instead of issuer=", issuer=WELL_KNOWN),
    guard(said='an issuer is 7 (int): write "https://auth.example.com"', issuer=7),
    guard(said="an issuer is ['https://auth.example.com'] (list)", issuer=[ISSUER]),
    guard(said="an issuer is the function auth0: write", issuer=issuers.auth0),
    guard(said="write issuers=[Issuer(", issuer=None, issuers=ISSUER),
    guard(said="write issuers=[Issuer(", issuer=None, issuers=[]),
    guard(said="str is not an Issuer", issuer=None, issuers=[ISSUER]),
    guard(said="have the same iss", issuer=None, issuers=[Issuer(ISSUER), Issuer(ISSUER)]),
    guard(said="openid-configuration", issuer=None, well_known_url=ISSUER),
    guard(said="write https://auth", issuer=None, well_known_url="x"),
    guard(said="well_known_url is 7 (int): write", issuer=None, well_known_url=7),
    guard(said="async verify(token)", issuer=None, verifier=object()),
    guard(said='or "framework": write', issuer=None, verifier="frame"),
    guard(said='write audience="https://mcp', audience=7),
    guard(said="a value of audience is 7 (int): write", audience=[7]),
    guard(said="say which server this is", audience=None),
    guard(said="is a variable unset?", audience=""),
    guard(said="is a variable unset?", audience=[""]),
    guard(said="found audience='mcp.example.com/mcp'", audience="mcp.example.com/mcp"),
    guard(said="in the clear: write the https address", audience="http://mcp.example.com/mcp"),
    guard(said="is not the URL of a resource: write", audience=f"{URL}#x"),
    guard(said="'x' is not the URL of a resource: write", resource="x"),
    guard(said='resource is 7 (int): write resource="https', resource=7),
    guard(said="no user name or password", resource="https://u:p@mcp.example.com"),
    guard(said="not from int", connections=7),
    guard(said="not from dict", connections={"google": {"alice": "t"}}),
    guard(said="is not async: write `async def", connections=lambda request: "t"),
    guard(said="write connections=StaticConnections(...)", connections=StaticConnections),
    guard(said="scope_hierarchy is 'x' (str): write scope_hierarchy={", scope_hierarchy="x"),
    guard(said="scope_hierarchy is ['a'] (list): write", scope_hierarchy=["a"]),
    guard(said="write {'a': ['b']}", scope_hierarchy={"a": "b"}),
    guard(said="scope_hierarchy['a'] is 7 (int): write", scope_hierarchy={"a": 7}),
    guard(said="a scope is a string, not int", scope_hierarchy={"a": [7]}),
    guard(said="a cycle through 'a'", scope_hierarchy={"a": ["a"]}),
    guard(said="default='none': write one of", default="none"),
    guard(said="default=None: write one of", default=None),
    written('Refusals(initial_scopes="a b")', "write initial_scopes=['a', 'b']"),
    written("Refusals(initial_scopes=7)", "initial_scopes is 7 (int): write"),
    written("Refusals(initial_scopes=[7])", "a value of initial_scopes is 7 (int): write"),
    written('Refusals(initial_scopes=["offline_access"])', "leave offline_access out"),
    written("Refusals(unauthorized_tools=True)", "unauthorized_tools=True: write one of"),
    guard(said="refusals is 'x' (str): write refusals=Refusals(", refusals="x"),
    guard(said="refusals is the type Refusals: write", refusals=Refusals),
    guard(said='stdio=True: write "token" or TrustedUser', stdio=True),
    guard(said="on_decision takes functions of a record, not 7", on_decision=7),
    guard(said="does not take one argument: write def", on_decision=lambda: None),
    guard(said="at least 16 bytes: write 32 random ones", secret="short"),
    guard(said="secret= takes a string or bytes, not int", secret=7),
    guard(said="clock=7: write a function", clock=7),
    guard(said="write a function without arguments", clock=lambda now: now),
]

ISSUERS = [
    written("issuers.auth0('')", "is not the name of a host: write one such as"),
    written("issuers.auth0(7)", 'the host of an issuer is 7 (int): write a name, such as "acme'),
    written("issuers.auth0('http://acme.auth0.com')", "is not the name of a host"),
    written("issuers.okta('https://acme.okta.com')", "okta("),
    written("issuers.okta(7)", 'issuer is 7 (int): write okta("'),
    written("issuers.keycloak('https://sso.example.com')", 'write keycloak("'),
    written("issuers.keycloak(None)", 'realm is None (NoneType): write keycloak("'),
    written("issuers.descope('your-project-id')", 'write descope("P2abc...")'),
    written("issuers.descope(7)", 'project is 7 (int): write descope("'),
    written("issuers.supabase(7)", 'project is 7 (int): write supabase("'),
    written("issuers.adfs(7)", 'server is 7 (int): write adfs("'),
    written("issuers.authentik(7)", 'application is 7 (int): write authentik("'),
    written("issuers.google('')", "write google(CLIENT_ID)"),
    written("issuers.google(7)", "audience is 7 (int): write audience="),
    written("issuers.entra('common', client_id='x')", "the ids of the tenants"),
    written("issuers.entra(7, client_id='x')", "tenant is 7 (int): write entra("),
    written("issuers.entra('acme', client_id='')", "is a variable unset?"),
    written("issuers.cognito('abc', clients=['x'])", "the id of a user pool"),
    written("issuers.cognito('eu-west-1_Abc', clients=7)", "clients is 7 (int): write"),
    written("Issuer(7)", "an issuer is 7 (int): write"),
    written("Issuer(ISSUER, names=7)", "names is 7 (int): write names="),
    written("Issuer(ISSUER, leeway='5')", "leeway is '5' (str): write leeway=5"),
    written("Issuer(ISSUER, leeway=-1)", "leeway is a number of seconds from 0 to 300, not -1"),
    written("Issuer(ISSUER, confirm=True)", "needs introspection=Introspection(...)"),
    written("Issuer(ISSUER, may_carry=['x'])", "may_carry holds 'x': write some of"),
    written("Issuer(ISSUER, network='x')", "network is 'x' (str): write network=Network("),
    written("Introspection('secret')", 'write BasicClient("client-id", "secret"), not str'),
    written("Network(insecure_origins='http://k:1')", "write insecure_origins=['http://k:1']"),
    written("Network(insecure_origins=7)", "insecure_origins is 7 (int): write"),
    written("Network(insecure_origins=[7])", "a value of insecure_origins is 7 (int): write"),
    written("Network(insecure_origins=['https://k'])", "is not an origin of plain http: write"),
]

ENVIRONMENT = [
    env("set TOOLGUARD_ISSUER", MCP_SERVER_URL=None, TOOLGUARD_ISSUER=None),
    env("set MCP_SERVER_URL to the address", MCP_SERVER_URL=None, TOOLGUARD_ISSUER=None),
    env("set MCP_SERVER_URL to the address", MCP_SERVER_URL=""),
    env("set TOOLGUARD_ISSUER (or DESCOPE_MCP_WELL_KNOWN_URL", TOOLGUARD_ISSUER=None),
    env("with quotes around it: write the value alone", MCP_SERVER_URL=f'"{URL}"'),
    env(f"MCP_SERVER_URL is '{URL}\\n', with a line break", MCP_SERVER_URL=f"{URL}\n"),
    env("MCP_SERVER_URL is 'mcp.example.com'", MCP_SERVER_URL="mcp.example.com"),
    env("write the https address", MCP_SERVER_URL="http://mcp.example.com/mcp"),
    env(
        "TOOLGUARD_ISSUER is \"'https://auth.example.com'\", with quotes",
        TOOLGUARD_ISSUER=f"'{ISSUER}'",
    ),
    env(
        "set TOOLGUARD_INSECURE_ORIGINS=http://id:8080", TOOLGUARD_ISSUER="http://id:8080/realms/a"
    ),
    env(
        "set TOOLGUARD_INSECURE_ORIGINS=http://id:80",
        TOOLGUARD_ISSUER="keycloak:http://id:80/realms/a",
    ),
    env("separate issuers by blanks", TOOLGUARD_ISSUER=f"{ISSUER},https://b.example.com"),
    env("write auth0:acme.eu.auth0.com", TOOLGUARD_ISSUER="auth0"),
    env("neither a URL", TOOLGUARD_ISSUER="auht0:acme.eu.auth0.com"),
    env("set TOOLGUARD_CLIENT_ID", TOOLGUARD_ISSUER="entra:acme"),
    env("holds 'https://auth.example.com' twice", TOOLGUARD_ISSUER=f"{ISSUER} {ISSUER}"),
    env("TOOLGUARD_LEEWAY is '10s': write a number", TOOLGUARD_LEEWAY="10s"),
    env("TOOLGUARD_LEEWAY is '301': write a number", TOOLGUARD_LEEWAY="301"),
    env("TOOLGUARD_LEEWAY is '\"5\"', with quotes", TOOLGUARD_LEEWAY='"5"'),
    env("write types separated by blanks", TOOLGUARD_TOKEN_TYPES="at+jwt,JWT"),
    env("write true or false", TOOLGUARD_PERMISSIONS_ARE_SCOPES="maybe"),
    env("write http://keycloak:8080", TOOLGUARD_INSECURE_ORIGINS="keycloak:8080"),
    env(
        "TOOLGUARD_RECORDS is '/no/decisions.jsonl': No such file or directory: write the path of",
        TOOLGUARD_RECORDS="/no/decisions.jsonl",
    ),
    env("TOOLGUARD_RECORDS is '/': Is a directory: write the path of", TOOLGUARD_RECORDS="/"),
    env("with a line break in it: write the value alone", TOOLGUARD_RECORDS="/tmp/a\n"),
    env("TOOLGUARD_VAULT, or after --file", TOOLGUARD_VAULT="/no/vault.toml"),
    env("set one of TOOLGUARD_ISSUER and", DESCOPE_MCP_WELL_KNOWN_URL=DESCOPE.format("P2abc")),
    env(
        "'your-project-id' stands for a value of your own: copy",
        TOOLGUARD_ISSUER=None,
        DESCOPE_MCP_WELL_KNOWN_URL=DESCOPE.format("your-project-id"),
    ),
    env(
        "with a line break in it",
        TOOLGUARD_ISSUER=None,
        DESCOPE_MCP_WELL_KNOWN_URL=DESCOPE.format("P2abc") + "\n",
    ),
    env(
        "DESCOPE_MANAGEMENT_KEY has quotes around it",
        TOOLGUARD_ISSUER=None,
        DESCOPE_MCP_WELL_KNOWN_URL=DESCOPE.format("P2abc"),
        DESCOPE_MANAGEMENT_KEY='"K2"',
    ),
]

PROTECT = [
    protect("icated caller>] (list): write rules={", rules=[requires_auth]),
    protect("rules is 'greet' (str): write rules={", rules="greet"),
    protect("write {'greet': requires_scopes(", rules={"greet": "admin"}),
    protect("write {'greet': requires_scopes(", rules={"greet": requires_scopes}),
    protect("the pattern of a rule is 7 (int): write", rules={7: requires_auth}),
    protect("'' names nothing: write", rules={"": requires_auth}),
    protect("unknown prefix 'tools:': write one of", rules={"tools:greet": requires_auth}),
    protect("with_connection() goes above a function", rules={"greet": with_connection("mail")}),
    protect("not int; put any other ASGI app behind guard.asgi(app)", server=7),
    protect("write open_routes=['/health']: a list", open_routes="/health"),
    protect("open_routes is 7 (int): write", open_routes=7),
    protect("a value of open_routes is 7 (int): write", open_routes=[7]),
    protect("write the whole path, '/health'", open_routes=["health"]),
    protect("sent_by_client is 'greet' (str): write", sent_by_client="greet"),
    protect("sent_by_client is ['user_id'] (list): write", sent_by_client=["user_id"]),
    protect("write sent_by_client={'greet': ['user_id']}", sent_by_client={"greet": "user_id"}),
    protect("sent_by_client is 7 (int): write", sent_by_client={"greet": 7}),
]

DECORATORS = [
    written("requires_scopes()", "name at least one scope"),
    written("requires_scopes('a b')", "write them one by one: ['a', 'b']"),
    written("requires_scopes('')", "is not a scope: RFC 6749"),
    written("requires_scopes(7)", "a scope is a string, not int"),
    written("requires_scopes(['a', 'b'])", "write 'a', 'b'"),
    written("requires_scopes(greet)", "write @requires_scopes("),
    written("requires_scopes(Scope('a') and Scope('b'))", "combine rules with & and |"),
    written("requires_auth('a')", "guards functions, not str: write it directly above `def`"),
    written("requires_auth(requires_scopes('a'))", "write one above the other"),
    written("requires_auth()", "guards the function below it: write it without ()"),
    written("public()", "guards the function below it: write it without ()"),
    written("requires_scopes('a')()", "guards the function below it: write it without ()"),
    written("requires_auth(yields)", "yields() is an async generator, and <guard: any"),
    written("requires_auth(misspells)", "write `*, user_id: str` for the caller, or `userId: Anno"),
    written("requires_actor()", 'write requires_actor("agent-*")'),
    written("requires_actor(7)", 'write requires_actor("agent-*")'),
    written("public(requires_auth(greet))", "@public cannot be combined"),
    written("with_connection('')", 'name the connection: @with_connection("google-calendar")'),
    written("with_connection(7)", "the name comes first"),
    written("with_connection('mail', scopes='x')", "write scopes=['x']"),
    written("with_connection('mail', scopes=7)", "scopes is 7 (int): write scopes=["),
    written("with_connection('mail', as_=7)", "as_ is 7 (int): write as_="),
    written("with_connection('mail', as_='class')", 'write as_="calendar_token"'),
    written("with_connection('mail', tenant='acme')", "tenant is 'acme' (str): write tenant=True"),
    written("with_connection('mail')(greet)", "add `*, connection_token: str`"),
    written("with_connection('a')(with_connection('b')(reads))", "with_connection(..., as_=...)"),
]

CONNECTIONS = [
    written("StaticConnections({})", 'write StaticConnections({"google-calendar": "a-token"})'),
    written("StaticConnections(7)", "the table of connections is 7 (int): write"),
    written("StaticConnections({'': 't'})", "a connection has an empty name: write"),
    written("StaticConnections({'mail': 7})", "the token of a connection is text, not int"),
    written("CachedConnections(7)", "not from int"),
    written("CachedConnections(StaticConnections({'a': 't'}), max_age='5')", "'5' (str): write"),
    written("CachedConnections(StaticConnections({'a': 't'}), max_age=-1)", "seconds, 0 or more"),
    written("Connection('')", "a connection needs a token"),
    written("Connection(7)", "the token of a connection is text, not int"),
    written("Connection('t', scopes='a')", "write ['a']"),
    written("TrustedUser('')", 'name the user: stdio=TrustedUser("ada")'),
    written("TrustedUser(7)", 'user_id is 7 (int): write TrustedUser("ada")'),
    written("Refusals(outages='x')", "outages='x': write one of"),
    written("Records(print, queue='x')", "queue is 'x' (str): write queue=10_000"),
    written("InsufficientScopeError([])", 'write required_scopes=["a.scope"]'),
]

REST = [
    written("JSONLines(None)", "a text stream or a logger, not NoneType: write JSONLines("),
    written("JSONLines(7)", "not int: write JSONLines("),
    guard(said="JSONLines is a class: write on_decision=JSONLines()", on_decision=JSONLines),
    written("requires_recent_auth(max_age='5m')", "max_age is '5m' (str): write requires_recent"),
    written("health_routes(None)", "write health_routes(guard) with a ToolGuard(...), not None"),
    written("ToolGuard(issuer=ISSUER, audience=URL).asgi(None)", "takes an ASGI application, not"),
    written("ToolGuard.from_env('x')", "environ is 'x' (str): write ToolGuard.from_env(issuer="),
]

# What os.environ.get() returns for a variable that is not set, and what an empty one holds.
UNSET = [
    written("issuers.BasicClient('id', None)", "client_secret is text, not NoneType: is a var"),
    written("issuers.BasicClient('id', '')", "client_secret is empty: is a variable unset?"),
    written("issuers.BearerClient(None)", "token is text, not NoneType: is a variable unset?"),
    written("connections.ClientSecretBasic('id', None)", "client_secret is text, not NoneType"),
    written("connections.ClientSecretPost('id', '')", "client_secret is empty: is a variable"),
    written("vendors.Nango(None, str)", "secret_key is text, not NoneType: is a variable unset?"),
    written("vendors.WorkOSPipes('')", "api_key is empty: is a variable unset?"),
    written("vendors.Arcade(None)", "api_key is text, not NoneType: is a variable unset?"),
    written("vendors.Scalekit(ISSUER, 'id', None)", "client_secret is text, not NoneType"),
    written("vault.github('id', None)", "client_secret is text, not NoneType: is a variable unset"),
    written("vault.OpenIDSignIn('id', None)", "client_secret is text, not NoneType: is a variable"),
]

_VAULT = "vault.Vault('sqlite:///v.db', keys=['k' * 32], connections={'a': vault.github('i', 's')}"
VAULT = [
    written(f"{_VAULT}, sign_in='x')", "sign_in is str: write OpenIDSignIn(client_id, client_sec"),
    written(f"{_VAULT}, sign_in=vault.OpenIDSignIn)", "sign_in is OpenIDSignIn: write OpenID"),
    written(f"{_VAULT}, sign_in=print)", "sign_in is print: write OpenIDSignIn("),
    written(f"{_VAULT}, sign_in=reads)", "a function that does not take one argument: write"),
    written("approvals.Approvals(sign_in=None)", "sign_in is NoneType: write OpenIDSignIn("),
    written(f"{_VAULT}, allow={{'b': requires_auth}})", "'b' is not one of the connections ['a']"),
    written(f"{_VAULT}, allow={{'a': 'admin'}})", "write {'a': requires_scopes(\"...\")}: a guard"),
    written(f"{_VAULT}, tenant_connectors={{'a': 'admin'}})", "write {'a': requires_scopes("),
]

MISTAKES = [
    *(*GUARD, *ISSUERS, *ENVIRONMENT, *PROTECT),
    *(*DECORATORS, *CONNECTIONS, *REST, *UNSET, *VAULT),
]

COMMANDS = [
    (["dev", "--port", "80000"], "'80000' is not a port from 0 to 65534: write --port 8800"),
    (["dev", "--port", "abc"], "'abc' is not a port"),
    (["dev", "--port", "-1"], "'-1' is not a port"),
    (["dev", "--world", "missing.toml"], "missing.toml: No such file or directory"),
    (["dev", "--world", "odd.toml"], "odd.toml: there is no tenant: write [[tenants]]"),
    (["dev", "--state", "odd.toml"], "--state odd.toml: file is not a database; write a new file"),
    (["dev", "--for", "no_module:mcp", "--port", "0"], "there is no module 'no_module' here"),
    (["dev", "--for", "missing.py", "--port", "0"], "there is no file missing.py"),
    (["dev", "--for", "empty.py", "--port", "0"], "no server found there; write empty.py:make if"),
    (["dev", "--for", "a:b", "--world", "odd.toml"], "not allowed with argument --for"),
    (["deb"], "invalid choice: 'deb' (choose from"),
    (["audit"], "required: MODULE:SERVER"),
    (["audit", "no_module:mcp"], "there is no module 'no_module' here: start in the folder"),
    (["audit", "my-server"], "names no server: write module:server, path/file.py:server"),
    (["audit", "./server.toml"], "write the path of a TOML file, such as rules.toml"),
    (["doctor", "odd.toml"], "nothing is called x: write issuer, "),
    (["proxy"], "the following arguments are required: --rules"),
    (["proxy", "--rules", "missing.toml"], "the file of rules 'missing.toml' cannot be read"),
    (["proxy", "--rules", "odd.toml"], "odd.toml: nothing is called x: write issuer, "),
    (["proxy", "--rules", "a", "--port", "80000"], "is not a port from 0 to 65535: write --port"),
    (["proxy", "--rules", "a", "--upstream", "b", "--", "c"], "or -- COMMAND, not both"),
    (["audit", "http://localhost:8000/mcp"], "names no server: write"),
    (["audit", "missing.py:mcp"], "there is no file missing.py"),
    (["audit", "json:nothing"], "json has no 'nothing'"),
    (["audit", "json", "--format", "xml"], "invalid choice: 'xml' (choose from"),
    (["doctor", "localhost:8000/mcp"], "or https://... for the doctor of a running one"),
    (["doctor", "ftp://mcp.example.com"], "or https://... for the doctor of a running one"),
    (["doctor", "https://[bad"], "write a URL such as https://mcp.example.com/mcp"),
    (["token", "--issuer", ISSUER], "is not the address of a development server, which runs on"),
    (["token", "--issuer", "8800"], "write --issuer http://127.0.0.1:8800; for another issuer"),
    (["call", URL, "read", "{"], "'{' is not a JSON object ("),
    (
        ["call", URL, "read", "{a:", "b}"],
        "arguments: b}: write those of the tool as one, in single",
    ),
    (["call", URL, "read", "[1]"], "'[1]' is not a JSON object: write the arguments of the tool"),
    (["call", "mcp.example.com/mcp", "read"], "is not a URL: write one such as http://127.0.0.1"),
    (["call", "http://mcp.example.com", "read"], "would get the token in the clear: write https"),
    (["call", URL, "read", "--scope", "a"], "--scope is for --as PERSON: write both"),
    (["call", URL, "read", "--as", "a", "--token", "t"], "--token: not allowed with argument --as"),
    (["vault", "upgrad"], "invalid choice: 'upgrad' (choose from"),
    (["vault", "upgrade", "--file", "missing.toml"], "write the path of a TOML file into"),
    (["vault", "upgrade", "--file", "odd.toml"], "nothing is called x"),
    (["vault", "list", "a"], "write toolguard vault list https://auth.example.com USER"),
    (["vault", "rotate", "--file", "empty.toml"], "write [connections.github], and below it"),
    (["vault", "rotate", "--file", "list.toml"], "write [connections.github], and below it"),
    (["vault", "rotate", "--file", "number.toml"], "github is 5: write [connections.github], and"),
    (["vault", "rotate", "--file", "signs.toml"], "sign_in is 'x': write [sign_in], and its"),
    (["vault", "rotate", "--file", "secret.toml"], 'write client_secret_env = "VARIABLE"'),
    (["vault", "rotate", "--file", "unset.toml"], "the environment has no NO_SUCH_VARIABLE"),
    (["vault", "rotate", "--file", "folder"], "'folder' cannot be read (Is a directory)"),
    (["vault", "disconnect"], "(choose from"),
    (["dev", "--state", "folder"], "folder: Is a directory"),
    (["dev", "--world", "syntax.toml"], "syntax.toml: not TOML: "),
    (["dev", "--for", "exits.py", "--port", "0"], "cannot load exits.py: SystemExit: no ("),
    (["dev", "--for", "alone.toml", "--port", "0"], "alone.toml: name exactly one upstream: write"),
    (["dev", "--for", "syntax.toml", "--port", "0"], "'syntax.toml' is not TOML: "),
    (
        ["dev", "--for", "http://127.0.0.1:8000/mcp", "--port", "0"],
        "names no server: write module:",
    ),
    (["token", "alice", "bob"], "unrecognized arguments: bob"),
    (["token", "--issuer", "http://127.0.0.1:9"], "start toolguard dev in another terminal"),
    (["call", URL], "the following arguments are required: TOOL"),
    (["call", URL, "read", ""], "'' is not a JSON object"),
    (["call", URL, "read", "null"], "'null' is not a JSON object: write the arguments"),
    (["call", URL, "read", "{'a': 1}"], "in single quotes"),
    (["call", "http://127.0.0.1:99999/mcp", "read"], "is not a URL: write one such as"),
    (["call", URL, "read", "--revision", "2024"], "invalid choice: '2024' (choose from"),
    (
        ["proxy", "--rules", "alone.toml"],
        "name exactly one upstream: write toolguard proxy --rules",
    ),
    (["proxy", "--rules", "alone.toml", "--upstream", "x"], "the upstream 'x' cannot be used"),
    (["proxy", "--rules", "empty.toml"], "rules is missing: write [rules], and below it"),
    (["proxy", "--rules", "typed.toml", "--", "x"], "rules.read is 5: write a scope, such as"),
    (["proxy", "--rules", "misspelt.toml", "--", "x"], "nothing is called scope: write scopes"),
    (["proxy", "--rules", "blank.toml", "--", "x"], "write them one by one: ['a', 'b']"),
    (["proxy", "--rules", "folder"], "(Is a directory): write the path of a TOML file"),
    (["proxy", "alone.toml", "--", "x"], "the following arguments are required: --rules"),
    (["audit", ""], "'' names no server: write module:server"),
    (["audit", "exits.py"], "cannot load exits.py: SystemExit: no ("),
    (["doctor", "http://127.0.0.1:9/mcp"], "(ConnectError: the connection is refused): start the"),
    (["doctor", "syntax.toml"], "'syntax.toml' is not TOML: "),
]

_HEAD = f'issuer = "{ISSUER}"\naudience = "{URL}"\n[rules]\n'
FILES = {
    "odd.toml": "x = 1\n",
    "empty.py": "x = 1\n",
    "exits.py": "raise SystemExit('no')\n",
    "empty.toml": "",
    "syntax.toml": "[rules\n",
    "list.toml": 'connections = ["github"]\n',
    "number.toml": "[connections]\ngithub = 5\n",
    "signs.toml": 'sign_in = "x"\n[connections.github]\nclient_id = "a"\n',
    "secret.toml": '[connections.github]\nclient_id = "a"\nclient_secret = "b"\n',
    "unset.toml": '[connections.github]\nclient_secret_env = "NO_SUCH_VARIABLE"\n',
    "alone.toml": f'{_HEAD}read = "a"\n',
    "typed.toml": f"{_HEAD}read = 5\n",
    "misspelt.toml": f'{_HEAD}read = {{scope = "a"}}\n',
    "blank.toml": f'{_HEAD}read = "a b"\n',
}


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.said)
def test_a_mistake_in_code_is_answered_by_a_sentence(mistake: Mistake) -> None:
    with pytest.raises((ValueError, TypeError)) as caught:
        mistake.write()

    assert mistake.said in str(caught.value)
    where = caught.traceback[-1].path
    assert "toolguard" in Path(where).parts[:-1], "not by an accident in a library"


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=lambda each: " ".join([*each]))
def test_a_mistake_in_a_command_is_answered_by_a_sentence(
    command: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    for name, content in FILES.items():
        Path(name).write_text(content, encoding="utf-8")

    with pytest.raises(SystemExit) as ended:
        raise SystemExit(main(command))

    assert ended.value.code in (1, 2)
    assert said in "".join(capsys.readouterr())


def test_the_tables_hold_at_least_120_mistakes() -> None:
    assert len(MISTAKES) + len(COMMANDS) >= 120


def test_two_missing_variables_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"set MCP_SERVER_URL .*; set TOOLGUARD_ISSUER"):
        ToolGuard.from_env({})


def test_a_misspelt_variable_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"MCP_SERVER_URL": URL, "TOOLGUARD_ISSUER": ISSUER, "TOOLGUARD_LEEWEY": "5"}

    with caplog.at_level(logging.WARNING, logger="toolguard"):
        ToolGuard.from_env(environ)

    assert "TOOLGUARD_LEEWEY is not known and has no effect: write TOOLGUARD_LEEWAY" in caplog.text


def test_a_quoted_secret_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="TOOLGUARD_VAULT_KEYS has quotes") as caught:
        ToolGuard.from_env({"TOOLGUARD_VAULT_KEYS": '"c2VjcmV0"'})

    assert "c2VjcmV0" not in str(caught.value)
