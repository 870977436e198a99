"""The configuration of the development servers: users, tenants, clients, policies.

It is read from TOML; ``world.toml`` beside this file is the default. Unknown keys are refused: a
misspelt ``permisions`` would otherwise result in a user without permissions, or a rule without
conditions.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictInt,
    StrictStr,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails

from toolguard.dev.oauth.policies import PolicyError, ScopeRule
from toolguard.dev.oauth.redirects import RedirectPattern
from toolguard.http.metadata import canonical_resource
from toolguard.tokens.issuers import Issuer
from toolguard.tokens.jwt import canonical_audience
from toolguard.tokens.keys import KeySet

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "IdentityProvider",
    "Lifetimes",
    "Machine",
    "ProtectedResource",
    "ProviderStyle",
    "Tenant",
    "User",
    "World",
    "WorldError",
    "builtin_world",
    "load_world",
    "parse_world",
]

ProviderStyle = Literal["okta", "entra"]
"""In which style a tenant's identity provider looks and answers."""

_DOMAIN = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_ARRAYS = {
    "tenants": "tenant",
    "users": "user",
    "resources": "resource",
    "machines": "machine",
    "identity_providers": "identity provider",
    "policies": "policy",
}


class WorldError(ValueError):
    """A world file that cannot be used; the text says where and what to write instead."""


# --- what stands in the file


def _matching(pattern: str, example: str) -> AfterValidator:
    def check(value: str, info: ValidationInfo) -> str:
        if not re.fullmatch(pattern, value):
            key = info.field_name
            raise ValueError(f'{key} = {value!r} is not valid: write {key} = "{example}"')
        return value

    return AfterValidator(check)


def _domain(value: str) -> str:
    if not _DOMAIN.fullmatch(value):
        raise ValueError(f'{value!r} is not a domain: write "example.com", in lower case')
    return value


def _public_key(pem: str) -> str:
    KeySet.from_pem(pem)
    return pem


def _issuer_url(url: str) -> str:
    return Issuer(url).url


def _resource_url(url: str) -> str:
    return canonical_audience(canonical_resource(url))


_ID = r"[A-Za-z0-9._-]{1,100}"
_EMAIL = r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,200}"
_PROJECT_ID = r"P[A-Za-z0-9_-]{1,60}"

_Text: TypeAlias = Annotated[StrictStr, Field(pattern=r"\S")]
_Seconds: TypeAlias = Annotated[StrictInt, Field(ge=1)]


class _WorldTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tenant(_WorldTable):
    """A customer's organization, whose people sign in at its own identity provider.

    Attributes:
        id: names it in tokens and policies.
        name: names it on pages.
        domains: the e-mail domains that belong to it, in lower case.
        provider: the style of its identity provider.
        permissions: which permissions a group of the provider maps to.
    """

    id: Annotated[StrictStr, _matching(_ID, "tenant-a")]
    name: _Text
    domains: tuple[Annotated[StrictStr, AfterValidator(_domain)], ...]
    provider: ProviderStyle
    permissions: dict[str, tuple[_Text, ...]] = {}


class ProtectedResource(_WorldTable):
    """A protected server that tokens may be for.

    Attributes:
        url: its canonical URL: the ``aud`` of its tokens.
        client_id: who it is when it asks here about a token, or exchanges one.
        client_secret: what proves it; None lets the server make one up.
    """

    url: Annotated[StrictStr, AfterValidator(_resource_url)]
    client_id: _Text
    client_secret: _Text | None = Field(default=None, repr=False)


class Machine(_WorldTable):
    """A client without a browser, such as a nightly job or an agent.

    Attributes:
        client_id: its id.
        client_secret: its secret; None if it signs assertions.
        public_key: the public half of its key in PEM, to verify assertions (``private_key_jwt``).
        scopes: the most that it may have.
    """

    client_id: Annotated[StrictStr, _matching(_ID, "nightly-report")]
    client_secret: _Text | None = Field(default=None, repr=False)
    public_key: Annotated[StrictStr, AfterValidator(_public_key)] | None = None
    scopes: tuple[_Text, ...]


class IdentityProvider(_WorldTable):
    """An issuer of identity assertions, which machines bring as grants (ID-JAG).

    Attributes:
        issuer: its ``iss``.
        public_key: the public half of its key, in PEM.
    """

    issuer: Annotated[StrictStr, AfterValidator(_issuer_url)]
    public_key: Annotated[StrictStr, AfterValidator(_public_key)]


class Lifetimes(_WorldTable):
    """How long things are good, in seconds; a refresh token counts from the sign-in."""

    access_token: _Seconds = 300
    refresh_token: _Seconds = 86_400
    code: _Seconds = 60
    sign_in: _Seconds = 600
    session: _Seconds = 3_600


class _UserTable(_WorldTable):
    id: Annotated[StrictStr, _matching(_ID, "alice")]
    email: Annotated[StrictStr, _matching(_EMAIL, "alice@example.com"), AfterValidator(str.lower)]
    name: _Text
    groups: tuple[_Text, ...] = ()


class _PolicyTable(_WorldTable):
    name: _Text
    when: tuple[_Text, ...]
    grant: tuple[_Text, ...]
    along: tuple[_Text, ...] = ()


class _WorldFile(_WorldTable):
    tenants: tuple[Tenant, ...]
    users: tuple[_UserTable, ...]
    resources: tuple[ProtectedResource, ...]
    machines: tuple[Machine, ...] = ()
    identity_providers: tuple[IdentityProvider, ...] = ()
    scopes: dict[str, _Text] = {}
    project_id: Annotated[StrictStr, _matching(_PROJECT_ID, "P2dev")]
    default_scopes: tuple[_Text, ...]
    policies: tuple[_PolicyTable, ...]
    approved_redirects: tuple[_Text, ...]
    connections: dict[str, tuple[_Text, ...]] = {}
    lifetimes: Lifetimes = field(default_factory=Lifetimes)


# --- what it means


@dataclass(frozen=True)
class User:
    """A person; ``groups`` are those the tenant's identity provider knows."""

    id: str
    email: str
    name: str
    tenant_id: str
    groups: tuple[str, ...] = ()


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
        machines: the clients without a browser.
        identity_providers: whose assertions machines may bring.
        connections: the scopes of the accounts that users can connect, by their names.
    """

    project_id: str
    tenants: tuple[Tenant, ...]
    users: tuple[User, ...]
    resources: tuple[ProtectedResource, ...]
    scopes: Mapping[str, str] = field(hash=False)
    default_scopes: tuple[str, ...]
    rules: tuple[ScopeRule, ...]
    approved_redirects: tuple[RedirectPattern, ...]
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    machines: tuple[Machine, ...] = ()
    identity_providers: tuple[IdentityProvider, ...] = ()
    connections: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)

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

    def machine(self, client_id: str) -> Machine | None:
        """Return the machine of that id."""
        return next((each for each in self.machines if each.client_id == client_id), None)

    def resource(self, url: str) -> ProtectedResource | None:
        """Return the resource that ``url`` names, compared as audiences are."""
        wanted = canonical_audience(url)
        return next((item for item in self.resources if item.url == wanted), None)

    def with_resources(self, *urls: str) -> World:
        """Return this world with more servers that tokens may be for.

        Raises:
            WorldError: if one of them is not the URL of a resource.
        """
        resources = {resource.url: resource for resource in self.resources}
        for url in urls:
            try:
                added = ProtectedResource(url=url, client_id=f"server-{len(resources) + 1}")
            except ValidationError as error:
                raise WorldError(_explained(error.errors()[0])) from None
            resources.setdefault(added.url, added)
        world = replace(self, resources=tuple(resources.values()))
        _refuse_repeated("client_id", (resource.client_id for resource in world.resources))
        return world


def builtin_world() -> World:
    """Return the default world."""
    return parse_world(files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8"))


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
    try:
        file = _WorldFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise WorldError(f"not TOML: {error}") from None
    except ValidationError as error:
        raise WorldError(_explained(error.errors()[0])) from None
    _refuse_repetition(file)
    if not file.scopes:
        raise WorldError(
            'no scopes are defined: write "a.scope" = "What it allows, in words" under [scopes]'
        )
    _refuse_unknown(file.default_scopes, file.scopes)
    for machine in file.machines:
        _refuse_unknown(machine.scopes, file.scopes)
        if (machine.client_secret is None) == (machine.public_key is None):
            raise WorldError(
                f"machine {machine.client_id!r}: write either client_secret or public_key"
            )
    return World(
        project_id=file.project_id,
        tenants=file.tenants,
        users=tuple(_user(n, user, file.tenants) for n, user in enumerate(file.users, 1)),
        resources=file.resources,
        scopes=file.scopes,
        default_scopes=file.default_scopes,
        rules=tuple(_rule(n, policy, file.scopes) for n, policy in enumerate(file.policies, 1)),
        approved_redirects=tuple(map(_redirect_pattern, file.approved_redirects)),
        lifetimes=file.lifetimes,
        machines=file.machines,
        identity_providers=file.identity_providers,
        connections=file.connections,
    )


def _user(number: int, table: _UserTable, tenants: Iterable[Tenant]) -> User:
    domain = table.email.rpartition("@")[2]
    tenant = next((tenant for tenant in tenants if domain in tenant.domains), None)
    if tenant is None:
        raise WorldError(f"user {number}: no tenant has the domain {domain!r}")
    return User(table.id, table.email, table.name, tenant.id, table.groups)


def _rule(number: int, table: _PolicyTable, scopes: Mapping[str, str]) -> ScopeRule:
    try:
        _refuse_unknown((*table.grant, *table.along), scopes)
        return ScopeRule.parse(table.name, table.when, table.grant, table.along)
    except (PolicyError, WorldError) as error:
        raise WorldError(f"policy {number}: {error}") from None


def _redirect_pattern(text: str) -> RedirectPattern:
    try:
        return RedirectPattern(text)
    except ValueError as error:
        raise WorldError(f"approved_redirects: {error}") from None


def _refuse_unknown(names: Iterable[str], scopes: Mapping[str, str]) -> None:
    for name in names:
        if name not in scopes:
            raise WorldError(f"{name!r} is not under [scopes]: say there what it allows")


def _refuse_repetition(file: _WorldFile) -> None:
    _refuse_repeated("tenant", (tenant.id for tenant in file.tenants))
    _refuse_repeated("domain", (domain for tenant in file.tenants for domain in tenant.domains))
    _refuse_repeated("user", (user.id for user in file.users))
    _refuse_repeated("e-mail address", (user.email for user in file.users))
    _refuse_repeated("resource", (resource.url for resource in file.resources))
    clients = [*(item.client_id for item in file.resources), *(m.client_id for m in file.machines)]
    _refuse_repeated("client_id", clients)
    _refuse_repeated("issuer", (each.issuer for each in file.identity_providers))


def _refuse_repeated(what: str, values: Iterable[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise WorldError(f"{what} {value!r} is defined twice: remove one of them")
        seen.add(value)


# --- what is wrong with it


_PROBLEMS = {
    "value_error": "{error}",
    "extra_forbidden": "{key} means nothing here",
    "missing": "{key} is missing",
    "literal_error": '{key} is "okta" or "entra"',
    "tuple_type": '{key} is a list of texts: write {key} = ["...", "..."]',
    "dict_type": "{key} is a table: write [{key}]",
    "model_type": "{key} is a table: write [{key}]",
    "int_type": "{key} is a number of seconds: write {key} = 300",
    "greater_than_equal": "{key} is a number of seconds: write {key} = 300",
}
_TEXT = '{key} is a text: write {key} = "..."'


def _explained(error: ErrorDetails) -> str:
    """Return what pydantic found as a sentence that says where, and what to write instead."""
    location = error["loc"]
    section = str(location[0])
    place, keys = [], list(location)
    if section in _ARRAYS:
        if len(location) <= 2:  # noqa: PLR2004 - the array, or one item of it
            return f"there is no {_ARRAYS[section]}: write [[{section}]]"
        place, keys = [f"{_ARRAYS[section]} {int(location[1]) + 1}"], keys[2:]
    *outer, key = (each for each in keys if isinstance(each, str))
    kind = error["type"]
    if isinstance(keys[-1], int) and kind != "value_error":
        kind = "tuple_type"  # an item of a list of texts
    context = {"key": key, **error.get("ctx", {})}
    problem = _PROBLEMS.get(kind, _TEXT).format(**context)
    where = ", ".join([*place, *outer])
    return f"{where}: {problem}" if where else problem
