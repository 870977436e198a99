"""Descope: which third-party tokens do the SDK's functions fetch, and with whose credential?"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest

from support.projects import APP, KEY, READ, SLACK, Project, anywhere, sdk
from toolguard import descope
from toolguard.descope import DescopeConfig
from toolguard.errors import ConnectionDeniedError, ConnectionRequiredError, InvalidTokenError

LOG = "toolguard.connections"


@anywhere
def test_a_connection_token_is_fetched_with_the_callers_own_token(
    project: Project, run: Callable[[Callable[[], Any]], Any]
) -> None:
    descope_mcp, token = sdk(project, management_key=KEY), project.token()

    latest = run(lambda: descope_mcp.get_connection_token("alice", APP, access_token=token))
    by_scopes = run(
        lambda: descope_mcp.get_connection_token("alice", APP, [READ], access_token=token)
    )

    assert (latest, by_scopes) == ("ya29.alice", "ya29.alice")
    assert project.asked == [
        ("user/token/latest", f"Bearer Plocal:{token}"),
        ("user/token", f"Bearer Plocal:{token}"),
    ]


def test_without_an_access_token_the_management_key_is_used_and_logged(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger=LOG)

    token = sdk(project, management_key=KEY).get_connection_token("bob", APP)

    assert token == "ya29.bob"
    assert project.asked == [("user/token/latest", f"Bearer Plocal:{KEY}")]
    assert [entry.getMessage() for entry in caplog.records if entry.name == LOG] == [
        "management key used for connection 'google-calendar' of user 'bob'"
    ]


@pytest.mark.parametrize("access_token", ["", "not.a.token", "two words"])
def test_an_access_token_that_is_no_good_never_falls_back_to_the_key(
    project: Project, access_token: str
) -> None:
    with pytest.raises(InvalidTokenError):
        sdk(project, management_key=KEY).get_connection_token(
            "alice", APP, access_token=access_token
        )

    assert project.asked == []


@pytest.mark.parametrize(
    ("user_id", "tenant_id"), [("bob", None), ("ALICE", None), ("alice", "globex")]
)
def test_nobodys_token_opens_what_is_of_another_user_or_tenant(
    project: Project, user_id: str, tenant_id: str | None
) -> None:
    descope_mcp, token = sdk(project, management_key=KEY), project.token("alice", dct="acme")

    with pytest.raises(ConnectionDeniedError, match="another user or tenant"):
        descope_mcp.get_connection_token(user_id, APP, tenant_id=tenant_id, access_token=token)

    assert project.asked == []


def test_a_user_may_ask_in_a_tenant_of_theirs(project: Project) -> None:
    token = project.token("alice", dct="acme")

    found = sdk(project).get_connection_token("alice", APP, tenant_id="acme", access_token=token)

    assert found == "ya29.alice"


def test_options_reach_the_vault(project: Project) -> None:
    found = sdk(project).get_connection_token(
        "dave", APP, options={"forceRefresh": True}, access_token=project.token("dave")
    )

    assert found == "ya29.dave.fresh"


@anywhere
def test_what_is_not_connected_comes_with_where_to_connect(
    project: Project, run: Callable[[Callable[[], Any]], Any]
) -> None:
    descope_mcp, token = sdk(project), project.token("carol")

    with pytest.raises(ConnectionRequiredError) as caught:
        run(lambda: descope_mcp.get_connection_token("carol", APP, access_token=token))

    assert caught.value.connect_url is not None
    assert caught.value.connect_url.startswith("https://vault.test/connections/link/")


def test_what_the_policy_refuses_is_refused(project: Project) -> None:
    with pytest.raises(ConnectionDeniedError):
        sdk(project, management_key=KEY).get_connection_token(
            "mallory", APP, access_token=project.token("mallory")
        )


def test_the_four_functions_answer_with_the_json_of_the_sdk(project: Project) -> None:
    config = DescopeConfig(well_known_url=project.well_known_url, management_key=KEY)
    alice = project.token("alice", dct="acme")

    async def main() -> list[str]:
        return [
            await descope.fetch_user_token(config, APP, "alice"),
            await descope.fetch_user_token(config, APP, "alice", access_token=alice),
            await descope.fetch_user_token_by_scopes(config, APP, "alice", [READ]),
            await descope.fetch_tenant_token(config, SLACK, "acme"),
            await descope.fetch_tenant_token_by_scopes(
                config, SLACK, "acme", ["chat:write"], access_token=alice
            ),
        ]

    answers = [json.loads(answer) for answer in asyncio.run(main())]

    assert [answer["token"] for answer in answers] == ["ya29.alice"] * 3 + ["xoxb.acme"] * 2
    assert [answer["scopes"] for answer in answers] == [[READ]] * 3 + [["chat:write"]] * 2
    assert {answer["expires_at"] for answer in answers} == {4_000_000_000}
    assert project.asked == [
        ("user/token/latest", f"Bearer Plocal:{KEY}"),
        ("user/token/latest", f"Bearer Plocal:{alice}"),
        ("user/token", f"Bearer Plocal:{KEY}"),
        ("tenant/token/latest", f"Bearer Plocal:{KEY}"),
        ("tenant/token", f"Bearer Plocal:{alice}"),
    ]


def test_a_failure_of_the_four_functions_is_an_exception_and_no_text(project: Project) -> None:
    config = DescopeConfig(well_known_url=project.well_known_url, management_key=KEY)

    async def main() -> None:
        await descope.fetch_tenant_token(config, SLACK, "globex", access_token=project.token())

    with pytest.raises(ConnectionDeniedError):
        asyncio.run(main())
