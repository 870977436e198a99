"""Which exceptions of a user's function end one call, and which end more?"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from toolguard.parts.contained import EndingError, contained, contained_in_thread, kind_of

TELLS_CANCELLATIONS = sys.version_info >= (3, 11)


class Odd(BaseException):
    """As the exceptions of test frameworks are."""


def raising(error: BaseException) -> Callable[..., Any]:
    async def function() -> None:
        with contained():
            raise error

    return function


@pytest.mark.parametrize("error", [SystemExit(3), Odd("eyJhbGciOi")], ids=repr)
def test_what_would_end_the_server_becomes_an_exception(error: BaseException) -> None:
    with pytest.raises(EndingError) as caught:
        asyncio.run(raising(error)())

    assert kind_of(caught.value) == str(caught.value) == type(error).__name__


@pytest.mark.parametrize("error", [KeyboardInterrupt(), GeneratorExit(), ValueError("x")], ids=repr)
def test_what_a_function_cannot_be_blamed_for_stays_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, contained():
        raise error

    assert caught.value is error


def test_other_exceptions_keep_their_name() -> None:
    assert kind_of(ValueError("eyJhbGciOi")) == "ValueError"


@pytest.mark.skipif(not TELLS_CANCELLATIONS, reason="Python 3.10 cannot tell them apart")
def test_a_cancellation_of_something_else_is_contained() -> None:
    with pytest.raises(EndingError, match="CancelledError"):
        asyncio.run(raising(asyncio.CancelledError())())


def test_a_cancellation_of_the_running_task_is_not_contained() -> None:
    async def main() -> bool:
        async def waiting() -> None:
            with contained():
                began.set()
                await asyncio.Event().wait()

        began = asyncio.Event()
        task = asyncio.create_task(waiting())
        await began.wait()
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert asyncio.run(main())


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_end_of_a_scope_is_not_contained(backend: str) -> None:
    async def main() -> bool:
        with anyio.CancelScope() as scope:
            with contained():
                scope.cancel()
                await anyio.sleep_forever()
        return scope.cancelled_caught

    pytest.importorskip(backend)
    assert anyio.run(main, backend=backend)


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), Odd(), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError()],
    ids=repr,
)
def test_everything_that_a_thread_raises_is_contained(error: BaseException) -> None:
    def function(raised: BaseException) -> None:
        raise raised

    with pytest.raises(EndingError, match=type(error).__name__):
        asyncio.run(_in_thread(function, error))


async def _in_thread(function: Callable[..., Any], *args: Any) -> Any:
    return await contained_in_thread(function, *args)


def test_a_thread_returns_what_its_function_returns() -> None:
    assert asyncio.run(_in_thread(str.upper, "a")) == "A"
    with pytest.raises(ZeroDivisionError):
        asyncio.run(_in_thread(divmod, 1, 0))
