"""The verifier that a guide shows for GitHub's tokens, against an endpoint that answers alike."""

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
CLIENT = "Iv1.8a61f9b3a7aba766"


async def check_token(request: Request) -> Response:
    """Answer as GitHub's "Check a token": an unknown token, or one of another app, is a 404."""
    assert request.headers["authorization"].startswith("Basic ")
    token = (await request.json())["access_token"]
    if token == "broken":
        return JSONResponse({}, status_code=500)
    if token != "gho_mine":
        return JSONResponse({"message": "Not Found"}, status_code=404)
    return JSONResponse(
        {
            "app": {"client_id": CLIENT},
            "scopes": ["repo", "user"],
            "user": {"login": "octocat", "id": 583231},
            "expires_at": None,
        }
    )


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    routes = [Route(f"/applications/{CLIENT}/token", check_token, methods=["POST"])]
    with Loopback(Starlette(routes=routes)) as server:
        yield server.url


def verify(api: str, token: str) -> Any:
    (block,) = re.findall(
        r"```python\n([^`]*class GitHubVerifier.*?)```", PAGE.read_text(), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(compile(block, PAGE.name, "exec"), names)
    return asyncio.run(names["GitHubVerifier"](CLIENT, "secret", api=api).verify(token))


def test_a_token_of_a_known_app_is_its_users(url: str) -> None:
    principal = verify(url, "gho_mine")

    assert (principal.user_id, principal.issuer) == ("583231", "https://github.com")
    assert (principal.client_id, principal.scopes) == (CLIENT, ("repo", "user"))
    assert principal.expires_at > time.time()


def test_other_tokens_are_refused(url: str) -> None:
    with pytest.raises(InvalidTokenError) as caught:
        verify(url, "gho_of-another-app")
    assert caught.value.reason == "inactive"


@pytest.mark.parametrize("where", ["broken", "nowhere"])
def test_an_outage_of_github_is_an_outage(url: str, where: str) -> None:
    with pytest.raises(KeysUnavailableError):
        verify(url if where == "broken" else "http://127.0.0.1:1", "broken")
