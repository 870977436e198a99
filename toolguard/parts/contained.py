"""Contain what a function of the user's raises, so that it ends one call and not the server.

``sys.exit()``, an exception of a test framework or a cancellation that escapes from one call ends
the task group of the framework, and with it every session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import anyio

from toolguard.parts.threads import in_own_thread

__all__ = ["EndingError", "contained", "contained_in_thread", "kind_of"]

T = TypeVar("T")


class EndingError(Exception):
    """A function raised what would have ended the server; the text is the class of that."""


@contextmanager
def contained() -> Iterator[None]:
    """Raise what would end the server as an ``EndingError``.

    A cancellation of the running task, Ctrl-C and the end of a coroutine pass through. Before
    Python 3.11 every cancellation does, because it cannot be told whose it is.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)) or _is_cancelled(error):
            raise
        raise _ending(error) from None


async def contained_in_thread(function: Callable[..., T], *args: object) -> T:
    """Call a synchronous ``function`` in a thread that no tool uses; a cancelled call leaves it.

    Neither Ctrl-C nor a cancellation arrives there.

    Raises:
        EndingError: if it raises what would end the server.
        Exception: as raised by the function.
    """
    return await in_own_thread(_called, function, *args, abandon=True)


def _called(function: Callable[..., T], *args: object) -> T:
    try:
        return function(*args)
    except Exception:
        raise
    except BaseException as error:  # noqa: BLE001 - of the user's: it cannot end the server
        raise _ending(error) from None


def _ending(error: BaseException) -> EndingError:
    return EndingError(type(error).__name__).with_traceback(error.__traceback__)


def kind_of(error: Exception) -> str:
    """Return the class of what a function has raised, for the log."""
    return str(error) if isinstance(error, EndingError) else type(error).__name__


def _is_cancelled(error: BaseException) -> bool:
    """Return whether ``error`` is a cancellation, and that of the running task."""
    import asyncio  # noqa: PLC0415 - takes long to import

    if not isinstance(error, anyio.get_cancelled_exc_class()):
        return False
    task = asyncio.current_task() if isinstance(error, asyncio.CancelledError) else None
    cancelling: Callable[[], int] | None = getattr(task, "cancelling", None)
    return cancelling is None or cancelling() > 0
