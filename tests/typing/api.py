"""Is the public API typed as its users need it? Type-checked, never run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from typing_extensions import assert_type

from toolguard import (
    CachedConnections,
    Connection,
    ConnectionProvider,
    ConnectionRequest,
    InsufficientScopeError,
    JWTVerifier,
    Principal,
    Refusals,
    Scope,
    ScopeHierarchy,
    StaticConnections,
    ToolGuard,
    ToolGuardError,
    TrustedUser,
    Verifier,
    all_of,
    any_of,
    injected,
    public,
    requires_auth,
    requires_scopes,
    with_connection,
)
from toolguard.http.challenge import Challenge, parse
from toolguard.tokens.keys import StaticKeys

# --- decorators: the parameters stay; the result is awaitable


@requires_scopes("calendar.write")
async def create(title: str, *, user_id: str) -> int:
    return len(title + user_id)


@requires_auth
def count(title: str) -> int:
    return len(title)


@public
async def about() -> str:
    return "about"


@requires_scopes(any_of("a", all_of("b", "c")), "d" & Scope("e"))
@with_connection("mail", scopes=["send"], as_="mail")
@with_connection("calendar", as_="calendar")
async def send(*, mail: str, calendar: Connection) -> list[str]:
    return [mail, calendar.token]


@with_connection("mail", scopes=("send",))
def send_sync(*, connection_token: str) -> None: ...


class Create(Protocol):
    def __call__(self, title: str, *, user_id: str) -> Coroutine[Any, Any, int]: ...


class Send(Protocol):
    def __call__(self, *, mail: str, calendar: Connection) -> Coroutine[Any, Any, list[str]]: ...


create_: Create = create
count_: Callable[[str], Coroutine[Any, Any, int]] = count
assert_type(about, Callable[[], Coroutine[Any, Any, str]])
send_: Send = send


class Calendar:
    @requires_scopes("calendar.read")
    async def events(self, day: str, *, user_id: str) -> list[str]:
        return [day, user_id]

    @requires_auth
    async def today(self, *, user_id: str = injected) -> list[str]:
        return [user_id]


@any_of("notes.read", requires_auth)
async def notes(day: str, *, user_id: str = injected, caller: Principal = injected) -> str:
    return day + user_id + str(caller)


async def call() -> None:
    assert_type(await create("title", user_id="replaced"), int)
    assert_type(await count(title="title"), int)
    assert_type(await notes("monday"), str)
    assert_type(await Calendar().today(), list[str])
    assert_type(asyncio.run(notes("monday")), str)
    await count("title", "more")  # type: ignore[call-arg]
    await count(titel="title")  # type: ignore[call-arg]
    await notes(7)  # type: ignore[arg-type]
    await create("title")  # type: ignore[call-arg]
    count("title") + 1  # type: ignore[operator]


# --- scopes

assert_type(Scope("a") & "b", Scope)
assert_type("a" | Scope("b"), Scope)
assert_type(all_of("a", Scope("b")), Scope)
assert_type(any_of("a", Scope("b")), Scope)
assert_type(Scope("a").allows({"a"}), bool)
assert_type(Scope("a").missing(["a"]), tuple[str, ...])
assert_type(Scope("a").alternatives, tuple[tuple[str, ...], ...])
assert_type(ScopeHierarchy({"a": ["b"]}).expand(["a"]), frozenset[str])
Scope("a") & 7  # type: ignore[operator]
Scope(7)  # type: ignore[arg-type]
requires_scopes(["a"])  # type: ignore[arg-type]
with_connection("mail", "send")  # type: ignore[call-arg]


# --- providers and verifiers of one's own


class Vault:
    async def fetch(self, request: ConnectionRequest) -> Connection:
        assert_type(request.principal, Principal)
        assert_type(request.access_token, str | None)
        return Connection("token")


class Opaque:
    async def verify(self, token: str) -> Principal:
        return Principal.from_claims({"sub": token, "iss": "https://issuer.example"})


class Deaf:
    async def fetch(self, request: str) -> Connection:
        return Connection(request)


async def fetch(request: ConnectionRequest) -> Connection:
    return Connection(request.name)


provider: ConnectionProvider = Vault()
table: ConnectionProvider = StaticConnections({"mail": "token", "calendar": {"ada": "token"}})
verifier: Verifier = Opaque()
deaf: ConnectionProvider = Deaf()  # type: ignore[assignment]
jwt: Verifier = JWTVerifier(
    issuer="https://issuer.example", audience="https://mcp.example", keys=StaticKeys({"keys": []})
)


# --- guards


class Server:
    """A server of any framework."""


ToolGuard(issuer="https://issuer.example", audience="https://mcp.example/mcp", connections=Vault())
ToolGuard(verifier=Opaque(), audience=["https://mcp.example/mcp"], connections=fetch)


async def fetch_text(request: ConnectionRequest) -> str:
    return request.name


ToolGuard(issuer="https://auth.example", audience="https://mcp.example", connections=fetch_text)
ToolGuard(verifier=Opaque(), resource="https://mcp.example", scope_hierarchy={"a": ["b"]})
ToolGuard("https://issuer.example")  # type: ignore[call-arg]
ToolGuard(verifier=Opaque(), default="open")  # type: ignore[arg-type]
ToolGuard(verifier=Opaque(), stdio=TrustedUser("ada"), refusals=Refusals(denials="http"))
ToolGuard(verifier=Opaque(), refusals={"denials": "http"})  # type: ignore[arg-type]
guard = ToolGuard.from_env(default="deny", connections=CachedConnections(fetch, max_age=5))
assert_type(guard, ToolGuard)
ToolGuard.from_env(default="open")  # type: ignore[arg-type]
ToolGuard.from_env(defualt="deny")  # type: ignore[call-arg]
assert_type(guard.protect(Server()), Server)
assert_type(guard.scopes_supported, tuple[str, ...])


# --- errors


def handle(error: ToolGuardError) -> None:
    assert_type(error.status, int | None)
    assert_type(error.to_json(), str)
    if isinstance(error, InsufficientScopeError):
        assert_type(error.missing_scopes, tuple[str, ...])
        assert_type(guard.challenge(error), Challenge | None)


assert_type(parse('Bearer error="invalid_token"').scope, tuple[str, ...])
