"""Write arguments in one way only, so that equal calls have equal digests and others do not.

Every value is written with its kind, so that a text never stands for a date, nor an object for a
model. A value of an unknown type has no such form: a call that has one cannot be approved.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import math
import pathlib
import sys
import uuid
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from toolguard.decorators.annotations import is_context

__all__ = ["UnreadableArgumentError", "canonical_json", "digest_of", "sent_arguments"]

_AS_TEXT = (
    dt.date,
    dt.time,
    dt.timedelta,
    decimal.Decimal,
    pathlib.PurePath,
    uuid.UUID,
)


class UnreadableArgumentError(Exception):
    """A value has no canonical form.

    Args:
        type_name: the name of its type.
    """

    def __init__(self, type_name: str) -> None:
        super().__init__(f"a value of type {type_name} has no canonical form")
        self.type_name = type_name


def sent_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments without the context that the framework fills in."""
    return {name: value for name, value in arguments.items() if not is_context(type(value))}


def digest_of(value: object) -> str:
    """Return the SHA-256 digest of a value's canonical JSON, in hexadecimal.

    Raises:
        UnreadableArgumentError: if a value in it has no canonical form.
    """
    return sha256(canonical_json(value).encode()).hexdigest()


def canonical_json(value: object) -> str:
    """Return the canonical JSON of a value.

    Raises:
        UnreadableArgumentError: if a value in it has no canonical form.

    >>> canonical_json({"b": 1, "a": [True, None]})
    '["map",["a",["list",true,null]],["b",1]]'
    """
    try:
        return _dumped(_written(value))
    except RecursionError:
        raise UnreadableArgumentError("a value that is nested too deeply") from None


def _dumped(written: object) -> str:
    return json.dumps(written, separators=(",", ":"))


def _written(value: object) -> object:
    if isinstance(value, enum.Enum):
        return ["enum", _name(type(value)), value.name]
    if value is None or isinstance(value, (bool, int, float, str)):
        return _scalar(value)
    if isinstance(value, (list, tuple)):
        return ["list", *map(_written, value)]
    if isinstance(value, (set, frozenset)):
        return ["set", *_sorted(map(_written, value))]
    if isinstance(value, Mapping):
        return ["map", *_members(value)]
    return _object(value)


def _scalar(value: float | str | None) -> object:
    kind = type(value)
    if kind is float and not math.isfinite(value):  # type: ignore[arg-type]
        return ["float", str(value)]
    if value is None or kind in (bool, int, float, str):
        return value
    # Of a class derived from one of them, which may write itself in another way.
    base = next(each for each in (str, int, float) if isinstance(value, each))
    return [_name(kind), base.__repr__(value)]


def _object(value: object) -> object:
    name = _name(type(value))
    if isinstance(value, (bytes, bytearray)):
        return [name, bytes(value).hex()]
    if isinstance(value, _AS_TEXT):
        return [name, repr(value) if isinstance(value, dt.timedelta) else str(value)]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return [name, *_members(fields)]
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        # Not as the model writes itself: it may leave out what a client has sent.
        return [name, *_members({**vars(value), **(value.__pydantic_extra__ or {})})]
    if type(value).__module__ == "pydantic.networks":  # the URLs
        return [name, str(value)]
    raise UnreadableArgumentError(name)


def _members(members: Mapping[Any, Any]) -> list[object]:
    return _sorted([_written(key), _written(value)] for key, value in members.items())


def _sorted(written: Iterable[object]) -> list[object]:
    return sorted(written, key=_dumped)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
