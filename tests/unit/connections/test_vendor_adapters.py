"""Do the adapters understand the vendors' vaults, as these document their answers?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

import toolguard
from support.vendor_vaults import (
    KEY,
    NOW,
    VENDORS,
    ArcadeVault,
    NangoVault,
    ScalekitVault,
    Vendor,
    WorkOSVault,
)
from toolguard.connections import Connection, ConnectionRequest
from toolguard.connections.kit import path_segment
from toolguard.errors import (
    ConnectionDeniedError,
    ConnectionRateLimitedError,
    ConnectionRequiredError,
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.principal import Principal

ALICE = Principal("user_01", "https://issuer.test", tenant_id="org_01")
ADAPTERS = Path(toolguard.__file__).parent / "connections" / "vendors"


@pytest.fixture(params=VENDORS, ids=lambda kind: kind.__name__)
def vendor(request: pytest.FixtureRequest) -> Vendor:
    made: Vendor = request.param()
    return made


def fetch(vendor: Vendor, *scopes: str, **more: Any) -> Connection:
    request = ConnectionRequest(
        "github", scopes, more.pop("caller", ALICE), None, fresh=more.pop("fresh", False),
        tenant_id=more.pop("tenant_id", None),
    )  # fmt: skip

    async def main() -> Connection:
        transport = httpx.ASGITransport(vendor.app)
        provider = vendor.provider(transport=transport, clock=lambda: NOW, **more)
        try:
            return await provider.fetch(request)
        finally:
            await provider.aclose()

    return asyncio.run(main())


def refused(vendor: Vendor, *scopes: str, **more: Any) -> ConnectionTokenError:
    with pytest.raises(ConnectionTokenError) as caught:
        fetch(vendor, *scopes, **more)
    assert KEY not in str(caught.value)
    assert vendor.token not in str(caught.value)
    return caught.value


def test_a_connected_account_is_a_connection(vendor: Vendor) -> None:
    connection = fetch(vendor, "repo")

    assert connection.token == vendor.token
    assert connection.scopes == ("repo", "user:email")
    assert connection.expires_at == (NOW + 3_600 if vendor.says_expiry else None)


def test_every_state_but_connected_asks_to_connect(vendor: Vendor) -> None:
    for state in vendor.states:
        vendor.state = state

        refusal = refused(vendor, connect_url=lambda _: "https://app.test/connect")

        assert isinstance(refusal, ConnectionRequiredError), state
        assert refusal.connect_url


def test_missing_scopes_are_named(vendor: Vendor) -> None:
    refusal = refused(vendor, "repo", "gist")

    assert isinstance(refusal, ConnectionRequiredError)
    assert refusal.missing_scopes == ("gist",)


def test_an_account_of_somebody_else_is_not_served(vendor: Vendor) -> None:
    vendor.other_account = "user_02"

    if vendor.says_account:
        assert "names another" in str(refused(vendor))


def test_an_expired_token_asks_to_connect_again(vendor: Vendor) -> None:
    vendor.expires_at = "2026-01-01T00:00:00Z"

    if vendor.says_expiry:
        assert isinstance(refused(vendor), ConnectionRequiredError)


def test_a_token_without_expiry_is_served(vendor: Vendor) -> None:
    vendor.expires_at = None

    assert fetch(vendor).expires_at is None


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lambda: Response(status_code=500), ConnectionUnavailableError),
        (
            lambda: Response(status_code=429, headers={"Retry-After": "9"}),
            ConnectionRateLimitedError,
        ),
        (lambda: JSONResponse({"message": KEY}, 401), ConnectionResponseError),
        (lambda: JSONResponse({"message": KEY}, 403), ConnectionResponseError),
        (lambda: PlainTextResponse("not found", 404), ConnectionResponseError),
        (lambda: JSONResponse({}), ConnectionResponseError),
        (lambda: JSONResponse([]), ConnectionResponseError),
        (lambda: PlainTextResponse("<html>"), ConnectionResponseError),
    ],
)
def test_a_fault_of_the_vault_is_told_apart(
    vendor: Vendor, answer: Callable[[], Response], kind: type[ConnectionTokenError]
) -> None:
    vendor.faults = [answer] * 3

    refusal = refused(vendor)

    assert type(refusal) is kind
    if kind is ConnectionResponseError:
        assert type(vendor.provider()).title in str(refusal) or "The vault" in str(refusal)


@pytest.mark.parametrize("token", ["", "with space", "line\nbreak", "umläut", 7, None, {"a": 1}])
def test_a_token_that_cannot_be_sent_is_refused(vendor: Vendor, token: Any) -> None:
    vendor.token = token

    with pytest.raises(ConnectionResponseError, match="no token that can be read"):
        fetch(vendor)


def test_a_time_or_scope_that_cannot_be_read_is_refused(vendor: Vendor) -> None:
    if vendor.says_expiry:
        vendor.expires_at = "soon"
        assert "when the token expires" in str(refused(vendor))
    vendor.expires_at = None
    if not isinstance(vendor, NangoVault):
        vendor.scopes = [1]  # type: ignore[list-item]
        assert "names scopes" in str(refused(vendor))


def test_machines_and_tenants_have_no_account(vendor: Vendor) -> None:
    robot = Principal(None, "https://issuer.test", client_id="robot")

    assert isinstance(refused(vendor, caller=robot), ConnectionDeniedError)
    assert isinstance(refused(vendor, tenant_id="org_01"), ConnectionDeniedError)
    assert vendor.asked == []


@pytest.mark.parametrize("is_async", [False, True])
def test_the_account_may_have_another_id_in_the_vault(vendor: Vendor, is_async: bool) -> None:
    async def found(request: ConnectionRequest) -> str | None:
        return "account-7"

    account_of: Callable[[ConnectionRequest], str | Awaitable[str | None]]
    account_of = found if is_async else lambda _: "account-7"

    fetch(vendor, account_of=account_of)

    assert "account-7" in vendor.asked[0].values()


def test_a_caller_whom_the_vault_does_not_know_has_to_connect(vendor: Vendor) -> None:
    assert isinstance(refused(vendor, account_of=lambda _: None), ConnectionRequiredError)
    assert vendor.asked == []


def test_secrets_are_not_in_representations(vendor: Vendor) -> None:
    shown = repr(vendor.provider())

    assert vendor.url in shown
    assert KEY not in shown
    assert "s3cret" not in shown


def test_each_request_is_as_documented() -> None:
    nango, workos, arcade, scalekit = NangoVault(), WorkOSVault(), ArcadeVault(), ScalekitVault()
    fetch(nango, fresh=True)
    fetch(workos)
    fetch(arcade, "repo")
    fetch(scalekit)

    assert nango.asked == [
        {
            "connection_id": "user_01",
            "provider_config_key": "github",
            "force_refresh": "true",
        }
    ]
    assert workos.asked == [{"slug": "github", "user_id": "user_01", "organization_id": "org_01"}]
    oauth = {"provider_id": "github", "provider_type": "oauth2", "oauth2": {"scopes": ["repo"]}}
    assert arcade.asked == [{"user_id": "user_01", "auth_requirement": oauth}]
    assert scalekit.asked == [{"connector": "github", "identifier": "user_01"}]


def test_arcade_hands_on_its_link_if_that_is_secure() -> None:
    arcade = ArcadeVault()
    arcade.state = "pending"
    refusal = refused(arcade)
    assert isinstance(refusal, ConnectionRequiredError)
    assert refusal.connect_url == arcade.link

    arcade.link = "javascript:alert(1)"
    refusal = refused(arcade)
    assert isinstance(refusal, ConnectionRequiredError)
    assert refusal.connect_url is None


def test_nango_may_keep_api_keys() -> None:
    nango = NangoVault()
    credentials = {"type": "API_KEY", "apiKey": "key-1"}
    nango.faults = [lambda: JSONResponse({"connection_id": "user_01", "credentials": credentials})]

    assert fetch(nango).token == "key-1"


def test_scalekit_is_asked_for_its_own_token_once() -> None:
    scalekit = ScalekitVault()

    async def main() -> None:
        provider = scalekit.provider(transport=httpx.ASGITransport(scalekit.app))
        request = ConnectionRequest("github", (), ALICE, None)
        await asyncio.gather(*(provider.fetch(request) for _ in range(20)))
        await provider.aclose()

    scalekit.expires_at = None
    asyncio.run(main())

    assert scalekit.tokens == 1
    assert len(scalekit.asked) == 20


def test_an_id_cannot_lead_to_another_resource() -> None:
    nango = NangoVault()
    nango.faults = [lambda: JSONResponse({}, 404)]
    refused(nango, caller=Principal("../../secrets?a=#", "https://issuer.test"))

    assert nango.asked == []  # one segment with slashes in it, which is no route there
    for value in ("", ".", ".."):
        with pytest.raises(ValueError, match="is not a path segment"):
            path_segment(value)


@pytest.mark.parametrize("url", ["http://vault.test", "https://a:b@vault.test", "https://v.test?a"])
def test_a_vault_is_at_a_secure_url(url: str) -> None:
    with pytest.raises(ValueError, match=r"https://vault\.example\.com"):
        NangoVault(url).provider()


@pytest.mark.parametrize("file", sorted(ADAPTERS.glob("[a-z]*.py")), ids=lambda file: file.name)
def test_an_adapter_has_fewer_than_60_lines_and_names_its_documentation(file: Path) -> None:
    text = file.read_text()

    assert len(text.splitlines()) < 60
    assert "https://" in text.splitlines()[0]
