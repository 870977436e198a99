"""Where does a token still stand when its verification has failed?

In the variables of the functions that looked at it: a traceback keeps them, and error reports
send them away.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from traceback import walk_tb

__all__ = ["forget_variables"]

_PACKAGE = __name__.partition(".")[0] + "."
_MAY_GO_ON = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def forget_variables(error: BaseException) -> None:
    """Clear the variables of our functions that ``error`` has come through.

    Only of ordinary ones, which have ended: an error object that was raised before may have come
    through a coroutine that is still at work. A coroutine clears its own.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE) and not (
            frame.f_code.co_flags & _MAY_GO_ON
        ):
            with suppress(RuntimeError):  # it runs, in another thread
                frame.clear()
