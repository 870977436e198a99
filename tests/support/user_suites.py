"""What do users write who test their servers with the fixtures?

Servers, settings and suites, for projects that ``test_fixtures_plugin.py`` makes and runs.
"""

from __future__ import annotations

__all__ = [
    "ASYNC",
    "AS_IT_IS",
    "BLOCKING",
    "CONFTEST",
    "HELD",
    "IN_MEMORY",
    "LONG_LOOP",
    "MISTAKEN",
    "MY_SERVER",
    "OKTA",
    "OVERRIDDEN",
    "REWIRED",
    "SERVER",
]

CONFTEST = 'pytest_plugins = ["toolguard.testing.fixtures"]\n'

SERVER = """
import importlib, importlib.util

from toolguard import requires_auth, requires_scopes, with_connection

if importlib.util.find_spec("mcp.server.mcpserver") is not None:
    Server = importlib.import_module("mcp.server.mcpserver").MCPServer
else:
    Server = importlib.import_module("mcp.server.fastmcp").FastMCP


def make_server():
    server = Server("notes", log_level="WARNING")

    @server.tool()
    @requires_auth
    async def list_notes(*, user_id: str) -> str:
        return f"notes of {user_id}"

    @server.tool()
    @requires_scopes("notes.delete")
    def delete_note(note_id: str) -> str:
        return f"deleted {note_id}"

    @server.tool()
    @requires_scopes("notes.read")
    @with_connection("google-drive")
    async def export_note(note_id: str, *, connection_token: str) -> str:
        return f"exported {note_id} with {connection_token}"

    @server.resource("notes://today")
    @requires_scopes("notes.read")
    def today() -> str:
        return "a note"

    return server
"""

BLOCKING = """
import pytest
from server import make_server

from toolguard.errors import ConnectionRequiredError
from toolguard.testing import LocalIssuer


@pytest.fixture
def server(guard):
    return guard.protect(make_server())


def test_a_caller_is_who_the_token_says(server, call_as):
    assert call_as(server, "list_notes").text == "notes of alice"
    assert call_as(server, "list_notes", user="bob").text == "notes of bob"
    assert call_as(server, "list_notes", user=None).status == 401


def test_scopes_are_those_of_the_token(server, call_as):
    refused = call_as(server, "delete_note", {"note_id": "1"}, scopes=["notes.read"])
    assert (refused.status, refused.missing_scopes) == (403, ("notes.delete",))
    assert call_as(server, "delete_note", {"note_id": "1"}, scopes=["notes.delete"]).ok


def test_no_invalid_token_is_good(server, call_as, issuer):
    for token in issuer.invalid_tokens("alice").values():
        assert call_as(server, "list_notes", token=token).status == 401


def test_a_token_expires_when_the_clock_says_so(server, call_as, issuer, clock):
    token = issuer.mint("alice")
    assert call_as(server, "list_notes", token=token).ok
    clock.advance(3600)
    refused = call_as(server, "list_notes", token=token)
    assert (refused.status, refused.body["error_description"]) == (401, "The token has expired")
    assert call_as(server, "list_notes").ok


def test_a_guard_that_does_not_know_the_new_key_refuses(server, call_as, issuer):
    assert call_as(server, "list_notes").ok
    issuer.rotate(keep_old=False)
    assert call_as(server, "list_notes").status == 401


def test_another_issuer_is_not_trusted(server, call_as):
    assert call_as(server, "list_notes", issuer=LocalIssuer(algorithm="ES256")).status == 401


def test_every_use_of_a_connection_is_remembered(server, call_as, connections, issuer):
    connections.answer("google-drive", "ya29.alice", user="alice")
    token = issuer.mint("alice", scopes=["notes.read"])
    for _ in range(2):
        exported = call_as(server, "export_note", {"note_id": "1"}, token=token)
        assert exported.text == "exported 1 with ya29.alice"
    asked = [(call.name, call.principal.user_id) for call in connections.calls]
    assert asked == [("google-drive", "alice")] * 2


def test_nothing_is_fetched_for_a_refused_caller(server, call_as, connections):
    assert call_as(server, "export_note", {"note_id": "1"}).status == 403
    assert connections.calls == []


def test_who_has_not_connected_is_told_so(server, call_as, connections):
    arguments = {"note_id": "1"}
    unscripted = call_as(server, "export_note", arguments, scopes=["notes.read"])
    assert not unscripted.ok
    assert "No answer is scripted for google-drive" in unscripted.text
    error = ConnectionRequiredError("Connect Drive first", connection="google-drive")
    connections.answer("google-drive", error)
    refused = call_as(server, "export_note", arguments, scopes=["notes.read"])
    assert not refused.ok
    assert "Connect Drive first" in refused.text


def test_a_client_reads_resources_too(server, guarded_client):
    assert guarded_client(server, scopes=["notes.read"]).read("notes://today").text == "a note"
    assert guarded_client(server).read("notes://today").status == 403


def test_each_test_has_its_own_1(issuer, connections, clock):
    check_that_all_is_new(issuer, connections, clock)


def test_each_test_has_its_own_2(issuer, connections, clock):
    check_that_all_is_new(issuer, connections, clock)


def check_that_all_is_new(issuer, connections, clock):
    assert (clock(), connections.calls, issuer.audience) == (
        1_767_225_600,
        [],
        "https://mcp.test/mcp",
    )
    clock.advance(1)
    connections.calls.append(None)
    issuer.audience = "changed"


def test_a_server_that_nothing_protects_is_no_server_to_test(call_as):
    with pytest.raises(ValueError, match="protect the server first"):
        call_as(make_server(), "list_notes")
"""

# {mark} is what makes a test run in an event loop.
ASYNC = """
import asyncio

import anyio
import pytest
from server import make_server

from toolguard.testing import AsyncGuardedClient


@pytest.fixture
def server(guard):
    return guard.protect(make_server())


{mark}
async def test_a_call_is_awaited(server, call_as_async, connections):
    connections.answer("google-drive", "ya29.alice")
    assert (await call_as_async(server, "list_notes", user="bob")).text == "notes of bob"
    assert (await call_as_async(server, "delete_note", {{"note_id": "1"}})).status == 403
    arguments = {{"note_id": "1"}}
    assert (await call_as_async(server, "export_note", arguments, scopes=["notes.read"])).ok
    assert len(connections.calls) == 1


{mark}
async def test_calls_overlap(server, call_as_async, issuer):
    answers = {{}}

    async def call(user):
        answers[user] = await call_as_async(server, "list_notes", user=user)

    async with anyio.create_task_group() as group:
        for number in range(5):
            group.start_soon(call, f"user-{{number}}")
    assert {{user: answer.text for user, answer in answers.items()}} == {{
        f"user-{{number}}": f"notes of user-{{number}}" for number in range(5)
    }}
    alice = AsyncGuardedClient(server, issuer=issuer, scopes=["notes.read"])
    assert (await alice.read("notes://today")).text == "a note"


{mark}
async def test_a_call_that_blocks_the_loop_comes_back(server, call_as, issuer, clock):
    token = issuer.mint("alice")
    assert call_as(server, "list_notes", token=token).ok
    clock.advance(3600)
    assert call_as(server, "list_notes", token=token).status == 401


def test_a_blocking_test_is_beside_them(server, call_as):
    assert call_as(server, "list_notes").ok
"""

# A fixture of the module keeps the event loop, and with it the context that tests run in.
LONG_LOOP = """
import my_server
import pytest


@pytest.fixture(scope="module")
async def held_open(anyio_backend):
    yield "open"


@pytest.fixture(scope="module")
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_the_loop_begins(held_open):
    assert held_open == "open"


@pytest.mark.anyio
async def test_a_wiring_is_of_the_test_whatever_its_loop(
    held_open, rewire, call_as, call_as_async, guarded_client, connections
):
    rewire(my_server.mcp)
    connections.answer("google-drive", "ya29.alice")
    export = ("export_note", {"note_id": "1"})
    wanted = "exported 1 with ya29.alice"
    caller = guarded_client(my_server.mcp, scopes=["notes.all"])
    assert caller.call(*export).text == wanted
    assert call_as(my_server.mcp, *export, scopes=["notes.all"]).text == wanted
    answer = await call_as_async(my_server.mcp, *export, scopes=["notes.all"])
    assert answer.text == wanted


@pytest.fixture
def rewired(held_open, rewire):
    return rewire(my_server.mcp)


@pytest.mark.anyio
async def test_a_fixture_wires_it_as_well(rewired, call_as_async, connections):
    connections.answer("google-drive", "ya29.alice")
    export = ("export_note", {"note_id": "1"})
    answer = await call_as_async(my_server.mcp, *export, scopes=["notes.all"])
    assert answer.text == "exported 1 with ya29.alice"
"""

MY_SERVER = """
from server import make_server

from toolguard import ToolGuard
from toolguard.connections import Connection


async def vault(request):
    return Connection("a-real-token")


mcp = ToolGuard(
    issuer="https://auth.example.com",
    audience="https://notes.example.com/mcp",
    connections=vault,
    scope_hierarchy={"notes.all": ["notes.read"]},
).protect(make_server())
"""

HELD = """
import threading

import anyio
from my_server import vault
from server import make_server

from toolguard import ToolGuard, requires_auth
from toolguard.testing import LocalIssuer

ISSUER = LocalIssuer(algorithm="ES256")
inside, go_on = threading.Event(), threading.Event()
mcp = make_server()


@mcp.tool()
@requires_auth
async def wait() -> str:
    inside.set()
    await anyio.to_thread.run_sync(go_on.wait, 10)
    return "waited"


ToolGuard(verifier=ISSUER.verifier(), audience=ISSUER.audience, connections=vault).protect(mcp)
"""

IN_MEMORY = """
import importlib, importlib.util

import anyio
import my_server
import pytest
from server import make_server

if importlib.util.find_spec("mcp.client.client") is not None:
    client = importlib.import_module("mcp").Client
else:
    memory = importlib.import_module("mcp.shared.memory")

    def client(server):
        return memory.create_connected_server_and_client_session(server._mcp_server)


def call(server, tool, **arguments):
    async def main():
        async with client(server) as session:
            return (await session.call_tool(tool, arguments)).content[0].text

    return anyio.run(main)


@pytest.fixture
def bob(signed_in):
    with signed_in("bob", scopes=["notes.read"]):
        yield


def test_a_fixture_signs_in_who_calls(bob, guard, connections):
    connections.answer("google-drive", "ya29.bob", user="bob")
    server = guard.protect(make_server())
    assert call(server, "list_notes") == "notes of bob"
    assert call(server, "export_note", note_id="1") == "exported 1 with ya29.bob"
    assert "insufficient_scope" in call(server, "delete_note", note_id="1")


def test_the_token_is_of_the_issuer_that_the_guard_trusts(signed_in, guard, issuer):
    server = guard.protect(make_server())
    with signed_in("bob"):
        assert call(server, "list_notes") == "notes of bob"
        issuer.rotate()
        assert "invalid_token" in call(server, "list_notes")
    with signed_in("bob", expires_in=-60):
        assert "invalid_token" in call(server, "list_notes")


def test_a_server_with_a_guard_of_its_own_is_called_as_it_is(signed_in, connections):
    with signed_in("bob", scopes=["notes.all"]):
        assert call(my_server.mcp, "export_note", note_id="1") == "exported 1 with a-real-token"
    assert connections.calls == []
    assert "toolguard.testing.signed_in" in call(my_server.mcp, "list_notes")


def test_or_as_it_is_rewired(signed_in, rewire, connections):
    rewire(my_server.mcp)
    connections.answer("google-drive", "ya29.bob", user="bob")
    with signed_in("bob", scopes=["notes.all"]):
        assert call(my_server.mcp, "export_note", note_id="1") == "exported 1 with ya29.bob"
"""

AS_IT_IS = """
from concurrent.futures import ThreadPoolExecutor

import held
import my_server
import pytest
from server import make_server

from toolguard.frameworks import adapter_for
from toolguard.testing import call_as as call_as_of_the_kit
from toolguard.testing.trust import issuer_for

EXPORT = ("export_note", {"note_id": "1"})


def test_a_server_with_a_guard_of_its_own_is_called_as_it_is(call_as, clock, connections):
    clock.advance(1e6)
    assert call_as(my_server.mcp, "list_notes").text == "notes of alice"
    exported = call_as(my_server.mcp, *EXPORT, scopes=["notes.all"])
    assert exported.text == "exported 1 with a-real-token"
    assert connections.calls == []


def test_until_the_test_ends_it_has_the_fixtures(rewire, call_as, connections, issuer, clock):
    own = rewire(my_server.mcp)
    connections.answer("google-drive", "ya29.alice")
    for _ in range(2):
        exported = call_as(my_server.mcp, *EXPORT, scopes=["notes.all"])
        assert exported.text == "exported 1 with ya29.alice"
    assert len(connections.calls) == 2
    assert own.resource == "https://notes.example.com/mcp"
    token = issuer.mint("alice")
    assert call_as(my_server.mcp, "list_notes", token=token).ok
    clock.advance(3600)
    assert call_as(my_server.mcp, "list_notes", token=token).status == 401
    issuer.rotate(keep_old=False)
    assert call_as(my_server.mcp, "list_notes").status == 401


def test_afterwards_it_has_its_own_again(call_as, clock):
    guard = adapter_for(my_server.mcp).guard
    assert guard.issuer == "https://auth.example.com"
    assert guard.clock is not clock
    exported = call_as(my_server.mcp, *EXPORT, scopes=["notes.all"])
    assert exported.text == "exported 1 with a-real-token"


def test_rewiring_begins_during_a_call(rewire, call_as, issuer):
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call_as_of_the_kit, held.mcp, "wait")
        assert held.inside.wait(10)
        rewire(held.mcp)
        held.go_on.set()
        assert answer.result().ok
    assert call_as(held.mcp, "list_notes", token=issuer.mint("alice")).ok


def test_and_its_end_leaves_the_guard_as_it_was():
    def status(token):
        return call_as_of_the_kit(held.mcp, "list_notes", token=token).status

    test_token = issuer_for(adapter_for(held.mcp).guard).mint("alice")
    assert [status(each) for each in (held.ISSUER.mint("alice"), test_token)] == [200, 401]


def test_a_server_without_a_guard_has_nothing_to_rewire(rewire):
    with pytest.raises(ValueError, match="protect the server first"):
        rewire(make_server())
"""

OVERRIDDEN = """
import my_server
from server import make_server


def test_a_guard_has_the_settings_of_the_users(guard, call_as, connections):
    connections.answer("google-drive", "ya29.alice")
    server = guard.protect(make_server())
    assert call_as(server, "export_note", {"note_id": "1"}, scopes=["notes.delete"]).ok
"""

REWIRED = """
import my_server


def test_a_module_has_its_server_rewired_for_each_test(call_as, connections):
    connections.answer("google-drive", "ya29.alice")
    assert call_as(my_server.mcp, "export_note", {"note_id": "1"}, scopes=["notes.all"]).ok
"""

OKTA = """
import pytest
from server import make_server

from toolguard.testing import LocalIssuer


@pytest.fixture
def issuer(clock):
    return LocalIssuer.like("okta", algorithm="ES256", clock=clock)


def test_an_issuer_writes_tokens_like_the_users_provider(guard, call_as, issuer):
    server = guard.protect(make_server())
    assert call_as(server, "delete_note", {"note_id": "1"}, scopes=["notes.delete"]).ok
    assert guard.issuer == "https://example.okta.com/oauth2/default"
"""

MISTAKEN = """
import pytest
from server import make_server

from toolguard import ToolGuard


class TestTwoClocks:
    @pytest.fixture
    def guard(self, issuer, connections):
        return ToolGuard(
            verifier=issuer.verifier(), audience=issuer.audience, connections=connections
        )

    def test_it_says_what_to_write(self, guard, call_as):
        server = guard.protect(make_server())
        with pytest.raises(ValueError, match="clock=clock"):
            call_as(server, "list_notes")


class TestAnIssuerThatIsNone:
    @pytest.fixture
    def issuer(self):
        return "https://auth.example.com"

    def test_it_says_what_to_write(self, request):
        with pytest.raises(TypeError, match="`issuer` is a fixture of yours that is a str"):
            request.getfixturevalue("call_as")
"""
