"""The configuration of the development servers: users, tenants, clients, policies.

It is read from TOML; ``world.toml`` beside this file is the default.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Literal

from toolguard.dev.policies import PolicyError, Rule
from toolguard.dev.redirects import RedirectPattern
from toolguard.dev.tables import Table, WorldError, parse_toml
from toolguard.http.metadata import canonical_resource
from toolguard.tokens.jwt import canonical_audience

__all__ = [
    "Lifetimes",
    "Provider",
    "Resource",
    "Tenant",
    "User",
    "World",
    "WorldError",
    "builtin_world",
    "load_world",
    "parse_world",
]

Provider = Literal["okta", "entra"]
"""In which style a tenant's identity provider looks and answers."""

_PROJECT_ID = re.compile(r"P[A-Za-z0-9_-]{1,60}")
_ID = re.compile(r"[A-Za-z0-9._-]{1,100}")
_DOMAIN = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}")


@dataclass(frozen=True)
class Tenant:
    """A customer's organization, whose people sign in at its own identity provider.

    Attributes:
        id: names it in tokens and policies.
        name: names it on pages.
        domains: the e-mail domains that belong to it, in lower case.
        provider: the style of its identity provider.
        permissions: which permissions a group of the provider maps to.
    """

    id: str
    name: str
    domains: tuple[str, ...]
    provider: Provider
    permissions: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class User:
    """A person; ``groups`` are those the tenant's identity provider knows."""

    id: str
    email: str
    name: str
    tenant_id: str
    groups: tuple[str, ...] = ()


@dataclass(frozen=True)
class Resource:
    """A protected server that tokens may be for.

    Attributes:
        url: its canonical URL: the ``aud`` of its tokens.
        client_id: who it is when it asks here about a token, or exchanges one.
        client_secret: what proves it; None lets the server make one up.
    """

    url: str
    client_id: str
    client_secret: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Lifetimes:
    """How long things are good, in seconds; a refresh token counts from the sign-in."""

    access_token: int = 300
    refresh_token: int = 86_400
    code: int = 60
    sign_in: int = 600
    session: int = 3_600


@dataclass(frozen=True)
class World:
    """Everything the development server knows without being told over HTTP; immutable.

    Attributes:
        project_id: the first part of the issuer's path, as Descope has it.
        tenants: the tenants.
        users: the users, each in the tenant of their e-mail domain.
        resources: the servers that tokens may be for.
        scopes: every scope there is, with the words a user reads on the consent page.
        default_scopes: what is asked for by a client that asks for nothing.
        rules: the policy, in the order in which its rules are tried.
        approved_redirects: where clients may be.
        lifetimes: how long things are good.
    """

    project_id: str
    tenants: tuple[Tenant, ...]
    users: tuple[User, ...]
    resources: tuple[Resource, ...]
    scopes: Mapping[str, str] = field(hash=False)
    default_scopes: tuple[str, ...]
    rules: tuple[Rule, ...]
    approved_redirects: tuple[RedirectPattern, ...]
    lifetimes: Lifetimes = Lifetimes()

    def tenant_for(self, email: str) -> Tenant | None:
        """Return the tenant that the domain of ``email`` belongs to."""
        domain = email.rpartition("@")[2].lower()
        return next((tenant for tenant in self.tenants if domain in tenant.domains), None)

    def tenant(self, tenant_id: str) -> Tenant:
        """Return the tenant of that id, which has to exist."""
        return next(tenant for tenant in self.tenants if tenant.id == tenant_id)

    def user(self, user_id: str) -> User | None:
        """Return the user of that id."""
        return next((user for user in self.users if user.id == user_id), None)

    def user_by_email(self, email: str) -> User | None:
        """Return the user of that e-mail address, in any case."""
        return next((user for user in self.users if user.email == email.lower()), None)

    def resource(self, url: str) -> Resource | None:
        """Return the resource that ``url`` names, compared as audiences are."""
        wanted = canonical_audience(url)
        return next((item for item in self.resources if item.url == wanted), None)

    def with_resources(self, *urls: str) -> World:
        """Return this world with more servers that tokens may be for.

        Raises:
            WorldError: if one of them is no URL of a resource.
        """
        resources = {resource.url: resource for resource in self.resources}
        for url in map(_resource_url, urls):
            resources.setdefault(url, Resource(url, f"server-{len(resources) + 1}"))
        world = replace(self, resources=tuple(resources.values()))
        _refuse_repeated("client_id", (resource.client_id for resource in world.resources))
        return world


def builtin_world() -> World:
    """Return the default world."""
    return parse_world(files("toolguard.dev").joinpath("world.toml").read_text("utf-8"))


def load_world(path: Path) -> World:
    """Return the world of a TOML file.

    Raises:
        WorldError: if it cannot be used, naming the file and the place.
        OSError: if it cannot be read.
    """
    try:
        return parse_world(path.read_text("utf-8"))
    except WorldError as error:
        raise WorldError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise WorldError(f"{path}: not UTF-8") from None


def parse_world(text: str) -> World:
    """Return the world that a TOML document describes.

    Raises:
        WorldError: if something in it cannot be meant, naming the place.
    """
    top = parse_toml(text)
    tenants = tuple(_tenant(table) for table in top.tables("tenants", "tenant"))
    _refuse_repeated("tenant", (tenant.id for tenant in tenants))
    _refuse_repeated("domain", (domain for tenant in tenants for domain in tenant.domains))
    users = tuple(_user(table, tenants) for table in top.tables("users", "user"))
    _refuse_repeated("user", (user.id for user in users))
    _refuse_repeated("e-mail address", (user.email for user in users))
    resources = tuple(_resource(table) for table in top.tables("resources", "resource"))
    _refuse_repeated("resource", (resource.url for resource in resources))
    _refuse_repeated("client_id", (resource.client_id for resource in resources))
    scopes = _words(top.table("scopes"))
    world = World(
        project_id=_matching(top, "project_id", _PROJECT_ID, "P2dev"),
        tenants=tenants,
        users=users,
        resources=resources,
        scopes=scopes,
        default_scopes=_known(top, top.texts("default_scopes"), scopes),
        rules=tuple(_rule(table, scopes) for table in top.tables("policies", "policy")),
        approved_redirects=tuple(_pattern(top, text) for text in top.texts("approved_redirects")),
        lifetimes=_lifetimes(top.table("lifetimes")),
    )
    top.finish()
    return world


def _tenant(table: Table) -> Tenant:
    provider = table.text("provider")
    if provider not in ("okta", "entra"):
        raise table.error('provider is "okta" or "entra"')
    groups = table.table("permissions")
    tenant = Tenant(
        id=_matching(table, "id", _ID, "tenant-a"),
        name=table.text("name"),
        domains=table.texts("domains"),
        provider="okta" if provider == "okta" else "entra",
        permissions={group: groups.texts(group) for group in groups.remaining_keys()},
    )
    for domain in tenant.domains:
        if not _DOMAIN.fullmatch(domain):
            raise table.error(f'{domain!r} is not a domain: write "example.com", in lower case')
    table.finish()
    return tenant


def _user(table: Table, tenants: Iterable[Tenant]) -> User:
    email = _matching(table, "email", _EMAIL, "alice@example.com").lower()
    domain = email.rpartition("@")[2]
    tenant = next((tenant for tenant in tenants if domain in tenant.domains), None)
    if tenant is None:
        raise table.error(f"no tenant has the domain {domain!r}")
    user = User(
        id=_matching(table, "id", _ID, "alice"),
        email=email,
        name=table.text("name"),
        tenant_id=tenant.id,
        groups=table.texts("groups", ()),
    )
    table.finish()
    return user


def _resource(table: Table) -> Resource:
    resource = Resource(
        url=_resource_url(table.text("url")),
        client_id=table.text("client_id"),
        client_secret=table.optional_text("client_secret"),
    )
    table.finish()
    return resource


def _resource_url(url: str) -> str:
    try:
        return canonical_audience(canonical_resource(url))
    except ValueError as error:
        raise WorldError(str(error)) from None


def _words(table: Table) -> dict[str, str]:
    words = {scope: table.text(scope) for scope in table.remaining_keys()}
    if not words:
        raise table.error('there are none: write "a.scope" = "What it allows, in words"')
    return words


def _rule(table: Table, scopes: Mapping[str, str]) -> Rule:
    grant = _known(table, table.texts("grant"), scopes)
    along = _known(table, table.texts("along", ()), scopes)
    try:
        rule = Rule.parse(table.text("name"), table.texts("when"), grant, along)
    except PolicyError as error:
        raise table.error(str(error)) from None
    table.finish()
    return rule


def _pattern(table: Table, text: str) -> RedirectPattern:
    try:
        return RedirectPattern(text)
    except ValueError as error:
        raise table.error(f"approved_redirects: {error}") from None


def _lifetimes(table: Table) -> Lifetimes:
    defaults = Lifetimes()
    lifetimes = Lifetimes(
        **{name: table.seconds(name, default) for name, default in vars(defaults).items()}
    )
    table.finish()
    return lifetimes


def _known(table: Table, names: tuple[str, ...], scopes: Mapping[str, str]) -> tuple[str, ...]:
    unknown = [name for name in names if name not in scopes]
    if unknown:
        raise table.error(f"{unknown[0]!r} is not under [scopes]: say there what it allows")
    return names


def _matching(table: Table, key: str, pattern: re.Pattern[str], example: str) -> str:
    value = table.text(key)
    if not pattern.fullmatch(value):
        raise table.error(f'{key} = {value!r} is not one: write {key} = "{example}"')
    return value


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise WorldError(f"there are two of the {what} {value!r}")
        seen.add(value)
