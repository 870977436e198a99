"""Does a server keep its callers' tokens to itself?"""

from __future__ import annotations

import warnings
from collections.abc import Collection
from typing import Any

from toolguard.calls.waiting import wait_for
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.leak_search import ByOperation, Leak, LeakReport, LeakSearch

__all__ = ["LeakError", "assert_no_leaks", "assert_no_leaks_async"]


class LeakError(AssertionError):
    """Pieces of tokens can be read where they should not be. Its text holds none.

    Attributes:
        report: what was tried, and what was found.
    """

    def __init__(self, report: LeakReport) -> None:
        self.report = report
        super().__init__("\n  ".join(["tokens can be read:", *map(str, report.leaks)]))

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """Where."""
        return self.report.leaks


def assert_no_leaks(
    server: Any,
    *,
    arguments: ByOperation | None = None,
    claims: ByOperation | None = None,
    skip: Collection[str] = (),
    user: str = "alice",
    issuer: LocalIssuer | None = None,
) -> LeakReport:
    """Fail if tokens of callers, or of their connections, show anywhere; outside of event loops.

    Every tool, resource, template and prompt is called over the server's own HTTP application:
    by a caller whose token has all that it asks for, by one whose token has no scope, has
    expired or is for another server, and by one without a token. Each token is like no other.
    Then the answers with their headers, the notifications before them, the lists with their
    schemas, the log records of all loggers (at every level), warnings, the standard output and
    error, exceptions, and the spans of OpenTelemetry if its SDK is set up, are searched for 16
    characters in a row of any of them, plain, in base64 or in hexadecimal. What is read out of a
    token is no leak, nor is a digest.

    **Your functions run for real**, some of them more than once, and may well fail: no service
    accepts the tokens. What they send to other services is not looked at. The guard's own
    provider of connections is not asked; nor its verifier, unless ``issuer`` is given.

    Args:
        server: the server, after ``guard.protect(server)``.
        arguments: by operation, what it is called with, instead of the least that its schema
            allows; of a template the URI to read, as ``{"uri": ...}``. Operations are named as
            in ``protect(rules=...)``: ``"delete_event"``, ``"prompt:plan"``.
        claims: by operation, what the caller's token has to say where that cannot be told from
            its guards (``requires``, ``requires_claim``): ``{"approve": {"plan": "gold"}}``.
        skip: operations that are not called at all.
        user: the subject of the tokens.
        issuer: who mints the tokens, where the guard has its verifier; by default an issuer of
            this process that the guard trusts meanwhile. Needed if the framework verifies.

    Returns:
        What was tried. A ``UserWarning`` names what was not searched to its end.

    Raises:
        LeakError: naming every place.
        ValueError: if the server is not protected, or has no operation of a given name.

    Example::

        def test_my_server_keeps_tokens_to_itself() -> None:
            assert_no_leaks(server, skip={"delete_everything"})
    """
    search = LeakSearch(server, arguments or {}, claims or {}, skip=skip, user=user, issuer=issuer)
    return _judged(wait_for(search.run))


async def assert_no_leaks_async(
    server: Any,
    *,
    arguments: ByOperation | None = None,
    claims: ByOperation | None = None,
    skip: Collection[str] = (),
    user: str = "alice",
    issuer: LocalIssuer | None = None,
) -> LeakReport:
    """Do what :func:`assert_no_leaks` does, from inside an event loop."""
    search = LeakSearch(server, arguments or {}, claims or {}, skip=skip, user=user, issuer=issuer)
    return _judged(await search.run())


def _judged(report: LeakReport) -> LeakReport:
    if report.leaks:
        raise LeakError(report)
    partly = [f"{key} let nobody in ({why})" for key, why in report.refused.items()]
    partly += [f"{key} ended in an error ({why})" for key, why in report.failed.items()]
    if partly:
        warnings.warn(
            f"searched in part only: {'; '.join(partly)}. Give claims= or arguments= by "
            "operation, or skip= them",
            stacklevel=3,
        )
    return report
