"""Which provider is asked for a connection?"""

from __future__ import annotations

import asyncio

import pytest

from support.callers import person
from toolguard.connections import Connection, ConnectionRequest, StaticConnections
from toolguard.connections.router import ConnectionRouter
from toolguard.errors import ConnectionRequiredError, ConnectionResponseError


class Closable(StaticConnections):
    """Counts how often it was closed."""

    closed = 0

    async def aclose(self) -> None:
        self.closed += 1


def asked(name: str) -> ConnectionRequest:
    return ConnectionRequest(name, (), person(), "ey.caller")


def token(router: ConnectionRouter, name: str) -> str:
    return asyncio.run(router.fetch(asked(name))).token


def table(**tokens: str) -> StaticConnections:
    return StaticConnections(tokens)


def test_each_connection_comes_from_its_own_provider() -> None:
    router = ConnectionRouter(
        {"calendar": table(calendar="of-one"), "github": table(github="of-the-other")}
    )

    assert token(router, "calendar") == "of-one"
    assert token(router, "github") == "of-the-other"


def test_every_other_connection_comes_from_the_default() -> None:
    router = ConnectionRouter({"calendar": table(calendar="named")}, default=table(slack="other"))

    assert token(router, "slack") == "other"
    assert token(router, "calendar") == "named"


def test_the_default_does_not_replace_a_named_providers_refusal() -> None:
    router = ConnectionRouter({"calendar": table(github="x")}, default=table(calendar="y"))

    with pytest.raises(ConnectionRequiredError):
        token(router, "calendar")


def test_an_async_function_is_a_provider() -> None:
    async def provide(request: ConnectionRequest) -> Connection:
        return Connection(f"{request.name}-of-{request.principal.user_id}")

    router = ConnectionRouter({"calendar": provide}, default=provide)

    assert token(router, "calendar") == "calendar-of-alice"
    assert token(router, "github") == "github-of-alice"


def test_a_router_is_a_provider_of_another_router() -> None:
    inner = ConnectionRouter({"github": table(github="inner")})

    assert token(ConnectionRouter({"github": inner}), "github") == "inner"


@pytest.mark.parametrize("name", ["github", "Calendar", "calendar ", "calendar/admin"])
def test_an_unknown_name_is_refused_with_what_to_write(name: str) -> None:
    router = ConnectionRouter({"calendar": table(calendar="x")})

    with pytest.raises(ConnectionResponseError) as caught:
        token(router, name)

    assert caught.value.connection == name
    assert str(caught.value) == (
        f"No provider has {name}: write ConnectionRouter({{{name!r}: provider}}) "
        "or default=provider"
    )


def test_a_later_change_of_the_table_changes_nothing() -> None:
    providers = {"calendar": table(calendar="first")}
    router = ConnectionRouter(providers)
    providers["calendar"] = table(calendar="second")

    assert token(router, "calendar") == "first"


def test_closing_a_router_closes_the_providers_that_can_be_closed() -> None:
    async def provide(request: ConnectionRequest) -> Connection:
        return Connection("x")

    one, other = Closable({"calendar": "x"}), Closable({"slack": "x"})
    router = ConnectionRouter({"calendar": one, "github": provide}, default=other)

    asyncio.run(router.aclose())

    assert (one.closed, other.closed) == (1, 1)


class Named(StaticConnections):
    """Says what its answers depend on."""

    def __init__(self, namespace: str | None) -> None:
        super().__init__({"calendar": "x"})
        self.cache_namespace = namespace


def test_what_is_kept_depends_on_every_provider_and_on_which_connection_is_whose() -> None:
    one, other = Named("one"), Named("other")
    routers = [
        ConnectionRouter({"calendar": one, "github": other}),
        ConnectionRouter({"calendar": other, "github": one}),
        ConnectionRouter({"calendar": one, "github": one}),
        ConnectionRouter({"calendar": one}),
        ConnectionRouter({"calendar": one}, default=other),
    ]

    namespaces = {router.cache_namespace for router in routers}

    assert len(namespaces) == 5
    assert ConnectionRouter({"github": other, "calendar": one}).cache_namespace in namespaces


def test_a_provider_without_a_namespace_leaves_the_router_without_one() -> None:
    async def provide(request: ConnectionRequest) -> Connection:
        return Connection("x")

    named = Named("one")

    assert ConnectionRouter({"a": named, "b": provide}).cache_namespace is None
    assert ConnectionRouter({"a": named, "b": Named(None)}).cache_namespace is None
    assert ConnectionRouter({"a": named}, default=provide).cache_namespace is None


def test_a_router_shows_names_and_no_token() -> None:
    providers = {"calendar": table(calendar="secret"), "github": table(github="secret")}

    assert repr(ConnectionRouter(providers)) == "<ConnectionRouter: calendar, github>"
    assert repr(ConnectionRouter(providers, default=table(x="secret"))) == (
        "<ConnectionRouter: calendar, github and all others>"
    )


def test_misuse_is_told_what_to_write() -> None:
    with pytest.raises(ValueError, match=r'write ConnectionRouter\(\{"google-calendar"'):
        ConnectionRouter({})
    with pytest.raises(TypeError, match=r"a provider with an async fetch\(\)"):
        ConnectionRouter({"calendar": "a-token"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"a provider with an async fetch\(\)"):
        ConnectionRouter({"calendar": table(calendar="x")}, default=1)  # type: ignore[arg-type]
