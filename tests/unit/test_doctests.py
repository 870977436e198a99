"""Do the examples in the docstrings hold?"""

from __future__ import annotations

import doctest
import importlib

import pytest

from support.source import MODULES, Module

WITH_EXAMPLES = [module for module in MODULES if ">>> " in module.text]


@pytest.mark.parametrize("module", WITH_EXAMPLES, ids=str)
def test_the_examples_of_a_module_hold(module: Module) -> None:
    loaded = importlib.import_module(f"toolguard.{module.name}" if module.name else "toolguard")

    result = doctest.testmod(loaded, optionflags=doctest.ELLIPSIS)

    assert result.attempted > 0
    assert result.failed == 0


def test_there_are_examples() -> None:
    assert len(WITH_EXAMPLES) >= 5
