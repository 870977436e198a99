"""Who does a framework take for the caller, and for how long?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

from support.callers import TOKEN, Desk, person
from toolguard.calls.request import RequestAuth
from toolguard.http.identity import sdk_user, tell, telling_digest, telling_stranger


@pytest.fixture
def told() -> Any:
    """Return the caller and the scope of a request of which the framework has been told."""
    scope: dict[str, Any] = {"type": "http"}
    auth = RequestAuth(TOKEN, person("alice", "notes.read"), Desk())
    before = tell(scope, auth)
    yield auth, SimpleNamespace(scope=scope)
    sdk_user.reset(before)


def user_in(request: Any) -> AuthenticatedUser:
    found = sdk_user.get()
    assert isinstance(found, AuthenticatedUser)
    assert request is None or request.scope["user"] is found
    return found


@pytest.mark.parametrize("over_http", [True, False])
def test_a_stranger_is_nobody_that_the_framework_has_met(told: Any, over_http: bool) -> None:
    auth, request = told
    carried = request if over_http else None
    clients = set()

    for _ in range(2):
        with telling_stranger(carried):
            stranger = user_in(carried)
            assert stranger.access_token.subject is None
            assert stranger.scopes == []
            clients.add(stranger.access_token.client_id)
        assert user_in(request) is auth.user

    assert len(clients - {auth.user.access_token.client_id}) == 2


def test_a_stranger_is_forgotten_when_the_request_had_no_user() -> None:
    request = SimpleNamespace(scope={})

    with telling_stranger(request):
        assert request.scope["user"] is sdk_user.get()
    assert (request.scope, sdk_user.get()) == ({}, None)


def test_the_framework_can_be_told_the_digest_of_a_token_that_it_verified() -> None:
    known = RequestAuth(TOKEN, person("alice", "notes.read"), Desk())
    before = tell({}, known)
    sdk_user.reset(before)
    assert isinstance(known.user, AuthenticatedUser)
    verified = AuthenticatedUser(known.user.access_token.model_copy(update={"token": TOKEN}))
    scope: dict[str, Any] = {"user": verified}
    request, auth = SimpleNamespace(scope=scope), RequestAuth(TOKEN, known.principal, Desk())
    before = tell(scope, auth)

    with telling_digest(request, auth):
        assert user_in(request).access_token.token != TOKEN
        assert user_in(request).access_token.subject == "alice"
    assert user_in(request).access_token.token == TOKEN
    sdk_user.reset(before)


def test_without_a_token_there_is_no_digest_to_tell(told: Any) -> None:
    _, request = told
    before = user_in(request)

    for auth in (None, RequestAuth(None, None, Desk())):
        with telling_digest(request, auth):
            assert user_in(request) is before
