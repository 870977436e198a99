"""Say why a host gives no answer, for those who operate a server: not for its callers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator

__all__ = ["why_unanswered"]

# More than the errors that clients wrap around each other.
_MOST = 32


def why_unanswered(error: BaseException) -> str:
    """Return the type of an error of an HTTP client, and what it comes from, if that is known.

    The text has no address and nothing of an answer.

    Args:
        error: the error, such as ``httpx.ConnectError``, which stands for many faults.

    >>> why_unanswered(TimeoutError())
    'TimeoutError'
    """
    kind = type(error).__name__
    found = next(filter(None, map(_fault, _sources(error))), None)
    return kind if found is None else f"{kind}: {found}"


def _fault(error: BaseException) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not accepted, {error.verify_message.rstrip('.')}"
    if isinstance(error, ssl.SSLError):
        return "it does not speak TLS as it should"
    if isinstance(error, socket.gaierror):
        return "its name cannot be resolved"
    return "the connection is refused" if isinstance(error, ConnectionRefusedError) else None


def _sources(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and those that it comes from, the nearest first."""
    found: list[BaseException] = [error]
    for each in found:  # which grows meanwhile
        yield each
        nested: tuple[BaseException, ...] = getattr(each, "exceptions", ())
        further = (each.__cause__, each.__context__, *nested)
        found += [one for one in further if one is not None and one not in found][:_MOST]
        if len(found) > _MOST:
            return
