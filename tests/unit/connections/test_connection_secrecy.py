"""Does anything that writes out what it is given write out the token of a connection?"""

from __future__ import annotations

import copy
import functools
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from typing import Any, get_type_hints

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    PydanticUserError,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import PydanticSerializationError, to_json, to_jsonable_python

from toolguard import Connection

TOKEN = "ya29.secret"
HELD = Connection(TOKEN, scopes=("calendar",), expires_at=2e9)


@dataclass
class Held:
    connection: Connection


class Model(BaseModel):
    connection: Connection


class Anything(BaseModel):
    held: Any


def _guessed(value: object) -> Any:
    """What mcp 1.x does with a class whose annotations it can read."""
    hints: dict[str, Any] = get_type_hints(type(value))
    config = ConfigDict(from_attributes=True)
    return create_model("Guessed", __config__=config, **hints).model_validate(value).model_dump()


WRITERS: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "format": "{0!r} {0}".format,
    "to_json": to_json,
    "to_json with a fallback": lambda value: to_json(value, fallback=str),
    "to_jsonable_python": to_jsonable_python,
    "to_jsonable_python with a fallback": lambda value: to_jsonable_python(value, fallback=repr),
    "TypeAdapter of Any, as JSON": TypeAdapter(Any).dump_json,
    "TypeAdapter of Any, as Python": lambda value: repr(TypeAdapter(Any).dump_python(value)),
    "TypeAdapter of its type": lambda value: TypeAdapter(type(value)).dump_json(value),
    "TypeAdapter of its type, as Python": lambda v: repr(TypeAdapter(type(v)).dump_python(v)),
    "a model of anything": lambda value: Anything(held=value).model_dump_json(),
    "a guessed model": _guessed,
    "json with str": lambda value: json.dumps(value, default=str),
    "json with vars": lambda value: json.dumps(value, default=vars),
    "json with __dict__": lambda value: json.dumps(value, default=lambda o: o.__dict__),
    "json with asdict": lambda value: json.dumps(value, default=asdict),
    "asdict": asdict,
    "astuple": astuple,
    **{
        f"pickle {each}": functools.partial(pickle.dumps, protocol=each)
        for each in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copyreg": lambda value: value.__reduce_ex__(2),
    "state": lambda value: value.__getstate__(),
}
VALUES: dict[str, Any] = {
    "bare": HELD,
    "in a dict": {"google": HELD},
    "in lists": [[HELD], (HELD,)],
    "in a dataclass": Held(HELD),
    "in a model": Model(connection=HELD),
}
REFUSALS = (
    TypeError,
    AttributeError,
    PydanticSerializationError,
    PydanticInvalidForJsonSchema,
    PydanticUserError,
    ValidationError,
)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_no_writer_gets_at_the_token(write: Callable[[Any], object], value: object) -> None:
    try:
        written = repr(write(value))
    except REFUSALS as refusal:
        written = str(refusal)

    assert TOKEN not in written


def test_the_token_is_there_for_those_who_ask_for_it() -> None:
    again = Connection(TOKEN, scopes=["calendar"], expires_at=2e9)

    assert HELD.token == TOKEN
    assert (again, hash(again)) == (HELD, hash(HELD))
    assert Connection("ya29.other") != HELD
    assert HELD != TOKEN
    assert copy.copy(HELD) is copy.deepcopy(HELD) is HELD


def test_a_model_holds_a_connection_as_it_is() -> None:
    model = Model(connection=HELD)

    assert model.connection is HELD
    assert model.model_copy(deep=True).connection is HELD
    assert model.model_dump()["connection"] == repr(HELD)
    assert Model.model_json_schema(mode="serialization")["properties"]["connection"] == {
        "title": "Connection",
        "type": "string",
    }


@pytest.mark.parametrize("name", ["token", "token_type", "scopes", "expires_at", "refetch", "x"])
def test_a_connection_does_not_change(name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(HELD, name, "other")


def test_no_client_can_send_a_connection() -> None:
    with pytest.raises(PydanticInvalidForJsonSchema):
        Model.model_json_schema()
    with pytest.raises(ValueError, match="instance of Connection"):
        Model.model_validate({"connection": {"token": TOKEN}})
