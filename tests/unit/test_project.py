"""Does what the project says of itself hold?"""

from __future__ import annotations

import re
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import toolguard

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT: dict[str, Any] = tomllib.loads(
    (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
)
# The frameworks ask for newer ones themselves.
RAISED_BY_FRAMEWORKS = {"tomli", "typing-extensions"}


def versions(requirements: list[str], relation: str) -> dict[str, str]:
    """Return the version of each requirement that has one with this relation."""
    pattern = re.compile(rf"([\w-]+)(?:\[\w+\])?{relation}([\d.]+)")
    return {found[1]: found[2] for each in requirements if (found := pattern.match(each))}


def test_the_package_knows_its_version() -> None:
    assert toolguard.__version__ == version("toolguard-mcp")


def test_the_oldest_environment_has_the_least_versions_that_are_allowed() -> None:
    extras = PYPROJECT["project"]["optional-dependencies"]
    frameworks = [each for each in extras["test"] if each.startswith("fastmcp")]
    sdk = [each for each in extras["test"] if each.startswith("opentelemetry-sdk")]
    optional = extras["testing"] + extras["redis"] + extras["vault"] + extras["dev"]
    optional += extras["otel"] + frameworks + sdk
    ours = PYPROJECT["project"]["dependencies"] + optional
    least = {
        name: n for name, n in versions(ours, ">=").items() if name not in RAISED_BY_FRAMEWORKS
    }

    assert versions(PYPROJECT["tool"]["tox"]["env"]["oldest"]["deps"], "==") == least
