"""What does ``import toolguard`` give, and what does it leave for later?"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import toolguard


def imported_for_type_checkers() -> dict[str, str]:
    """Return the module of each name that type checkers see."""
    tree = ast.parse(Path(toolguard.__file__).read_text("utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


def test_type_checkers_see_the_names_that_are_imported_on_first_use() -> None:
    assert imported_for_type_checkers() == toolguard._MODULES
    assert toolguard.__all__ == sorted(toolguard._MODULES)


def test_every_name_is_there_and_listed() -> None:
    for name in toolguard.__all__:
        assert getattr(toolguard, name) is not None
        assert name in dir(toolguard)


def test_importing_the_package_imports_no_module_of_it() -> None:
    script = "import sys, toolguard; print(*[each for each in sys.modules if 'toolguard' in each])"
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)

    assert ran.stdout.split() == ["toolguard"]
