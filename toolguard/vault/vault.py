"""The vault as a connection provider: it gives each caller the tokens of their own accounts."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from toolguard.calls.recording import grant_record
from toolguard.calls.records import GrantVerdict
from toolguard.calls.request import Guard
from toolguard.connections.http import Transport, VaultClient
from toolguard.connections.protocol import Connection, ConnectionRequest
from toolguard.connections.server.provider import ServerConnections
from toolguard.connections.server.source import ServerSource
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRequiredError,
    ConnectionResponseError,
)
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parts.figures import Figure
from toolguard.policies.by_name import HasPolicy
from toolguard.policies.decision import PERMIT, Caller, decide
from toolguard.policies.policy import Policy
from toolguard.principal import Principal
from toolguard.vault.database import Database
from toolguard.vault.grants import Grant, GrantKey, Owner
from toolguard.vault.oauth_client import OAuthClient
from toolguard.vault.providers import OAuthProvider
from toolguard.vault.refreshing import Refresher
from toolguard.vault.seals import Seal, parse_seal
from toolguard.vault.slips import SlipStore
from toolguard.vault.store import GrantStore, KeptGrant

if TYPE_CHECKING:
    from toolguard.vault.sign_in import SignIn

__all__ = ["Connected", "Vault"]


@dataclass(frozen=True)
class Connected:
    """A connection that a person or tenant has.

    Attributes:
        connection: its name.
        account: the name of the account at the service; empty if that does not say.
        scopes: what was granted.
        connected_at: when, in seconds since the epoch.
        used_at: when it was last used, by the hour.
        works: whether it can be used; False if the service has refused to renew it, or the row
            cannot be opened (its key is missing, or it was changed): connect it again.
    """

    connection: str
    account: str
    scopes: tuple[str, ...]
    connected_at: float
    used_at: float
    works: bool


class Vault:
    """A vault for connections that runs in your server.

    Refresh and access tokens are sealed in a database; callers who have not connected an account
    get a link at which only they can::

        vault = Vault(
            "sqlite:///vault.db",
            connections={"github": github(client_id, client_secret)},
            sign_in=OpenIDSignIn(client_id, client_secret),
        )
        ToolGuard(issuer=..., audience=..., connections=vault).protect(mcp)

    A guard caches a connection for at most 60 seconds: so long a tool may still get a token that
    was disconnected or forgotten meanwhile.

    Args:
        database: ``"sqlite:///vault.db"``, or ``"postgresql://user:password@host/database"`` for
            servers on several machines.
        keys: seal every row, 32 bytes each; the first one writes, all of them read. A
            :class:`Seal` of your own may use a key management service. By default the keys in
            ``TOOLGUARD_VAULT_KEYS``.
        connections: the services, by the names that tools use. Users connect accounts at them;
            those of :mod:`toolguard.connections.server` belong to the server instead, and need no
            one to connect them.
        sign_in: how a person who opens a link is recognized: :class:`OpenIDSignIn`, or an async
            function of the request that returns a :class:`Person`, or None, or a response.
        public_url: the origin at which the connect pages are reached; by default that of the
            guard's resource.
        allow: what a caller must meet to get a connection, by its name, whatever the tool
            requires: ``{"github": requires_scopes("code.write")}``.
        tenant_connectors: what a caller must meet to connect an account for the whole tenant, by
            the name of the connection. Without an entry, tenants cannot have it.
        timeout: seconds that a service has to answer, less than 30.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if a setting is missing or invalid.
        TypeError: if a setting has the wrong type.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        database: str,
        *,
        connections: Mapping[str, OAuthProvider | ServerSource],
        keys: Sequence[str | bytes] | Seal | None = None,
        sign_in: SignIn | None = None,
        public_url: str | None = None,
        allow: Mapping[str, HasPolicy] | None = None,
        tenant_connectors: Mapping[str, HasPolicy] | None = None,
        timeout: float = 10.0,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        _check(connections, allow or {}, tenant_connectors or {})
        if sign_in is not None:
            from toolguard.vault.sign_in import check_sign_in  # noqa: PLC0415 - imports starlette

            check_sign_in(sign_in)
        if not 0 < timeout < 30:  # noqa: PLR2004 - the time for which a refresh is claimed
            raise ValueError("write timeout=10.0: seconds, less than 30")
        #: Where all rows are.
        self.database = Database(database)
        #: Seals and opens them.
        self.seal = parse_seal(keys)
        self.store = GrantStore(self.database, self.seal)
        self.slips = SlipStore(self.database, self.seal, clock)
        self.http = VaultClient(timeout=timeout, transport=transport, clock=clock)
        #: The services, by the names of their connections.
        self.clients = {
            name: OAuthClient(name, provider, self.http, clock)
            for name, provider in connections.items()
            if isinstance(provider, OAuthProvider)
        }
        sources = {k: v for k, v in connections.items() if not isinstance(v, OAuthProvider)}
        self._of_server = (
            ServerConnections(sources, timeout=timeout, transport=transport, clock=clock)
            if sources
            else None
        )
        self._fetchers: dict[str, Callable[[ConnectionRequest], Awaitable[Connection]]] = (
            dict.fromkeys(self.clients, self._fetch_of_user)
        )
        if self._of_server is not None:
            self._fetchers |= dict.fromkeys(sources, self._of_server.fetch)
        self.clock = clock
        self.sign_in = sign_in
        #: The issuer of the callers' tokens; the guard names it.
        self.issuer: str | None = None
        self._origin = None if public_url is None else _origin_of(public_url)
        self._allow = dict(allow or {})
        self._tenant_connectors = dict(tenant_connectors or {})
        self._refresher = Refresher(self.store, self.clients, clock, told=self._refreshed)
        self._guard: Guard | None = None

    @property
    def cache_namespace(self) -> str:
        """What the answers depend on beside the request; the same in every process."""
        of_server = self._of_server.identities if self._of_server else {}
        facts = json.dumps([repr(self.database), of_server], sort_keys=True)
        return f"vault {sha256(facts.encode()).hexdigest()}"

    @property
    def connection_names(self) -> frozenset[str]:
        """The names of all connections."""
        return frozenset(self._fetchers)

    @property
    def pages_url(self) -> str | None:
        """The URL of the page with a person's connections; None while the origin is unknown."""
        return None if self._origin is None else f"{self._origin}/connections"

    def bind(self, resource: str, issuer: str | None, guard: Guard | None = None) -> None:
        """Take the origin of the pages and the issuer from the guard; the guard calls this.

        Args:
            resource: the URL of the guarded server.
            issuer: the issuer of the callers' tokens.
            guard: the guard, which gets a record of what happens to grants.
        """
        self._guard = self._guard or guard
        self._origin = self._origin or secure_origin(resource)
        self.issuer = self.issuer or issuer

    async def keep(self, key: GrantKey, grant: Grant, person: Owner) -> None:
        """Keep what a person has connected, instead of what was there.

        Args:
            key: whose grant it is, and for which connection.
            grant: the grant.
            person: the person who connected it.
        """
        await self.store.put(key, grant, self.clock())
        self._record("connected", key, person)

    async def fetch(self, request: ConnectionRequest) -> Connection:
        """Return the connection of this caller, refreshed if it has to be.

        Args:
            request: what the tool needs, and who calls it.

        Raises:
            ConnectionRequiredError: if the account is not connected, or not with these scopes,
                or has to be connected again; with a link for this caller.
            ConnectionDeniedError: if this caller may not use the connection.
            ConnectionRateLimitedError: if the service limits the rate of requests.
            ConnectionUnavailableError: if the service or the database does not answer in time.
            ConnectionResponseError: if there is no such connection, or the service's answer is
                invalid.
        """
        fetch = self._fetchers.get(request.name)
        if fetch is None:
            raise ConnectionResponseError(
                f"The vault has no {request.name}: write connections={{{request.name!r}: ...}}",
                connection=request.name,
            )
        if not await self._meets(self._allow.get(request.name), request.principal):
            raise ConnectionDeniedError(
                f"You may not use {request.name} here", connection=request.name
            )
        return await fetch(request)

    def is_of_server(self, name: str) -> bool:
        """Return whether this connection belongs to the server.

        Args:
            name: the name of the connection.
        """
        return self._of_server is not None and self._of_server.is_of_server(name)

    async def _fetch_of_user(self, request: ConnectionRequest) -> Connection:
        key = GrantKey(_owner(request), request.name)
        try:
            return (await self.grant(key, request.scopes, fresh=request.fresh)).connection
        except ConnectionRequiredError as error:
            refusal = error
        refusal.connect_url = await self._link(key, request)
        raise refusal.with_traceback(None)

    async def warm_up(self) -> None:
        """Open the database, unless it has been opened before; its tables are made if need be.

        Raises:
            ConnectionTokenError: if it cannot be used.
        """
        await self.store.open()

    def figures(self) -> Iterable[Figure]:
        """Return how often services were asked for new tokens."""
        return self._refresher.figures()

    async def list(self, issuer: str, subject: str, *, tenant: bool = False) -> list[Connected]:
        """Return what a person has connected, or what is connected for a tenant.

        Args:
            issuer: the issuer of their access tokens.
            subject: their ``sub``, or the id of the tenant.
            tenant: whether ``subject`` is a tenant.
        """
        owner = _owner_of(issuer, subject, tenant=tenant)
        return [_described(kept) for kept in await self.store.of(owner)]

    async def disconnect(
        self, issuer: str, subject: str, connection: str, *, tenant: bool = False
    ) -> bool:
        """Delete one connection of a person or tenant, and revoke it at the service if that can.

        Args:
            issuer: the issuer of their access tokens.
            subject: their ``sub``, or the id of the tenant.
            connection: the name of the connection.
            tenant: whether ``subject`` is a tenant.

        Returns:
            Whether there was one.
        """
        owner = _owner_of(issuer, subject, tenant=tenant)
        return bool(await self.drop(GrantKey(owner, connection)))

    async def drop(self, key: GrantKey) -> int:
        """Delete a grant, and revoke it at the service if that can; return how many there were.

        Args:
            key: the identity of the grant.
        """
        removed = await self.store.remove(key)
        if removed:
            self._record("disconnected", key)
        await self._revoke(removed)
        return len(removed)

    async def forget(self, issuer: str, subject: str, *, tenant: bool = False) -> int:
        """Delete everything of a person or tenant that leaves; revoke what services can revoke.

        What a person connected for a tenant is the tenant's, and stays.

        Args:
            issuer: the issuer of their access tokens.
            subject: their ``sub``, or the id of the tenant.
            tenant: whether ``subject`` is a tenant.

        Returns:
            The number of connections.
        """
        removed = await self.store.forget(_owner_of(issuer, subject, tenant=tenant))
        for kept in removed:
            if kept is not None:
                self._record("disconnected", kept.key)
        await self._revoke(removed)
        return len(removed)

    async def rotate(self) -> int:
        """Seal all rows with the first key, while the vault serves; return how many changed."""
        return await self.store.reseal()

    async def upgrade(self) -> tuple[int, int]:
        """Move the tables forward; return their version before and after."""
        return await self.database.upgrade()

    async def aclose(self) -> None:
        """Close all connections of the running event loop; a later use opens new ones."""
        await self.http.aclose()
        if self._of_server is not None:
            await self._of_server.aclose()
        await self.database.aclose()

    async def _revoke(self, removed: Sequence[KeptGrant | None]) -> None:
        """Revoke what was deleted: what cannot be opened stays as it is at the service."""
        for kept in removed:
            if kept is not None and kept.key.connection in self.clients:
                await self.clients[kept.key.connection].revoke(kept.grant)

    async def grant(self, key: GrantKey, scopes: Sequence[str] = (), *, fresh: bool) -> Grant:
        """Return a grant whose access token can be used, refreshed if it has to be.

        Args:
            key: whose grant it is, and for which of the services in :attr:`clients`.
            scopes: what the token is needed for.
            fresh: whether an API has just refused the token.

        Raises:
            ConnectionTokenError: if there is no such token; see :meth:`fetch`.
        """
        name, provider = key.connection, self.clients[key.connection].provider
        kept = await self.store.get(key)
        if kept is None:
            raise ConnectionRequiredError.not_connected(name)
        grant = kept.grant
        missing = provider.missing(scopes, grant.scopes)
        if missing:
            raise ConnectionRequiredError.lacking_scopes(name, missing)
        if self._refresher.needs_refresh(grant, refused=fresh):
            grant = await self._refresher.refreshed(kept, refused=fresh)
        if not grant.outlives(self.clock()):
            raise ConnectionRequiredError(
                f"Connect {name} again: {provider.title} does not renew what it gave",
                connection=name,
            )
        await self.store.note_use(kept, self.clock())
        return grant

    async def link(
        self, person: Owner, key: GrantKey, scopes: Sequence[str] = (), *, return_to: str = ""
    ) -> str | None:
        """Return a link at which only this person can connect; None if the vault has no pages.

        Args:
            person: the person.
            key: whose grant it becomes, and for which connection.
            scopes: what to ask for; empty for what the service is usually asked for.
            return_to: a URL on the origin of the pages, to go on to at the end; empty for a page
                that says that the window can be closed.

        Raises:
            ValueError: if ``return_to`` is on another origin.
        """
        if self.pages_url is None or self.sign_in is None:
            return None
        if return_to and secure_origin(return_to) != self._origin:
            raise ValueError(f"return_to={return_to!r}: write a URL on {self._origin}")
        facts = {
            "connection": key.connection,
            "scopes": list(scopes),
            "kind": key.owner.kind,
            "owner": key.owner.id,
            "return_to": return_to,
        }
        ticket = await self.slips.issue("ticket", person, facts)
        return f"{self.pages_url}/link/{ticket}"

    async def _link(self, key: GrantKey, request: ConnectionRequest) -> str | None:
        """Return a link at which only this caller can connect; None if they may not."""
        principal = request.principal
        if not principal.user_id:
            return None
        if key.owner.kind == "tenant":
            needed = self._tenant_connectors.get(request.name)
            if needed is None or not await self._meets(needed, principal):
                return None
        person = Owner(principal.issuer, principal.user_id)
        return await self.link(person, key, request.scopes)

    def _refreshed(self, key: GrantKey) -> None:
        self._record("refreshed", key)

    def _record(self, verdict: GrantVerdict, key: GrantKey, person: Owner | None = None) -> None:
        guard, owner = self._guard, key.owner
        if guard is None or not guard.recorder.wanted():
            return
        is_tenants = owner.kind == "tenant"
        user = person.id if person is not None else None if is_tenants else owner.id
        tenant = owner.id if is_tenants else None
        record = grant_record(
            guard, verdict, key.connection, owner.issuer, user=user, tenant=tenant
        )
        guard.recorder.put([record])

    async def _meets(self, requirement: HasPolicy | None, principal: Principal) -> bool:
        if requirement is None:
            return True
        caller = Caller(principal, frozenset(principal.scopes), self.clock(), outlives_token=True)
        return await decide(requirement.policy, caller) == PERMIT

    def __repr__(self) -> str:
        sources = self._of_server.identities if self._of_server else {}
        of_server = [f"{each} of the server" for each in sources]
        return f"<Vault: {', '.join([*self.clients, *of_server])} in {self.database!r}>"


def _owner(request: ConnectionRequest) -> Owner:
    principal = request.principal
    if request.tenant_id is not None:
        return Owner(principal.issuer, request.tenant_id, "tenant")
    if not principal.user_id:
        raise ConnectionDeniedError(
            f"{request.name} belongs to users, and the token names no user", connection=request.name
        )
    return Owner(principal.issuer, principal.user_id)


def _owner_of(issuer: str, subject: str, *, tenant: bool) -> Owner:
    return Owner(issuer, subject, "tenant" if tenant else "user")


def _described(kept: KeptGrant) -> Connected:
    grant: Grant = kept.grant
    return Connected(
        kept.key.connection,
        grant.account,
        grant.scopes,
        kept.connected_at,
        kept.used_at,
        works=grant.is_usable,
    )


def _origin_of(url: str) -> str:
    origin = secure_origin(url)
    if origin is None or url.rstrip("/") != origin:
        raise ValueError(f'public_url={url!r}: write an origin, "https://mcp.example.com"')
    return origin


def _check(
    connections: Mapping[str, OAuthProvider | ServerSource],
    allow: Mapping[str, HasPolicy],
    tenant_connectors: Mapping[str, HasPolicy],
) -> None:
    if not connections:
        raise ValueError('write connections={"github": github(client_id, client_secret)}')
    for name, provider in connections.items():
        if isinstance(provider, type) or not isinstance(provider, (OAuthProvider, ServerSource)):
            raise TypeError(
                f"{name!r} is not an OAuthProvider: write github(client_id, secret), or a "
                "connection of toolguard.connections.server"
            )
        if not name or "/" in name or not name.isprintable():
            raise ValueError(
                f"{name!r} cannot be part of a URL: name the connection without slashes"
            )
    for name, requirement in (*allow.items(), *tenant_connectors.items()):
        if name not in connections:
            raise ValueError(f"{name!r} is not one of the connections {[*connections]}")
        if not isinstance(getattr(requirement, "policy", None), Policy):
            raise TypeError(f'write {{{name!r}: requires_scopes("...")}}: a guard, as above def')
    for name in tenant_connectors:
        if not isinstance(connections[name], OAuthProvider):
            problem = f"{name!r} belongs to the server: leave it out of tenant_connectors"
            raise ValueError(problem)  # noqa: TRY004 - the setting is wrong, not its type
