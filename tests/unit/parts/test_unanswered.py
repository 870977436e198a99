"""Does a log tell one reason for which a host does not answer from another?"""

from __future__ import annotations

import socket
import ssl

import httpx
import pytest

from toolguard.parts.unanswered import why_unanswered


def raised(source: BaseException, *, suppressed: bool) -> BaseException:
    """Return the error that a client raises for ``source``, as httpx does: twice wrapped."""
    inner, outer = OSError("all attempts failed"), httpx.ConnectError("https://secret.test: failed")
    inner.__cause__, outer.__context__ = source, inner
    outer.__cause__ = None if suppressed else inner
    return outer


def untrusted() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    return error


@pytest.mark.parametrize("suppressed", [True, False])
@pytest.mark.parametrize(
    ("source", "why"),
    [
        (untrusted(), "ConnectError: its certificate is not accepted, certificate has expired"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), "ConnectError: it does not speak TLS as it sho"),
        (socket.gaierror(-2, "unknown"), "ConnectError: its name cannot be resolved"),
        (ConnectionRefusedError(111, "refused"), "ConnectError: the connection is refused"),
        (OSError("something else"), "ConnectError"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_what_an_error_comes_from_is_told(
    source: BaseException, why: str, suppressed: bool
) -> None:
    told = why_unanswered(raised(source, suppressed=suppressed))

    assert told.startswith(why)
    assert "secret" not in told


def test_of_several_attempts_one_is_told() -> None:
    attempts = OSError("all attempts failed")
    attempts.exceptions = (OSError("unreachable"), ConnectionRefusedError(111, "refused"))  # type: ignore[attr-defined]

    assert why_unanswered(attempts) == "OSError: the connection is refused"


def test_errors_that_come_from_each_other_end() -> None:
    first, second = TimeoutError(), OSError()
    first.__cause__, second.__cause__ = second, first

    assert why_unanswered(first) == "TimeoutError"
