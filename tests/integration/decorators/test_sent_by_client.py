"""Which arguments do clients send, where a guard could fill them?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest

from support.lines import Guarding, Line, Serve
from support.wire import Caller
from toolguard import Principal, requires_auth, sent_by_client
from toolguard.testing import LocalIssuer


async def whoami(*, user_id: str) -> str:
    return user_id


async def by_principal(caller: Principal) -> str:
    return str(caller.user_id)


@requires_auth
async def ban(user_id: Annotated[str, sent_by_client]) -> str:
    return f"banned {user_id}"


@requires_auth
async def ban_named(*, user_id: Annotated[str, sent_by_client]) -> str:
    return f"banned {user_id}"


async def find(*, user_id: Annotated[str, sent_by_client]) -> str:
    return f"found {user_id}"


async def look_up(user_id: str) -> str:
    return f"found {user_id}"


@pytest.mark.parametrize(
    ("tool", "fault"),
    [
        (whoami, "takes user_id by keyword only, and has no guard that fills it"),
        (by_principal, "takes a Principal as caller, which a client could send"),
    ],
)
@pytest.mark.parametrize("rules", [None, {"*": requires_auth}], ids=["default", "rule"])
def test_a_tool_without_decorator_that_wants_its_caller_is_refused(
    line: Line, guarding: Guarding, tool: Callable[..., Any], fault: str, rules: Any
) -> None:
    server: Any = line.server("people")
    server.tool(name="whoami")(tool)

    with pytest.raises(ValueError, match=f"^tool 'whoami' {fault}"):
        guarding().protect(server, rules=rules)


def test_arguments_meant_for_clients_are_sent_by_them(
    line: Line, guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    server: Any = line.server("people")
    for tool in (whoami, ban, ban_named, find, look_up):
        server.tool()(tool)
    guard = guarding()
    guard.protect(server, sent_by_client={"whoami": ["user_id"]})
    url = serve(line.http_app(server, stateless=True, json=True))
    alice = Caller(http, f"{url}/mcp", token=issuer.mint("alice"))

    answers = {name: alice.call(name, {"user_id": "bob"}).value for name in alice.tools()}

    assert answers == {
        "whoami": "bob",
        "ban": "banned bob",
        "ban_named": "banned bob",
        "find": "found bob",
        "look_up": "found bob",
    }
    for tool in alice.tools().values():
        assert tool["inputSchema"]["required"] == ["user_id"]
        assert tool["inputSchema"]["properties"]["user_id"]["type"] == "string"


def test_what_is_said_of_one_tool_is_not_said_of_another(line: Line, guarding: Guarding) -> None:
    server: Any = line.server("people")
    server.tool(name="whoami")(whoami)
    server.tool(name="other")(whoami)

    with pytest.raises(ValueError, match=r"^tool 'other' takes user_id by keyword only"):
        guarding().protect(server, sent_by_client={"whoami": ["user_id"]})


def test_a_principal_is_never_declared_as_sent_by_the_client(
    line: Line, guarding: Guarding
) -> None:
    server: Any = line.server("people")
    server.tool(name="whoami")(by_principal)

    with pytest.raises(ValueError, match="takes a Principal as caller"):
        guarding().protect(server, sent_by_client={"whoami": ["caller"]})


def test_arguments_in_one_string_are_refused(line: Line, guarding: Guarding) -> None:
    with pytest.raises(TypeError, match=r"write sent_by_client={'whoami': \['user_id'\]}"):
        guarding().protect(line.server("people"), sent_by_client={"whoami": "user_id"})
