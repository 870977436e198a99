"""What a look at a server found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Diagnosis"]


@dataclass(frozen=True)
class Diagnosis:
    """One finding. It contains no token.

    Attributes:
        code: a word for scripts, such as ``"metadata-missing"``.
        subject: what it is about: a URL, or the server.
        expected: what was expected there.
        found: what was found.
        remedy: what to do.
        level: ``"fault"``, or ``"note"`` for what may be intended.
    """

    code: str
    subject: str
    expected: str
    found: str
    remedy: str
    level: Literal["fault", "note"] = "fault"

    def __str__(self) -> str:
        # A server's answer goes to a terminal, or to the log of a CI job that obeys some lines.
        subject, expected, found, remedy = (
            text if text.isprintable() else ascii(text)
            for text in (self.subject, self.expected, self.found, self.remedy)
        )
        return (
            f"{self.level}: {self.code}: {subject}\n"
            f"  expected: {expected}\n  found:    {found}\n  do:       {remedy}"
        )
