"""Which claims do access tokens of well-known providers carry that the kit does not mint?

Several tenants, tokens without a user, older versions: examples as the providers document
their names, types and nesting, with values that are made up. The kit's presets are held against
them in ``test_provider_presets``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SHAPES", "Shape"]


@dataclass(frozen=True)
class Shape:
    """The claims of one kind of token, and who is calling.

    Attributes:
        name: the provider, and what is special about this token.
        claims: what the token carries.
        user_id: and the rest: the principal that they describe.
    """

    name: str
    claims: Mapping[str, Any]
    user_id: str | None
    client_id: str | None = None
    tenant_id: str | None = None
    tenant_ids: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    permissions: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name


_DESCOPE = {
    "amr": ["email"],
    "drn": "DS",
    "exp": 1_800_000_600,
    "iat": 1_800_000_000,
    "iss": "https://api.descope.com/v1/apps/agentic/P2aaaaaaaaaaaaaaaaaaaaaaaaaa/MS2bbbbbbbbbb",
    "sub": "U2cccccccccccccccccccccccccc",
    "aud": ["https://mcp.example.com/mcp"],
}

SHAPES = (
    Shape(
        "Descope: scopes as a list, current tenant among several",
        {
            **_DESCOPE,
            "azp": "TPA2dddddddddd",
            "scopes": ["calendar.read", "calendar.write"],
            "dct": "T2acme",
            "permissions": ["SSO Admin"],
            "roles": ["Employee"],
            "tenants": {
                "T2acme": {"permissions": ["invoices.approve"], "roles": ["Tenant Admin"]},
                "T2other": {"permissions": ["payroll.read"], "roles": ["Owner"]},
            },
        },
        user_id="U2cccccccccccccccccccccccccc",
        client_id="TPA2dddddddddd",
        tenant_id="T2acme",
        tenant_ids=("T2acme", "T2other"),
        scopes=("calendar.read", "calendar.write"),
        permissions=("SSO Admin", "invoices.approve"),
        roles=("Employee", "Tenant Admin"),
    ),
    Shape(
        "Descope: scope as a string, one tenant and no current one",
        {
            **_DESCOPE,
            "client_id": "UDMRXDZZ",
            "scope": "openid calendar.read",
            "tenants": {"T2acme": {"permissions": ["invoices.read"], "roles": []}},
        },
        user_id="U2cccccccccccccccccccccccccc",
        client_id="UDMRXDZZ",
        tenant_id="T2acme",
        tenant_ids=("T2acme",),
        scopes=("openid", "calendar.read"),
        permissions=("invoices.read",),
    ),
    Shape(
        "Descope: several tenants and no current one, so no tenant's permissions",
        {
            **_DESCOPE,
            "permissions": [],
            "roles": ["Employee"],
            "tenants": {
                "T2acme": {"permissions": ["invoices.approve"], "roles": ["Tenant Admin"]},
                "T2other": {"permissions": ["payroll.read"], "roles": ["Owner"]},
            },
        },
        user_id="U2cccccccccccccccccccccccccc",
        tenant_ids=("T2acme", "T2other"),
        roles=("Employee",),
    ),
    Shape(
        "Descope: a current tenant that is not in the map",
        {
            **_DESCOPE,
            "dct": "T2gone",
            "tenants": {"T2acme": {"permissions": ["invoices.approve"], "roles": ["Owner"]}},
        },
        user_id="U2cccccccccccccccccccccccccc",
        tenant_id="T2gone",
        tenant_ids=("T2gone", "T2acme"),
    ),
    Shape(
        "Okta",
        {
            "ver": 1,
            "jti": "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE",
            "iss": "https://acme.okta.com/oauth2/ausnsopoM6vBRB3PD0g3",
            "aud": "https://mcp.example.com/mcp",
            "iat": 1_800_000_000,
            "exp": 1_800_003_600,
            "cid": "nmdP1fcyvdVO11AL7ECm",
            "uid": "00ulthapbErVUwVJy4x6",
            "auth_time": 1_799_999_000,
            "scp": ["openid", "calendar.read"],
            "sub": "ada@example.com",
        },
        user_id="ada@example.com",
        client_id="nmdP1fcyvdVO11AL7ECm",
        scopes=("openid", "calendar.read"),
    ),
    Shape(
        "Entra ID, version 2.0",
        {
            "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "iss": "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
            "iat": 1_800_000_000,
            "nbf": 1_800_000_000,
            "exp": 1_800_003_600,
            "azp": "6e74172b-be56-4843-9ff4-e66a39bb12e4",
            "azpacr": "0",
            "name": "Ada Lovelace",
            "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474",
            "preferred_username": "ada@example.com",
            "roles": ["Calendar.Admin"],
            "scp": "Calendars.Read Calendars.ReadWrite",
            "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
            "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
            "uti": "fqiBqXLPj0eQa82S-IYFAA",
            "ver": "2.0",
        },
        user_id="HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
        client_id="6e74172b-be56-4843-9ff4-e66a39bb12e4",
        tenant_id="72f988bf-86f1-41af-91ab-2d7cd011db47",
        tenant_ids=("72f988bf-86f1-41af-91ab-2d7cd011db47",),
        scopes=("Calendars.Read", "Calendars.ReadWrite"),
        roles=("Calendar.Admin",),
    ),
    Shape(
        "Entra ID, version 1.0, an application without a user: roles are not scopes",
        {
            "aud": "api://6e74172b-be56-4843-9ff4-e66a39bb12e3",
            "iss": "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/",
            "iat": 1_800_000_000,
            "exp": 1_800_003_600,
            "appid": "b14a7505-96e9-4927-91e8-0601d0fc9caa",
            "appidacr": "1",
            "idp": "https://sts.windows.net/72f988bf-86f1-41af-91ab-2d7cd011db47/",
            "oid": "f82cb1a5-0b3a-4cfc-8f8b-6d1e6c3e1f9f",
            "roles": ["Calendars.ReadWrite.All"],
            "sub": "f82cb1a5-0b3a-4cfc-8f8b-6d1e6c3e1f9f",
            "tid": "72f988bf-86f1-41af-91ab-2d7cd011db47",
            "ver": "1.0",
        },
        user_id="f82cb1a5-0b3a-4cfc-8f8b-6d1e6c3e1f9f",
        client_id="b14a7505-96e9-4927-91e8-0601d0fc9caa",
        tenant_id="72f988bf-86f1-41af-91ab-2d7cd011db47",
        tenant_ids=("72f988bf-86f1-41af-91ab-2d7cd011db47",),
        roles=("Calendars.ReadWrite.All",),
    ),
    Shape(
        "Auth0 with RBAC: permissions are not scopes unless the server says so",
        {
            "iss": "https://acme.eu.auth0.com/",
            "sub": "auth0|5f7c8ec7c33c6c004bbafe82",
            "aud": ["https://mcp.example.com/mcp", "https://acme.eu.auth0.com/userinfo"],
            "iat": 1_800_000_000,
            "exp": 1_800_086_400,
            "azp": "my_client_id",
            "scope": "openid profile calendar:read",
            "permissions": ["calendar:read", "calendar:write"],
            "org_id": "org_9ybsU1dN2dKfDkBi",
        },
        user_id="auth0|5f7c8ec7c33c6c004bbafe82",
        client_id="my_client_id",
        tenant_id="org_9ybsU1dN2dKfDkBi",
        tenant_ids=("org_9ybsU1dN2dKfDkBi",),
        scopes=("openid", "profile", "calendar:read"),
        permissions=("calendar:read", "calendar:write"),
    ),
    Shape(
        "Keycloak: roles of the realm, not those of one client",
        {
            "exp": 1_800_000_300,
            "iat": 1_800_000_000,
            "jti": "onrtac:6d6a2b3e-5b1c-4f2a-8f51-9d1e3e6b8a10",
            "iss": "https://sso.example.com/realms/acme",
            "aud": ["https://mcp.example.com/mcp", "account"],
            "sub": "0b6c3f6e-6f4b-4c3c-9f0e-2f0c8b3d7a11",
            "typ": "Bearer",
            "azp": "mcp-inspector",
            "sid": "5d1f3c3a-8f63-4f53-9f7b-0d4a1c1f7f10",
            "acr": "1",
            "realm_access": {"roles": ["offline_access", "planner"]},
            "resource_access": {"account": {"roles": ["manage-account"]}},
            "scope": "openid email calendar.read",
            "preferred_username": "ada",
        },
        user_id="0b6c3f6e-6f4b-4c3c-9f0e-2f0c8b3d7a11",
        client_id="mcp-inspector",
        scopes=("openid", "email", "calendar.read"),
        roles=("offline_access", "planner"),
    ),
    Shape(
        "Amazon Cognito",
        {
            "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
            "cognito:groups": ["planners", "eu-west-1_Abc_Google"],
            "iss": "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Abc",
            "version": 2,
            "client_id": "xxxxxxxxxxxxexample",
            "origin_jti": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeef",
            "token_use": "access",
            "scope": "https://mcp.example.com/mcp/calendar.read openid",
            "auth_time": 1_800_000_000,
            "exp": 1_800_003_600,
            "iat": 1_800_000_000,
            "username": "ada",
        },
        user_id="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
        client_id="xxxxxxxxxxxxexample",
        scopes=("https://mcp.example.com/mcp/calendar.read", "openid"),
        roles=("planners", "eu-west-1_Abc_Google"),
    ),
    Shape(
        "WorkOS, Connect: what an MCP client gets",
        {
            "iss": "https://acme.authkit.app",
            "aud": "https://mcp.example.com/mcp",
            "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT",
            "client_id": "client_01HZXMCPCLIENT",
            "org_id": "org_01HRDMC6CM357W30QMHMQ96Q0S",
            "sid": "app_consent_01HQSXZGF8FHF7A9ZZFCW4387R",
            "scope": "openid profile",
            "jti": "01HQSXZXPPFPKMDD32RKTFY6PV",
            "exp": 1_800_000_300,
            "iat": 1_800_000_000,
        },
        user_id="user_01HBEQKA6K4QJAS93VPE39W1JT",
        client_id="client_01HZXMCPCLIENT",
        tenant_id="org_01HRDMC6CM357W30QMHMQ96Q0S",
        tenant_ids=("org_01HRDMC6CM357W30QMHMQ96Q0S",),
        scopes=("openid", "profile"),
    ),
    Shape(
        "WorkOS, AuthKit: the session of an application",
        {
            "iss": "https://api.workos.com/user_management/client_01HZX",
            "sub": "user_01HBEQKA6K4QJAS93VPE39W1JT",
            "act": {"sub": "admin@example.com"},
            "org_id": "org_01HRDMC6CM357W30QMHMQ96Q0S",
            "role": "member",
            "permissions": ["calendar:read"],
            "entitlements": ["audit-logs"],
            "sid": "session_01HQSXZGF8FHF7A9ZZFCW4387R",
            "jti": "01HQSXZXPPFPKMDD32RKTFY6PV",
            "exp": 1_800_000_300,
            "iat": 1_800_000_000,
        },
        user_id="user_01HBEQKA6K4QJAS93VPE39W1JT",
        tenant_id="org_01HRDMC6CM357W30QMHMQ96Q0S",
        tenant_ids=("org_01HRDMC6CM357W30QMHMQ96Q0S",),
        permissions=("calendar:read",),
        roles=("member",),
    ),
    Shape(
        "RFC 9068, the example of its section 3",
        {
            "iss": "https://authorization-server.example.com/",
            "sub": "5ba552d67",
            "aud": "https://rs.example.com/",
            "exp": 1_639_528_912,
            "iat": 1_618_354_090,
            "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
            "client_id": "s6BhdRkqt3",
            "scope": "openid profile reademail",
        },
        user_id="5ba552d67",
        client_id="s6BhdRkqt3",
        scopes=("openid", "profile", "reademail"),
    ),
)
