"""What does toolguard ask of a framework, and what is the same in all of them?"""

from __future__ import annotations

import functools
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from toolguard.calls.context import Call
from toolguard.calls.current import outer_call, serving
from toolguard.calls.request import SCOPE_KEY, RequestAuth
from toolguard.decorators.injection import sent_by_clients, unwrapped
from toolguard.decorators.wrapper import GuardDecorator, bare_policy
from toolguard.errors import GuardNotConfiguredError, ToolGuardError
from toolguard.frameworks.admission import admit, admit_question, is_for_anybody
from toolguard.frameworks.lists import Lists
from toolguard.frameworks.operation import Catalog, Operation
from toolguard.policies.by_name import OperationRules
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy
from toolguard.policies.published import LISTS

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from toolguard.guard import ToolGuard

__all__ = [
    "PROTECTED",
    "Adapter",
    "Message",
    "Operation",
    "can_open_urls",
    "challenge_meta",
    "check_declaration",
]

_log = logging.getLogger("toolguard")

PROTECTED = "__toolguard_protected__"
"""Where a protected server keeps its adapter."""


@dataclass(frozen=True)
class Message:
    """One message on its way to the framework.

    Attributes:
        request: the Starlette request that carried it, None where there is no HTTP.
        method: the JSON-RPC method.
        params: its parameters, not validated.
        serve: hands the message on to the framework.
        is_error: whether what the framework made of it reports an error.
        to_json: the result as JSON.
        from_json: the framework's own again, after one that it made.
        is_current: whether the message at hand is still this one.
        is_public: whether the result says that it may be kept for others (2026-07-28).
    """

    request: Any
    method: str
    params: Mapping[str, Any]
    serve: Callable[[], Awaitable[Any]]
    is_error: Callable[[Any], bool]
    to_json: Callable[[Any], dict[str, Any]]
    from_json: Callable[[Any, dict[str, Any]], Any]
    is_current: Callable[[], bool] = lambda: True
    is_public: Callable[[Any], bool] = lambda _: False

    @property
    def meta(self) -> object:
        """The ``_meta`` of the message, as the framework has it."""
        return self.params.get("_meta")


class Adapter(ABC):
    """One server of one framework line."""

    #: Request headers that the framework does not get to see. The SDK's stores of events do not
    #: tell whose stream is resumed.
    withheld_headers: tuple[bytes, ...] = (b"authorization", b"last-event-id")

    def __init__(self, server: Any) -> None:
        self.server = server
        #: The guard that protects the server; None if none does.
        self.guard: ToolGuard | None = None
        #: What is said of operations by name.
        self.rules = OperationRules({})
        #: Operation -> the parameters that clients are meant to send.
        self.sent_by_client: Mapping[str, Collection[str]] = {}
        self._lists = Lists(self)
        self._catalog: tuple[tuple[object, ...], Catalog] | None = None
        self._checked: tuple[object, ...] | None = None
        self._sound: WeakSet[Callable[..., Any]] = WeakSet()
        self._refusal_types: dict[type[ToolGuardError], type[Exception]] = {}

    @abstractmethod
    def operations(self) -> Iterator[Operation]:
        """Yield the server's operations, in the order of their registration."""

    @abstractmethod
    def registries(self) -> Iterator[dict[Any, Any]]:
        """Yield the mappings that the framework registers operations in."""

    def revision(self) -> tuple[object, ...]:
        """Return what changes with the registered operations, without going through them."""
        lasts = ((len(each), next(reversed(each.items()), None)) for each in self.registries())
        return tuple((size, last and (last[0], id(last[1]))) for size, last in lasts)

    @abstractmethod
    async def find(self, kind: Kind, name: str, meta: object) -> Operation | None:
        """Return the operation that clients call ``name``, as ``meta`` asks for it."""

    def catalog(self) -> Catalog:
        """Return the operations by the names that clients know them by."""
        revision = self.revision()
        if self._catalog is None or self._catalog[0] != revision:
            self._catalog = (revision, self.look_up())
        return self._catalog[1]

    def look_up(self) -> Catalog:
        """Return the catalog as it is now."""
        return Catalog(tuple(self.operations()))

    def policy(self, operation: Operation) -> Policy | None:
        """Return what guards an operation: its decorators, and the rules for its names.

        Raises:
            ValueError: if it would be public and guarded at once.
        """
        ruled = self.rules.policy(operation.kind, operation.name)
        declared = operation.declared
        if ruled is None or declared is None:
            return ruled or declared
        if ruled.public != declared.public:
            raise ValueError(
                f"{operation.kind} {operation.name!r} is public by its decorators or by a rule, "
                "and guarded by the other: write narrower patterns"
            )
        return ruled & declared

    @property
    @abstractmethod
    def error_types(self) -> tuple[type[Exception], ...]:
        """The exceptions with which tools and resources of this framework report a failure."""

    @abstractmethod
    def install(self, guard: ToolGuard) -> None:
        """Put ``guard`` around every message, and around every app and transport it runs."""

    @abstractmethod
    def stateless_app(self, *, json_response: bool = True) -> Starlette:
        """Return a guarded application that answers POSTs to ``/mcp``, for tests.

        Args:
            json_response: whether with JSON; else with events, of which notifications are some.
        """

    def refusal_error(self, refusal: ToolGuardError) -> Exception:
        """Return ``refusal`` as an exception of this framework that is still one of its own type.

        So the framework takes it for a deliberate answer and no crash, and a function that calls
        a guarded helper can catch ``InsufficientScopeError``.
        """
        if isinstance(refusal, self.error_types):
            return refusal
        kind = self._refusal_type(type(refusal))
        error = kind.__new__(kind, *refusal.args)
        vars(error).update(vars(refusal), log_level=logging.INFO)  # fastmcp logs at this level
        return error

    def _refusal_type(self, refusal: type[ToolGuardError]) -> type[Exception]:
        known = self._refusal_types.get(refusal)
        if known is None:
            known = type(refusal.__name__, (refusal, *self.error_types), {})
            self._refusal_types[refusal] = known
        return known

    def claim(
        self,
        guard: ToolGuard,
        rules: OperationRules,
        *,
        sent_by_client: Mapping[str, Collection[str]] = MappingProxyType({}),
    ) -> None:
        """Take the server for ``guard``.

        Raises:
            ValueError: if it is taken, or cannot be guarded as it is.
        """
        if self.guard is not None:
            raise ValueError("this server is protected already: call protect() once per server")
        self.guard, self.rules, self.sent_by_client = guard, rules, sent_by_client
        self.check()
        setattr(self.server, PROTECTED, self)

    def check(self) -> None:
        """Make sure that what has been registered by now can be guarded.

        Raises:
            ValueError: naming a function that was registered below its guard, or that uses a
                connection for which the guard has no provider, or that would be public and
                guarded at once.
        """
        revision = self.revision()
        if revision == self._checked:
            return
        for operation in self.operations():
            self.check_one(operation)
        for operation in self.catalog().operations:
            self.policy(operation)
        self._checked = revision

    def check_one(self, operation: Operation) -> None:
        """Make sure that an operation can be guarded; once for each function.

        Raises:
            ValueError: as :meth:`check` does.
        """
        function = operation.function
        if function is None:
            return
        with suppress(TypeError):  # of what no weak reference can be made, nothing is remembered
            # A guard may have been put on a function after it was registered.
            if function in self._sound and bare_policy(function) is None:
                return
        sent = self.sent_by_client.get(operation.name, ())
        check_declaration(operation, self.guard, sent)
        with suppress(TypeError):
            if not sent:  # what is said of one name is not said of another
                self._sound.add(function)

    def prepare(self) -> None:
        """Get ready to serve what has been registered by now.

        Raises:
            ValueError: as :meth:`check` does.
        """
        self.check()

    def policies(self) -> Iterator[Policy]:
        """Yield what guards the operations, then the rules: for operations of other servers."""
        for operation in self.catalog().operations:
            with suppress(ValueError):  # public and guarded: refused to everybody
                policy = self.policy(operation)
                if policy is not None:
                    yield policy
        yield from self.rules.policies

    def report_rules(self) -> None:
        """Log the rules that match nothing now that the server starts."""
        catalog = self.catalog()
        if catalog.unlisted:  # what they are about may be on another server
            return
        operations = ((op.kind, op.name, ()) for op in catalog.operations)
        for pattern in self.rules.unmatched(operations):
            _log.warning("the rule %r matches nothing on %r", pattern, self.server)

    def over_stdio(self, guard: ToolGuard) -> None:
        """Make the server's own stdio transport say that it is one."""
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

    async def pass_on(
        self, guard: ToolGuard, message: Message
    ) -> tuple[Any, ToolGuardError | None]:
        """Serve one message under ``guard``; return its result, or the refusal."""
        try:
            self._prepare_late()
        except GuardNotConfiguredError as refusal:
            return None, refusal
        state = await _state(guard, message.request)
        call = Call(
            guard,
            state,
            self.refusal_error,
            is_current=message.is_current,
            meta=message.meta,
        )
        call.served = self
        with serving(call):
            try:
                await admit(self, call, message.method, message.params)
            except ToolGuardError as refusal:
                call.refuse(refusal)
                call.settle(failed=True)
                return None, refusal
            try:
                result = await self._publish(call, message, await message.serve())
            except Exception:
                ended_in = call.settle(failed=True)
                if ended_in is None:
                    raise
                return None, ended_in
            return result, call.settle(failed=message.is_error(result))

    async def _publish(self, call: Call, message: Message, result: Any) -> Any:
        """Return what the server answers as it may go out."""
        if call.is_undecided:
            if message.to_json(result).get("resultType") == "input_required":
                await admit_question(self, call)
            return result
        is_too_public = message.is_public(result) and not await self._is_for_all(call, message)
        if message.method not in LISTS and not is_too_public:
            return result
        as_json = message.to_json(result)
        if message.method in LISTS:
            as_json = await self._lists.edit(call, message.method, as_json)
        if is_too_public:
            as_json["cacheScope"] = "private"
        return message.from_json(result, as_json)

    async def _is_for_all(self, call: Call, message: Message) -> bool:
        """Return whether everybody gets the same answer, and would be given it."""
        if message.method in LISTS:
            return call.guard.unauthorized_tools == "show"
        return await is_for_anybody(self, call, message.method, message.params)

    def _prepare_late(self) -> None:
        try:
            self.prepare()
        except ValueError as error:  # registered after the application was built
            raise GuardNotConfiguredError(str(error)) from None


def check_declaration(
    operation: Operation, guard: ToolGuard | None, sent_by_client: Collection[str] = ()
) -> None:
    """Make sure that an operation was registered as it can be guarded.

    Args:
        operation: the operation.
        guard: what guards its server.
        sent_by_client: the parameters of the operation that clients are meant to send.

    Raises:
        ValueError: saying what to write instead.
    """
    if operation.function is None:
        return
    what, policy = f"{operation.kind} {operation.name!r}", operation.declared
    if isinstance(unwrapped(operation.function), GuardDecorator):
        raise ValueError(  # noqa: TRY004 - as for all that is registered wrongly
            f"{what} is a guard and no function: give the guard what it asks for, in parentheses"
        )
    if guard is not None and guard.connections is None and policy and policy.connections:
        raise ValueError(
            f"{what} uses connection {policy.connections[0].name!r} and the guard has no "
            "provider: write ToolGuard(..., connections=...)"
        )
    fault = sent_by_clients(operation.function, sent_by_client)
    if fault is not None:
        raise ValueError(f"{what} {fault}")
    if bare_policy(operation.function) is not None:
        raise ValueError(
            f"{what} was registered without all of its guards: write the line that registers the "
            f"{operation.kind} above them, as in @mcp.tool(), then @requires_scopes(...), then def"
        )


def challenge_meta(guard: ToolGuard, refusal: ToolGuardError) -> dict[str, Any] | None:
    """Return the metadata of a tool error: the challenge, where there is no header for it."""
    challenge = guard.challenge(refusal)
    return None if challenge is None else {"mcp/www_authenticate": [challenge.header]}


def can_open_urls(capabilities: Any) -> bool:
    """Return whether a client with these capabilities can be asked to open a URL."""
    elicitation = capabilities.elicitation if capabilities is not None else None
    return elicitation is not None and elicitation.url is not None


async def _state(guard: ToolGuard, request: Any) -> RequestAuth | None:
    """Return what is known of the request of *this* message, never of the session's first."""
    if request is None:
        outer = outer_call()
        return outer.state if outer is not None else await guard.stdio_state()
    state = request.scope.get(SCOPE_KEY)
    if not isinstance(state, RequestAuth):
        return None
    if state.user is not None:  # what the framework knows of its user is about this message
        request.scope["user"] = state.user
    return state
