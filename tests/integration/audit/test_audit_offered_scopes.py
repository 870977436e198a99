"""Which scopes does an authorization server say it offers?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from toolguard.audit.offered import offered_scopes
from toolguard.errors import KeysUnavailableError
from toolguard.testing import Loopback

ISSUER = "https://auth.example.com/tenant"
INSERTED = "https://auth.example.com/.well-known/oauth-authorization-server/tenant"
APPENDED = "https://auth.example.com/tenant/.well-known/openid-configuration"


class Web:
    """Documents by URL, and what was asked for."""

    def __init__(self, documents: Mapping[str, object]) -> None:
        self._documents = documents
        self.asked: list[str] = []

    def __call__(self, url: str, timeout: float) -> bytes:
        assert timeout >= 0
        self.asked.append(url)
        if url not in self._documents:
            raise KeysUnavailableError("HTTP 404")
        document = self._documents[url]
        return document if isinstance(document, bytes) else json.dumps(document).encode()


def metadata(**facts: Any) -> dict[str, Any]:
    return {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/jwks", **facts}


@pytest.mark.parametrize("url", [INSERTED, APPENDED])
def test_they_are_found_where_rfc_8414_and_openid_put_the_metadata(url: str) -> None:
    web = Web({url: metadata(scopes_supported=["read", "write"])})

    assert offered_scopes(ISSUER, fetch=web) == ("read", "write")
    assert web.asked[-1] == url


def test_the_url_of_the_metadata_will_do() -> None:
    web = Web({APPENDED: metadata(scopes_supported=["read"])})

    assert offered_scopes(APPENDED, fetch=web) == ("read",)
    assert web.asked == [APPENDED]


def test_metadata_need_not_say() -> None:
    assert offered_scopes(ISSUER, fetch=Web({INSERTED: metadata()})) is None


def test_none_offered_is_not_the_same_as_nothing_said() -> None:
    web = Web({INSERTED: metadata(scopes_supported=[])})

    assert offered_scopes(ISSUER, fetch=web) == ()


def test_metadata_of_another_issuer_is_not_believed() -> None:
    web = Web(
        {
            INSERTED: metadata(issuer="https://evil.example.com", scopes_supported=["read"]),
            APPENDED: metadata(scopes_supported=["write"]),
        }
    )

    assert offered_scopes(ISSUER, fetch=web) == ("write",)


@pytest.mark.parametrize("scopes", ["read write", 1, ["read", 1], {"read": True}])
def test_what_is_no_list_of_scopes_is_refused(scopes: object) -> None:
    web = Web({INSERTED: metadata(scopes_supported=scopes)})

    with pytest.raises(ValueError, match="not a list of strings"):
        offered_scopes(ISSUER, fetch=web)


@pytest.mark.parametrize("document", [b"", b"<html>", b"[]", b'{"issuer": "a", "issuer": "b"}'])
def test_what_cannot_be_read_is_no_metadata(document: bytes) -> None:
    with pytest.raises(KeysUnavailableError, match="no metadata of the issuer"):
        offered_scopes(ISSUER, fetch=Web({INSERTED: document}))


@pytest.mark.parametrize(
    "issuer", ["http://auth.example.com", "auth.example.com", "https://a@example.com", ""]
)
def test_an_issuer_has_a_secure_url(issuer: str) -> None:
    with pytest.raises(ValueError, match=r"https://auth\.example\.com"):
        offered_scopes(issuer, fetch=Web({}))


def test_the_time_for_all_documents_is_one() -> None:
    times = iter([0.0, 0.0, 1.0, 4.0, 9.0, 10.0])
    left: list[float] = []

    def slow(_: str, timeout: float) -> bytes:
        left.append(timeout)
        raise KeysUnavailableError("slow")

    with pytest.raises(KeysUnavailableError):
        offered_scopes(ISSUER, timeout=5, fetch=slow, clock=lambda: next(times))

    assert left == [4.0, 1.0, 0.0, 0.0]


@pytest.fixture
def issuer() -> Iterator[str]:
    """Serve the metadata of an issuer on loopback."""
    with Loopback() as server:

        async def document(_: object) -> JSONResponse:
            return JSONResponse(
                {
                    "issuer": server.url,
                    "jwks_uri": f"{server.url}/jwks",
                    "scopes_supported": ["read"],
                }
            )

        server.start(Starlette(routes=[Route("/.well-known/openid-configuration", document)]))
        yield server.url


def test_they_are_fetched_over_http(issuer: str) -> None:
    assert offered_scopes(issuer) == ("read",)
