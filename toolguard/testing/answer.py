"""What came back over the wire?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolguard.http.challenge import Challenge

__all__ = ["Answer"]


@dataclass(frozen=True)
class Answer:
    """What came back over the wire.

    Attributes:
        status: the HTTP status.
        challenge: the WWW-Authenticate challenge, None if there was none.
        body: the JSON body: of the refusal, or the JSON-RPC response.
    """

    status: int
    challenge: Challenge | None
    body: Mapping[str, Any]

    @property
    def ok(self) -> bool:
        """Whether the operation ran and did not report an error."""
        answered = self.status == 200 and "result" in self.body  # noqa: PLR2004
        return answered and not self.result.get("isError", False)

    @property
    def result(self) -> Mapping[str, Any]:
        """The JSON-RPC result; empty if there was none."""
        result = self.body.get("result", {})
        return result if isinstance(result, Mapping) else {}

    @property
    def text(self) -> str:
        """The text of the result: of a tool's content, a resource, or a prompt's messages."""
        return "\n".join(_texts(self.result))

    @property
    def missing_scopes(self) -> tuple[str, ...]:
        """The scopes that a refusal names as missing; empty if it names none."""
        return tuple(self.body.get("missing_scopes", ()))

    @property
    def error(self) -> str | None:
        """What a refusal is called, such as ``"insufficient_scope"``; None if it is none."""
        error = self.body.get("error")
        if isinstance(error, Mapping):  # of JSON-RPC
            data = error.get("data")
            error = data.get("error") if isinstance(data, Mapping) else str(error.get("message"))
        return error if isinstance(error, str) else None


def _texts(result: Mapping[str, Any]) -> Iterator[str]:
    messages = result.get("messages", ())
    parts = [*result.get("content", ()), *result.get("contents", ())]
    for part in (*parts, *(message.get("content", {}) for message in messages)):
        if isinstance(part.get("text"), str):
            yield part["text"]
