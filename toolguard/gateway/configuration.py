"""Read the file of a gateway: the issuer, the rules, the connections and the upstream."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolguard.decorators.requires import with_connection
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.gateway.rules import rules_of
from toolguard.guard import ToolGuard
from toolguard.http.door import Refusals
from toolguard.parsing.secure_urls import is_secure_url, secure_origin
from toolguard.parts.environment import MANAGEMENT_KEY, taken
from toolguard.parts.toml_file import Table, read_toml

if TYPE_CHECKING:
    from starlette.routing import Route

    from toolguard.vault.vault import Vault

__all__ = ["Configuration", "Upstream", "read_configuration"]

_KNOWN = (
    *("issuer", "client_id", "audience", "resource", "default", "scope_hierarchy"),
    *("hosts", "rules", "upstream"),
)
# Those of toolguard.Refusals; the gateway has no background tasks.
_OF_REFUSALS = ("initial_scopes", "unauthorized_tools", "challenge_scopes", "denials", "outages")
# Those of a vault (toolguard.vault.from_file.SETTINGS), which imports SQLAlchemy.
_OF_VAULT = ("database", "public_url", "sign_in", "connections")
_OF_UPSTREAM = (
    *("command", "url", "env", "pass_env", "cwd", "token_env", "connection", "connection_env"),
    *("scopes", "shared", "timeout", "start_timeout", "idle", "max_callers"),
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_RESERVED = ("TOOLGUARD_", MANAGEMENT_KEY)


@dataclass(frozen=True)
class Upstream:
    """The server behind the gateway, and how it is reached.

    Attributes:
        command: starts a server that speaks over stdio; empty if ``url`` is set.
        url: the endpoint of a server that is served elsewhere.
        environment: variables of the command, beside those that every program needs.
        cwd: the directory that the command runs in.
        token: a credential that all callers share, sent as ``Authorization``.
        connection: fetches the caller's own connection; None if the upstream needs none.
        connection_name: the name of that connection.
        connection_env: the variable of the command that gets the connection's token.
        shared: whether all callers share one session with the upstream.
        timeout: the maximum number of seconds that a request to the upstream takes.
        start_timeout: the maximum number of seconds until the upstream answers at first.
        idle: after how many seconds without a request a caller's session ends.
        max_callers: the maximum number of sessions with the upstream.
    """

    command: tuple[str, ...] = field(default=(), repr=False)
    url: str | None = field(default=None, repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    cwd: str | None = None
    token: str | None = field(default=None, repr=False)
    connection: GuardDecorator | None = None
    connection_name: str | None = None
    connection_env: str | None = None
    shared: bool = False
    timeout: float = 300.0
    start_timeout: float = 60.0
    idle: float = 600.0
    max_callers: int = 50

    def __str__(self) -> str:
        # Paths and queries of URLs, and arguments of commands, often hold a credential.
        return self.command[0] if self.url is None else f"{secure_origin(self.url)}"


@dataclass(frozen=True)
class Configuration:
    """All that a file says.

    Attributes:
        guard: the guard, with its connections.
        rules: the guards by the patterns of operation names.
        upstream: the server behind.
        hosts: the names in ``Host`` under which the endpoint may be requested, beside its own.
        vault: the vault of the connections, which may have pages for people; None without one.
    """

    guard: ToolGuard
    rules: Mapping[str, GuardDecorator]
    upstream: Upstream
    hosts: tuple[str, ...] = ()
    vault: Vault | None = None

    def pages(self) -> Sequence[Route]:
        """Return the pages on which people connect their accounts."""
        if self.vault is None or self.vault.sign_in is None:
            return ()
        from toolguard.vault.connecting import connect_routes  # noqa: PLC0415 - starlette

        return connect_routes(self.vault)


def read_configuration(
    path: str | Path,
    environ: Mapping[str, str] = os.environ,
    *,
    command: Sequence[str] = (),
    url: str | None = None,
) -> Configuration:
    """Return what a file says.

    The file holds no secrets: it names the variables that have them. Issuer and audience may be
    in ``TOOLGUARD_ISSUER`` and ``MCP_SERVER_URL`` instead::

        issuer = "https://auth.example.com"
        audience = "https://mcp.example.com/mcp"

        [rules]
        "get_current_time" = "time.read"

        [upstream]
        command = ["uvx", "mcp-server-time"]

    Args:
        path: the file.
        environ: the environment variables.
        command: the command of the upstream, instead of the file's.
        url: the URL of the upstream, instead of the file's.

    Raises:
        ValueError: naming the file, the key, its value and what to write.
    """
    values = read_toml(
        path, "the file of rules", "write the path of a TOML file, such as rules.toml"
    )
    file = Table(str(path), values)
    file.check_known(*_KNOWN, *_OF_REFUSALS, *_OF_VAULT)
    rules = rules_of(file.table("rules", 'write [rules], and below it "get_*" = "notes.read"'))
    if not rules:
        raise file.fault("rules", 'write [rules], and below it "get_*" = "notes.read"')
    vault = _vault(file, environ)
    guard = _guard(file, environ, vault)
    upstream = _upstream(file, environ, tuple(command), url)
    _check_connection(file, upstream.connection_name, guard)
    hosts = file.texts("hosts", 'write hosts = ["mcp.internal:8000"]')
    return Configuration(guard, rules, upstream, hosts, vault)


def _check_connection(file: Table, name: str | None, guard: ToolGuard) -> None:
    """Check that the connection of the upstream is one that the guard can fetch.

    Raises:
        ValueError: if it is not.
    """
    described = [*dict(file.values.get("connections") or {})]
    is_known = name in described if described else guard.connections is not None
    if name is not None and not is_known:
        one = f"one of {', '.join(described)}, or " if described else ""
        raise ValueError(
            f"{file.file}: upstream.connection is {name!r}, which is not a connection here: write "
            f"{one}[connections.{name}]"
        )


def _vault(file: Table, environ: Mapping[str, str]) -> Vault | None:
    """Return the vault that the file describes, or that of ``TOOLGUARD_VAULT``; None without one.

    Raises:
        ValueError: naming the file, and what is wrong in it.
    """
    described = {key: file.values[key] for key in _OF_VAULT if key in file.values}
    elsewhere = environ.get("TOOLGUARD_VAULT")
    if not described and not elsewhere:
        return None
    from toolguard.vault.from_file import vault_from_file, vault_from_table  # noqa: PLC0415 - SQLAlchemy

    if elsewhere and not described:
        return vault_from_file(elsewhere, environ)
    try:
        return vault_from_table(described, environ)
    except ValueError as fault:
        raise ValueError(f"{file.file}: {fault}") from None


def _guard(file: Table, environ: Mapping[str, str], vault: Vault | None) -> ToolGuard:
    """Return the guard; what the file does not say is taken from the environment.

    Raises:
        ValueError: naming the file and the setting that is missing or wrong.
    """
    settings: dict[str, Any] = {"default": file.values.get("default", "deny")}
    variables = dict(environ)
    issuers = file.texts("issuer", 'write issuer = "https://auth.example.com"')
    if issuers:
        variables["TOOLGUARD_ISSUER"] = " ".join(issuers)
        variables.pop("DESCOPE_MCP_WELL_KNOWN_URL", None)
    clients = file.texts("client_id", 'write client_id = "..."')
    if clients:
        variables["TOOLGUARD_CLIENT_ID"] = " ".join(clients)
    audiences = file.texts("audience", 'write audience = "https://mcp.example.com/mcp"')
    if audiences:
        settings["audience"] = audiences
        variables.pop("MCP_SERVER_URL", None)
    resource = file.text("resource", 'write resource = "https://mcp.example.com/mcp"')
    if resource is not None:
        settings["resource"] = resource
    write = 'write [scope_hierarchy], and below it "notes.write" = ["notes.read"]'
    included = file.table("scope_hierarchy", write)
    if included.values:
        settings["scope_hierarchy"] = {
            each: included.texts(each, 'write ["notes.read"]') for each in included.values
        }
    if vault is not None:
        settings["connections"] = vault
    try:
        refusals = {key: file.values[key] for key in _OF_REFUSALS if key in file.values}
        settings["refusals"] = Refusals(**refusals)
        return ToolGuard.from_env(variables, **settings)
    except (ValueError, TypeError) as fault:
        raise ValueError(f"{file.file}: {_in_words_of_file(str(fault))}") from None


def _in_words_of_file(fault: str) -> str:
    """Return an error about a variable as one about the key of the file that stands for it."""
    for variable, key in {
        "TOOLGUARD_ISSUER": "issuer",
        "MCP_SERVER_URL": "audience",
        "TOOLGUARD_CLIENT_ID": "client_id",
    }.items():
        fault = fault.replace(variable, key)
    return fault


def _upstream(
    file: Table, environ: Mapping[str, str], command: tuple[str, ...], url: str | None
) -> Upstream:
    """Return the upstream.

    Raises:
        ValueError: naming the key that is missing, wrong or without effect.
    """
    table = file.table("upstream", 'write [upstream], and below it command = ["uvx", "..."]')
    if "token" in table.values:
        raise ValueError(
            f"{file.file}: upstream.token: a file must not hold a secret: write "
            'token_env = "VARIABLE"'
        )
    table.check_known(*_OF_UPSTREAM)
    if not (command or url):
        command = table.texts("command", 'write command = ["uvx", "mcp-server-time"]')
        url = table.text("url", 'write url = "https://mcp.example.com/mcp"')
    if bool(command) == (url is not None):
        raise ValueError(
            f"{file.file}: name exactly one upstream: write toolguard proxy --rules {file.file} "
            '-- COMMAND, or --upstream URL, or command = ["COMMAND"] or url = "URL" in [upstream]'
        )
    if url is not None and not is_secure_url(url):
        raise ValueError(
            f"{file.file}: the upstream {url if '@' not in url else 'URL'!r} cannot "
            "be used: write https, or http to this machine, without user name and fragment"
        )
    usable = ("token_env",) if url else ("env", "pass_env", "cwd", "connection_env")
    for key in {"token_env", "env", "pass_env", "cwd", "connection_env"} & table.values.keys():
        if key not in usable:
            raise table.fault(key, f"leave it out: it is not for a {'url' if url else 'command'}")
    name = table.text("connection", 'write connection = "github"')
    variable = table.text("token_env", 'write token_env = "UPSTREAM_TOKEN"')
    shared = table.flag("shared")
    if name is not None and (shared or variable):
        raise table.fault("connection", "leave out shared and token_env: each caller has their own")
    if name is not None and command and "connection_env" not in table.values:
        raise table.fault("connection_env", 'write connection_env = "GITHUB_TOKEN"')
    scopes = table.texts("scopes", 'write scopes = ["read:user"]') or None
    return Upstream(
        command=command,
        url=url,
        environment=_environment(table, environ, _secrets(file)),
        cwd=table.text("cwd", 'write cwd = "/srv/notes"'),
        token=None if variable is None else _secret(table, "token_env", variable, environ),
        connection=None if name is None else with_connection(name, scopes=scopes, as_="connection"),
        connection_name=name,
        connection_env=table.text("connection_env", 'write connection_env = "GITHUB_TOKEN"'),
        shared=shared,
        timeout=table.seconds("timeout", Upstream.timeout),
        start_timeout=table.seconds("start_timeout", Upstream.start_timeout),
        idle=table.seconds("idle", Upstream.idle),
        max_callers=table.count("max_callers", Upstream.max_callers),
    )


def _secret(table: Table, key: str, variable: str, environ: Mapping[str, str]) -> str:
    found = taken(variable, environ)
    if found is None:
        raise table.fault(key, f"the environment has no {variable}: set it")
    return found.strip()


def _secrets(file: Table) -> set[str]:
    """Return the names of the variables that hold a secret of the vault in the file."""
    described = [file.values.get("sign_in"), *dict(file.values.get("connections") or {}).values()]
    return {
        str(variable)
        for each in described
        if isinstance(each, Mapping)
        for key, variable in each.items()
        if key.endswith("_env")
    }


def _environment(
    table: Table, environ: Mapping[str, str], secrets: Collection[str]
) -> dict[str, str]:
    """Return the variables of the command: those that the file sets, and those it passes on.

    Raises:
        ValueError: if one is not set, or is one of the gateway's own.
    """
    write = 'write env = { TZ = "Europe/Berlin" }'
    given = table.table("env", write)
    found = {name: given.text(name, write) or "" for name in given.values}
    for name in table.texts("pass_env", 'write pass_env = ["UV_CACHE_DIR"]'):
        if name.upper().startswith(_RESERVED):
            raise table.fault("pass_env", f"leave out {name}, which is the gateway's own")
        if name in secrets:
            raise table.fault("pass_env", f"leave out {name}, which is a secret of [connections]")
        if name not in environ:
            raise table.fault("pass_env", f"the environment has no {name}: set it, or leave it out")
        found[name] = environ[name]
    for name in found:
        if not _VARIABLE.fullmatch(name) or name.upper().startswith(_RESERVED):
            raise given.fault(name, "write the name of a variable that the command reads")
    return found
