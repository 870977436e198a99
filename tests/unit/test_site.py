"""Is the site of the guides laid out so that its links lead somewhere?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build", ROOT / ".docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(build: ModuleType) -> dict[str, str]:
    return dict(build.pages())


def test_every_page_is_in_the_navigation(pages: dict[str, str]) -> None:
    navigation = (ROOT / ".docs/mkdocs.yml").read_text().partition("\nnav:")[2]

    assert [page for page in pages if f" {page}\n" not in navigation] == []


def test_every_page_has_one_title(build: ModuleType, pages: dict[str, str]) -> None:
    assert [path for path, text in pages.items() if not build.title_of(text)] == []


def test_a_link_into_the_repository_leads_to_a_page(build: ModuleType) -> None:
    text = build.on_site("[it](../examples/calendar/README.md#try-it)", ".docs/rules.md")

    assert text == "[it](examples/calendar.md#try-it)"


def test_a_link_from_a_folder_leads_up(build: ModuleType) -> None:
    assert build.on_site("[it](../rules.md)", ".docs/issuers/okta.md") == "[it](../rules.md)"


def test_code_is_left_as_it_is(build: ModuleType) -> None:
    code = "```python\nx[0](nowhere.md)\n```"

    assert build.on_site(code, ".docs/rules.md") == code


def test_a_link_to_what_the_site_does_not_show_fails(build: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"rules\.md links to toolguard/guard\.py"):
        build.on_site("[it](../toolguard/guard.py)", ".docs/rules.md")


def test_every_public_module_has_a_reference(build: ModuleType) -> None:
    """Those that DESIGN calls public; their parts where they are imported from."""
    public = {"tokens", "connections", "engines", "vault", "approvals", "descope"}
    public |= {"telemetry", "testing"}

    assert {f"toolguard.{each}" for each in public} <= set(build.API)


def test_the_index_for_models_lists_every_guide(build: ModuleType, pages: dict[str, str]) -> None:
    index = build.llms(pages)

    assert [page for page in pages if page[:4] != "api/" and f"]({page})" not in index] == []
