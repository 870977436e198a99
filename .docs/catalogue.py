"""Read from the code what the page of the errors says of each: its status, its code, its texts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

__all__ = ["Entry", "entries", "with_texts"]

_BASE = "ToolGuardError"
_HEADING = re.compile(r"^## (\w+Error)$", re.MULTILINE)


@dataclass
class Entry:
    """What the code says of one error.

    Attributes:
        name: the name of the class.
        base: the name of the class that it is derived from.
        status: its HTTP status; None for what is the result of the tool.
        error: its code for clients.
        texts: the sentences with which it is raised; … stands for a value.
    """

    name: str
    base: str
    status: int | None
    error: str
    texts: list[str] = field(default_factory=list)


@cache
def entries(root: Path) -> dict[str, Entry]:
    """Return the public errors of the package below ``root`` by name, with their texts."""
    texts = (each.read_text("utf-8") for each in sorted(root.rglob("*.py")))
    trees = [ast.parse(text) for text in texts if "Error(" in text or "Error)" in text]
    classes = [node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)]
    found = {_BASE: Entry(_BASE, "Exception", None, "error")}
    before = 0
    while before < len(found):  # until no class is derived from one that was found
        before = len(found)
        for node in classes:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            parent = next((found[base] for base in bases if base in found), None)
            if parent is not None and node.name not in found and node.name[0] != "_":
                found[node.name] = _entry(node, parent)
    for tree in trees:
        for name, text in _raised(tree):
            if name in found and text not in found[name].texts:
                found[name].texts.append(text)
    return found


def _entry(node: ast.ClassDef, parent: Entry) -> Entry:
    said = {
        target.id: each.value.value
        for each in node.body
        if isinstance(each, ast.Assign) and isinstance(each.value, ast.Constant)
        for target in each.targets
        if isinstance(target, ast.Name)
    }
    status = said.get("status", parent.status)
    code = None if status is None else int(str(status))
    return Entry(node.name, parent.name, code, str(said.get("error", parent.error)))


def _raised(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Return the class and the text of each call that makes an error, and those it has itself."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for text in _own(node):
                yield node.name, text
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and (text := _last(node.args))
        ):
            yield node.func.id, text


def _own(node: ast.ClassDef) -> Iterator[str]:
    """Return the texts that a class passes to its base, and those that are defaults."""
    for each in ast.walk(node):
        if isinstance(each, ast.Call) and getattr(each.func, "attr", "") == "__init__":
            found = _last(each.args)
        elif isinstance(each, ast.arguments):
            found = _last(each.defaults)
        else:
            continue
        if found:
            yield found


def _last(nodes: list[ast.expr]) -> str | None:
    """Return the last of these that is a sentence."""
    texts = [text for node in nodes if (text := _text(node)) is not None]
    return texts[-1] if texts and " " in texts[-1] else None


def _text(node: ast.expr) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (each.value if isinstance(each, ast.Constant) else "…" for each in node.values)
        return "".join(map(str, parts))
    return None


def with_texts(page: str, found: dict[str, Entry]) -> str:
    """Return the page of the errors with what the code says below the heading of each."""

    def added(heading: re.Match[str]) -> str:
        entry = found.get(heading[1])
        if entry is None or entry.name == _BASE:
            return heading[0]
        status = "a result of the tool" if entry.status is None else f"HTTP {entry.status}"
        lines = [heading[0], "", f"{status}, `{entry.error}`, a subclass of `{entry.base}`"]
        if entry.texts:
            lines += ["", '??? note "Its texts"', ""]
            lines += [f"    - {text}" for text in sorted(entry.texts)]
        return "\n".join(lines)

    return _HEADING.sub(added, page)
