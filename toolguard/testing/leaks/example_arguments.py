"""Example arguments for operations.

They are the smallest that a schema allows; a guess where the schema is incomplete.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias

__all__ = ["arguments_for", "sample", "uri_for"]

_Schema: TypeAlias = Mapping[str, Any]

# The maximum depth of a sample; a schema may be recursive.
_DEPTH = 16
# A name that is looked up nowhere (RFC 2606), except where a validator refuses such names.
_FORMATS = {
    "byte": "eA==",
    "date": "2030-01-07",
    "date-time": "2030-01-07T10:00:00Z",
    "duration": "PT1H",
    "email": "x@example.com",
    "hostname": "example.invalid",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "time": "10:00:00Z",
    "uri": "https://example.invalid/",
    "uuid": "12345678-1234-4234-8234-123456789abc",
}
_LONGEST = 64
_VARIABLES = re.compile(r"\{([+#./;?&]?)([^{}]+)\}")
# RFC 6570 §2.2: an operator, and what stands before the first value and between them.
_OPERATORS = {"": ("", ","), "+": ("", ","), "#": ("#", ","), ".": (".", "."), "/": ("/", "/")}
_NAMED_OPERATORS = {"?": ("?", "&"), "&": ("&", "&"), ";": (";", ";")}


def arguments_for(schema: _Schema, also: Collection[str] = ()) -> dict[str, Any]:
    """Return the arguments that the schema of a tool requires.

    Args:
        schema: a JSON schema, of an object.
        also: further properties to include, which are not required.

    >>> arguments_for({"properties": {"day": {"type": "string"}, "limit": {}}, "required": ["day"]})
    {'day': 'x'}
    """
    required, properties = schema.get("required", ()), schema.get("properties", {})
    names = dict.fromkeys((*required, *(name for name in also if name in properties)))
    return {name: sample(properties.get(name, {}), schema) for name in names}


def uri_for(template: str, value: str = "1") -> tuple[str, dict[str, str]]:
    """Return a URI of a template (RFC 6570), and the values of its variables.

    Args:
        template: the template, or a URI.
        value: of each variable.

    >>> uri_for("calendar://{day}/events{?limit}")
    ('calendar://1/events?limit=1', {'day': '1', 'limit': '1'})
    """
    values: dict[str, str] = {}

    def expanded(match: re.Match[str]) -> str:
        names = [name.rstrip("*").partition(":")[0] for name in match[2].split(",")]
        values.update(dict.fromkeys(names, value))
        if match[1] in _NAMED_OPERATORS:
            before, between = _NAMED_OPERATORS[match[1]]
            return before + between.join(f"{name}={value}" for name in names)
        before, between = _OPERATORS[match[1]]
        return before + between.join(value for _ in names)

    return _VARIABLES.sub(expanded, template), values


def sample(schema: object, root: _Schema | None = None, depth: int = 0) -> Any:
    """Return a value that a JSON schema allows, as small as it can be.

    Args:
        schema: the schema.
        root: the schema around it, in which ``$ref`` is looked up.
        depth: how deep in the value this is.

    >>> sample({"type": "array", "minItems": 2, "items": {"enum": ["a", "b"]}})
    ['a', 'a']
    """
    if not isinstance(schema, Mapping) or depth > _DEPTH:
        return None
    root = schema if root is None else root
    simpler = _simplified(schema, root)
    if simpler is not None:
        return sample(simpler, root, depth + 1)
    given = (*schema.get("enum", ()), *schema.get("examples", ()))
    for value in (*(schema[word] for word in ("const", "default") if word in schema), *given):
        return value
    return _of_type(schema, root, depth)


def _simplified(schema: _Schema, root: _Schema) -> object:
    """Return a schema that allows nothing more, and says less of it elsewhere; None if it is so."""
    if "$ref" in schema:
        return _resolved(str(schema["$ref"]), root)
    for choice in ("anyOf", "oneOf"):
        if schema.get(choice) and "default" not in schema:
            known = [each for each in schema[choice] if isinstance(each, Mapping)]
            # One that refers to another schema comes last: it may be deep.
            first = min(known, key=lambda each: "$ref" in each, default={})
            return {**schema, choice: None, **first}
    return _merged(schema, root) if schema.get("allOf") else None


def _resolved(pointer: str, root: _Schema) -> object:
    """Return what a pointer into this document points at (RFC 6901); None for another one's."""
    found: object = root
    for name in pointer.removeprefix("#").split("/")[1:]:
        key = name.replace("~1", "/").replace("~0", "~")
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if pointer.startswith("#") else None


def _merged(schema: _Schema, root: _Schema) -> dict[str, Any]:
    merged: dict[str, Any] = {name: schema[name] for name in schema if name != "allOf"}
    for part in schema["allOf"]:
        whole = _resolved(str(part["$ref"]), root) if "$ref" in part else part
        for name, value in whole.items() if isinstance(whole, Mapping) else ():
            before = merged.get(name)
            if name == "required":
                merged[name] = [*(before or ()), *value]
            elif isinstance(before, Mapping) and isinstance(value, Mapping):
                merged[name] = {**before, **value}
            else:
                merged[name] = value
    return merged


def _of_type(schema: _Schema, root: _Schema, depth: int) -> Any:
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = next(iter(kinds), "string") if isinstance(kinds, (list, tuple)) else kinds
    if kind == "object":
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        return {name: sample(properties.get(name, {}), root, depth + 1) for name in required}
    if kind == "array":
        first = [sample(each, root, depth + 1) for each in schema.get("prefixItems", ())]
        missing = max(0, schema.get("minItems", 0) - len(first))
        return first + [sample(schema.get("items", {}), root, depth + 1)] * missing
    plain: Mapping[object, Callable[[_Schema], Any]] = {
        "boolean": lambda _: False,
        "null": lambda _: None,
        "integer": _number,
        "number": _number,
    }
    return plain.get(kind, _string)(schema)


def _number(schema: _Schema) -> float:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    over, under = (
        schema.get("exclusiveMinimum", -math.inf),
        schema.get("exclusiveMaximum", math.inf),
    )
    step = schema.get("multipleOf", 1)
    least, most = max(low, over), min(high, under)
    tried = [1, 0, *(bound for bound in (least, most) if math.isfinite(bound))]
    tried += [each + sign for each in tried[2:] for sign in (1, -1)]
    if math.isfinite(least) and math.isfinite(most):
        tried.append((least + most) / 2)
    tried += [math.ceil(each / step) * step for each in tried]

    def is_allowed(value: float) -> bool:
        is_multiple = "multipleOf" not in schema or value % step == 0
        return low <= value <= high and over < value < under and is_multiple

    return next(filter(is_allowed, tried), 1)


def _string(schema: _Schema) -> str:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength", math.inf)
    tried = [_FORMATS.get(str(schema.get("format")), "x"), *_FORMATS.values(), "a1", "x-1"]
    lengths = (max(1, shortest), *range(_LONGEST))
    tried += [letter * length for length in lengths for letter in "xa01A"]
    pattern = _compiled(schema.get("pattern"))

    def is_allowed(value: str) -> bool:
        return shortest <= len(value) <= longest and pattern.search(value) is not None

    return next(filter(is_allowed, tried), "x")


def _compiled(pattern: object) -> re.Pattern[str]:
    try:
        return re.compile(pattern if isinstance(pattern, str) else "")
    except re.error:  # a schema may use what only ECMAScript has
        return re.compile("")
