"""The answer of a server to a test's request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from toolguard.http.challenge import Challenge
from toolguard.parsing.strict_json import lenient_object

__all__ = ["ServerAnswer"]


@dataclass(frozen=True)
class ServerAnswer:
    """The answer of a server.

    Attributes:
        status: the HTTP status.
        challenge: the ``WWW-Authenticate`` challenge; None if there was none.
        body: the members of a refusal (``error``, ``error_description``, ...), or the JSON-RPC
            response.
    """

    status: int
    challenge: Challenge | None
    body: Mapping[str, Any]

    @classmethod
    def read(
        cls, status: int, challenge: Challenge | None, body: Mapping[str, Any]
    ) -> ServerAnswer:
        """Return the answer with this JSON body; for a refusal over HTTP, its members.

        Args:
            status: the HTTP status.
            challenge: the challenge; None if there was none.
            body: the JSON body.
        """
        found = cls(status, challenge, body)
        return cls(status, challenge, found.refusal or body) if status >= 400 else found  # noqa: PLR2004

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
    def refusal(self) -> Mapping[str, Any]:
        """The members of a refusal; empty if the answer is not a refusal.

        They are the data of a JSON-RPC error, of the framework's or over HTTP, or the text of a
        tool error (RFC 6750 does not define refusals with status 200).
        """
        error = self.body.get("error")
        if isinstance(error, str):
            return self.body
        data = error.get("data") if isinstance(error, Mapping) else lenient_object(self.text)
        return data if isinstance(data, Mapping) and isinstance(data.get("error"), str) else {}

    @property
    def missing_scopes(self) -> tuple[str, ...]:
        """The scopes that a refusal names as missing; empty if it names none."""
        return tuple(self.refusal.get("missing_scopes", ()))

    @property
    def error(self) -> str | None:
        """The code of a refusal, such as ``"insufficient_scope"``; None if there is no error.

        For another JSON-RPC error it is the message.
        """
        if self.refusal:
            return str(self.refusal["error"])
        error = self.body.get("error")
        return str(error.get("message")) if isinstance(error, Mapping) else None


def _texts(result: Mapping[str, Any]) -> Iterator[str]:
    messages = (each.get("content") for each in _items(result, "messages"))
    parts = (*_items(result, "content"), *_items(result, "contents"), *messages)
    for part in parts:
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            yield part["text"]


def _items(result: Mapping[str, Any], member: str) -> list[Mapping[str, Any]]:
    found = result.get(member)
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
