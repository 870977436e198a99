"""What do the package's own files look like to a reader of syntax trees?"""

from __future__ import annotations

import ast
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

    @property
    def nodes(self) -> list[ast.AST]:
        """Every node of the tree but those of type Load, Store and Del."""
        return self._reading.nodes

    @cached_property
    def imports(self) -> list[Import]:
        """Every import, with names in full."""
        return [
            Import(name, when) for node, when in self._reading.imports for name in _imported(node)
        ]

    @property
    def functions(self) -> list[tuple[str, Function]]:
        """Every function, with the names of the classes and functions around it."""
        return self._reading.functions

    @cached_property
    def _reading(self) -> _Reading:
        reading = _Reading()
        reading.read(self.tree, "import", "")
        return reading

    @cached_property
    def inner_imports(self) -> list[Import]:
        """The imports of this package's own modules, by their short names."""
        inner = [(each, each.name.removeprefix("toolguard")) for each in self.imports]
        return [
            Import(_nearest_module(name.removeprefix(".")), each.when)
            for each, name in inner
            if each.name.split(".")[0] == "toolguard"
        ]


class _Reading:
    """What a walk through a tree finds: trees are large, and one walk costs as much as a parse."""

    def __init__(self) -> None:
        self.nodes: list[ast.AST] = []
        self.imports: list[tuple[ast.Import | ast.ImportFrom, When]] = []
        self.functions: list[tuple[str, Function]] = []

    def read(self, node: ast.AST, when: When, around: str) -> None:
        """Read a node that has an effect when ``when`` says, in what ``around`` names."""
        self.nodes.append(node)
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            self.imports.append((node, when))
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            around = f"{around}.{node.name}".removeprefix(".")
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            self.functions.append((around, node))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            when = "call"
        elif isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            when = "type checking"
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.expr_context):
                self.read(child, when, around)


def _imported(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert node.level == 0, "imports are absolute"
    return [f"{node.module}.{alias.name}" for alias in node.names]


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
