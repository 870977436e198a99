"""What pages look like to a browser: headers, structure, and nothing unescaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.devrooms import ISSUER, ORIGIN, Room, authorize_url, submit
from toolguard.dev.oauth.consent import ConnectLink
from toolguard.pages.names import display_name

INJECTION = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'><h1>"


class Reader(HTMLParser):
    """Collects the tags of a page, in their order."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.tags if name == tag]


def sign_in(room: Room) -> httpx.Response:
    browser = room.client
    return browser.follow(browser.get(authorize_url(room.register()["client_id"])))


def bad_domain(room: Room) -> httpx.Response:
    return submit(room.client, sign_in(room), email="eve@evil.example")


def provider(room: Room) -> httpx.Response:
    return submit(room.client, sign_in(room), email="carol@tenant-b.example")


def unknown_account(room: Room) -> httpx.Response:
    return submit(room.client, sign_in(room), email="eve@tenant-a.example")


def consent(room: Room) -> httpx.Response:
    return room.consent_at(room.client, room.register()["client_id"])


def refused_consent(room: Room) -> httpx.Response:
    client_id = room.register()["client_id"]
    return room.consent_at(room.client, client_id, "bob@tenant-a.example")


def error(room: Room) -> httpx.Response:
    return room.client.get(f"{ISSUER}/authorize")


def done(room: Room) -> httpx.Response:
    return room.client.get(f"{ISSUER}/done")


def handover(room: Room) -> httpx.Response:
    uri = "claude://oauth-callback/x"
    client_id = room.register(redirect_uris=[uri])["client_id"]
    page = room.consent_at(room.client, client_id, redirect_uri=uri)
    return submit(room.client, page, decision="allow")


def console(room: Room) -> httpx.Response:
    refused_consent(room)
    return room.client.follow(room.client.get(f"{ORIGIN}/"))


def console_token(room: Room) -> httpx.Response:
    return submit(room.client, console(room))


PAGES = [
    console,
    console_token,
    sign_in,
    bad_domain,
    provider,
    unknown_account,
    consent,
    refused_consent,
    error,
    done,
    handover,
]


@pytest.fixture(params=PAGES, ids=lambda page: page.__name__)
def page(request: pytest.FixtureRequest) -> httpx.Response:
    make: Callable[[Room], httpx.Response] = request.param

    async def connect_url(_: object, __: str) -> ConnectLink:
        return ConnectLink("GitHub", f"{ORIGIN}/connect/x")

    return make(Room(connect_url=connect_url))


def test_every_page_forbids_what_it_does_not_need(page: httpx.Response) -> None:
    policy = dict(
        part.strip().partition(" ")[::2]
        for part in page.headers["content-security-policy"].split(";")
    )
    assert policy.pop("form-action") in ("'self'", "'self' http://127.0.0.1:3000", "'self' claude:")
    assert policy == {
        "default-src": "'none'",
        "style-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
    }
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_no_page_holds_scripts_styles_or_anything_from_elsewhere(page: httpx.Response) -> None:
    reader = Reader(page.text)
    names = {name for name, _ in reader.tags}
    assert not names & {"script", "style", "img", "iframe", "object", "embed", "base", "svg"}
    attributes = {key for _, values in reader.tags for key in values}
    assert not {key for key in attributes if key.startswith("on")}
    assert not attributes & {"style", "src", "srcdoc", "formaction", "target", "ping"}
    for attributes_of in reader.named("form"):
        assert attributes_of["action"].startswith(f"{ISSUER}/")
        assert attributes_of["method"] == "post"
    assert [link["href"] for link in reader.named("link")] == [f"{ISSUER}/style.css"]


def test_every_page_can_be_read_aloud_and_on_a_phone(page: httpx.Response) -> None:
    reader = Reader(page.text)
    assert page.text.startswith("<!doctype html>")
    assert reader.named("html") == [{"lang": "en"}]
    assert len(reader.named("h1")) == 1
    assert len(reader.named("main")) == 1
    assert len(reader.named("title")) == 1
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in (
        reader.named("meta")
    )
    labelled = {label["for"] for label in reader.named("label")}
    shown = [item for item in reader.named("input") if item["type"] != "hidden"]
    assert {item["id"] for item in shown} == labelled
    ids = [values["id"] for _, values in reader.tags if "id" in values]
    assert len(ids) == len(set(ids))
    described = {
        values["aria-describedby"] for _, values in reader.tags if "aria-describedby" in values
    }
    assert described <= set(ids)
    assert all("type" in button for button in reader.named("button"))
    assert "Development server: it asks for no passwords" in page.text


def test_choices_are_a_group_with_a_name() -> None:
    page = consent(Room())
    reader = Reader(page.text)
    assert len(reader.named("fieldset")) == len(reader.named("legend")) == 1
    assert "<legend>It may:</legend>" in page.text


def test_an_error_on_a_form_is_announced_and_belongs_to_its_field() -> None:
    page = bad_domain(Room())
    assert '<p class="error" role="alert" id="problem">' in page.text
    assert 'aria-describedby="problem" aria-invalid="true"' in page.text


def test_the_stylesheet_is_served_and_loads_nothing() -> None:
    response = Room().client.get(f"{ISSUER}/style.css")
    assert response.headers["content-type"] == "text/css; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "url(" not in response.text
    assert "@import" not in response.text
    assert ":focus-visible { outline: 3px" in response.text
    assert "outline: none" not in response.text


def test_text_and_background_can_be_told_apart() -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 to 1 for text."""
    css = Room().client.get(f"{ISSUER}/style.css").text
    light, dark = (
        dict(re.findall(r"--([a-z-]+): #([0-9a-f]{6});", block))
        for block in re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    )
    pairs = [
        *((ink, "paper") for ink in ("ink", "quiet", "accent", "alarm")),
        ("ink", "desk"),
        ("on-accent", "accent"),
        ("on-notice", "notice"),
    ]
    for colours in (light, dark):
        assert min(contrast(colours[one], colours[other]) for one, other in pairs) >= 4.5
        assert contrast(colours["line"], colours["paper"]) >= 3


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[index : index + 2], 16) / 255 for index in (0, 2, 4)]
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# Nothing a stranger writes becomes markup


def is_clean(page: httpx.Response) -> bool:
    reader = Reader(page.text)
    return (
        not {"script", "img"} & {name for name, _ in reader.tags} and len(reader.named("h1")) == 1
    )


def test_the_name_of_a_client_stays_text() -> None:
    room = Room()
    client_id = room.register(client_name=INJECTION)["client_id"]
    page = room.client.follow(room.client.get(authorize_url(client_id)))
    assert is_clean(page)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text
    page = room.consent_at(room.client, client_id)
    assert is_clean(page)
    assert "&lt;script&gt;" in page.text


def test_an_address_stays_text() -> None:
    room = Room()
    for email in (f"{INJECTION}@evil.example", f"{INJECTION}@tenant-a.example"):
        page = submit(room.client, sign_in(room), email=email)
        assert is_clean(page)
        assert "&lt;script&gt;" in page.text


def test_a_scope_stays_text() -> None:
    room = Room()
    scope = "<script>alert(1)</script>'x"
    page = room.consent_at(room.client, room.register()["client_id"], scope=scope)
    assert is_clean(page)
    assert "&lt;script&gt;" in page.text


@pytest.mark.parametrize(
    "parameter", ["error", "error_description", "state", "client_id", "tx", "code", "redirect_uri"]
)
@pytest.mark.parametrize(
    "path", ["authorize", "sign-in", "provider", "consent", "callback", "done"]
)
def test_no_parameter_is_shown(path: str, parameter: str) -> None:
    page = Room().client.get(f"{ISSUER}/{path}", params={parameter: INJECTION})
    assert is_clean(page)
    assert "alert" not in page.text


def test_a_state_reaches_the_client_and_no_page() -> None:
    room = Room()
    client_id = room.register()["client_id"]
    page = room.consent_at(room.client, client_id, state=INJECTION)
    assert "alert" not in page.text
    response = submit(room.client, page, decision="deny")
    assert "<" not in response.headers["location"]
    assert "%3Cscript%3E" in response.headers["location"]


def test_a_state_in_the_address_of_an_application_stays_text() -> None:
    room = Room()
    uri = "claude://oauth-callback/x"
    client_id = room.register(redirect_uris=[uri], client_name=INJECTION)["client_id"]
    page = room.consent_at(room.client, client_id, redirect_uri=uri, state=INJECTION)
    page = submit(room.client, page, decision="deny")
    assert is_clean(page)
    assert "<" not in page.headers["refresh"]


def test_an_unknown_method_or_path_says_nothing_of_what_was_sent() -> None:
    room = Room()
    for method, path in (("POST", "authorize"), ("PUT", "consent"), ("GET", "<script>")):
        response = room.client.send(method, f"{ISSUER}/{path}?x={INJECTION}")
        assert response.status_code in (404, 405)
        assert "alert" not in response.text


# Names


@given(st.text())
def test_display_names_are_short_printable_and_stable(name: str) -> None:
    shown = display_name(name)
    assert len(shown) <= 60
    assert "\n" not in shown
    assert display_name(shown) == shown
