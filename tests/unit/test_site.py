"""Is the site of the guides laid out so that its links lead somewhere?"""

from __future__ import annotations

import importlib
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from toolguard import ToolGuard, errors
from toolguard.tokens import issuers

ROOT = Path(__file__).parents[2]
PUBLIC = ("toolguard", "toolguard.engines", "toolguard.testing", "toolguard.tokens")


@pytest.fixture(scope="module")
def build() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / ".docs"))
        yield importlib.import_module("make_site")


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


# --- the pages of the presets

PRESETS = sorted((ROOT / ".docs/issuers").glob("*.md"))
presets = pytest.mark.parametrize("page", PRESETS, ids=lambda page: page.stem)


def test_every_preset_has_a_page() -> None:
    functions = {name for name in issuers.__all__ if name.islower()}

    assert {page.stem for page in PRESETS} == functions


@presets
def test_the_token_of_a_preset_is_what_the_kit_makes(build: ModuleType, page: Path) -> None:
    tokens = importlib.import_module("sample_tokens")

    assert page.read_text() == tokens.with_sample(page.read_text()), (
        "run PYTHONPATH=. python .docs/sample_tokens.py"
    )
    assert f"<!-- token: {page.stem.replace('_', '-')} -->" in page.read_text()


@presets
def test_the_variables_of_a_preset_describe_the_same_server(page: Path) -> None:
    python, text = (
        re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)[0]
        for language in ("python", "text")
    )
    names: dict[str, typing.Any] = {}
    exec(python, names)
    environ = dict(line.split("=", 1) for line in text.splitlines())

    assert ToolGuard.from_env(environ).issuers == names["guard"].issuers


# --- the catalogue of errors


@pytest.fixture(scope="module")
def catalogue() -> str:
    return (ROOT / ".docs/errors.md").read_text()


def test_every_public_error_is_in_the_catalogue(build: ModuleType, catalogue: str) -> None:
    derived = set(build.entries(ROOT / "toolguard"))
    exported = {
        name
        for module in map(importlib.import_module, PUBLIC)
        for name in module.__all__
        if isinstance(found := getattr(module, name), type) and issubclass(found, BaseException)
    }

    missing = [name for name in derived | exported if not re.search(rf"(## |`){name}\b", catalogue)]
    assert missing == [], "write a section into .docs/errors.md: cause and fix"


def test_every_section_of_an_error_says_what_to_do(catalogue: str) -> None:
    sections = re.findall(r"^## (\w+Error)\n(.*?)(?=^## |\Z)", catalogue, re.DOTALL | re.MULTILINE)

    assert [name for name, text in sections if "**Fix**: " not in text] == []


@pytest.mark.parametrize("reasons", ["InvalidTokenReason", "InvalidProofReason", "OutageReason"])
def test_every_reason_is_in_the_catalogue(catalogue: str, reasons: str) -> None:
    known = typing.get_args(getattr(errors, reasons))

    assert [reason for reason in known if f"`{reason}`" not in catalogue] == []


def test_the_catalogue_has_no_error_that_is_gone(build: ModuleType, catalogue: str) -> None:
    known = set(build.entries(ROOT / "toolguard"))

    assert set(re.findall(r"^## (\w+Error)$", catalogue, re.MULTILINE)) <= known


def test_the_site_shows_the_texts_of_an_error(pages: dict[str, str]) -> None:
    section = pages["errors.md"].partition("## InvalidTokenError\n")[2].partition("\n## ")[0]

    assert "HTTP 401, `invalid_token`" in section
    assert "- This operation needs an access token\n" in pages["errors.md"]
    assert "- The token is bound to another key\n" in pages["errors.md"]
    assert "- The access token has expired\n" in section


def test_a_value_in_a_text_is_left_open(build: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "class Odd(ToolGuardError):\n    status = 403\nraise Odd(f'No {x} here')\n"
    )

    assert build.entries(tmp_path)["Odd"].texts == ["No … here"]


# --- the pictures of pages


def test_each_picture_of_a_page_is_small_and_described_in_a_guide() -> None:
    taken = {each.name for each in (ROOT / ".docs/pictures").glob("*.webp")}
    guides = [each.read_text("utf-8") for each in (ROOT / ".docs").rglob("*.md")]
    shown = [
        each for text in guides for each in re.findall(r"!\[([^]]+)\]\(pictures/([^)]+)", text)
    ]

    assert {file for _, file in shown} >= taken
    assert [file for words, file in shown if file in taken and len(words.split()) < 8] == []
    assert [
        file for file in taken if (ROOT / ".docs/pictures" / file).stat().st_size > 80_000
    ] == []
