"""Read an unexpected exception of a provider, which another's code raised."""

from __future__ import annotations

import logging
import sys
from traceback import walk_tb

from toolguard.connections.retries import retry_after_seconds
from toolguard.errors import (
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parts.contained import kind_of

__all__ = ["read_fault"]

_log = logging.getLogger("toolguard")

# Both have the same exceptions; neither is imported for this.
_HTTP_CLIENTS = ("httpx", "httpx2")
_OUTAGES = (ConnectionError, TimeoutError)
_BROKEN_OFF = "CancelledError"  # of something that the provider waits for
_PACKAGE = __name__.partition(".")[0]


def read_fault(error: Exception, name: str) -> ConnectionTokenError:
    """Return what an exception means for the caller, and log its type and place.

    Faults of an HTTP client or of the network mean "try again"; a refusal (4xx) does not. The text
    is neither logged nor kept: it may quote a credential.

    Args:
        error: the exception.
        name: the name of the connection.
    """
    kind = kind_of(error)
    _log.error("connection %s: %s in %s", name, kind, _place(error))
    status, retry_after = _answered(error)
    if status == 429:  # noqa: PLR2004 - RFC 6585 §4
        return ConnectionRateLimitedError(
            f"{name} is asked for too often: try again later",
            connection=name,
            retry_after=retry_after,
        )
    is_outage = isinstance(error, _OUTAGES) or kind == _BROKEN_OFF
    is_outage = is_outage or _is_raised_by_client(error, "HTTPError")
    if status is None and not is_outage:
        return ConnectionResponseError(f"The provider of {name} failed", connection=name)
    if status is not None and status < 500 and status != 408:  # noqa: PLR2004 - RFC 9110 §15
        return ConnectionResponseError(
            f"The provider of {name} was refused ({status})", connection=name
        )
    return ConnectionUnavailableError(
        f"The provider of {name} cannot be reached ({kind}): try again",
        connection=name,
    )


def _answered(error: Exception) -> tuple[int | None, int | None]:
    """Return the status and the delay of the answer that ``raise_for_status`` refused."""
    if not _is_raised_by_client(error, "HTTPStatusError"):
        return None, None
    response = error.response  # type: ignore[attr-defined] # both clients have it
    delay = response.headers.get("Retry-After", "")
    # A date would need the time: such a delay is left out.
    return response.status_code, retry_after_seconds(delay, 0.0) if delay.isdecimal() else None


def _is_raised_by_client(error: Exception, kind: str) -> bool:
    classes = (getattr(sys.modules.get(client), kind, None) for client in _HTTP_CLIENTS)
    return any(isinstance(each, type) and isinstance(error, each) for each in classes)


def _place(error: Exception) -> str:
    """Return where it was raised, and the last line of the provider on the way there."""
    lines = [
        (frame.f_globals.get("__name__", ""), f"{frame.f_code.co_filename}:{line}")
        for frame, line in walk_tb(error.__traceback__)
    ]
    if not lines:
        return "an unknown place"
    raised = lines[-1][1]
    own = [
        place
        for module, place in lines
        if module.partition(".")[0] != _PACKAGE and "site-packages" not in place
    ]
    return raised if not own or own[-1] == raised else f"{raised}, from {own[-1]}"
