"""Does a made-up argument fit the schema that it is made up for?"""

from __future__ import annotations

import datetime as dt
import enum
import importlib
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AnyUrl, BaseModel, Field, TypeAdapter

from toolguard.testing.leaks.example_arguments import arguments_for, sample, uri_for

# Of what mcp itself depends on.
validate = importlib.import_module("jsonschema").validate


class Colour(enum.Enum):
    RED = "red"


class Place(BaseModel):
    city: str
    colour: Colour
    floor: int = 0


class Node(BaseModel):
    name: Annotated[str, Field(min_length=3)]
    parent: Node | None
    children: list[Node]


TYPES: list[Any] = [
    str,
    int,
    float,
    bool,
    None,
    bytes,
    UUID,
    AnyUrl,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    Decimal,
    Colour,
    Place,
    Node,
    list[int],
    dict[str, int],
    tuple[int, str],
    int | str,
    str | None,
    Literal["a", "b"],
    Annotated[int, Field(ge=5, le=9)],
    Annotated[int, Field(gt=5, lt=7)],
    Annotated[int, Field(le=-3)],
    Annotated[int, Field(ge=2, multiple_of=7)],
    Annotated[float, Field(gt=0, lt=1)],
    Annotated[str, Field(min_length=100)],
    Annotated[str, Field(max_length=0)],
    Annotated[str, Field(pattern="^[a-v0-9]{5,1024}$")],
    Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")],
    Annotated[list[Annotated[int, Field(ge=3)]], Field(min_length=2)],
]


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_sample_fits_the_schema_of_a_type_and_the_type(kind: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    schema = adapter.json_schema()

    value = sample(schema)

    validate(value, schema)
    adapter.validate_python(value)


SCHEMAS: dict[str, tuple[Any, Any]] = {
    "a constant": ({"const": 5, "type": "integer"}, 5),
    "a choice": ({"enum": ["b", "a"]}, "b"),
    "a default": ({"type": "string", "default": "main", "anyOf": [{"type": "string"}]}, "main"),
    "an example": ({"type": "string", "examples": ["alice"]}, "alice"),
    "one of several types": ({"type": ["integer", "null"]}, 1),
    "no type": ({}, "x"),
    "anything": (True, None),
    "parts": (
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                {"$ref": "#/$defs/b"},
            ],
            "$defs": {"b": {"properties": {"b": {"type": "string"}}, "required": ["b"]}},
        },
        {"a": 1, "b": "x"},
    ),
    "an escaped pointer": ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": {"type": "boolean"}}}, False),
    "another document": ({"$ref": "https://schemas.example/person"}, "x"),
    "itself": ({"$ref": "#"}, None),
    "a pattern of ECMAScript": ({"type": "string", "pattern": r"^(?<y>\p{L})$"}, "x"),
    "what nothing fits": ({"type": "integer", "minimum": 5, "maximum": 1}, 1),
    "a first item": (
        {"type": "array", "prefixItems": [{"type": "null"}], "minItems": 2},
        [None, "x"],
    ),
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_sample_of(name: str) -> None:
    schema, value = SCHEMAS[name]

    assert sample(schema) == value


def test_the_arguments_are_those_that_are_required_or_asked_for() -> None:
    number = {"type": "integer"}
    schema = {"properties": {"a": number, "b": number, "c": number}, "required": ["b"]}

    assert arguments_for(schema) == {"b": 1}
    assert arguments_for(schema, also=["a", "unknown"]) == {"b": 1, "a": 1}
    assert arguments_for({}) == {}


@pytest.mark.parametrize(
    ("template", "uri", "variables"),
    [
        ("calendar://today", "calendar://today", ""),
        ("calendar://{day}", "calendar://1", "day"),
        ("files://{path*}", "files://1", "path"),
        ("files:/{+path}/{name:3}", "files:/1/1", "path name"),
        ("files:/{/path}{.kind}", "files://1.1", "path kind"),
        ("mail://{folder}{?from,to}", "mail://1?from=1&to=1", "folder from to"),
        ("mail://inbox?all=1{&from}", "mail://inbox?all=1&from=1", "from"),
        ("point://{x,y}{#part}", "point://1,1#1", "x y part"),
        ("point://a{;x}", "point://a;x=1", "x"),
    ],
)
def test_a_template_becomes_a_uri(template: str, uri: str, variables: str) -> None:
    assert uri_for(template) == (uri, dict.fromkeys(variables.split(), "1"))
