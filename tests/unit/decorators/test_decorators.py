"""What do the decorators promise to whoever writes them above a function?"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

import pytest

from support.callers import TOKEN, Caller, Desk, person
from support.traces import failure, left_behind
from toolguard import public, requires_auth, requires_scopes, with_connection
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.functions import FunctionProvider
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.errors import (
    AccessDeniedError,
    ConnectionRequiredError,
    GuardNotConfiguredError,
    InsufficientScopeError,
    MissingTokenError,
    ToolGuardError,
)
from toolguard.testing import ScriptedConnections

Tool = Callable[..., Awaitable[Any]]


async def greet(name: str, *, user_id: str) -> str:
    """Greet somebody."""
    return f"{user_id} greets {name}"


def refusal(caller: Caller, function: Tool, *args: Any, **kwargs: Any) -> ToolGuardError:
    with pytest.raises(ToolGuardError) as caught:
        caller.calls(function, *args, **kwargs)
    return caught.value


# --- a call


def test_an_allowed_caller_gets_the_answer_of_the_function() -> None:
    guarded = requires_scopes("greet")(greet)

    assert Caller(person("alice", "greet")).calls(guarded, name="Bob") == "alice greets Bob"


def test_a_refused_caller_does_not_reach_the_function() -> None:
    called = []

    @requires_scopes("greet", "wave")
    async def tool() -> None:
        called.append(True)

    error = refusal(Caller(person("alice", "wave")), tool)

    assert isinstance(error, InsufficientScopeError)
    assert error.missing_scopes == ("greet",)
    assert called == []


def test_a_refusal_is_recorded_for_whoever_answers_the_request() -> None:
    caller = Caller(person())
    error = refusal(caller, requires_scopes("greet")(greet), name="Bob")

    assert caller.state is not None
    assert caller.state.refusal is error


def test_a_caller_without_a_token_is_told_what_the_operation_needs() -> None:
    error = refusal(Caller(None), requires_scopes("greet")(greet), name="Bob")

    assert isinstance(error, MissingTokenError)
    assert error.scopes == ("greet",)
    assert isinstance(refusal(Caller(None), requires_auth(greet), name="Bob"), MissingTokenError)


def test_a_public_function_serves_everybody_and_knows_who_it_is() -> None:
    @public
    async def tool(*, user_id: str | None) -> str:
        return f"hello {user_id}"

    assert Caller(None).calls(tool) == "hello None"
    assert Caller(person()).calls(tool) == "hello alice"


def test_what_a_caller_passes_as_an_injected_argument_is_replaced() -> None:
    guarded = requires_scopes("greet")(greet)
    caller = Caller(person("alice", "greet"))

    assert caller.calls(guarded, name="Bob", user_id="mallory") == "alice greets Bob"
    assert caller.calls(guarded, "Bob", user_id="mallory") == "alice greets Bob"


def test_a_connection_is_fetched_for_the_verified_caller_with_the_callers_token() -> None:
    vault = ScriptedConnections({"mail": "mail-token"})

    @with_connection("mail", scopes=["send"], as_="mail")
    async def tool(*, mail: Connection) -> str:
        return mail.token

    assert Caller(person(), Desk(connections=vault)).calls(tool) == "mail-token"
    (asked,) = vault.calls
    assert (asked.name, asked.scopes, asked.principal) == ("mail", ("send",), person())
    assert asked.access_token == TOKEN


def test_no_connection_is_fetched_for_a_caller_who_is_refused() -> None:
    vault = ScriptedConnections({"mail": "mail-token"})

    @requires_scopes("send")
    @with_connection("mail")
    async def tool(*, connection_token: str) -> None: ...

    refusal(Caller(person(), Desk(connections=vault)), tool)

    assert vault.calls == []


def test_a_connection_that_is_not_there_keeps_the_function_from_running() -> None:
    called = []

    @with_connection("mail")
    async def tool(*, connection_token: str) -> None:
        called.append(connection_token)

    error = refusal(Caller(person(), Desk(connections=ScriptedConnections())), tool)

    assert isinstance(error, ConnectionRequiredError)
    assert called == []


def test_a_function_may_say_that_an_upstream_service_asks_for_more() -> None:
    @requires_auth
    async def tool() -> None:
        raise InsufficientScopeError(["upstream.read"])

    caller = Caller(person())
    error = refusal(caller, tool)

    assert isinstance(error, InsufficientScopeError)
    assert caller.state is not None
    assert caller.state.refusal is error


def test_any_other_exception_of_the_function_is_its_own() -> None:
    @requires_auth
    async def tool() -> None:
        raise LookupError("no such event")

    caller = Caller(person())
    with pytest.raises(LookupError, match="no such event"):
        caller.calls(tool)
    assert caller.state is not None
    assert caller.state.refusal is None


def test_a_caught_refusal_of_a_nested_call_refuses_nothing() -> None:
    @requires_scopes("admin")
    async def secret() -> str:
        return "secret"

    @requires_scopes("read")
    async def tool() -> str:
        try:
            return str(await secret())
        except InsufficientScopeError as error:
            return f"without {error.missing_scopes[0]}"

    caller = Caller(person("alice", "read"))

    assert caller.calls(tool) == "without admin"
    assert caller.state is not None
    assert caller.state.refusal is None


def test_a_failure_after_a_caught_refusal_is_no_refusal() -> None:
    @requires_scopes("admin")
    async def secret() -> str:
        return "secret"

    @requires_auth
    async def tool() -> None:
        with suppress(InsufficientScopeError):
            await secret()
        raise LookupError("no such event")

    caller = Caller(person())
    with pytest.raises(LookupError, match="no such event"):
        caller.calls(tool)
    assert caller.state is not None
    assert caller.state.refusal is None


def test_outside_a_server_a_guarded_function_says_what_to_write() -> None:
    guarded = requires_scopes("greet")(greet)

    with pytest.raises(
        GuardNotConfiguredError, match=r"write ToolGuard\(\.\.\.\)\.protect\(server\)"
    ):
        asyncio.run(guarded(name="Bob"))  # type: ignore[call-arg]


# --- sync and async


def test_a_sync_function_runs_in_another_thread() -> None:
    @requires_auth
    def tool(*, user_id: str) -> tuple[int, str]:
        return threading.get_ident(), user_id

    thread, user_id = Caller(person()).calls(tool)

    assert thread != threading.get_ident()
    assert user_id == "alice"


def test_an_async_function_runs_where_it_is_called() -> None:
    @requires_auth
    async def tool() -> int:
        return threading.get_ident()

    assert Caller(person()).calls(tool) == threading.get_ident()


def test_a_guarded_sync_helper_can_be_called_from_a_guarded_sync_function() -> None:
    @requires_scopes("read")
    def helper() -> str:
        return "read"

    @requires_auth
    async def tool() -> str:
        return str(await helper())

    assert Caller(person("alice", "read")).calls(tool) == "read"
    assert isinstance(refusal(Caller(person()), tool), InsufficientScopeError)


class Greeter:
    """Says hello."""

    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    async def hello(self, name: str, *, user_id: str) -> str:
        return f"{self.greeting} {name} from {user_id}"

    @requires_auth
    async def guarded(self, name: str, *, user_id: str) -> str:
        return f"{self.greeting} {name} from {user_id}"

    async def __call__(self, name: str, *, user_id: str) -> str:
        return await self.hello(name, user_id=user_id)


class SyncGreeter:
    """Says hello, in its own time."""

    def __call__(self, name: str, *, user_id: str) -> tuple[str, int]:
        return f"hi {name} from {user_id}", threading.get_ident()


@pytest.mark.parametrize(
    "function",
    [
        Greeter("hi").hello,
        Greeter("hi"),
        functools.partial(Greeter("hi").hello),
        functools.partial(Greeter("hi").hello, user_id="mallory"),
    ],
    ids=["method", "object", "partial", "partial that gives a user"],
)
def test_whatever_can_be_called_can_be_guarded(function: Tool) -> None:
    assert Caller(person()).calls(requires_auth(function), name="Bob") == "hi Bob from alice"
    assert Caller(person()).calls(requires_auth(function), "Bob") == "hi Bob from alice"


def test_a_guarded_method_is_called_on_its_object() -> None:
    caller = Caller(person())

    assert caller.calls(Greeter("hi").guarded, "Bob") == "hi Bob from alice"
    assert caller.calls(Greeter("ho").guarded, name="Bob") == "ho Bob from alice"


def test_an_object_that_takes_no_attributes_can_be_guarded() -> None:
    @dataclass(frozen=True)
    class Frozen:
        greeting: str

        async def __call__(self, *, user_id: str) -> str:
            return f"{self.greeting} {user_id}"

    assert Caller(person()).calls(requires_auth(Frozen("hi"))) == "hi alice"


def test_an_object_with_a_sync_call_runs_in_another_thread() -> None:
    text, thread = Caller(person()).calls(requires_auth(SyncGreeter()), name="Bob")

    assert text == "hi Bob from alice"
    assert thread != threading.get_ident()


@pytest.mark.parametrize("decorator", [requires_auth, public, requires_scopes("a")])
def test_a_wrapper_is_a_coroutine_function_whatever_it_guards(decorator: GuardDecorator) -> None:
    def sync() -> None: ...

    assert inspect.iscoroutinefunction(decorator(sync))


@pytest.mark.parametrize("args", [(), ("monday", "too many")], ids=len)
@pytest.mark.parametrize("user_id", ["alice", None])
def test_a_call_that_cannot_be_made_leaves_its_token_in_no_variable(
    args: tuple[str, ...], user_id: str | None
) -> None:
    async def connect(_: ConnectionRequest) -> Connection:
        return Connection("ya29.a-connection-of-alice")

    @with_connection("google")
    async def tool(day: str, *, user_id: str, connection_token: str) -> str:
        return f"{day} {user_id} {connection_token}"

    caller = Caller(person(user_id), Desk(connections=FunctionProvider(connect)))
    raised = failure(lambda: caller.calls(tool, *args))

    assert isinstance(raised, TypeError if user_id else AccessDeniedError)
    assert left_behind(raised, "ya29.a-connection-of-alice") == []
    frames = {frame.f_code.co_name: frame.f_locals for frame, _ in walk_tb(raised.__traceback__)}
    assert not any(isinstance(value, dict) and value for value in frames["guarded"].values())


def test_an_async_generator_cannot_be_guarded() -> None:
    async def lines() -> AsyncIterator[str]:
        yield "one"

    with pytest.raises(TypeError, match=r"lines\(\) is an async generator, and <guard: any"):
        requires_auth(lines)


def test_a_builtin_does_not_name_the_scopes_of_a_call() -> None:
    with pytest.raises(TypeError, match="takes the call"):
        requires_scopes(type)  # type: ignore[arg-type]
