"""Which credential does the server itself get, how often, and what does a caller see of faults?"""

from __future__ import annotations

import asyncio
import contextvars
import json
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from starlette.responses import JSONResponse, PlainTextResponse, Response

from support.client_keys import private_key
from support.server_endpoints import NOW, Endpoints
from toolguard.connections import (
    ClientSecretBasic,
    ClientSecretPost,
    Connection,
    ConnectionRequest,
    PrivateKeyJWT,
    PublicClient,
)
from toolguard.connections.retries import Retries
from toolguard.connections.server import (
    APIKey,
    ClientCredentialsGrant,
    GitHubInstallation,
    ServerConnections,
    ServerSource,
    ServiceAccount,
)
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.principal import Principal

TOKEN = "https://auth.test/token"
SECRET = "s3cret-of-the-client"
ALICE = Principal("alice", "https://issuer.test")
ROBOT = Principal(None, "https://issuer.test", client_id="robot")
KEY = private_key("RS256")
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def grant(*scopes: str) -> ClientCredentialsGrant:
    return ClientCredentialsGrant(TOKEN, ClientSecretBasic("mcp", SECRET), scopes=scopes)


def asked(*scopes: str, caller: Principal = ALICE, **more: Any) -> ConnectionRequest:
    return ConnectionRequest("crm", scopes, caller, None, **more)


class Room:
    """A provider with one connection, and the endpoints that it asks."""

    def __init__(self, source: ServerSource) -> None:
        self.endpoints = Endpoints()
        self.slept: list[float] = []
        self.connections = ServerConnections(
            {"crm": source},
            retries=Retries(sleep=self.sleep, jitter=lambda: 0.0),
            transport=httpx.ASGITransport(self.endpoints.app),
            clock=self.endpoints.clock,
        )

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def fetch(self, *scopes: str, **more: Any) -> Connection:
        return await self.connections.fetch(asked(*scopes, **more))

    async def refused(self, *scopes: str, **more: Any) -> ConnectionTokenError:
        with pytest.raises(ConnectionTokenError) as caught:
            await self.fetch(*scopes, **more)
        return caught.value


def in_room(source: ServerSource, test: Callable[[Room], Awaitable[None]]) -> None:
    async def main() -> None:
        room = Room(source)
        try:
            await test(room)
        finally:
            await room.connections.aclose()

    asyncio.run(main())


# --- what is sent


def test_client_credentials_are_sent_as_rfc_6749_has_them() -> None:
    async def test(room: Room) -> None:
        connection = await room.fetch()

        assert (connection.token, connection.scopes) == ("token-1", ("orders.read",))
        assert connection.expires_at == NOW + 3_600
        form = {"grant_type": "client_credentials", "scope": "orders.read"}
        assert room.endpoints.forms == [form]
        assert room.endpoints.headers[0]["authorization"].startswith("Basic ")

    in_room(grant("orders.read"), test)


def test_scopes_of_the_tool_replace_those_of_the_connection() -> None:
    async def test(room: Room) -> None:
        await room.fetch("orders.write")

        assert room.endpoints.forms[0]["scope"] == "orders.write"

    in_room(grant("orders.read"), test)


def test_a_secret_in_the_form_goes_with_further_parameters() -> None:
    async def test(room: Room) -> None:
        await room.fetch()

        form = room.endpoints.forms[0]
        assert (form["client_id"], form["client_secret"]) == ("mcp", SECRET)
        assert form["audience"] == "https://api.test"

    auth, more = ClientSecretPost("mcp", SECRET), {"audience": "https://api.test"}
    in_room(ClientCredentialsGrant(TOKEN, auth, parameters=more), test)


def test_each_attempt_has_an_assertion_of_its_own() -> None:
    async def test(room: Room) -> None:
        room.endpoints.faults = [lambda: Response(status_code=503)]

        await room.fetch()

        first, second = (form["client_assertion"] for form in room.endpoints.forms)
        assert first != second

    auth = PrivateKeyJWT("mcp", private_key("ES256"), key_id="k1")
    in_room(ClientCredentialsGrant(TOKEN, auth), test)


def test_a_service_account_signs_what_google_documents() -> None:
    async def test(room: Room) -> None:
        assert (await room.fetch("https://www.googleapis.com/auth/drive")).token == "token-1"

        (form,), (claims,) = room.endpoints.forms, room.endpoints.claims
        assert form["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
        assert form.keys() == {"grant_type", "assertion"}
        assert claims["iss"] == "robot@p.iam.gserviceaccount.com"
        assert claims["scope"] == "https://www.googleapis.com/auth/drive"
        assert "sub" not in claims

    in_room(
        ServiceAccount("robot@p.iam.gserviceaccount.com", PEM, key_id="k", token_endpoint=TOKEN),
        test,
    )


def test_an_installation_token_has_the_permissions_that_the_tool_declares() -> None:
    async def test(room: Room) -> None:
        connection = await room.fetch("contents:read", "issues:write")

        assert room.endpoints.bodies == [
            {"permissions": {"contents": "read", "issues": "write"}, "repositories": ["docs"]}
        ]
        assert room.endpoints.claims[0]["iss"] == "Iv23li"
        assert connection.scopes == ("contents:read", "issues:read", "issues:write")
        assert connection.expires_at == NOW + 3_600

    in_room(GitHubInstallation("Iv23li", PEM, 7, repositories=["docs"], api_url=AUTH), test)


AUTH = "https://auth.test"


# --- how often


@pytest.mark.parametrize("cancelled", [False, True])
def test_many_callers_cause_one_fetch(cancelled: bool) -> None:
    async def test(room: Room) -> None:
        room.endpoints.gate = asyncio.Event()
        first = asyncio.ensure_future(room.fetch())
        await room.endpoints.asked.wait()
        others = [asyncio.ensure_future(room.fetch(caller=ROBOT)) for _ in range(200)]
        await asyncio.sleep(0)
        if cancelled:
            first.cancel()
            await asyncio.wait({first})
        room.endpoints.gate.set()

        assert {each.token for each in await asyncio.gather(*others)} == {"token-1"}
        assert room.endpoints.count == 1

    in_room(grant(), test)


def test_a_token_is_kept_until_shortly_before_its_expiry() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.now += 3_539

        assert (await room.fetch()).token == "token-1"
        assert room.endpoints.count == 1

    in_room(grant(), test)


def test_callers_do_not_wait_for_a_refresh_ahead() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.now += 3_545

        assert (await room.fetch()).token == "token-1"
        await asyncio.wait(room.connections._tokens["crm"]._running.get().values())
        assert (await room.fetch()).token == "token-2"
        assert room.endpoints.count == 2

    in_room(grant(), test)


def test_callers_wait_where_the_token_would_expire_during_their_call() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.now += 3_590

        assert (await room.fetch()).token == "token-2"

    in_room(grant(), test)


def test_a_short_lived_token_is_not_fetched_for_each_call() -> None:
    async def test(room: Room) -> None:
        room.endpoints.lifetime = 60
        for _ in range(4):
            await room.fetch()
            room.endpoints.now += 10

        assert room.endpoints.count == 1

    in_room(grant(), test)


def test_a_refused_token_is_replaced_once_however_many_callers_ask() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.now += 11

        again = await asyncio.gather(*(room.fetch(fresh=True) for _ in range(20)))
        assert {each.token for each in again} == {"token-2"}
        assert (await room.fetch(fresh=True)).token == "token-2"
        assert room.endpoints.count == 2

    in_room(grant(), test)


def test_each_set_of_scopes_has_a_token_of_its_own() -> None:
    async def test(room: Room) -> None:
        one, other = await room.fetch("a", "b"), await room.fetch("c")
        same = await room.fetch("b", "a")

        assert one.token == same.token != other.token

    in_room(grant(), test)


# --- whose it is


def test_the_connection_of_a_tenant_is_not_the_server_s() -> None:
    async def test(room: Room) -> None:
        refusal = await room.refused(tenant_id="acme")

        assert isinstance(refusal, ConnectionDeniedError)
        assert "leave tenant=True out" in str(refusal)
        assert room.endpoints.count == 0

    in_room(grant(), test)


# --- faults


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (lambda: Response(status_code=500), ConnectionUnavailableError, "500"),
        (
            lambda: JSONResponse({"error": "temporarily_unavailable"}, 400),
            ConnectionUnavailableError,
            "temporarily_unavailable",
        ),
        (
            lambda: JSONResponse({"error": "invalid_client", "error_description": SECRET}, 401),
            ConnectionResponseError,
            "401, invalid_client): check the client's id",
        ),
        (
            lambda: JSONResponse({"error": "invalid_grant"}, 400),
            ConnectionResponseError,
            "this machine's clock",
        ),
        (lambda: JSONResponse({"error": SECRET}, 400), ConnectionResponseError, "(400)"),
        (lambda: JSONResponse({"error": [1]}, 400), ConnectionResponseError, "(400)"),
        (lambda: PlainTextResponse("hello"), ConnectionResponseError, "not JSON"),
        (
            lambda: Response(status_code=307, headers={"Location": "/x"}),
            ConnectionResponseError,
            "307",
        ),
        (lambda: JSONResponse({"token_type": "Bearer"}), ConnectionResponseError, "no token"),
    ],
)
def test_a_fault_is_named_and_remembered_for_a_moment(
    answer: Callable[[], Response], kind: type[ConnectionTokenError], told: str
) -> None:
    async def test(room: Room) -> None:
        room.endpoints.faults = [answer] * 9

        refusal = await room.refused()
        count = room.endpoints.count
        again = await room.refused()

        assert type(refusal) is type(again) is kind
        assert told in str(refusal)
        assert SECRET not in str(refusal)
        assert room.endpoints.count == count
        room.endpoints.faults = []
        room.endpoints.now += 2
        assert (await room.fetch()).token

    in_room(grant(), test)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"access_token": "with space"}, "no token that can be read"),
        ({"token_type": "DPoP"}, "no bearer token"),
        ({"expires_in": "soon"}, "when the token expires"),
        ({"expires_in": 0}, "has expired"),
        ({"scope": ["a"]}, "names scopes"),
        ({"scope": "b"}, "lacks a"),
    ],
)
def test_a_wrong_answer_of_a_token_endpoint_is_named(changed: dict[str, Any], told: str) -> None:
    async def test(room: Room) -> None:
        room.endpoints.changed = changed

        refusal = await room.refused("a")

        assert isinstance(refusal, ConnectionResponseError)
        assert told in str(refusal)

    in_room(grant(), test)


def test_a_rate_limit_is_respected_and_its_rest_is_told() -> None:
    async def test(room: Room) -> None:
        room.endpoints.faults = [lambda: Response(status_code=429, headers={"Retry-After": "30"})]
        await room.refused()
        room.endpoints.now += 10

        refusal = await room.refused()

        assert isinstance(refusal, ConnectionRateLimitedError)
        assert refusal.retry_after == 20
        assert room.endpoints.count == 1

    in_room(grant(), test)


def test_a_clock_that_was_wrong_holds_up_no_fetch() -> None:
    async def test(room: Room) -> None:
        room.endpoints.now += 86_400
        room.endpoints.faults = [lambda: Response(status_code=500)]
        await room.refused()
        room.endpoints.now -= 86_400
        assert (await room.fetch()).token == "token-2"

        room.endpoints.now -= 86_400
        assert (await room.fetch(fresh=True)).token == "token-3"

    in_room(grant(), test)


@pytest.mark.parametrize(
    "fault",
    [
        lambda: Response(status_code=500),
        lambda: JSONResponse({"error": "invalid_client"}, 401),
        lambda: PlainTextResponse("<html>"),
    ],
)
def test_a_failed_refresh_does_not_end_a_token_before_its_expiry(
    fault: Callable[[], Response],
) -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.faults = [fault] * 2
        room.endpoints.now += 3_590
        assert (await room.fetch()).token == "token-1"

        room.endpoints.now += 10
        await room.refused()
        room.endpoints.now += 2
        assert (await room.fetch()).token == "token-4"

    in_room(grant(), test)


def test_a_key_that_cannot_be_fetched_again_is_served_for_an_hour() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        keys.clear()
        room.endpoints.now += 3_599
        assert (await room.fetch()).token == "key"
        room.endpoints.now += 1
        assert "failed" in str(await room.refused())

    keys = ["key"]
    in_room(APIKey(lambda: keys[0]), test)


def test_a_key_that_is_withdrawn_is_no_longer_served() -> None:
    async def load() -> str:
        if withdrawn:
            raise ConnectionDeniedError("withdrawn", connection="crm")
        return "key"

    async def test(room: Room) -> None:
        await room.fetch()
        withdrawn.append(True)
        room.endpoints.now += 301

        assert isinstance(await room.refused(), ConnectionDeniedError)

    withdrawn: list[bool] = []
    in_room(APIKey(load), test)


def test_a_fetch_that_is_broken_off_is_told_to_all_who_wait() -> None:
    async def test(room: Room) -> None:
        room.endpoints.gate = asyncio.Event()
        waiting = asyncio.ensure_future(room.refused())
        await room.endpoints.asked.wait()
        for task in room.connections._tokens["crm"]._running.get().values():
            task.cancel()

        assert isinstance(await waiting, ConnectionUnavailableError)

    in_room(grant(), test)


def test_a_token_that_an_api_refused_is_not_served_in_an_outage() -> None:
    async def test(room: Room) -> None:
        await room.fetch()
        room.endpoints.now += 60
        room.endpoints.faults = [lambda: Response(status_code=500)]

        assert isinstance(await room.refused(fresh=True), ConnectionUnavailableError)

    in_room(grant(), test)


@pytest.mark.parametrize(
    ("answer", "kind", "told"),
    [
        (lambda: JSONResponse({"message": "x"}, 401), ConnectionResponseError, "key of the app"),
        (lambda: JSONResponse({}, 404), ConnectionResponseError, "id of the installation"),
        (lambda: JSONResponse({}, 422), ConnectionResponseError, "not these permissions"),
        (lambda: JSONResponse({}, 410), ConnectionResponseError, "(410)"),
        (
            lambda: JSONResponse({"message": "API rate limit exceeded for app 7"}, 403),
            ConnectionRateLimitedError,
            "too often",
        ),
    ],
)
def test_a_refusal_of_github_is_named(
    answer: Callable[[], Response], kind: type[ConnectionTokenError], told: str
) -> None:
    async def test(room: Room) -> None:
        room.endpoints.faults = [answer]

        refusal = await room.refused()

        assert type(refusal) is kind
        assert told in str(refusal)

    in_room(GitHubInstallation(7, KEY, 7, api_url=AUTH), test)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"token": None}, "no token"),
        ({"expires_at": "tomorrow"}, "when the token expires"),
        ({"expires_at": None}, "when the token expires"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "has expired already"),
        ({"permissions": "all"}, "names permissions"),
        ({"permissions": {"issues": "read"}}, "lacks issues:write"),
    ],
)
def test_a_wrong_answer_of_github_is_named(changed: dict[str, Any], told: str) -> None:
    async def test(room: Room) -> None:
        room.endpoints.changed = changed

        assert told in str(await room.refused("issues:write"))

    in_room(GitHubInstallation(7, KEY, 7, api_url=AUTH), test)


def test_a_scope_that_is_no_permission_is_named_before_github_is_asked() -> None:
    async def test(room: Room) -> None:
        assert 'scopes=["contents:read"' in str(await room.refused("repo"))
        assert room.endpoints.count == 0

    in_room(GitHubInstallation(7, KEY, 7, api_url=AUTH), test)


# --- a key from a function


CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("caller", default="nobody")


@pytest.mark.parametrize("is_async", [False, True])
def test_a_key_comes_from_a_function_that_sees_no_caller(is_async: bool) -> None:
    threads: list[object] = []

    def load() -> str:
        threads.append(threading.current_thread())
        return f"key-of-{CALLER.get()}"

    async def load_async() -> str:
        return load()

    async def test(room: Room) -> None:
        CALLER.set("alice")

        assert (await room.fetch()).token == "key-of-nobody"
        assert (threads[0] is threading.current_thread()) is is_async
        room.endpoints.now += 299
        await room.fetch()
        assert len(threads) == 1
        room.endpoints.now += 2
        await room.fetch()
        assert len(threads) == 2

    in_room(APIKey(load_async if is_async else load), test)


def test_a_key_may_come_with_its_scheme_and_expiry() -> None:
    async def load() -> Connection:
        return Connection("k", scopes=("search",), expires_at=NOW + 100)

    async def test(room: Room) -> None:
        connection = await room.fetch("search")

        assert (connection.token_type, connection.expires_at) == ("ApiKey", NOW + 100)
        assert "lacks index" in str(await room.refused("index"))

    in_room(APIKey(load, token_type="ApiKey"), test)


def _failing(error: BaseException) -> Callable[[], Any]:
    def load() -> str:
        raise error

    return load


@pytest.mark.parametrize(
    ("function", "kind", "told"),
    [
        (lambda: None, ConnectionResponseError, "returned NoneType"),
        (lambda: "", ConnectionResponseError, "no token"),
        (lambda: f"{SECRET}\n", ConnectionResponseError, "no token"),
        (lambda: {"key": SECRET}, ConnectionResponseError, "returned dict"),
        (_failing(RuntimeError(SECRET)), ConnectionResponseError, "failed"),
        (_failing(httpx.ConnectError(SECRET)), ConnectionUnavailableError, "try again"),
        (_failing(SystemExit(SECRET)), ConnectionResponseError, "failed"),
        (_failing(KeyboardInterrupt(SECRET)), ConnectionResponseError, "failed"),
    ],
)
def test_a_fault_of_the_function_is_named_without_its_text(
    function: Callable[[], Any],
    kind: type[ConnectionTokenError],
    told: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def test(room: Room) -> None:
        refusal = await room.refused()

        assert type(refusal) is kind
        assert told in str(refusal)
        assert SECRET not in str(refusal) + caplog.text
        assert SECRET not in _locals_of(refusal)

    with caplog.at_level(logging.DEBUG):
        in_room(APIKey(function), test)


def test_a_function_that_hangs_is_given_up() -> None:
    async def hang() -> str:
        await asyncio.Event().wait()
        raise AssertionError

    async def test(room: Room) -> None:
        assert isinstance(await room.refused(), ConnectionUnavailableError)

    in_room(APIKey(hang, timeout=0.01), test)


# --- secrecy and settings


def _locals_of(error: BaseException | None) -> str:
    found: list[str] = []
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "toolguard/" in trace.tb_frame.f_code.co_filename:
                found.append(repr(trace.tb_frame.f_locals))
            trace = trace.tb_next
        error = error.__cause__ or error.__context__
    return "".join(found)


def test_no_representation_or_frame_shows_a_secret(caplog: pytest.LogCaptureFixture) -> None:
    async def test(room: Room) -> None:
        room.endpoints.changed = {"scope": "b"}
        refusal = await room.refused("a")
        await room.fetch("b")

        shown = repr((room.connections, room.connections._tokens, vars(room.connections)))
        shown += repr(vars(room.connections._tokens["crm"])) + repr(room.connections._sources)
        for secret in (SECRET, "token-1", "token-2"):
            assert secret not in shown + _locals_of(refusal) + caplog.text + str(refusal)

    with caplog.at_level(logging.DEBUG):
        in_room(grant(), test)


def test_keys_are_not_in_representations() -> None:
    sources: list[ServerSource] = [
        ServiceAccount("robot@p", PEM),
        GitHubInstallation(7, PEM, 7),
        APIKey(lambda: SECRET),
        grant(),
    ]

    shown = repr(sources) + repr([source.identity for source in sources])
    assert "PRIVATE" not in shown
    assert SECRET not in shown


KEY_FILE = {
    "type": "service_account",
    "client_email": "robot@p.iam.gserviceaccount.com",
    "private_key": PEM.decode(),
    "private_key_id": "k1",
    "token_uri": "https://oauth2.googleapis.com/token",
}


def test_a_key_file_of_google_is_read() -> None:
    account = ServiceAccount.from_json(json.dumps(KEY_FILE), scopes=["a"])

    assert "robot@p.iam.gserviceaccount.com at https://oauth2.googleapis.com" in repr(account)


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        json.dumps({**KEY_FILE, "type": "authorized_user"}),
        json.dumps({**KEY_FILE, "token_uri": "https://evil.test/token"}),
        json.dumps({**KEY_FILE, "client_email": 7}),
        json.dumps({"type": "service_account"}),
    ],
    # The keys differ in each process.
    ids=["no JSON", "a list", "another type", "another endpoint", "no address", "no key"],
)
def test_another_key_file_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(ValueError, match="not the key file") as caught:
        ServiceAccount.from_json(text)
    assert "BEGIN" not in _locals_of(caught.value)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: ServerConnections({}), "write ServerConnections"),
        (lambda: ServerConnections({"a": object()}), "'a' is not issued to a server"),  # type: ignore[dict-item]
        (lambda: ServerConnections({"a": APIKey}), "'a' is not issued to a server"),  # type: ignore[dict-item]
        (
            lambda: ClientCredentialsGrant("http://x.test", ClientSecretBasic("a", "b")),
            "a token endpoint is https",
        ),
        (lambda: ClientCredentialsGrant(TOKEN, "secret"), "write ClientSecretBasic"),  # type: ignore[arg-type]
        (
            lambda: ClientCredentialsGrant(
                TOKEN, ClientSecretBasic("a", "b"), parameters={"scope": "a"}
            ),
            "scope has a setting of its own",
        ),
        (lambda: ClientCredentialsGrant(TOKEN, PublicClient("mcp")), "need a secret or key"),
        (lambda: grant().__class__(TOKEN, ClientSecretBasic("a", "b"), scopes="a b"), "a list"),
        (lambda: ServiceAccount("", PEM), "write email="),
        (lambda: ServiceAccount("a", KEY, scopes="a b"), "a list"),
        (lambda: GitHubInstallation(7, PEM, "7"), "write GitHubInstallation"),  # type: ignore[arg-type]
        (lambda: GitHubInstallation(7, PEM, 7, repositories="a"), "a list"),
        (lambda: GitHubInstallation(7, PEM, 7, permissions={"a": "all"}), "'all'"),
        (lambda: GitHubInstallation(7, PEM, 7, api_url="http://a.test"), "write api_url"),
        (lambda: APIKey(lambda request: request), "takes no argument"),  # type: ignore[misc,arg-type]
        (lambda: APIKey("key"), "takes no argument"),  # type: ignore[arg-type]
        (lambda: APIKey(lambda: "a", timeout=0), "write timeout"),
    ],
)
def test_a_wrong_setting_is_refused_with_what_to_write(
    make: Callable[[], object], told: str
) -> None:
    with pytest.raises((ValueError, TypeError), match=told):
        make()


def test_a_connection_that_nobody_described_is_named() -> None:
    async def test(room: Room) -> None:
        request = ConnectionRequest("other", (), ALICE, None)
        with pytest.raises(ConnectionResponseError, match="has no connection other"):
            await room.connections.fetch(request)

    in_room(grant(), test)


def test_the_namespace_tells_settings_apart_and_is_none_for_functions() -> None:
    one, other = ServerConnections({"a": grant("a")}), ServerConnections({"a": grant("b")})

    assert one.cache_namespace == ServerConnections({"a": grant("a")}).cache_namespace
    assert one.cache_namespace != other.cache_namespace
    assert ServerConnections({"a": APIKey(lambda: "k")}).cache_namespace is None
