"""The templates of the pages: complete, escaped, and nothing in them that runs."""

from __future__ import annotations

import re
import sys
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from toolguard.cli import main
from toolguard.pages.layout import Form, load_templates, page

ISSUER = "http://127.0.0.1:8800/P2dev"
TEMPLATES = sorted(each.name for each in files("toolguard.pages").joinpath("templates").iterdir())


class Tags(HTMLParser):
    """Collects the tags of a page."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, attrs))


def source(name: str) -> str:
    return files("toolguard.pages").joinpath("templates", name).read_text("utf-8")


def test_templates_are_found() -> None:
    assert "consent.html" in TEMPLATES
    assert load_templates().list_templates() == TEMPLATES


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_says_what_it_is_for(name: str) -> None:
    assert re.match(r"\{# [A-Z].*\. #\}\n", source(name))


@pytest.mark.parametrize("name", TEMPLATES)
def test_template_runs_nothing_and_escapes_everything(name: str) -> None:
    found = re.findall(
        r"<script|<style|<img|\sstyle=|\son[a-z]+=|javascript:|\bsafe\b|autoescape|<!--",
        source(name),
    )

    assert found == []


@pytest.mark.parametrize("name", TEMPLATES)
def test_attributes_that_show_values_are_quoted(name: str) -> None:
    assert not re.search(r"=\{\{", source(name))


def test_missing_value_is_an_error_and_no_blank() -> None:
    with pytest.raises(UndefinedError, match="'text' is undefined"):
        page("closing.html", issuer=ISSUER)


@given(st.text())
def test_values_stay_text_in_content_and_attributes(text: str) -> None:
    tags = ["html", "head", "meta", "meta", "title", "link", "body", "p", "main", "h1", "p", "p"]

    shown = page("handover.html", issuer=ISSUER, client=text, url=text)

    assert [tag for tag, _ in Tags(bytes(shown.body).decode()).found] == [*tags, "a"]


@given(st.text())
def test_hidden_values_stay_text(text: str) -> None:
    form = Form(text, {text: text})

    shown = page("google_connections.html", issuer=ISSUER, remove=form)

    found = Tags(bytes(shown.body).decode()).found
    assert [tag for tag, _ in found if tag in ("form", "input", "label", "button")] == [
        "form",
        "input",
        "label",
        "input",
        "button",
    ]


@pytest.fixture
def without_jinja2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    load_templates.cache_clear()


@pytest.mark.usefixtures("without_jinja2")
def test_page_without_jinja2_says_what_to_install() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'toolguard-mcp\[dev\]'"):
        page("closing.html", issuer=ISSUER, text="")


@pytest.mark.usefixtures("without_jinja2")
def test_commands_without_jinja2_say_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo"]) == main(["dev", "--port", "0"]) == 2

    said = capsys.readouterr().err.splitlines()
    needed = "jinja2 is not installed: write pip install 'toolguard-mcp[dev]'"
    assert said == [f"toolguard demo: {needed}", f"toolguard dev: {needed}"]
