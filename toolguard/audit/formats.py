"""Write a report as text, JSON, Markdown or a Mermaid diagram.

The names in it are untrusted. They are escaped, so that none can break a line, a cell, a label or
a terminal.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal, TypeAlias

from toolguard.audit.report import AuditedOperation, Report

__all__ = ["FORMATS", "Format", "as_json", "as_markdown", "as_mermaid", "as_text"]

Format: TypeAlias = Literal["text", "json", "markdown", "mermaid"]
"""The formats of a report."""

_WIDTH = 100
# Longer names are cut, except in JSON.
_MAX_NAME = 200
_HEADINGS = ("operation", "rule", "scopes", "connections", "injected")

# Characters with a meaning in Markdown, HTML or on GitHub, which are written as references.
_SPECIAL = re.compile(r"[\\`*\[\]<>#|~!&$]|:(?=//)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
# In a code span only backticks, the pipes of a table and outer spaces have a meaning.
_PLAIN = re.compile(r"[^\\`|\s](?:[^\\`|]*[^\\`|\s])?")


def as_text(report: Report) -> str:
    """Return a table of at most 100 columns, in which ``!`` marks findings.

    There is a separate column of scopes only if some rule requires more than scopes, or has
    alternatives.
    """
    scoped = [each for each in report.operations if each.scopes]
    is_mixed = any(each.rule != " & ".join(each.scopes) for each in scoped)
    shown = [index for index, _ in enumerate(_HEADINGS) if index != _SCOPES or is_mixed]
    rows = []
    for each in report.operations:
        lists = ([*map(_shown, items)] for items in _lists(each))
        cells = [[f"{each.kind} {_shown(_name(each))}"], [_line(each.rule)], *lists]
        rows.append([cells[index] for index in shown])
    headings = [[_HEADINGS[index]] for index in shown]
    widths = _widths([headings, *rows])
    lines = [*textwrap.wrap(_summary(report), _WIDTH), ""]
    lines += _wrapped(" ", headings, widths)
    lines += _wrapped(" ", [["-" * width] for width in widths], widths)
    for operation, cells in zip(report.operations, rows, strict=True):
        lines += _wrapped("!" if _is_wrong(operation) else " ", cells, widths)
    for note in report.notes:
        lines += ["", *textwrap.wrap(_line(note), _WIDTH, subsequent_indent="  ")]
    return "\n".join(lines)


def as_json(report: Report) -> str:
    """Return :meth:`Report.to_dict` as JSON in ASCII, with all names in full length."""
    return json.dumps(report.to_dict(), indent=2)


def as_markdown(report: Report) -> str:
    """Return a table of GitHub's Markdown, and the findings and notes below it."""
    lines = [_text(_summary(report)), "", _row(_HEADINGS), _row(["---"] * len(_HEADINGS))]
    for each in report.operations:
        mark = "**unguarded** " if each.is_unguarded else ""
        rule = _code(each.rule) if each.alternatives else _text(each.rule)
        lists = (", ".join(map(_code, items)) for items in _lists(each))
        lines.append(_row([f"{mark}{each.kind} {_code(_name(each))}", rule, *lists]))
    sentences = {"Findings": [each.message for each in report.findings], "Notes": report.notes}
    for heading, said in sentences.items():
        if said:
            lines += ["", f"**{heading}**", "", *(f"- {_text(each)}" for each in said)]
    return "\n".join(lines)


def as_mermaid(report: Report) -> str:
    """Return a flowchart: requirements, the operations that have them, and their connections.

    A dotted arrow is one of several alternatives.
    """
    nodes: dict[tuple[str, str], str] = {}

    def node(shape: str, label: str) -> str:
        known = nodes.setdefault((shape, label), f"{shape[0]}{len(nodes)}")
        before, after = _SHAPES[shape]
        return f'{known}{before}"{_label(label)}"{after}'

    lines = ["flowchart LR", *(f"  %% {_line(note)}" for note in report.notes)]
    marked = []
    for index, each in enumerate(report.operations):
        name = f"o{index}"
        lines.append(f'  {name}["{_label(f"{each.kind} {_name(each)}")}"]')
        lines += [f"  {node(shape, label)} {arrow} {name}" for shape, label, arrow in _asks(each)]
        lines += [f"  {name} --> {node('connection', need.name)}" for need in each.connections]
        marked += [name] if _is_wrong(each) else []
    if marked:
        lines += [
            "  classDef wrong stroke:#c00,stroke-width:3px",
            f"  class {','.join(marked)} wrong",
        ]
    return "\n".join(lines)


FORMATS: Mapping[Format, Callable[[Report], str]] = {
    "text": as_text,
    "json": as_json,
    "markdown": as_markdown,
    "mermaid": as_mermaid,
}
"""The writer of each format."""


def _summary(report: Report) -> str:
    unguarded = sum(each.is_unguarded for each in report.operations)
    guard = report.guard
    said = [
        f"Server {_shown(report.server)}",
        f"{len(report.operations)} operation(s), {unguarded} unguarded",
        f"guarded as {guard.resource}, default: {guard.default}" if guard else "no guard",
    ]
    return "; ".join(said)


def _name(operation: AuditedOperation) -> str:
    version = f" (version {operation.version})" if operation.version else ""
    return f"{operation.name}{version}"


def _lists(operation: AuditedOperation) -> tuple[Sequence[str], ...]:
    connections = []
    for need in operation.connections:
        flags = [name for name in ("tenant", "optional", "fresh") if getattr(need, name)]
        details = ", ".join([*flags, *need.scopes])
        connections.append(f"{need.name} ({details})" if details else need.name)
    return (*operation.scopes, *operation.call_scopes), connections, operation.injected


def _is_wrong(operation: AuditedOperation) -> bool:
    return operation.is_unguarded or bool(operation.problems)


def _line(text: str) -> str:
    """Return ``text`` in one line, without control sequences for terminals."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _shown(text: str) -> str:
    line = _line(text)
    return line if len(line) <= _MAX_NAME else f"{line[: _MAX_NAME - 1]}…"


# --- text

_SCOPES = _HEADINGS.index("scopes")
# The places at which a name or a URL may be broken into lines.
_BREAK = re.compile(r"(\s+)|(?<=[_./:,-])(?=[^\s_./:,-])")

_Cell = Sequence[str]


class _Wrapper(textwrap.TextWrapper):
    wordsep_simple_re = _BREAK


def _widths(table: Sequence[Sequence[_Cell]]) -> list[int]:
    """Return the widths of the columns: as needed, or reduced where that breaks the least."""
    columns = [[item for cell in column for item in cell] for column in zip(*table, strict=True)]
    widths = [max(map(len, column)) for column in columns]
    words = [
        max(len(word or "") for item in column for word in _BREAK.split(item)) for column in columns
    ]
    while sum(widths) > _WIDTH - 2 * len(widths):
        spare = [width - word for width, word in zip(widths, words, strict=True)]
        of = spare if max(spare) > 0 else widths
        widths[of.index(max(of))] -= 1
    return widths


def _wrapped(mark: str, cells: Sequence[_Cell], widths: Sequence[int]) -> Iterator[str]:
    columns = []
    for cell, width in zip(cells, widths, strict=True):
        wrap = _Wrapper(width, break_on_hyphens=False).wrap
        columns.append([line for item in cell for line in wrap(item)])
    for index in range(max(map(len, columns))):
        parts = [column[index] if index < len(column) else "" for column in columns]
        line = "  ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True))
        yield f"{mark if index == 0 else ' '} {line}".rstrip()


# --- Markdown


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _text(text: str) -> str:
    escaped = _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", _line(text))
    return escaped.replace("@", "@<!-- -->")  # no mention of a GitHub user


def _code(text: str) -> str:
    shown = _shown(text)
    return f"`{shown}`" if _PLAIN.fullmatch(shown) else f"<code>{_text(shown)}</code>"


# --- Mermaid

_SHAPES = {"scope": ("([", "])"), "rule": ("{{", "}}"), "connection": ("[(", ")]")}


def _asks(operation: AuditedOperation) -> Iterator[tuple[str, str, str]]:
    """Yield shape, label and arrow of each requirement of an operation."""
    groups = operation.alternatives
    if not groups or operation.access == "nobody":  # the words name the approver as well
        yield "rule", operation.rule, "-->"
        return
    if operation.approver is not None:
        yield "rule", f"approval by {operation.approver}", "-->"
    scopes = {*operation.scopes, *operation.call_scopes}
    for condition in dict.fromkeys(condition for group in groups for condition in group):
        needed = all(condition in group for group in groups)
        shape = "scope" if condition in scopes else "rule"
        yield shape, condition, "-->" if needed else "-.->"


def _label(text: str) -> str:
    return "".join(c if c.isalnum() or c in " _-./," else f"#{ord(c)};" for c in _shown(text))
