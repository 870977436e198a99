"""What a server answered to one message, as far as a search for leaks has to understand it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx

from toolguard.parsing.strict_json import lenient_object
from toolguard.policies.published import LISTS
from toolguard.testing.leaks.capture import Output
from toolguard.testing.server_answer import ServerAnswer

__all__ = ["Reply"]


@dataclass(frozen=True)
class Reply:
    """The answer to one message.

    Attributes:
        method: the method that was called.
        response: what came over HTTP; None if nothing came in time.
        patience: how long was waited, in seconds.
    """

    method: str
    response: httpx.Response | None
    patience: float

    def outputs(self) -> Iterator[Output]:
        """Yield all that can be read in it: the notifications, the answer, the headers."""
        if self.response is None:
            return
        asides = {text: each for text, each in self._messages.items() if "method" in each}
        for text, aside in asides.items():
            yield Output("notification", str(aside["method"]), text)
        # The rest as it came, whatever it is.
        lines = (line for line in self.response.text.split("\n") if _data(line) not in asides)
        yield Output("schema" if self.method in LISTS else "result", "", "\n".join(lines))
        for name, value in self.response.headers.multi_items():
            yield Output("header", name, value)

    @property
    def result(self) -> Mapping[str, Any]:
        """The result; empty if there is none."""
        result = self._body.get("result")
        return result if isinstance(result, Mapping) else {}

    @property
    def succeeded(self) -> bool:
        """Whether the operation was run to its end."""
        return "result" in self._body and not self.result.get("isError", False)

    @cached_property
    def refusal(self) -> Mapping[str, Any]:
        """The members of a refusal; empty if it is not a refusal."""
        if self.response is None:
            return {}
        return ServerAnswer(self.response.status_code, None, self._body).refusal

    @property
    def asked_scopes(self) -> tuple[str, ...]:
        """What a refusal asks for; empty if it is about something else."""
        return tuple(self.refusal.get("required_scopes", ()))

    @property
    def failure(self) -> str:
        """What went wrong, in a word."""
        if self.response is None:
            return f"no answer in {self.patience:g} s"
        error = str(self.refusal.get("error"))
        return error if self.refusal and error.isidentifier() else "an error"

    @cached_property
    def _body(self) -> Mapping[str, Any]:
        """The JSON object that was answered; an empty one if it was none."""
        return next((each for each in self._messages.values() if "method" not in each), {})

    @cached_property
    def _messages(self) -> dict[str, Mapping[str, Any]]:
        """The JSON objects of the body, by what they were read from."""
        if self.response is None:
            return {}
        kind, text = self.response.headers.get("content-type", ""), self.response.text
        lines = text.split("\n") if kind.startswith("text/event-stream") else [f"data:{text}"]
        found: dict[str, Mapping[str, Any]] = {}
        for data in filter(None, map(_data, lines)):
            value = lenient_object(data)  # None for an event that says nothing, or a page of text
            found.update({} if value is None else {data: value})
        return found


def _data(line: str) -> str | None:
    """Return what a line of an event stream says; None if that is about the stream."""
    return line.removeprefix("data:").strip() if line.startswith("data:") else None
