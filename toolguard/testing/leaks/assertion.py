"""Assert that a server does not leak its callers' tokens."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from toolguard.calls.waiting import wait_for
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.leaks.search import ByOperation, Leak, LeakReport, LeakSearch

__all__ = ["LeakError", "assert_no_leaks", "assert_no_leaks_async"]


class LeakError(AssertionError):
    """A token leaked. The message contains no token.

    Attributes:
        report: the report of the search.
    """

    def __init__(self, report: LeakReport) -> None:
        self.report = report
        super().__init__("\n  ".join(["tokens can be read:", *map(str, report.leaks)]))

    @property
    def leaks(self) -> tuple[Leak, ...]:
        """The places at which pieces of tokens can be read."""
        return self.report.leaks


def assert_no_leaks(
    server: object,
    *,
    arguments: ByOperation | None = None,
    claims: ByOperation | None = None,
    skip: Collection[str] = (),
    user: str = "alice",
    issuer: LocalIssuer | None = None,
) -> LeakReport:
    """Fail if tokens of callers, or of their connections, leak; outside of event loops.

    Every tool, resource, template and prompt is called over the server's own HTTP application:
    by a caller with all required scopes and claims, by callers whose token has no scope, has
    expired or is for another server, and by one without a token. Each token is unique.
    Then the answers with their headers, the notifications before them, the lists with their
    schemas, the log records of all loggers (at every level), warnings, the standard output and
    error, exceptions, decision records, and the spans of OpenTelemetry if its SDK is set up, are
    searched for 16 consecutive characters of any token, plain, in base64 or in hexadecimal. Claims
    of a token and digests are not leaks.

    **Your functions run for real**, some of them more than once, and may fail: no service accepts
    the tokens. Requests to other services are not searched. The guard's own connection provider
    is not used; nor is its verifier, unless ``issuer`` is given.

    Args:
        server: the server, after ``guard.protect(server)``.
        arguments: the arguments by operation, instead of the smallest that its schema allows; for
            a template the URI to read, as ``{"uri": ...}``. Operations are named as in
            ``protect(rules=...)``: ``"delete_event"``, ``"prompt:plan"``.
        claims: the claims of the caller's token by operation, where they cannot be derived from
            its guards (``requires``, ``requires_claim``): ``{"approve": {"plan": "gold"}}``.
        skip: operations that are not called at all.
        user: the subject of the tokens.
        issuer: mints the tokens, if the guard has its verifier; by default an issuer of this
            process that the guard trusts during the search. Required if the framework verifies.

    Returns:
        The report. A ``UserWarning`` names the operations that were not searched completely.

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
    server: object,
    *,
    arguments: ByOperation | None = None,
    claims: ByOperation | None = None,
    skip: Collection[str] = (),
    user: str = "alice",
    issuer: LocalIssuer | None = None,
) -> LeakReport:
    """Search as :func:`assert_no_leaks` does, from inside an event loop."""
    search = LeakSearch(server, arguments or {}, claims or {}, skip=skip, user=user, issuer=issuer)
    return _judged(await search.run())


def _judged(report: LeakReport) -> LeakReport:
    if report.leaks:
        raise LeakError(report)
    partly = [f"{key} refused every caller ({why})" for key, why in report.refused.items()]
    partly += [f"{key} ended in an error ({why})" for key, why in report.failed.items()]
    if partly:
        warnings.warn(
            f"searched in part only: {'; '.join(partly)}. Give claims= or arguments= by "
            "operation, or skip= them",
            stacklevel=3,
        )
    return report
