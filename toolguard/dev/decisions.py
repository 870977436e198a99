"""What have the guarded servers decided? The last of it, for the console.

The user's own server runs in another process. It appends its decision records to a file, because
``TOOLGUARD_RECORDS`` names one, and the end of that file is read when the page is asked for. Other
things may stand in it: a line that is not a record is skipped, and no text is shown as it is.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from toolguard.calls.records import (
    APPROVAL_VERDICTS,
    GRANT_VERDICTS,
    DecisionRecord,
    DecisionVerdict,
)
from toolguard.dev.oauth.notes import fit_to_show
from toolguard.parsing.strict_json import lenient_object

__all__ = ["Decisions", "ShownDecision", "parse_record", "records_file"]

_DIRECTORY = "toolguard-records"
_SHOWN = 30
_READ = 262_144
# The year 2100, in seconds since the epoch.
_LATEST = 4_102_444_800
_GOOD = frozenset({"served", "filtered", "connected", "refreshed", "disconnected", "approved"})
_WORDS: Mapping[str, str] = {
    "missing_token": "the request has no token",
    "invalid_token": "the token is not accepted",
    "invalid_dpop_proof": "the proof of the token's key is not accepted",
    "insufficient_scope": "the token lacks scopes",
    "insufficient_user_authentication": "the sign-in is too long ago or too weak",
    "access_denied": "this caller may not, and no scope changes that",
    "temporarily_unavailable": "tokens cannot be checked now",
    "approval_required": "a person has to approve the call first",
    "approval_refused": "a person said no",
    "connection_required": "the account has to be connected first",
}


@dataclass(frozen=True)
class ShownDecision:
    """One decision in words that can be shown.

    Attributes:
        at: when, in seconds since the epoch.
        verdict: how it ended.
        ran: whether the operation ran without a fault.
        asked: the operation.
        caller: who called.
        code: the code of the refusal; empty without one.
        reason: why it ended so, in plain words.
    """

    at: float
    verdict: str
    ran: bool
    asked: str
    caller: str
    code: str
    reason: str

    @classmethod
    def of(cls, record: DecisionRecord, clients: Mapping[str, str]) -> ShownDecision:
        """Return a record in words.

        Args:
            record: the record.
            clients: the names of clients by their ids.
        """
        return cls(
            record.time,
            fit_to_show(record.verdict.replace("_", " ")),
            record.verdict in _GOOD,
            fit_to_show(" ".join(_asked(record))),
            fit_to_show(" ".join(_caller(record, clients))),
            fit_to_show(record.reason or "") if record.verdict != "failed" else "",
            fit_to_show("; ".join(_reasons(record))),
        )


class Decisions:
    """The last decisions of the guarded servers.

    Attributes:
        file: where a server in another process appends its records; None without one.
    """

    def __init__(self) -> None:
        self.file: Path | None = None
        self._noted: deque[DecisionRecord] = deque(maxlen=_SHOWN)

    def note(self, record: DecisionRecord) -> None:
        """Note a decision of a server in this process."""
        self._noted.append(record)

    def last(self, clients: Mapping[str, str]) -> list[ShownDecision]:
        """Return the last decisions, the newest first.

        Args:
            clients: the names of clients by their ids.
        """
        written = map(parse_record, _last_lines(self.file) if self.file is not None else ())
        known = [*(each for each in written if each is not None), *self._noted.copy()]
        newest = sorted(known, key=_time, reverse=True)[:_SHOWN]
        return [ShownDecision.of(each, clients) for each in newest]


def _time(record: DecisionRecord) -> float:
    return record.time


def _last_lines(file: Path) -> list[bytes]:
    """Return the lines at the end of a file, the last first; none if it cannot be read."""
    with suppress(OSError), file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - _READ))
        lines = opened.read(_READ).split(b"\n")
        # What precedes the first line break may be the rest of a line.
        return lines[:0:-1] if size > _READ else lines[::-1]
    return []


def parse_record(line: bytes) -> DecisionRecord | None:
    """Return the record that a line holds; None if it holds none."""
    members = lenient_object(line)
    if members is None:
        return None
    found = {name: read(members.get(name)) for name, read in _READERS.items()}
    known = {name: value for name, value in found.items() if value is not None}
    if not known.keys() >= _REQUIRED:
        return None
    return DecisionRecord(**known)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _texts(value: object) -> tuple[str, ...] | None:
    return (
        tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else None
    )


def _flag(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _when(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if 0 <= value < _LATEST else None


def _verdict(value: object) -> str | None:
    return value if isinstance(value, str) and value in _VERDICTS else None


_VERDICTS = frozenset(
    verdict for kinds in get_args(DecisionVerdict) for verdict in get_args(kinds) or (kinds,)
)
_REQUIRED = {"time", "server", "verdict"}
_READERS: Mapping[str, Callable[[object], Any]] = {
    **dict.fromkeys(("server", "reason", "method", "kind", "operation", "issuer"), _text),
    **dict.fromkeys(("subject", "client", "tenant", "actor", "rule", "denied_by"), _text),
    **dict.fromkeys(("missing_scopes", "token_scopes", "connections", "hidden"), _texts),
    "nested": _flag,
    "time": _when,
    "verdict": _verdict,
}


def _asked(record: DecisionRecord) -> Iterator[str]:
    if record.verdict in GRANT_VERDICTS:
        yield "the account of"
        yield ", ".join(record.connections) or "a connection"
    elif record.operation is not None:
        yield record.kind or "operation"
        yield record.operation
    else:
        yield record.method or "a request"


def _caller(record: DecisionRecord, clients: Mapping[str, str]) -> Iterator[str]:
    if record.is_anonymous:
        yield "a caller without a valid token"
        return
    yield record.subject or "no user"
    if record.actor:
        yield f"by {record.actor}"
    if record.client:
        yield f"through {clients.get(record.client, record.client)}"


def _reasons(record: DecisionRecord) -> Iterator[str]:
    code, _, detail = (record.reason or "").partition(":")
    if record.missing_scopes:
        yield f"the token lacks {' '.join(record.missing_scopes)}"
        yield f"it has {' '.join(record.token_scopes) or 'no scope'}"
    elif record.verdict == "failed":
        yield f"the caller was let in; then the operation ended in {record.reason or 'an error'}"
    elif code:
        words = _WORDS.get(code, code.replace("_", " "))
        yield f"{words}: {detail.replace('_', ' ')}" if detail else words
    if record.denied_by:
        yield f"expected: {record.denied_by}"
    elif record.rule and not record.missing_scopes and record.verdict not in APPROVAL_VERDICTS:
        yield f"rule: {record.rule}"
    if record.connections and record.verdict not in GRANT_VERDICTS:
        yield f"connections: {', '.join(record.connections)}"
    if record.hidden:
        yield f"left out: {', '.join(record.hidden)}"
    if record.nested:
        yield "called by another tool of the server"


@contextmanager
def records_file(name: str) -> Iterator[Path]:
    """Yield an empty file for the records of a server; remove it at the end.

    It is at the same place each time, so that the variables of the server stay the same, and in a
    directory that only this user can read.

    Args:
        name: tells development servers that run at the same time from each other.

    Raises:
        OSError: if it cannot be made, or others can write there.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    directory = Path(tempfile.gettempdir(), _DIRECTORY if user is None else f"{_DIRECTORY}-{user}")
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    is_private = found.st_uid == user and stat.S_IMODE(found.st_mode) & 0o077 == 0
    if not stat.S_ISDIR(found.st_mode) or not (user is None or is_private):
        raise PermissionError(
            errno.EPERM,
            "it is not a directory of yours alone: remove it, or set TMPDIR",
            str(directory),
        )
    file = directory / f"{name}.jsonl"
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)
