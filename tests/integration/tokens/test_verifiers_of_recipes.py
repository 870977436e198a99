"""The verifier that a guide shows for Google's tokens, against an endpoint that answers alike."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.testing import Loopback

PAGE = Path(__file__).parents[3] / ".docs/issuers.md"
CLIENT = "1234567890-app.apps.googleusercontent.com"


async def tokeninfo(request: Request) -> Response:
    """Answer as Google's tokeninfo: all members are texts, an unknown token is a 400."""
    token = str((await request.form()).get("access_token"))
    if token == "broken":
        return JSONResponse({}, status_code=500)
    if not token.startswith("ya29."):
        return JSONResponse({"error_description": "Invalid Value"}, status_code=400)
    client = CLIENT if token == "ya29.mine" else "other.apps.googleusercontent.com"
    return JSONResponse(
        {
            "azp": client,
            "aud": client,
            "sub": "110169484474386276334",
            "scope": "openid https://www.googleapis.com/auth/calendar",
            "exp": str(int(time.time()) + 3_000),
            "expires_in": "3000",
            "access_type": "online",
        }
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Loopback(Starlette(routes=[Route("/", tokeninfo, methods=["POST"])])) as server:
        yield server.url


def verify(endpoint: str, token: str) -> Any:
    (block,) = re.findall(
        r"```python\n([^`]*class GoogleVerifier.*?)```", PAGE.read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), names)
    return asyncio.run(names["GoogleVerifier"](CLIENT, endpoint=endpoint).verify(token))


def test_a_token_of_a_known_client_is_its_users(url: str) -> None:
    principal = verify(url, "ya29.mine")

    assert principal.user_id == "110169484474386276334"
    assert principal.issuer == "https://accounts.google.com"
    assert principal.client_id == CLIENT
    assert "https://www.googleapis.com/auth/calendar" in principal.scopes
    assert principal.expires_at > time.time()


@pytest.mark.parametrize(
    ("token", "reason"), [("ya29.of-another-app", "audience"), ("expired", "inactive")]
)
def test_other_tokens_are_refused(url: str, token: str, reason: str) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        verify(url, token)
    assert caught.value.reason == reason


@pytest.mark.parametrize("where", ["broken", "nowhere"])
def test_an_outage_of_google_is_an_outage(url: str, where: str) -> None:
    endpoint = url if where == "broken" else "http://127.0.0.1:1"
    with pytest.raises(KeysUnavailableError):
        verify(endpoint, "broken")
