"""Is an issuer's metadata looked for in the right places, and believed only where it may be?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.issuing import Endpoint, names, refresh
from toolguard.errors import KeysUnavailableError
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.testing import FrozenClock
from toolguard.tokens.discovery import (
    EndpointLocation,
    discovery_urls,
    issuer_of,
    read_metadata,
)
from toolguard.tokens.jwks import JWKS
from toolguard.tokens.keys import KeySetError

ISSUER = "https://auth.example.com/tenant"
KEY_SET = "https://keys.example.net/tenant/jwks"
METADATA = {"issuer": ISSUER, "jwks_uri": KEY_SET}
OAUTH = "https://auth.example.com/.well-known/oauth-authorization-server/tenant"
OPENID = "https://auth.example.com/tenant/.well-known/openid-configuration"


class Web:
    """Documents by URL, and which of them were asked for."""

    def __init__(self, documents: Mapping[str, object]) -> None:
        self.documents = dict(documents)
        self.asked: list[str] = []

    def __call__(self, url: str) -> bytes:
        self.asked.append(url)
        if url not in self.documents:
            raise KeysUnavailableError("HTTP 404")
        return json.dumps(self.documents[url]).encode()


def by_issuer(issuer: str = ISSUER) -> EndpointLocation:
    return EndpointLocation(url=None, issuer=issuer, well_known_url=None)


def by_well_known_url(url: str = OPENID) -> EndpointLocation:
    return EndpointLocation(url=None, issuer=None, well_known_url=url)


# Where to look


@pytest.mark.parametrize(
    ("issuer", "urls"),
    [
        (
            "https://auth.example.com",
            [
                "https://auth.example.com/.well-known/oauth-authorization-server",
                "https://auth.example.com/.well-known/openid-configuration",
            ],
        ),
        (
            "https://auth.example.com/",
            [
                "https://auth.example.com/.well-known/oauth-authorization-server",
                "https://auth.example.com/.well-known/openid-configuration",
            ],
        ),
        (
            "https://auth.example.com:8443/a/b/",
            [
                "https://auth.example.com:8443/.well-known/oauth-authorization-server/a/b",
                "https://auth.example.com:8443/.well-known/openid-configuration/a/b",
                "https://auth.example.com:8443/a/b/.well-known/openid-configuration",
                "https://auth.example.com:8443/a/b/.well-known/oauth-authorization-server",
            ],
        ),
    ],
)
def test_metadata_is_looked_for_where_the_standards_put_it(issuer: str, urls: list[str]) -> None:
    assert list(discovery_urls(issuer)) == urls


@pytest.mark.parametrize("index", range(4))
def test_any_of_the_four_places_will_do(index: int) -> None:
    urls = discovery_urls(ISSUER)
    web = Web({urls[index]: METADATA})
    assert by_issuer().find(web, 0.0) == KEY_SET
    assert web.asked == list(urls[: index + 1])


def test_a_document_of_another_issuer_is_passed_over() -> None:
    web = Web({OAUTH: {**METADATA, "issuer": "https://auth.example.com"}, OPENID: METADATA})
    assert by_issuer().find(web, 0.0) == KEY_SET


def test_without_a_document_the_reasons_are_named() -> None:
    web = Web({OAUTH: {**METADATA, "issuer": "https://evil.example"}, OPENID: []})
    with pytest.raises(KeysUnavailableError) as caught:
        by_issuer().find(web, 0.0)
    assert f"{OAUTH}: it is not of the expected issuer" in str(caught.value)
    assert f"{OPENID}: it is not a JSON object" in str(caught.value)
    assert "HTTP 404" in str(caught.value)
    assert "found 'https://evil.example'" in str(caught.value)


def test_metadata_is_read_again_after_an_hour_or_a_failure() -> None:
    web, location = Web({OPENID: METADATA}), by_well_known_url()
    for now in (0.0, 1.0, 3_599.0):
        assert location.find(web, now) == KEY_SET
    assert len(web.asked) == 1
    web.documents[OPENID] = {**METADATA, "jwks_uri": KEY_SET + "/2"}
    assert location.find(web, 3_600.0) == KEY_SET + "/2"
    location.forget()
    location.find(web, 3_601.0)
    assert len(web.asked) == 3


def test_a_discovered_issuer_does_not_change() -> None:
    web, location = Web({OPENID: METADATA}), by_well_known_url()
    undiscovered = location.issuer
    location.find(web, 0.0)
    assert (undiscovered, location.issuer) == (None, ISSUER)
    web.documents[OPENID] = {**METADATA, "issuer": "https://auth.example.com/other"}
    with pytest.raises(KeysUnavailableError):
        location.find(web, 3_600.0)
    assert location.issuer == ISSUER


def test_a_given_url_needs_no_metadata() -> None:
    web, location = Web({}), EndpointLocation(url=KEY_SET, issuer=None, well_known_url=None)
    location.forget()
    assert location.find(web, 0.0) == KEY_SET
    assert location.issuer is None
    assert web.asked == []


# What to believe


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"issuer": ISSUER + "/"}, "issuer"),
        ({"issuer": "https://AUTH.example.com/tenant"}, "issuer"),
        ({"issuer": "https://auth.example.com"}, "issuer"),
        ({"issuer": ""}, "issuer"),
        ({"issuer": None}, "issuer"),
        ({"issuer": [ISSUER]}, "issuer"),
        ({"jwks_uri": None}, "missing"),
        ({"jwks_uri": ""}, "missing"),
        ({"jwks_uri": [KEY_SET]}, "missing"),
        ({"jwks_uri": "/jwks"}, "not https"),
        ({"jwks_uri": "file:///etc/passwd"}, "not https"),
        ({"jwks_uri": "http://auth.example.com/jwks"}, "not https"),
        ({"jwks_uri": "http://127.0.0.1:8500/jwks"}, "came by https"),
    ],
)
def test_metadata_that_may_not_be_believed_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(KeySetError, match=reason):
        read_metadata({**METADATA, **changes}, issuer=ISSUER, source=ISSUER)


def test_metadata_without_an_issuer_is_refused() -> None:
    with pytest.raises(KeySetError, match="issuer"):
        read_metadata({**METADATA, "issuer": ""}, issuer=None, source=OPENID)


def test_an_issuer_on_this_machine_may_serve_its_keys_by_http() -> None:
    local = "http://localhost:9000"
    metadata = {"issuer": local, "jwks_uri": "http://localhost:9000/jwks"}
    read = read_metadata(metadata, issuer=local, source=local)
    assert read == (local, "http://localhost:9000/jwks")


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from([ISSUER, KEY_SET]),
        lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from([*METADATA]), inner),
    )
)
def test_any_metadata_is_believed_or_refused(metadata: object) -> None:
    try:
        issuer, key_set = read_metadata(metadata, issuer=None, source=ISSUER)
    except KeySetError:
        return
    assert issuer
    assert is_secure_url(key_set)


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.com",
        "HTTPS://AUTH.EXAMPLE.COM/Path",
        "https://auth.example.com:8443/a/b?c=d&e=%20",
        "https://10.0.0.1/jwks",
        "https://[2001:db8::1]:443/",
        "http://localhost:8000/jwks",
        "http://LocalHost/jwks",
        "http://127.0.0.1",
        "http://[::1]:8000/",
    ],
)
def test_a_secure_url_is_https_or_on_this_machine(url: str) -> None:
    assert is_secure_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "auth.example.com",
        "//auth.example.com/jwks",
        "ftp://auth.example.com/jwks",
        "file:///jwks.json",
        "data:application/json,{}",
        "http://auth.example.com/jwks",
        "http://localhost.example.com/jwks",
        "http://127.0.0.1.example.com/jwks",
        "http://169.254.169.254/latest",
        "https://user:password@auth.example.com/jwks",
        "https://auth.example.com@evil.example/jwks",
        "https://auth.example.com\\@evil.example/jwks",
        "https://auth.example.com/jwks#fragment",
        "https://auth.example.com/a b",
        "https://auth.example.com/\r\nHost: evil.example",
        "https://auth.example.com/jwks\n",
        "https://auth.example.com:65536/jwks",
        "https://auth.example.com:/jwks",
        "https:///jwks",
        "https://\u0430uth.example.com/jwks",
        "https://auth.example.com/\u212aey",
        "http\u017f://auth.example.com/jwks",
    ],
)
def test_any_other_url_is_not(url: str) -> None:
    assert not is_secure_url(url)


@pytest.mark.parametrize(
    ("url", "issuer"),
    [
        (OPENID, ISSUER),
        (OAUTH, ISSUER),
        (
            "https://auth.example.com/.well-known/openid-configuration",
            "https://auth.example.com",
        ),
        (
            "https://api.descope.com/v1/apps/agentic/P2abc/MS456/.well-known/openid-configuration",
            "https://api.descope.com/v1/apps/agentic/P2abc/MS456",
        ),
    ],
)
def test_a_well_known_url_names_its_issuer(url: str, issuer: str) -> None:
    assert issuer_of(url) == issuer


@pytest.mark.parametrize(
    "url",
    [
        "https://auth.example.com",
        "https://auth.example.com/.well-known/jwks.json",
        "https://auth.example.com/a/.well-known/openid-configuration/b",
        "https://auth.example.com/.well-known/openid-configuration.json",
    ],
)
def test_another_url_names_no_issuer(url: str) -> None:
    with pytest.raises(ValueError, match="openid-configuration"):
        issuer_of(url)


# With a source of keys


class Slow(Web):
    """Takes two seconds for every answer."""

    def __init__(self, documents: Mapping[str, object], clock: FrozenClock) -> None:
        super().__init__(documents)
        self.clock = clock
        self.limits: list[float] = []

    def fetch(self, url: str, timeout: float) -> bytes:
        self.limits.append(timeout)
        self.clock.advance(2)
        return self(url)


def test_discovery_and_keys_share_one_time_limit() -> None:
    clock = FrozenClock(1_000)
    key_set = json.loads(Endpoint("a").body)
    slow = Slow({discovery_urls(ISSUER)[2]: METADATA, KEY_SET: key_set}, clock)
    source = JWKS(issuer=ISSUER, fetch=slow.fetch, clock=clock)
    assert names(source) is None
    refresh(source)
    assert names(source) == ["a"]
    assert slow.limits == [5, 3, 1, 0]


def test_a_source_knows_the_issuer_as_soon_as_it_has_been_discovered() -> None:
    clock = FrozenClock(1_000)
    slow = Slow({OPENID: METADATA, KEY_SET: json.loads(Endpoint("a").body)}, clock)
    source = JWKS(well_known_url=OPENID, fetch=slow.fetch, clock=clock)
    undiscovered = source.issuer
    refresh(source)
    assert (undiscovered, source.issuer) == (None, ISSUER)
    assert JWKS(issuer=ISSUER).issuer == ISSUER
    assert JWKS(url=KEY_SET).issuer is None


def test_a_key_set_that_has_moved_is_found_again_after_a_failure() -> None:
    clock = FrozenClock(1_000)
    key_set = json.loads(Endpoint("a").body)
    slow = Slow({OPENID: METADATA, KEY_SET: key_set}, clock)
    source = JWKS(well_known_url=OPENID, fetch=slow.fetch, clock=clock)
    refresh(source)
    slow.documents = {OPENID: {**METADATA, "jwks_uri": KEY_SET + "/2"}, KEY_SET + "/2": key_set}
    clock.advance(600)
    refresh(source)
    clock.advance(2)
    assert slow.asked == [OPENID, KEY_SET, KEY_SET]
    refresh(source)
    assert slow.asked[3:] == [OPENID, KEY_SET + "/2"]
