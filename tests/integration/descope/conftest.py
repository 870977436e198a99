"""A project of Descope's that is served, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.projects import Project


@pytest.fixture(scope="module")
def served() -> Iterator[Project]:
    with Project.served() as project:
        yield project


@pytest.fixture
def project(served: Project) -> Project:
    served.asked.clear()
    return served
