"""The base class of the framework adapters: their interface, and what they have in common."""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from toolguard.calls.message import Frame
from toolguard.connections.protocol import names_of
from toolguard.decorators.injection import sent_by_clients, unwrapped
from toolguard.decorators.wrapper import BARE, GuardDecorator, bare_policy
from toolguard.errors import (
    ApprovalRequiredError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    InvalidInputError,
    MalformedMessageError,
    ToolGuardError,
)
from toolguard.frameworks import internals
from toolguard.frameworks.custom_routes import check_open_routes
from toolguard.frameworks.lists import Lists
from toolguard.frameworks.operation import Catalog, Operation, Resolved, Revision
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.combined import combine_policies
from toolguard.policies.operations import Kind
from toolguard.policies.policy import DEFAULT_POLICIES, Policy

if TYPE_CHECKING:
    from starlette.applications import Starlette


__all__ = [
    "PROTECTED",
    "REFUSED",
    "Adapter",
    "Operation",
    "can_open_urls",
    "challenge_meta",
    "check_declaration",
    "code_of",
    "page_to_open",
]

_log = logging.getLogger("toolguard")

PROTECTED = "__toolguard_protected__"
"""The attribute of a protected server that holds its adapter."""

REFUSED = -32003
"""The JSON-RPC code of a refusal, which no client treats specially."""
_INVALID_PARAMS = -32602

# More than any server has; results beyond this number are not cached.
_MAX_RESOLVED = 20_000


class Adapter(ABC):
    """One server of one framework line."""

    #: Whether the framework has no look-up to hook into, so that decisions are made by name.
    decides_by_name = False
    #: Whether operations of this framework have tags.
    has_tags = False

    def __init__(self, server: Any) -> None:
        self.server = server
        #: The guard that protects the server; None if the server is not protected.
        self.guard: ServerGuard | None = None
        #: The policies by patterns of operation names.
        self.rules = PoliciesByName({})
        #: Tool -> its parameters that look like injected ones but are sent by clients.
        self.sent_by_client: Mapping[str, Collection[str]] = {}
        #: The paths of custom routes that are declared to be open.
        self.open_routes: Collection[str] = ()
        #: The scopes in the policies that were resolved so far.
        self.scopes_named: set[str] = set()
        self._lists = Lists(self)
        self._catalog: tuple[Revision, Catalog] | None = None
        self._public: tuple[Revision, bool] | None = None
        self._checked: Revision | None = None
        self._resolved: dict[tuple[object, ...], Resolved] = {}

    @abstractmethod
    def operations(self) -> Iterator[Operation]:
        """Yield the server's operations, in the order of their registration."""

    @abstractmethod
    def revision(self) -> Revision:
        """Return a value that changes with the registered operations."""

    @abstractmethod
    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``, as ``meta`` asks for it."""

    def find_early(self, name: str) -> Operation | None:
        """Return the tool that the framework will run when a client sends ``name``.

        None if that is certain only where the framework finds it, as everywhere by default.
        """
        del name
        return None

    async def find_completed(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that a completion is for.

        A completion names a template by its text, which may also be a URI of another template.
        """
        return await self.find(kind, name, meta)

    @property
    @abstractmethod
    def error_types(self) -> tuple[type[Exception], ...]:
        """The exception classes that the framework wraps around exceptions of a function."""

    @abstractmethod
    def install(self, guard: ServerGuard) -> None:
        """Install ``guard`` around every message, and every app and transport of the server."""

    @abstractmethod
    def refusal_error(self, refusal: ToolGuardError, *, nested: bool) -> BaseException:
        """Return the exception that carries ``refusal`` through the framework.

        Args:
            refusal: the refusal.
            nested: whether code of the user's called the operation, and may catch the exception.
        """

    @abstractmethod
    def unknown(self, kind: Kind, name: str) -> Exception:
        """Return the framework's own error for an unknown operation."""

    @abstractmethod
    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp``, for tests.

        Args:
            json_response: whether it answers with JSON; else with a stream of events, which
                includes notifications.
        """

    async def is_foreign_task(self, door: Frame, params: Mapping[str, Any]) -> bool:
        """Return whether a message names a background task that is not its caller's.

        Args:
            door: the message.
            params: its parameters.
        """
        del door, params
        return False  # the framework has no tasks, or its adapter checks them itself

    def is_intact(self) -> bool:
        """Return whether the hooks of :meth:`install` are still in place. Cheap."""
        return True

    @property
    def required_guard(self) -> ServerGuard:
        """The guard that protects the server.

        Raises:
            GuardNotConfiguredError: if the server is not protected.
        """
        if self.guard is None:
            raise GuardNotConfiguredError("No guard protects this server")
        return self.guard

    def catalog(self) -> Catalog:
        """Return the operations by the names that clients use."""
        revision = self.revision()
        if self._catalog is None or self._catalog[0] != revision:
            self._catalog = (revision, self.build_catalog())
        return self._catalog[1]

    def survey(self) -> Catalog:
        """Return the catalog while no message is processed, asking list handlers if necessary."""
        return self.catalog()

    def build_catalog(self) -> Catalog:
        """Return the current catalog."""
        return Catalog(tuple(self.operations()))

    # --- the policy of an operation

    def resolve(self, operation: Operation) -> Resolved:
        """Return an operation with its whole policy, computed once for its function and names."""
        function = operation.function
        kind, names = operation.kind, (operation.name, operation.other_names)
        outer = (*map(id, operation.in_front), operation.renames, *operation.reused)
        key = (kind, names, operation.tags, id(function), outer)
        known = self._resolved.get(key)
        is_same = known is not None and known.operation.function is function
        # A function may have been guarded after it was registered.
        if known is not None and is_same and getattr(function, BARE, None) is None:
            return known
        resolved = Resolved(operation)
        try:
            sent = {each for name in operation.names for each in self.sent_by_client.get(name, ())}
            check_declaration(operation, self.guard, sent)
            resolved.policy = self._combine(resolved, None, self._default)
            if resolved.policy is not None and resolved.policy.formula is not None:
                self.scopes_named.update(resolved.policy.formula.scopes)
        except ValueError as error:
            resolved.fault = str(error)
        if len(self._resolved) >= _MAX_RESOLVED:
            self._resolved.clear()
        self._resolved[key] = resolved
        return resolved

    def policy_for(self, resolved: Resolved, sent: str | None) -> Policy | None:
        """Return the whole policy of an operation for a message; None if no caller may do it.

        Args:
            resolved: the operation.
            sent: the name that the client sent for it; None if the client did not name it.

        Raises:
            GuardNotConfiguredError: if it cannot be guarded as registered.
            AccessDeniedError: if no caller may do it under that name.
        """
        if resolved.fault is not None:
            raise GuardNotConfiguredError(resolved.fault)
        operation = resolved.operation
        if sent is None or not self.rules.policies:
            return resolved.policy
        if operation.kind != "resource" and sent in operation.names:
            return resolved.policy
        try:
            return self._combine(resolved, sent, self._default)
        except ValueError as error:
            raise GuardNotConfiguredError(str(error)) from None

    @property
    def _default(self) -> Policy | None:
        return DEFAULT_POLICIES["authenticated" if self.guard is None else self.guard.default]

    def _combine(
        self, resolved: Resolved, sent: str | None, default: Policy | None
    ) -> Policy | None:
        operation = resolved.operation
        combine = functools.partial(
            combine_policies,
            self.rules,
            operation.kind,
            names=operation.names,
            sent=sent,
            tags=operation.tags,
        )
        if operation.renames:
            _check_renamed(operation, combine(declared=None, default=None))
        return combine(declared=resolved.declared, default=default)

    def policy(self, operation: Operation) -> Policy | None:
        """Return the policy of an operation's decorators and rules; None if it has neither.

        Raises:
            ValueError: if the operation would be public and guarded at once.
        """
        return self._combine(Resolved(operation), None, None)

    def has_rule(self, kind: Kind, name: str, tags: Collection[str] = ()) -> bool:
        """Return whether a rule matches an operation that the framework's look-up does not find."""
        return self.rules.policy(kind, name, tags=tags) is not None

    @property
    def admits_anonymous(self) -> bool:
        """Whether some operation of this server is public."""
        if self.guard is not None and self.guard.default == "public":
            return True
        revision = self.revision()
        if self._public is None or self._public[0] != revision:
            self._public = (revision, any(policy.public for policy in self.policies()))
        return self._public[1]

    @property
    def serves_without_scopes(self) -> bool:
        """Whether some operation of this server needs no scope."""
        policies = (self.resolve(each).policy for each in self.catalog().operations)
        return any(policy is not None and not policy.first_scopes for policy in policies)

    def policies(self) -> Iterator[Policy]:
        """Yield the policies of the operations, then those of rules for other servers."""
        for operation in self.catalog().operations:
            with suppress(ValueError):  # public and guarded: refused to every caller
                policy = self.policy(operation)
                if policy is not None:
                    yield policy
        yield from self.rules.policies

    async def edit_list(self, door: Frame, method: str, result: dict[str, Any]) -> dict[str, Any]:
        """Return a list with requirements, without the operations hidden from the caller."""
        return await self._lists.edit(door, method, result)

    # --- protecting a server

    def claim(
        self,
        guard: ServerGuard,
        rules: PoliciesByName,
        *,
        sent_by_client: Mapping[str, Collection[str]] | None = None,
        open_routes: Collection[str] = (),
    ) -> None:
        """Claim the server for ``guard``.

        Raises:
            ValueError: if it is already protected, or cannot be guarded as it is.
        """
        if self.guard is not None:
            raise ValueError("this server is protected already: call protect() once per server")
        if rules.uses_tags and not self.has_tags:
            raise ValueError('rules by tag, "tag:...", are for fastmcp: write rules by name')
        if open_routes and internals.custom_routes(self.server) is None:
            raise ValueError("a low-level server has no custom routes: leave open_routes out")
        self.guard, self.rules = guard, rules
        self.sent_by_client, self.open_routes = sent_by_client or {}, open_routes
        self.check()
        setattr(self.server, PROTECTED, self)

    def check(self) -> None:
        """Check that the operations registered so far can be guarded.

        Raises:
            ValueError: naming a function that was registered below its guard, that uses a
                connection for which the guard has no provider, or that would be public and
                guarded at once.
        """
        revision = self.revision()
        if revision == self._checked:
            return
        for operation in (*self.operations(), *self.catalog().operations):
            fault = self.resolve(operation).fault
            if fault is not None:
                raise ValueError(fault)
        self._checked = revision

    def prepare(self) -> None:
        """Prepare to serve the operations registered so far.

        Raises:
            ValueError: as :meth:`check` does; or if a path of ``open_routes`` has no route.
        """
        self.check()
        check_open_routes(self.server, self.open_routes)

    def report_rules(self) -> None:
        """Log the rules that match no operation when the server starts."""
        catalog = self.catalog()
        if catalog.unlisted:  # their operations may be on another server
            return
        operations = (
            (each.kind, name, each.tags) for each in catalog.operations for name in each.names
        )
        for pattern in self.rules.unmatched(operations):
            _log.warning("the rule %r matches nothing on %r", pattern, self.server)

    def over_stdio(self, guard: ServerGuard) -> None:
        """Have the server's own stdio transport serve its messages as stdio messages."""
        run = self.server.run_stdio_async

        @functools.wraps(run)
        async def run_stdio_async(*args: Any, **kwargs: Any) -> None:
            self.prepare()
            self.report_rules()
            with guard.serving_stdio():
                try:
                    await run(*args, **kwargs)
                finally:
                    await guard.aclose()

        self.server.run_stdio_async = run_stdio_async


def _check_renamed(operation: Operation, ruled: Policy | None) -> None:
    """Check that rules read no argument that means different things under different names.

    Raises:
        ValueError: with what to write instead.
    """
    if ruled is None:
        return
    if any(each.reads_arguments and not each.arguments for each in ruled.requirements):
        raise ValueError(
            f"tool {operation.name!r} is made from another tool and has other arguments, so a rule "
            "whose function is given the call could read those of either: guard the function "
            "itself, or write a rule that names the argument"
        )
    for name in ruled.arguments:
        if name in operation.reused:
            raise ValueError(
                f"tool {operation.name!r} is made from another tool and has an argument {name!r} "
                f"that is a different one there, so a rule that reads {name!r} could read either: "
                "give it a name that the other tool does not have, or guard the function itself"
            )


def check_declaration(
    operation: Operation, guard: ServerGuard | None, sent_by_client: Collection[str] = ()
) -> None:
    """Check that an operation was registered in a way that can be guarded.

    Args:
        operation: the operation.
        guard: the guard of its server.
        sent_by_client: the parameters of the operation that clients send.

    Raises:
        ValueError: with what to write instead.
    """
    what, policy = f"{operation.kind} {operation.name!r}", operation.declared
    # First: what such a function lacks otherwise, its guard above would fill.
    if operation.function is not None and bare_policy(operation.function) is not None:
        raise ValueError(
            f"{what} was registered without all of its guards: write the line that registers the "
            f"{operation.kind} above them, as in @mcp.tool(), then @requires_scopes(...), then def"
        )
    for function in (*operation.in_front, *filter(None, [operation.function])):
        fault = sent_by_clients(function, sent_by_client)
        if fault is not None:
            raise ValueError(f"{what} {fault}")
    if operation.function is None:
        return
    if isinstance(unwrapped(operation.function), GuardDecorator):
        raise ValueError(  # noqa: TRY004 - as for all that is registered wrongly
            f"{what} is a guard, not a function: write its arguments in parentheses, as in "
            '@requires_scopes("calendar.read")'
        )
    if guard is not None and policy:
        _check_connections(what, policy, guard)
    if guard is not None and policy and policy.approval:
        if operation.kind != "tool":
            raise ValueError(f"{what} needs an approval, and only calls of tools are approved")
        if guard.approvals is None:
            raise ValueError(
                f"{what} needs an approval, and the guard has nowhere to ask for one: write "
                "guard.protect(server, approvals=Approvals(sign_in=...)), or ToolGuard("
                "connections=Vault(..., sign_in=...))"
            )


def _check_connections(what: str, policy: Policy, guard: ServerGuard) -> None:
    """Check that the guard has a provider for the connections of an operation.

    Raises:
        ValueError: with what to write instead.
    """
    known = names_of(guard.connections)
    for need in policy.connections:
        if guard.connections is None:
            raise ValueError(
                f"{what} uses connection {need.name!r} and the guard has no provider: write "
                "ToolGuard(..., connections=...)"
            )
        if known is not None and need.name not in known:
            raise ValueError(
                f"{what} uses connection {need.name!r}, which the guard's provider does not have: "
                f"write one of {sorted(known)}, or add it there"
            )


def code_of(refusal: ToolGuardError) -> int:
    """Return the JSON-RPC code of a refusal; for a malformed message the protocol's own code."""
    if isinstance(refusal, MalformedMessageError):
        return refusal.code
    return _INVALID_PARAMS if isinstance(refusal, InvalidInputError) else REFUSED


def challenge_meta(guard: ServerGuard, refusal: ToolGuardError) -> dict[str, Any] | None:
    """Return the metadata of a tool error: the challenge, for answers without a header."""
    challenge = guard.challenge(refusal)
    return None if challenge is None else {"mcp/www_authenticate": [challenge.header]}


def page_to_open(refusal: ToolGuardError) -> tuple[str, str] | None:
    """Return the key and the URL of the page on which a person lifts ``refusal``; None if none."""
    if isinstance(refusal, ConnectionRequiredError) and refusal.connect_url is not None:
        return f"connect:{refusal.connection}", refusal.connect_url
    if isinstance(refusal, ApprovalRequiredError) and refusal.approve_url is not None:
        return f"approve:{refusal.approve_url.rpartition('/')[2]}", refusal.approve_url
    return None


def can_open_urls(capabilities: Any) -> bool:
    """Return whether a client with these capabilities can be asked to open a URL."""
    elicitation = capabilities.elicitation if capabilities is not None else None
    return elicitation is not None and elicitation.url is not None
