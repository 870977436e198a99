"""Which of the templates that a server lists could a URI be of?"""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.frameworks.resource_templates import templates_of

SEGMENTS = st.text("abz09-_", min_size=1, max_size=8)
PARTS = st.lists(st.one_of(SEGMENTS, st.just("{x}")), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("uri", "fitting"),
    [
        ("notes://1", ["notes://{id}"]),
        ("notes://1/secret", ["notes://{id}/secret"]),
        ("notes://1/%73ecret", ["notes://{id}/secret"]),
        ("NOTES://1/secret", ["notes://{id}/secret"]),
        ("notes://1/2/3", ["notes://{id}"]),
        ("notes://1/2/secret", ["notes://{id}", "notes://{id}/secret"]),
        ("files:///a/b/c", ["files:///{+path}"]),
        ("search://all?q=1", ["search://all{?q}"]),
        ("other://1", []),
    ],
)
def test_the_fitting_templates_are_found(uri: str, fitting: list[str]) -> None:
    templates = ["notes://{id}", "notes://{id}/secret", "files:///{+path}", "search://all{?q}"]

    assert set(fitting) <= set(templates_of(uri, templates))
    if "%" not in uri:
        assert set(templates_of(uri, templates)) == set(fitting)


@given(PARTS, st.data())
def test_what_a_template_makes_is_of_it(parts: list[str], data: st.DataObject) -> None:
    template = "x://" + "/".join(parts)
    uri = re.sub(r"\{x\}", lambda _: data.draw(SEGMENTS), template)

    assert templates_of(uri, [template]) == (template,)


@given(PARTS, st.text(max_size=60))
def test_no_uri_is_of_a_template_with_another_beginning(parts: list[str], rest: str) -> None:
    assert templates_of(f"y://{rest}", ["x://" + "/".join(parts)]) == ()
