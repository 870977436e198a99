"""What do the package's own files look like to a reader of syntax trees?"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import toolguard

__all__ = ["MODULES", "Function", "Import", "Module"]

PACKAGE = Path(toolguard.__file__).parent
Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
When = Literal["import", "call", "type checking"]


@dataclass(frozen=True)
class Import:
    """One import: of which module, and when it happens."""

    name: str
    when: When


@dataclass(frozen=True)
class Module:
    """One file of the package; ``name`` is without ``toolguard.``, and empty for the package."""

    name: str
    path: Path

    def __str__(self) -> str:
        return self.name or "toolguard"

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """Every node of the tree."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, with names in full."""
        return [
            Import(name, when)
            for node, when in _import_statements(self.tree, "import")
            for name in _imported(node)
        ]

    @cached_property
    def inner_imports(self) -> list[Import]:
        """The imports of this package's own modules, by their short names."""
        inner = [(each, each.name.removeprefix("toolguard")) for each in self.imports]
        return [
            Import(_nearest_module(name.removeprefix(".")), each.when)
            for each, name in inner
            if each.name.split(".")[0] == "toolguard"
        ]

    @cached_property
    def functions(self) -> tuple[tuple[str, Function], ...]:
        """Every function, with the names of the classes and functions around it."""
        return tuple(_functions(self.tree, ""))


def _import_statements(
    node: ast.AST, when: When
) -> Iterator[tuple[ast.Import | ast.ImportFrom, When]]:
    for child in ast.iter_child_nodes(node):
        now = when
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            now = "call"
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            now = "type checking"
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child, now
        elif not isinstance(child, ast.expr):  # no expression has an import
            yield from _import_statements(child, now)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "imports are absolute"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def _functions(node: ast.AST, around: str) -> Iterator[tuple[str, Function]]:
    for child in ast.iter_child_nodes(node):
        name = around
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{around}.{child.name}".removeprefix(".")
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield name, child
        if not isinstance(child, ast.expr):  # no expression has a function with a name
            yield from _functions(child, name)


def _module(path: Path) -> Module:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return Module(".".join(part for part in parts if part != "__init__"), path)


MODULES = tuple(_module(path) for path in sorted(PACKAGE.rglob("*.py")))
_NAMES = frozenset(module.name for module in MODULES)


def _nearest_module(name: str) -> str:
    """Return the module that ``name`` is, or is in."""
    while name not in _NAMES:
        name = name.rpartition(".")[0]
    return name
