"""The guard of a server: its verifier, connections and settings."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import anyio
import anyio.to_thread
from typing_extensions import Unpack

from toolguard.calls.message import MessageContext
from toolguard.calls.recorder import OnDecision, Recorder, Records
from toolguard.calls.request import RequestAuth, signed_in
from toolguard.calls.stdio import HOW_TO_SET, StdioToken, TrustedUser
from toolguard.connections.cache import CachedConnections, build_provider
from toolguard.connections.per_issuer import of_issuers
from toolguard.connections.protocol import ConnectionFunction, ConnectionProvider
from toolguard.errors import KeysUnavailableError, ToolGuardError
from toolguard.http import metadata as resources
from toolguard.http.challenge import Challenge, challenge_for, metadata_url
from toolguard.http.door import Door, Refusals
from toolguard.http.event_ids import EventIds
from toolguard.parsing.choice import one_of
from toolguard.parsing.kinds import of_kind
from toolguard.parsing.scope_names import ScopeNames
from toolguard.parts.environment import CACHE_KEYS, MANAGEMENT_KEY, SECRET, VAULT_KEYS, withhold
from toolguard.parts.figures import figures_of
from toolguard.parts.lifecycle import close
from toolguard.parts.readiness import Readiness, warmed_up
from toolguard.policies.by_name import HasPolicy, PoliciesByName
from toolguard.policies.operations import CALLS
from toolguard.policies.policy import DefaultPolicy, Policy
from toolguard.policies.requirements import Check
from toolguard.policies.scopes import ScopeHierarchy
from toolguard.principal import Principal
from toolguard.settings import (
    GuardSettings,
    check_kinds,
    dpop_modes,
    framework_verifier,
    from_environment,
    parse_audiences,
    parse_open_routes,
    resolve_resource,
    sent_arguments,
    trusted_user,
    verifier_of,
)
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.proofs import DPoP, Mode
from toolguard.tokens.proofs.presented import verified
from toolguard.tokens.verifier import Verifier, dpop_of, scope_names_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import Route
    from starlette.types import ASGIApp

    from toolguard.approvals import Approvals
    from toolguard.frameworks import Adapter
    from toolguard.frameworks.apps import OtherPaths
    from toolguard.tokens.proofs.possession import Possession
    from toolguard.vault.vault import Vault

__all__ = ["ToolGuard"]

ServerT = TypeVar("ServerT")

_REFUSALS = Refusals()

_log = logging.getLogger("toolguard")
_DRAINED_EVERY = 0.02
_DEFAULTS: tuple[DefaultPolicy, ...] = ("authenticated", "deny", "public")

_over_stdio: ContextVar[bool] = ContextVar("toolguard_over_stdio", default=False)


class ToolGuard:
    """The guard of a server: its verifier, connections and settings.

    Construct it with the issuer and the audience of the access tokens, and call :meth:`protect`.
    Every setting is checked in the constructor, when your module is imported.

    Args:
        issuer: the authorization server's issuer URL; its keys are discovered (RFC 8414, OpenID).
            Or one :class:`~toolguard.tokens.issuers.Issuer`.
        issuers: several authorization servers, described; a token is held against exactly the one
            that its ``iss`` names. Clients are told of all of them. Connections belong to the
            users of the first one, and of those with ``shares_connections=True``.
        well_known_url: the URL of its metadata document, instead of ``issuer``.
        verifier: your own verifier, instead of both; ``issuer`` is then only published.
            ``"framework"`` accepts the verification of the server's own auth for this request
            (``FastMCP(auth=...)``, ``MCPServer(token_verifier=...)``).
        audience: the ``aud`` of accepted tokens: normally this server's URL. Your own
            ``verifier`` checks it itself; then it only determines the resource.
        resource: this server's URL, if no audience is one (RFC 9728 ``resource``).
        connections: the provider of third-party tokens, or an async function. A connection is
            cached for the same caller with the same token for at most 60 seconds; for another
            time, pass a :class:`~toolguard.connections.CachedConnections`.
        scope_hierarchy: the scopes that a scope includes: ``{"a.write": ["a.read"]}``.
        default: the policy of an operation without a guard: ``"authenticated"``, ``"deny"``, or
            ``"public"``, which is logged.
        refusals: :class:`~toolguard.Refusals`: the scopes that clients are told to request first,
            what lists omit, how refusals are answered over HTTP, and how background tasks whose
            token expires are treated.
        on_decision: gets a :class:`~toolguard.telemetry.DecisionRecord` of each decision, beside
            the calls: a function, a coroutine function, or :class:`~toolguard.telemetry.Records`
            for further settings.
        stdio: ``"token"``: the caller over stdio is the subject of the token in
            ``TOOLGUARD_ACCESS_TOKEN``, or in the file ``TOOLGUARD_ACCESS_TOKEN_FILE``, which is
            read again when it changes. ``TrustedUser("ada")``: the caller is that user, with every
            scope; this is logged.
        secret: the key that seals the ids of events, from which a client resumes a stream: at
            least 16 bytes, the same for all replicas; by default the environment variable
            ``TOOLGUARD_SECRET``, or else a random secret for this process.
        dpop: whether tokens that are bound to a key of their client (RFC 9449) are accepted over
            HTTP: ``"off"``, ``"optional"``: beside bearer tokens, ``"required"``: no others; or
            :class:`~toolguard.tokens.proofs.DPoP` for further settings. ``Issuer(dpop=)`` says it
            for one issuer. As a bearer token, a bound token is always refused.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if a required setting is missing, or a setting is invalid.
    """

    def __init__(  # noqa: PLR0913 - the settings of a server, all by keyword
        self,
        *,
        issuer: str | Issuer | None = None,
        issuers: Sequence[Issuer] | None = None,
        well_known_url: str | None = None,
        verifier: Verifier | Literal["framework"] | None = None,
        audience: str | Sequence[str] | None = None,
        resource: str | None = None,
        connections: ConnectionProvider | ConnectionFunction | None = None,
        scope_hierarchy: ScopeHierarchy | Mapping[str, Iterable[str]] | None = None,
        default: DefaultPolicy = "authenticated",
        refusals: Refusals = _REFUSALS,
        stdio: Literal["token"] | TrustedUser = "token",
        on_decision: Records | OnDecision | None = None,
        secret: str | bytes | None = None,
        dpop: Mode | DPoP = "off",
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_kinds(refusals, clock)
        audiences = parse_audiences(audience)
        self.resource = resolve_resource(resource, audiences)
        #: Whether the guard verifies tokens itself, instead of the framework.
        self.verifies_itself = verifier != "framework"
        if verifier == "framework":
            verifier = framework_verifier((*audiences, self.resource), clock)
        self._issuer, self.verifier = verifier_of(
            issuer, well_known_url, verifier, audiences, clock, issuers=issuers
        )
        self._audiences = audiences
        provider = build_provider(connections, clock)
        self._vault = _vault_in(provider)
        self.connections = of_issuers(provider, self.verifier)
        self.scope_hierarchy = ScopeHierarchy.of(scope_hierarchy)
        #: The state that all middlewares of this guard share.
        self.door = Door(refusals, EventIds(secret))
        self.default = one_of("default", default, _DEFAULTS)
        self.unauthorized_tools = refusals.unauthorized_tools
        #: The queue of decision records.
        self.recorder = Recorder(
            Records.of(on_decision),
            self.door.event_ids.pseudonyms,
            lambda: figures_of(self.verifier, self.connections),
        )
        #: The messages that are being served.
        self.running: set[MessageContext] = set()
        self.apps: list[object] = []
        self.clock = clock
        self._dpop = DPoP.of(dpop)
        #: Checks the proofs of bound tokens; None if no bound tokens are accepted.
        self.possession: Possession | None = None
        self._accept_bound()
        self.leeway: float = getattr(self.verifier, "leeway", 0.0)
        if self._vault is not None:
            self._vault.bind(self.resource, self.issuer, self)
        #: Asks people to approve calls; None if nothing does.
        self.approvals = _approvals_of(self._vault)
        if self.approvals is not None:
            self.approvals.bind(self.resource, self.issuer, self)
        self._trusted = trusted_user(stdio)
        self._stdio_token: StdioToken | None = None
        self._adapters: list[Adapter] = []
        self._rules: list[PoliciesByName] = []
        self._known: _Surface | None = None
        self._readiness = Readiness()
        self._metadata_url = metadata_url(self.resource)

    @classmethod
    def from_env(
        cls, environ: Mapping[str, str] = os.environ, **settings: Unpack[GuardSettings]
    ) -> ToolGuard:
        """Return a guard configured by the environment.

        ============================== ========================================================
        ``DESCOPE_MCP_WELL_KNOWN_URL`` Descope's metadata URL: issuer, keys and connections
        ``DESCOPE_MANAGEMENT_KEY``     used for connections if the caller has no token; removed
                                       from ``os.environ``
        ``TOOLGUARD_ISSUER``           issuer URLs of other authorization servers, or presets
                                       of :mod:`toolguard.tokens.issuers` with their argument:
                                       ``auth0:acme.eu.auth0.com``; separated by blanks
        ``TOOLGUARD_CLIENT_ID``        client ids, for presets that need them (Entra, Cognito)
        ``TOOLGUARD_LEEWAY``           seconds by which their clocks may differ, 0 to 300
        ``TOOLGUARD_TOKEN_TYPES``      the ``typ`` headers to accept, such as ``at+jwt``
        ``MCP_SERVER_URL``             this server's URL: the audience and the resource
        ``TOOLGUARD_AUDIENCE``         the audiences, if they are not that URL
        ``TOOLGUARD_VAULT``            the TOML file of a vault of your own, for connections
        ``TOOLGUARD_RECORDS``          a file to which decision records are appended, as lines
                                       of JSON, beside ``on_decision``
        ============================== ========================================================

        ``TOOLGUARD_PERMISSIONS_ARE_SCOPES=true`` counts the ``permissions`` claim as scopes.
        ``TOOLGUARD_INSECURE_ORIGINS`` names origins that may be asked by plain http, in a network
        of containers: ``http://keycloak:8080``.

        Args:
            environ: the environment variables.
            settings: further settings of the guard, and settings that replace a variable.

        Raises:
            ValueError: naming the variable that is missing or wrong, or if a setting is invalid.
            TypeError: if a setting has the wrong type.
        """
        of_kind("environ", environ, Mapping, "ToolGuard.from_env(issuer=...): settings have names")
        return cls(**from_environment(environ, settings))

    def protect(
        self,
        server: ServerT,
        *,
        rules: Mapping[str, HasPolicy] | None = None,
        sent_by_client: Mapping[str, Collection[str]] | None = None,
        open_routes: Collection[str] = (),
        approvals: Approvals | None = None,
    ) -> ServerT:
        """Guard a server of the official SDK (1.x, 2.x) or of fastmcp (3.x, 4.x), in place.

        Its own ``run()``, and every app it builds from now on, are guarded. For a low-level
        ``mcp.server.Server`` all handlers are guarded; its operations are known by name only, so
        a tool that is neither in its own list nor named by a rule is refused as unknown. Use
        :meth:`protect_app` for the application around it, and
        :func:`toolguard.current_principal` in its handlers.

        Args:
            server: the server.
            rules: guards by name, for operations whose code is not yours: ``{"delete_*":
                requires_scopes("admin"), "resource:file://*": ..., "prompt:*": ..., "*":
                requires_auth}``. A pattern without a kind names tools; ``"*"`` alone is every
                operation, and on fastmcp ``"tag:admin"`` every one with that tag. All rules that
                match apply, and so do the decorators. A rule that matches no operation is logged
                when the server starts.
            sent_by_client: for functions that you cannot edit and that have no decorator: the
                arguments of an operation that the client sends, although their names are those
                of injected parameters: ``{"whoami": ["user_id"]}``.
            open_routes: the paths of those routes of ``@server.custom_route(...)`` that are open
                on purpose: ``["/health"]``. Custom routes are not guarded; ``toolguard audit
                --check`` fails for each one that is not listed here. A path without a route fails
                when the server starts.
            approvals: asks people to approve calls, for tools with ``@requires_approval``; by
                default that is done with the vault in ``connections``, if it has ``sign_in=``.

        Raises:
            TypeError: if ``server`` is not one of these servers, or an argument is a string where
                a list is expected.
            ValueError: if the server is already protected, has its own auth beside the guard's
                (write ``verifier="framework"`` to use that), has a function that was registered
                below its guard (the decorators are in the wrong order), one that uses a connection
                although there is no provider, or an unguarded one with a parameter that only a
                guard may fill.
        """
        from toolguard.frameworks import adapter_for  # noqa: PLC0415 - imports a framework
        from toolguard.frameworks.framework_auth import check_auth  # noqa: PLC0415 - the same

        adapter = adapter_for(server)
        check_auth(server, self)
        sent = sent_arguments(sent_by_client or {})
        if approvals is not None:
            approvals.bind(self.resource, self.issuer, self)
            self.approvals = approvals
        pages = self._pages_for(server)
        adapter.claim(
            self,
            PoliciesByName(rules or {}),
            sent_by_client=sent,
            open_routes=(*parse_open_routes(open_routes), *(page.path for page in pages)),
        )
        route: Any = getattr(server, "custom_route", None)
        for page in pages:
            route(page.path, methods=[*(page.methods or ())])(page.endpoint)
        self._adapters.append(adapter)
        adapter.install(self)
        declared = (*self.scopes_supported, *(self.door.refusals.initial_scopes or ()))
        for names in self._scope_names:
            names.check((*declared, *self.scope_hierarchy.names))
        if self.default == "public":
            _log.warning("operations without a guard are public on %r", server)
        return server

    def _pages_for(self, server: object) -> Sequence[Route]:
        """Return the pages for people that ``server`` has to serve."""
        vault, approvals = self._vault, self.approvals
        if not hasattr(server, "custom_route"):
            return ()
        pages: list[Route] = []
        if vault is not None and vault.sign_in is not None:
            from toolguard.vault.connecting import connect_routes  # noqa: PLC0415 - starlette

            pages += connect_routes(vault)
        if approvals is not None:
            from toolguard.approvals.pages import approval_routes  # noqa: PLC0415 - starlette

            served = {page.path for page in pages}
            pages += [page for page in approval_routes(approvals) if page.path not in served]
        return pages

    def asgi(
        self,
        app: ASGIApp,
        *,
        rules: Mapping[str, HasPolicy] | None = None,
        path: str | None = None,
        others: OtherPaths | None = None,
        forward_token: bool = False,
    ) -> ASGIApp:
        """Return ``app`` behind this guard; every path and method of it needs a valid token.

        The protected resource metadata (RFC 9728) is served beside it. The guard answers CORS
        preflights without granting anything: wrap the returned application in a CORS middleware.

        Args:
            app: any ASGI application, such as a proxy to an MCP server in another language.
            rules: guards by name, as for :meth:`protect`, for an MCP server. Its messages are
                then read from request bodies of at most 4 MiB before the server gets them;
                ambiguous ones are refused. A public rule admits callers without a token to that
                operation only.
            path: with rules, the path of the server's endpoint; ``"/mcp"`` by default.
            others: with rules, how to treat other paths: ``"refuse"``, the default, answers 404;
                ``"authenticated"`` admits every valid token.
            forward_token: whether the application gets the caller's ``Authorization`` header.

        Raises:
            ValueError: for an invalid path, for ``path`` or ``others`` without rules, and for
                rules by tags, which messages do not contain.
        """
        from toolguard.frameworks.apps import (  # noqa: PLC0415 - imports starlette
            guarded_app,
            guarded_server,
        )

        if not callable(app):
            raise TypeError(f"guard.asgi() takes an ASGI application, not {type(app).__name__}")
        if rules is None:
            if path is not None or others is not None:
                raise ValueError(
                    "path= and others= need rules=: without rules, all paths are guarded alike"
                )
            return guarded_app(app, self, forward_token=forward_token)
        known = PoliciesByName(rules)
        if known.uses_tags:
            raise ValueError("messages do not carry tags: write rules by name for asgi()")
        door = guarded_server(
            app,
            self,
            known,
            path="/mcp" if path is None else path,
            others=one_of("others", others or "refuse", ("refuse", "authenticated")),
            forward_token=forward_token,
        )
        self._rules.append(known)
        return door

    def protect_app(self, app: Starlette, server: object, *, paths: Sequence[str]) -> Starlette:
        """Guard the endpoints at which ``app`` serves a protected low-level server, in place.

        For applications that you build yourself: around ``mcp.server.Server`` with mcp 1, and
        with either line for SSE. Requests without a token are admitted if the server has a public
        operation. The protected resource metadata (RFC 9728) is served beside the endpoints; other
        routes are not changed::

            manager = StreamableHTTPSessionManager(app=server)
            app = Starlette(
                routes=[Mount("/mcp", app=manager.handle_request)],
                lifespan=lambda _: manager.run(),
            )
            guard.protect(server)
            guard.protect_app(app, server, paths=["/mcp"])

        Over stdio, write ``with guard.serving_stdio():`` around the transport instead.

        Args:
            app: the application.
            server: the server, after :meth:`protect`.
            paths: the paths of all its endpoints: ``["/mcp"]``, or ``["/sse", "/messages/"]``.

        Raises:
            ValueError: if this guard does not protect the server.
            RuntimeError: if there is no route at one of the paths.
        """
        from toolguard.frameworks import adapter_for  # noqa: PLC0415 - imports a framework
        from toolguard.frameworks.apps import guard_endpoints  # noqa: PLC0415 - imports starlette

        adapter = adapter_for(server)
        if adapter.guard is not self:
            raise ValueError("write guard.protect(server) before guard.protect_app(app, server)")
        guard_endpoints(app, self, paths, adapter)
        return app

    @contextmanager
    def adopting(self, *, rules: Mapping[str, HasPolicy] | None = None) -> Iterator[None]:
        """Protect every low-level server that starts to run inside the ``with`` block, over stdio.

        For servers that are created inside a function, such as the official reference servers; use
        it at the start of a process::

            with guard.adopting(rules={"*": requires_scopes("time.read")}):
                asyncio.run(mcp_server_time.server.serve())

        Args:
            rules: guards by name, as for :meth:`protect`.
        """
        from toolguard.frameworks.lowlevel import adopting  # noqa: PLC0415 - imports a framework

        with adopting(self, rules):
            yield

    @property
    def issuer(self) -> str | None:
        """The authorization server whose tokens are accepted; None if only a verifier knows."""
        return getattr(self.verifier, "issuer", None) or self._issuer

    @property
    def issuers(self) -> tuple[str, ...]:
        """The authorization servers that clients are told of (RFC 9728)."""
        published: tuple[str, ...] = getattr(self.verifier, "published", ())
        return published or ((self.issuer,) if self.issuer else ())

    def add_issuer(self, issuer: Issuer) -> None:
        """Trust the tokens of one more authorization server from now on; also while serving.

        Args:
            issuer: the description, for instance of a tenant that has just signed up.

        Raises:
            ValueError: if a trusted issuer claims the same tokens, or the guard was not given
                ``issuer=`` or ``issuers=``.
        """
        from toolguard.tokens.trust import with_issuer  # noqa: PLC0415 - imports cryptography

        verifier = with_issuer(self.verifier, issuer, self._audiences, self.clock)
        # First: no principal of the new issuer may use connections of the others' users.
        self.connections = of_issuers(self.connections, verifier)
        self.leeway = verifier.leeway
        self.verifier = verifier
        self._accept_bound()

    def dpop_mode(self, issuer: str) -> Mode:
        """Return whether bound tokens of an issuer are accepted, or only those.

        Args:
            issuer: the issuer of a verified token.
        """
        return dpop_of(self.verifier, issuer) or self._dpop.mode

    def _accept_bound(self) -> None:
        """Check proofs from now on if some issuer may bind its tokens to a key."""
        modes = dpop_modes(self._dpop, self.verifier)
        #: Whether some issuer has bearer tokens that are accepted.
        self.offers_bearer = modes != {"required"}
        if modes != {"off"} and self.possession is None:
            from toolguard.tokens.proofs.possession import (  # noqa: PLC0415 - imports cryptography
                Possession,
            )

            secret = self.door.event_ids.nonces
            self.possession = Possession(self._dpop, self.resource, secret, self.clock)

    @property
    def _proof_algorithms(self) -> tuple[str, ...]:
        """The algorithms of DPoP proofs; empty if no bound tokens are accepted."""
        return () if self.possession is None else tuple(self._dpop.algorithms)

    async def discover(self) -> bool:
        """Fetch what clients are told of the issuer, if only its metadata has it.

        Returns:
            Whether :meth:`metadata` is complete.
        """
        ask = getattr(self.verifier, "discover", None)
        try:
            if ask is not None:
                await ask()
        except KeysUnavailableError:
            return False
        return True

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The declared policies of the protected servers' operations, in their order."""
        return self._surface().policies

    @property
    def admits_anonymous(self) -> bool:
        """Whether some operation is public, so that requests without a token are admitted."""
        return self.default == "public" or self._surface().has_public

    @property
    def scopes_supported(self) -> tuple[str, ...]:
        """Every scope in the policies of the operations (RFC 9728 §2)."""
        return self._surface().scopes_supported

    @property
    def initial_scopes(self) -> tuple[str, ...]:
        """The scopes that a client without a token is told to request."""
        stated = self.door.refusals.initial_scopes
        if stated is not None:
            return tuple(stated)
        surface = self._surface()
        is_hidden = self.unauthorized_tools == "hide-all" and surface.serves_without_scopes
        return () if is_hidden else surface.first_scopes

    def _surface(self) -> _Surface:
        """Return a summary of the operations' policies, computed once for each set of them."""
        revision = (len(self._rules), *(adapter.revision() for adapter in self._adapters))
        if self._known is None or self._known.revision != revision:
            adapters = (policy for each in self._adapters for policy in each.policies())
            policies = (*adapters, *(policy for each in self._rules for policy in each.policies))
            self._known = _Surface(
                revision,
                policies,
                has_public=any(policy.public for policy in policies),
                serves_without_scopes=self._serves_without_scopes(),
                scopes_supported=resources.scopes_supported(p.formula for p in policies),
                first_scopes=resources.first_scopes(
                    (p.formula for p in policies), self.scope_hierarchy
                ),
            )
        return self._known

    def _serves_without_scopes(self) -> bool:
        """Return whether a caller without any scope may do something."""
        if self._rules and self.default != "deny":
            return True
        ruled = [policy for each in self._rules for policy in each.policies]
        return any(not policy.first_scopes for policy in ruled) or any(
            adapter.serves_without_scopes for adapter in self._adapters
        )

    @property
    def _engines(self) -> Sequence[object]:
        """The checks that answer lists, which may keep clients and need something first."""
        asked = (each for policy in self._surface().policies for each in policy.requirements)
        checks = (each for each in asked if isinstance(each, Check) and each.answers_lists)
        return list(dict.fromkeys(each.function for each in checks))

    @property
    def _scope_names(self) -> list[ScopeNames]:
        """How scopes are called at each issuer."""
        issuers = getattr(self.verifier, "verifiers", (self.verifier,))
        return [scope_names_of(each, None) for each in issuers]

    @property
    def metadata_url(self) -> str:
        """The URL of this server's protected resource metadata (RFC 9728)."""
        return self._metadata_url

    def metadata(self) -> dict[str, Any]:
        """Return the protected resource metadata of this server (RFC 9728 §2)."""
        hides_all = self.unauthorized_tools == "hide-all"
        known = self.initial_scopes if hides_all else self.scopes_supported
        scopes = dict.fromkeys(
            scope
            for names in self._scope_names
            for scope in (*names.always, *map(names.requested, known))
        )
        return resources.protected_resource_metadata(
            self.resource,
            self.issuers,
            [*scopes],
            proof_algorithms=self._proof_algorithms,
            bound_only=not self.offers_bearer,
        )

    def metadata_route(self) -> Route:
        """Return the route of that document, for the root of an application around the server's.

        RFC 9728 §3.1 places it at the root of the host, which a mounted application cannot serve::

            app = Starlette(routes=[Mount("/notes", app=notes), guard.metadata_route()])
        """
        from toolguard.frameworks.apps import metadata_route  # noqa: PLC0415 - imports starlette

        return metadata_route(self)

    def challenge(self, refusal: ToolGuardError, revision: str | None = None) -> Challenge | None:
        """Return the challenge for ``refusal``; None if it has none.

        Args:
            refusal: the refusal of the call.
            revision: the client's protocol revision; None if it is not known.
        """
        # By the names by which a client asks the first issuer for them.
        initial = self.initial_scopes if refusal.status == 401 else ()  # noqa: PLR2004
        names = scope_names_of(self.verifier, None)
        return challenge_for(
            refusal,
            resource_metadata=self._metadata_url,
            default_scope=tuple(map(names.requested, initial)),
            always=names.always,
            scopes=self.door.refusals.scopes_for(revision),
            algs=self._proof_algorithms,
            offers_bearer=self.offers_bearer,
        )

    @contextmanager
    def serving_stdio(self) -> Iterator[None]:
        """Serve messages that come from this process's standard input.

        Secrets are removed from the environment, so that neither libraries nor child processes
        can read them there.

        Raises:
            ValueError: if the environment names both a token and a file with a token.
        """
        if self._trusted is not None:
            _log.warning("stdio is trusted: every call is made as %r", self._trusted.user_id)
        self._stdio_token = StdioToken.taken_from(os.environ) or self._stdio_token
        withhold(MANAGEMENT_KEY, CACHE_KEYS, SECRET, VAULT_KEYS)
        if self._trusted is None and self._stdio_token is None:
            _log.warning("only public operations can be used: %s", HOW_TO_SET)
        # A caller signed in by the code that starts the server does not send its messages.
        over_stdio, caller = _over_stdio.set(True), signed_in.set(None)
        try:
            yield
        finally:
            _over_stdio.reset(over_stdio)
            signed_in.reset(caller)

    async def stdio_auth(self) -> RequestAuth | None:
        """Return the caller of a message that came without an HTTP request; None if unknown."""
        if not _over_stdio.get():
            return None
        if self._trusted is not None:
            principal = Principal(
                self._trusted.user_id, "stdio", scopes=self.scopes_supported, expires_at=math.inf
            )
            return RequestAuth(None, principal, self, transport="stdio")
        if self._stdio_token is None:
            return RequestAuth(None, None, self, on_missing=HOW_TO_SET, transport="stdio")
        token = ""
        try:
            token = self._stdio_token.read()
            principal = await verified(self, token, bound=False)  # no proof comes over stdio
            return RequestAuth(token, principal, self, transport="stdio")
        except ToolGuardError as failure:
            # No client sent the token: public operations stay permitted.
            reason = self._stdio_token.explain(failure)
            return RequestAuth(
                None, None, self, failure=reason, opens_public=True, transport="stdio"
            )
        finally:
            del token  # the traceback of a failure is kept, and shows local variables

    async def warm_up(self) -> None:
        """Fetch what the first call would wait for: the issuer's metadata and keys, and so on.

        Call it when the server starts. A failure is logged and does not stop the server: the
        first call, and each call of :meth:`ready`, tries again.
        """
        await self.ready()

    async def ready(self) -> Readiness:
        """Return whether calls can be served now, and what is missing.

        What is missing is fetched first; nothing is fetched while all is there. Custom verifiers
        and connection providers take part by a coroutine method ``warm_up()`` that raises.
        """
        parts: dict[str, object] = {"keys": self.verifier, "connections": self.connections}
        parts.update({repr(engine): engine for engine in self._engines})
        self._readiness = await warmed_up(parts, self._readiness)
        return self._readiness

    async def aclose(self, *, grace: float = 10.0) -> None:
        """Let running calls end, hand out all records, and close the clients of this event loop.

        Those are the HTTP clients of the verifier, of the connection provider, of approvals and of
        engines. The last app of a protected server that ends in an event loop calls this; what is
        used again afterwards opens new clients.

        Args:
            grace: the maximum number of seconds to wait for running calls.
        """
        with anyio.move_on_after(grace):
            while any(each.method in CALLS for each in tuple(self.running)):  # noqa: ASYNC110 - of any loop
                await anyio.sleep(_DRAINED_EVERY)
        await anyio.to_thread.run_sync(self.recorder.close)
        parts = self.verifier, self.connections, self.approvals, self._dpop.replays
        await close(*parts, *self._engines)

    def __repr__(self) -> str:
        return f"<ToolGuard: {self.resource} trusts {', '.join(self.issuers) or None}>"


def _vault_in(provider: ConnectionProvider | None) -> Vault | None:
    """Return the vault that a guard takes connections from; None for every other provider."""
    found = provider.provider if isinstance(provider, CachedConnections) else provider
    # Without importing it: a guard without a vault has no SQLAlchemy.
    return cast("Vault", found) if hasattr(found, "pages_url") else None


def _approvals_of(vault: Vault | None) -> Approvals | None:
    """Return the approvals in the database of a vault; None if it has no pages."""
    if vault is None or vault.sign_in is None:
        return None
    from toolguard.approvals import Approvals  # noqa: PLC0415 - imports SQLAlchemy, as the vault

    return Approvals.of_vault(vault)


@dataclass(frozen=True)
class _Surface:
    """A summary of the policies of all operations."""

    revision: tuple[object, ...]
    policies: tuple[Policy, ...]
    has_public: bool
    serves_without_scopes: bool
    scopes_supported: tuple[str, ...]
    first_scopes: tuple[str, ...]
