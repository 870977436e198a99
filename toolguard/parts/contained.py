"""Contain what a function of the user's raises, so that it ends one call and not the server.

``sys.exit()``, an exception of a test framework or a cancellation that escapes from one call ends
the task group of the framework, and with it every session.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import anyio

__all__ = ["EndingError", "contained", "contained_in_thread", "kind_of"]

P = ParamSpec("P")
T = TypeVar("T")


class EndingError(Exception):
    """A function raised what would have ended the server; the text is the class of that."""


@contextmanager
def contained() -> Iterator[None]:
    """Raise what would end the server as an ``EndingError``.

    A cancellation of the running task, Ctrl-C and the end of a coroutine are nobody's fault, and
    are not contained. Before Python 3.11, no cancellation can be told from one.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if isinstance(error, (KeyboardInterrupt, GeneratorExit)) or _is_cancelled(error):
            raise
        raise EndingError(type(error).__name__).with_traceback(error.__traceback__) from None


def contained_in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call ``function`` in a worker thread, where neither Ctrl-C nor a cancellation arrives.

    Raises:
        EndingError: if it raises what would end the server.
        Exception: as raised by the function.
    """
    try:
        return function(*args, **kwargs)
    except Exception:
        raise
    except BaseException as error:  # noqa: BLE001 - of the user's: it cannot end the server
        raise EndingError(type(error).__name__).with_traceback(error.__traceback__) from None


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
