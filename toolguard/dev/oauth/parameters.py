"""Read request parameters strictly, each at most once."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.requests import Request

from toolguard.dev.oauth.refusals import Refusal

__all__ = ["Parameters", "read_form", "read_query"]

_MAX_FIELDS = 100
_FORM = "application/x-www-form-urlencoded"


class Parameters:
    """The parameters of one request.

    Args:
        pairs: name and value, in their order. One without a value counts as absent (RFC 6749
            §3.1).
    """

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._pairs = [(name, value) for name, value in pairs if value]

    def every(self, name: str) -> tuple[str, ...]:
        """Return all values of ``name``."""
        return tuple(value for key, value in self._pairs if key == name)

    def get(self, name: str) -> str | None:
        """Return the value of ``name``; None if it is absent.

        Raises:
            Refusal: if it is repeated (RFC 6749 §3.1: it must not be).
        """
        values = self.every(name)
        if len(values) > 1:
            raise Refusal("invalid_request", f"{name} is repeated")
        return values[0] if values else None

    def require(self, name: str) -> str:
        """Return the value of ``name``.

        Raises:
            Refusal: if it is absent or repeated.
        """
        value = self.get(name)
        if value is None:
            raise Refusal("invalid_request", f"{name} is missing")
        return value


def read_query(request: Request) -> Parameters:
    """Return the parameters of the URL.

    Raises:
        Refusal: if they cannot be read.
    """
    return _parse(request.scope["query_string"])


async def read_form(request: Request) -> Parameters:
    """Return the parameters of the body.

    Raises:
        Refusal: if it is not a form (RFC 6749, appendix B), or cannot be read.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _FORM:
        raise Refusal("invalid_request", f"send the parameters as {_FORM}")
    return _parse(await request.body())


def _parse(encoded: bytes) -> Parameters:
    try:
        return Parameters(
            parse_qsl(
                encoded.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
        )
    except ValueError:
        raise Refusal("invalid_request", "The parameters cannot be read") from None
