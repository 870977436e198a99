"""Remove tokens from the local variables that the traceback of a failed verification keeps.

Error reporters send the local variables of every frame to third parties.
"""

from __future__ import annotations

import inspect
from contextlib import suppress
from traceback import walk_tb

__all__ = ["forget_variables"]

_PACKAGE = __name__.partition(".")[0] + "."
_MAY_GO_ON = inspect.CO_COROUTINE | inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def forget_variables(error: BaseException) -> None:
    """Clear the local variables of toolguard's functions in the traceback of ``error``.

    Only frames of ordinary functions are cleared, which have ended: an error object that was
    raised before may have passed a coroutine that still runs. Coroutines clear their own frames.
    """
    for frame, _ in walk_tb(error.__traceback__):
        if frame.f_globals.get("__name__", "").startswith(_PACKAGE) and not (
            frame.f_code.co_flags & _MAY_GO_ON
        ):
            with suppress(RuntimeError):  # the frame still runs, in another thread
                frame.clear()
