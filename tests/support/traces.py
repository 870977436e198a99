"""Where in the variables of a traceback does a token stand?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from traceback import walk_tb

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

__all__ = ["failure", "left_behind"]


def texts(value: object, depth: int = 0) -> Iterator[str]:
    """Yield the texts that a value holds, a few levels deep."""
    if isinstance(value, (str, bytes)):
        yield value if isinstance(value, str) else value.decode("latin-1")
    elif depth < 4:
        for item in parts_of(value):
            yield from texts(item, depth + 1)


def parts_of(value: object) -> list[object]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, partial):
        return [*value.args, *value.keywords.values()]
    if is_dataclass(value):
        return [getattr(value, field.name, None) for field in fields(value)]
    return [vars(value)] if isinstance(value, (AuthenticatedUser, AccessToken)) else []


def left_behind(error: BaseException | None, secret: str) -> list[str]:
    """Return where in the frames of an error, and of its causes, a part of the token stands."""
    # The payload cannot be told from the claims it says; header and payload are what was signed.
    parts = [part for part in (secret, secret.rpartition(".")[0], secret[-40:]) if len(part) > 12]
    found = []
    while error is not None:
        for frame, _ in walk_tb(error.__traceback__):
            if not str(frame.f_globals.get("__name__")).startswith("toolguard."):
                continue
            for name, value in frame.f_locals.items():
                if any(part in text for text in texts(value) for part in parts):
                    found.append(f"{frame.f_code.co_name}: {name}")
        error = error.__cause__ or error.__context__
    return found


def failure(run: Callable[[], object]) -> BaseException:
    try:
        run()
    except BaseException as error:  # noqa: BLE001 - each kind of failure is looked at
        return error
    raise AssertionError("it did not fail")
