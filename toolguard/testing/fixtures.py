"""Fixtures of pytest for tests of guarded servers.

Opt in, in the top ``conftest.py`` or in a test module::

    pytest_plugins = ["toolguard.testing.fixtures"]

and write tests such as::

    def test_reading_is_not_enough_to_delete(guard, call_as):
        server = guard.protect(make_server())
        answer = call_as(server, "delete_note", {"note_id": "1"}, scopes=["notes.read"])
        assert answer.missing_scopes == ("notes.delete",)


    def test_the_note_goes_to_the_callers_own_drive(guard, call_as, connections):
        connections.answer("google-drive", "ya29.alice", user="alice")
        server = guard.protect(make_server())
        assert call_as(server, "export_note", {"note_id": "1"}, scopes=["notes.read"]).ok
        assert [call.name for call in connections.calls] == ["google-drive"]


    def test_an_old_token_is_refused(guard, call_as, issuer, clock):
        server, token = guard.protect(make_server()), issuer.mint("alice")
        clock.advance(3600)
        assert call_as(server, "list_notes", token=token).status == 401

``clock``, ``issuer``, ``connections`` and ``guard`` belong together and are new for each test;
``call_as``, ``call_as_async`` and ``guarded_client`` call, and ``signed_in`` sets the caller of the
framework's own in-memory client. They are plain functions: they need no plugin for async tests, and
work with any. No decision is faked: tokens are signed with real keys, and pass the guard's verifier
and the wrapper of the operation.

To change one for all tests, or if you have your own fixture of the same name, override it in your
``conftest.py``; the others use yours::

    @pytest.fixture
    def guard(issuer, connections, clock):
        return ToolGuard(
            verifier=issuer.verifier(),
            audience=issuer.audience,
            connections=connections,
            clock=clock,
            scope_hierarchy={"notes.delete": ["notes.read"]},
        )

A server that is protected when its module is imported is called unchanged: the callers' tokens are
then trusted for the duration of a call. To test it with the clock and the connections of these
fixtures, use ``rewire``, which lasts until the test ends::

    @pytest.fixture
    def guard(rewire):
        return rewire(my_server.mcp)

PYTEST_DONT_REWRITE: so a ``conftest.py`` may import the types of this module as well.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TypeAlias

from toolguard.parts.extras import explained

with explained():
    import pytest

from toolguard.connections.cache import CachedConnections
from toolguard.frameworks import adapter_for
from toolguard.frameworks.server_guard import ServerGuard
from toolguard.guard import ToolGuard
from toolguard.testing.client import AsyncGuardedClient, GuardedClient
from toolguard.testing.clock import FrozenClock
from toolguard.testing.connections import ScriptedConnections
from toolguard.testing.in_memory import InMemoryCaller, own_trust, trust_in
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.server_answer import ServerAnswer
from toolguard.testing.wiring import Wiring, enter, wired_with
from toolguard.tokens.jwt import Verifier

__all__ = [
    "CallAs",
    "CallAsAsync",
    "ClientFor",
    "Rewire",
    "SignIn",
    "call_as",
    "call_as_async",
    "clock",
    "connections",
    "guard",
    "guarded_client",
    "issuer",
    "rewire",
    "signed_in",
]


class CallAs(Protocol):
    """The type of the fixture ``call_as``."""

    def __call__(
        self, server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
    ) -> ServerAnswer:
        """Call a tool; the arguments are those of :func:`toolguard.testing.call_as`."""
        ...


class CallAsAsync(Protocol):
    """The type of the fixture ``call_as_async``."""

    def __call__(
        self, server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
    ) -> Awaitable[ServerAnswer]:
        """Call a tool; the arguments are those of :func:`toolguard.testing.call_as_async`."""
        ...


class ClientFor(Protocol):
    """The type of the fixture ``guarded_client``."""

    def __call__(self, server: object, **caller: Any) -> GuardedClient:
        """Return a client; the arguments are those of :class:`toolguard.testing.GuardedClient`."""
        ...


class SignIn(Protocol):
    """The type of the fixture ``signed_in``."""

    def __call__(self, user: str | None = "alice", **caller: Any) -> AbstractContextManager[None]:
        """Sign in; the arguments are those of :func:`toolguard.testing.signed_in`."""
        ...


Rewire: TypeAlias = Callable[[Any], ToolGuard]
"""The type of the fixture ``rewire``."""


@pytest.fixture
def clock() -> FrozenClock:
    """The time: 2026-01-01T00:00:00Z, until ``clock.advance(seconds)``."""
    return FrozenClock()


@pytest.fixture
def issuer(clock: FrozenClock) -> LocalIssuer:
    """The issuer of tokens, with a real key (ES256): ``issuer.mint("alice", scopes=[...])``."""
    return LocalIssuer(algorithm="ES256", clock=clock)


@pytest.fixture
def connections() -> ScriptedConnections:
    """The callers' connections: ``connections.answer("google-calendar", "a-token")``."""
    return ScriptedConnections()


@pytest.fixture
def guard(issuer: LocalIssuer, connections: ScriptedConnections, clock: FrozenClock) -> ToolGuard:
    """A guard for servers that the test creates: ``guard.protect(make_server())``.

    It trusts ``issuer`` and does not cache connections, so that ``connections.calls`` is complete.
    """
    return ToolGuard(
        verifier=_checked(issuer).verifier(),
        audience=issuer.audience,
        connections=CachedConnections(connections, max_age=0),
        clock=clock,
    )


@pytest.fixture
def _wirings() -> Iterator[list[Wiring]]:
    """The wirings of ``rewire`` in this test, which end with the test."""
    wirings: list[Wiring] = []
    yield wirings
    for each in wirings:
        each.ended = True


@pytest.fixture
def rewire(
    _wirings: list[Wiring],
    issuer: LocalIssuer,
    connections: ScriptedConnections,
    clock: FrozenClock,
) -> Rewire:
    """Give a server's own guard this issuer, clock and connections: ``rewire(my_server.mcp)``.

    It lasts until the test ends; scopes, rules and other settings are unchanged. Code outside of
    the test is not affected, except a ``Loopback`` that the test starts afterwards. Returns the
    guard.

    Raises:
        ValueError: if the server is not protected, or its framework verifies the tokens.
    """
    verifier = _checked(issuer).verifier()
    parts = {
        "verifier": verifier,
        "leeway": verifier.leeway,
        "connections": connections,
        "clock": clock,
    }

    def rewired(server: object) -> ToolGuard:
        own = adapter_for(server).guard
        if not isinstance(own, ToolGuard):
            raise ValueError(  # noqa: TRY004 - as for a server that is not protected
                "protect the server first, once: ToolGuard(...).protect(server)"
            )
        if not own.verifies_itself:
            raise ValueError("the framework verifies here: give call_as token=")
        _wirings.append(Wiring(own, **parts))
        enter(_wirings[-1])
        return own

    return rewired


@pytest.fixture
def guarded_client(
    _wirings: list[Wiring], guard: ToolGuard, issuer: LocalIssuer, clock: FrozenClock
) -> ClientFor:
    """One caller of a server, for several calls, resources and prompts.

    ``guarded_client(server, user="alice", scopes=[...])`` is a
    :class:`~toolguard.testing.GuardedClient`; ``issuer`` mints its tokens if the guard trusts it.
    """

    def client(server: object, **caller: Any) -> GuardedClient:
        with wired_with(_wirings):  # an async test may run in another context than its fixtures
            ours = _is_ours(adapter_for(server).guard, guard, issuer, clock)
            return GuardedClient(server, **({"issuer": issuer, **caller} if ours else caller))

    return client


@pytest.fixture
def call_as(guarded_client: ClientFor) -> CallAs:
    """Call a tool as some user: ``call_as(server, "list_notes", user="bob", scopes=[...])``.

    It is :func:`~toolguard.testing.call_as`, with tokens of ``issuer`` if the guard trusts it. In
    async tests it works as well, but blocks the event loop; if the server shares objects of that
    loop with the test, use ``call_as_async``.
    """

    def call(
        server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
    ) -> ServerAnswer:
        return guarded_client(server, **caller).call(tool, arguments)

    return call


@pytest.fixture
def call_as_async(
    _wirings: list[Wiring], guard: ToolGuard, issuer: LocalIssuer, clock: FrozenClock
) -> CallAsAsync:
    """Call a tool as ``call_as`` does, in the event loop of the test, which awaits it.

    For resources and prompts use ``AsyncGuardedClient(server, issuer=issuer, ...)``.
    """

    async def call(
        server: object, tool: str, arguments: Mapping[str, Any] | None = None, **caller: Any
    ) -> ServerAnswer:
        with wired_with(_wirings):
            ours = _is_ours(adapter_for(server).guard, guard, issuer, clock)
            given = {"issuer": issuer, **caller} if ours else caller
            client = AsyncGuardedClient(server, **given)
        return await client.call(tool, arguments)

    return call


@pytest.fixture
def signed_in(
    _wirings: list[Wiring], guard: ToolGuard, issuer: LocalIssuer, clock: FrozenClock
) -> SignIn:
    """Sign in the caller of in-memory clients, with tokens of ``issuer`` if it is trusted.

    It is used as :func:`toolguard.testing.signed_in` is::

        with signed_in("bob", scopes=["notes.read"]):
            async with Client(server) as client:
                await client.call_tool("list_notes", {})

    An event loop that outlives the test, such as that of fixtures of a wider scope, may not have
    the context of a fixture of the test: then write the block in the test.
    """

    def trust(own: ToolGuard) -> tuple[LocalIssuer, Verifier]:
        ours = _is_ours(own, guard, issuer, clock)
        return (issuer, own.verifier) if ours else own_trust(own)

    @contextmanager
    def sign_in(user: str | None = "alice", **caller: Any) -> Iterator[None]:
        given = {"scopes": (), **caller}
        theirs = given.pop("issuer", None)
        chosen = trust if theirs is None else trust_in(theirs)
        with wired_with(_wirings), InMemoryCaller(chosen, user, **given).signed_in():
            yield

    return sign_in


def _is_ours(
    own: ServerGuard | None, guard: ToolGuard, issuer: LocalIssuer, clock: FrozenClock
) -> bool:
    """Return whether a server's own guard uses these fixtures, so that ``issuer`` mints for it.

    Its settings determine that, not the tokens it accepts: a guard that does not know the issuer's
    new key must be seen to refuse.

    Raises:
        ValueError: if every token of the issuer has expired for the guard.
    """
    if own is None or own.issuer != issuer.issuer:
        return False
    if own.clock is not clock and own is not guard:
        return False
    if issuer.claims().get("exp", math.inf) <= own.clock() - own.leeway:
        raise ValueError(
            "`guard` and `issuer` use different clocks: write ToolGuard(..., clock=clock)"
        )
    return True


def _checked(issuer: object) -> LocalIssuer:
    if not isinstance(issuer, LocalIssuer):
        raise TypeError(
            f"`issuer` is a fixture of yours that is a {type(issuer).__name__}: rename it, or let "
            'it return LocalIssuer(algorithm="ES256", clock=clock)'
        )
    return issuer
