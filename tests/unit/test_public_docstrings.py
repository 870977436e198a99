"""Does the editor say of every public name what it takes and how it fails?"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator
from types import FunctionType, GenericAlias
from typing import Any

PUBLIC = (
    "toolguard",
    "toolguard.approvals",
    "toolguard.audit",
    "toolguard.connections",
    "toolguard.connections.descope.provider",
    "toolguard.connections.exchange",
    "toolguard.connections.kit",
    "toolguard.connections.redis",
    "toolguard.connections.redis_replays",
    "toolguard.connections.server",
    "toolguard.connections.vendors.arcade",
    "toolguard.connections.vendors.nango",
    "toolguard.connections.vendors.scalekit",
    "toolguard.connections.vendors.workos",
    "toolguard.descope",
    "toolguard.engines",
    "toolguard.telemetry",
    "toolguard.testing",
    "toolguard.testing.fixtures",
    "toolguard.testing.strategies",
    "toolguard.tokens",
    "toolguard.tokens.issuers",
    "toolguard.tokens.proofs",
    "toolguard.vault",
)


def names() -> Iterator[tuple[str, Any]]:
    """Yield every public function and class once, with every public method of it."""
    seen: set[int] = set()
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            value = getattr(module, name)
            # On Python 3.10 an alias such as Callable[[str], str] says that it is a type.
            is_alias = isinstance(value, GenericAlias)
            if id(value) in seen or is_alias or not isinstance(value, (type, FunctionType)):
                continue
            seen.add(id(value))
            yield f"{module.__name__}.{name}", value
            if isinstance(value, type):
                yield from methods(f"{module.__name__}.{name}", value)


def methods(name: str, kind: type) -> Iterator[tuple[str, Any]]:
    for attribute, found in vars(kind).items():
        function = getattr(found, "__func__", getattr(found, "fget", found))
        # What it takes and raises is said where it is declared first.
        is_declared = any(attribute in vars(base) for base in kind.__mro__[1:])
        if isinstance(function, FunctionType) and not attribute.startswith("_") and not is_declared:
            yield f"{name}.{attribute}", function


# To what has the same parameters, in the same package.
REFERS = re.compile(r"\b(?:as|see|Do|methods of|attributes of)\s+:(?:meth|func|class):`")
NAMES = dict(names())


def parameters(value: Any) -> list[str]:
    """Return what a user passes to a function, or to a class."""
    made = vars(value).get("__init__") if isinstance(value, type) else value
    if made is None or getattr(value, "_is_protocol", False):
        return []
    if value.__module__ == "toolguard.testing.fixtures":  # pytest passes a fixture the others
        return []
    kinds = (inspect.Parameter.VAR_KEYWORD,)
    return [
        name
        for name, each in inspect.signature(made).parameters.items()
        if name not in ("self", "cls") and not name.startswith("_") and each.kind not in kinds
    ]


def raises(value: Any) -> bool:
    """Return whether the function, or the constructor, raises in its own body."""
    made = vars(value).get("__init__") if isinstance(value, type) else value
    made = inspect.unwrap(made) if isinstance(made, FunctionType) else None
    if made is None or made.__module__.split(".")[0] != "toolguard":
        return False
    if made.__code__.co_filename.startswith("<"):  # of a dataclass
        made = vars(value).get("__post_init__")
        if made is None:
            return False
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(made))).body
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(tree))


def says(described: str, parameter: str) -> bool:
    """Return whether a description lists the parameter, or names it in its sentence."""
    return re.search(rf"^ +{parameter}: |``{parameter}``", described, re.MULTILINE) is not None


def test_there_are_public_names() -> None:
    assert {"toolguard.requires_scopes", "toolguard.ToolGuard.protect"} <= NAMES.keys()


def unsaid(value: Any) -> Iterator[str]:
    """Yield what the docstring of a public name lacks."""
    described = inspect.getdoc(value) if not isinstance(value, type) else value.__doc__
    if not described:
        yield "a docstring"
        return
    if not REFERS.search(described):
        yield from (each for each in parameters(value) if not says(described, each))
    if raises(value) and "Raises:" not in described:
        yield "Raises:"


def test_a_public_name_says_what_it_takes_and_raises() -> None:
    found = {name: list(unsaid(value)) for name, value in NAMES.items()}

    assert {name: lacks for name, lacks in found.items() if lacks} == {}
