"""The command ``toolguard audit``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TextIO

from toolguard.audit import audit
from toolguard.audit.formats import FORMATS, Format
from toolguard.audit.loading import LoadError, load_server
from toolguard.audit.offered import offered_scopes
from toolguard.errors import KeysUnavailableError

__all__ = ["AuditSettings", "run_audit"]

_FAILED, _UNUSABLE = 1, 2


@dataclass(frozen=True)
class AuditSettings:
    """The arguments of ``toolguard audit``.

    Attributes:
        target: the server, as ``module:attribute``.
        format: the format of the report.
        check: whether findings fail the build.
        issuer: the authorization server whose scopes are compared; None to skip that.
    """

    target: str
    format: Format = "text"
    check: bool = False
    issuer: str | None = None


def run_audit(
    settings: AuditSettings,
    out: TextIO,
    err: TextIO,
    offered: Callable[[str], tuple[str, ...] | None] = offered_scopes,
    load: Callable[[str], Any] = load_server,
) -> int:
    """Write the report to ``out`` and the findings, one in a line, to ``err``.

    Args:
        settings: the arguments of the command.
        out: the stream for the report.
        err: the stream for the findings, or for the error if there is no report.
        offered: fetches the scopes of an authorization server.
        load: returns the server that the target names.

    Returns:
        The exit code: 0; 1 with ``check`` if there are findings; 2 if there is no report.
    """
    try:
        server = load(settings.target)
        scopes = offered(settings.issuer) if settings.issuer is not None else None
    except (LoadError, KeysUnavailableError, ValueError) as error:
        _write(f"toolguard audit: {error}", err)
        return _UNUSABLE
    report = audit(server, offered_scopes=scopes)
    if settings.issuer is not None and scopes is None:
        note = f"{settings.issuer} does not say which scopes it offers, so none was looked for"
        report = replace(report, notes=(*report.notes, note))
    _write(FORMATS[settings.format](report), out)
    for finding in report.findings:
        _write(f"{finding.code}: {finding.message}", err)
    return _FAILED if settings.check and report.findings else 0


def _write(text: str, stream: TextIO) -> None:
    """Print a line, escaping characters that the stream cannot encode."""
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)
