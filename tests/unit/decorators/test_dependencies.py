"""What does a guard leave to the framework where nothing fills parameters?"""

from __future__ import annotations

import inspect
import sys

import pytest

from toolguard.decorators.dependencies import Dependencies, sent_to_dependencies


def test_a_function_has_no_dependencies_where_no_engine_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def book(day: str) -> str:
        return day

    monkeypatch.delitem(sys.modules, "uncalled_for", raising=False)

    assert Dependencies.of(book, inspect.signature(book)) is None
    assert sent_to_dependencies(book) == ()
