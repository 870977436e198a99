"""The settings of a token exchange (RFC 8693 §2.1), and the meanings of its errors."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from toolguard.connections.protocol import ConnectionRequest

__all__ = [
    "ACCESS_TOKEN",
    "JWT",
    "JWT_BEARER",
    "REFRESH_TOKEN",
    "TENANT",
    "TOKEN_EXCHANGE",
    "ActorToken",
    "ConnectUrl",
    "ErrorMeaning",
    "ExchangeSettings",
    "TokenSource",
    "build_form",
    "list_settings",
]

# RFC 8693 §3: identifiers of token types, which are not secrets.
#: An OAuth access token.
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105
#: An OAuth refresh token.
REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105
#: A JWT for any purpose.
JWT = "urn:ietf:params:oauth:token-type:jwt"

#: The grant type of a token exchange (RFC 8693 §2.1).
TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105
#: The grant type of a JWT assertion about a user (RFC 7523 §2.1).
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"

#: The placeholder of the tenant of the caller's verified token in ``ExchangeSettings.tenant``.
TENANT = "{tenant_id}"

ErrorMeaning = Literal["connect", "denied", "later", "configuration"]
"""What an error of the token endpoint requires.

``connect``: the user has to connect the account, or to consent. ``denied``: the caller cannot do
anything. ``later``: a later attempt may succeed. ``configuration``: the configuration of this
server is wrong.
"""

TokenSource: TypeAlias = Callable[[ConnectionRequest], Awaitable[str | None]]
"""An async function that returns a token for one exchange, or None if there is none."""

ConnectUrl: TypeAlias = Callable[[ConnectionRequest, Mapping[str, Any]], str | None]
"""A function that returns the URL at which the user can connect, or None.

Its arguments are the request and the members of the server's error, which are empty if the server
returned a token with too few scopes.
"""

_MEANINGS: Mapping[str, ErrorMeaning] = {
    # RFC 6749 §5.2: the grant has ended, or does not include the requested scopes.
    "invalid_grant": "connect",
    "invalid_scope": "denied",
    "invalid_request": "configuration",
    "invalid_client": "configuration",
    "unauthorized_client": "configuration",
    "unsupported_grant_type": "configuration",
    # RFC 8693 §2.2.2
    "invalid_target": "configuration",
    # RFC 6749 §4.1.2.1: defined for the authorization endpoint, also used by token endpoints.
    "access_denied": "denied",
    "server_error": "later",
    "temporarily_unavailable": "later",
    # OpenID Connect Core §3.1.2.6
    "interaction_required": "connect",
    "login_required": "connect",
    "account_selection_required": "connect",
    "consent_required": "connect",
}

_OWN_FIELDS = frozenset({"audience", "resource", "requested_token_type"})
_ALWAYS_OURS = frozenset(
    {
        *("grant_type", "scope", "assertion", "subject_token", "subject_token_type"),
        *("actor_token", "actor_token_type"),
        *("client_id", "client_secret", "client_assertion", "client_assertion_type"),
    }
)
# RFC 8707 §2: an absolute URI without a fragment.
_ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+")


@dataclass(frozen=True)
class ActorToken:
    """The acting party in a token exchange with delegation (RFC 8693 §1.1).

    Attributes:
        token: an async function that returns the actor token: nearly always this server's own.
        token_type: the token type identifier of the actor token (RFC 8693 §3).

    Raises:
        ValueError: if ``token_type`` is empty.
        TypeError: if ``token`` is not a function; a constant token would expire.
    """

    token: TokenSource
    token_type: str = ACCESS_TOKEN

    def __post_init__(self) -> None:
        if not callable(self.token):
            raise TypeError("write ActorToken(own_token), where own_token is an async function")
        if not self.token_type:
            raise ValueError("an actor token has a type: leave token_type out for an access token")


def _is_granted(asked: str, granted: Collection[str]) -> bool:
    """Return whether ``asked`` is among the ``granted`` scopes."""
    return asked in granted


@dataclass(frozen=True, kw_only=True)
class ExchangeSettings:
    """The settings of the token exchange for one connection (RFC 8693 §2.1).

    The settings for well-known vendors are in :mod:`toolguard.connections.exchange`.

    Attributes:
        audience: logical names of the services that the token is for.
        resource: the URLs of these services; absolute, without a fragment.
        requested_token_type: the token type to request; None leaves it to the server.
        subject_token_type: the token type of the subject token.
        subject_token: returns the subject token, if it is not the caller's access token. Such an
            exchange is never repeated: a refresh token may be usable once only.
        actor: the acting party; None sends no actor token.
        default_scopes: the scopes to request if the tool declares none.
        sends_scope: whether to send ``scope``. Without it the granted scopes are known only if
            the answer names them.
        grants: returns whether a requested scope is among the granted ones; by default, literally.
        extra: further parameters of the vendor.
        tenant: further parameters for the connection of a tenant; ``{tenant_id}`` in a value is
            replaced by the tenant of the caller's verified token. Without this setting, tenants
            have no connection here.
        grant_type: the grant type, if the vendor uses another one. With that of RFC 7523 the
            caller's token is sent as ``assertion``.
        strict: whether the answer must have all members that RFC 8693 §2.2.1 requires. Without
            it, ``issued_token_type`` and ``token_type`` may be absent, and ``expires_in`` 0 means
            "unknown". Members with invalid values are never accepted.
        refusals: the meanings of the vendor's error codes, which override the usual ones.

    Raises:
        ValueError: if one of these cannot be sent.
        TypeError: if a list is a string.
    """

    audience: tuple[str, ...] = ()
    resource: tuple[str, ...] = ()
    requested_token_type: str | None = None
    subject_token_type: str = ACCESS_TOKEN
    subject_token: TokenSource | None = None
    actor: ActorToken | None = None
    default_scopes: tuple[str, ...] = ()
    sends_scope: bool = True
    grants: Callable[[str, Collection[str]], bool] = field(default=_is_granted, repr=False)
    extra: Mapping[str, str] = field(default_factory=dict)
    tenant: Mapping[str, str] = field(default_factory=dict)
    grant_type: str = TOKEN_EXCHANGE
    strict: bool = True
    refusals: Mapping[str, ErrorMeaning] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for name in ("audience", "resource", "default_scopes"):
            value = getattr(self, name)
            if isinstance(value, str):
                raise TypeError(f"{name} is a list: write {name}=({value!r},)")
            object.__setattr__(self, name, tuple(value))
        for name in ("extra", "tenant", "refusals"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        if not self.grant_type or not self.subject_token_type:
            raise ValueError("leave grant_type and subject_token_type out for the usual ones")
        for uri in self.resource:
            if not _ABSOLUTE_URI.fullmatch(uri):
                raise ValueError(
                    'a resource is an absolute URI without a fragment: write resource=("https://'
                    'api.example.com",), or audience= for a name'
                )
        _check_parameters(self.extra, _ALWAYS_OURS | _OWN_FIELDS)
        _check_parameters(self.tenant, _ALWAYS_OURS)
        if self.tenant and not any(TENANT in value for value in self.tenant.values()):
            raise ValueError(f'name the tenant: write tenant={{"organization": "{TENANT}"}}')

    def find_meaning(self, code: str) -> ErrorMeaning | None:
        """Return the meaning of the error ``code``; None if the code is unknown."""
        return self.refusals.get(code) or _MEANINGS.get(code)


def list_settings(settings: ExchangeSettings) -> list[Any]:
    """Return the settings as JSON for a cache key; of functions only whether they are set."""
    return [
        *(settings.grant_type, settings.audience, settings.resource, settings.default_scopes),
        *(settings.requested_token_type, settings.subject_token_type, settings.sends_scope),
        *(sorted(settings.extra.items()), sorted(settings.tenant.items()), settings.strict),
        *(settings.subject_token is None, settings.actor and settings.actor.token_type),
    ]


def build_form(
    settings: ExchangeSettings,
    request: ConnectionRequest,
    subject_token: str,
    actor_token: str | None = None,
) -> dict[str, Any]:
    """Return the parameters of the request, without those that authenticate the client.

    Args:
        settings: the settings of the exchange.
        request: the requested connection.
        subject_token: the token of the user that the connection is for.
        actor_token: the token of the acting party; set if and only if there is an actor.
    """
    subject = {"subject_token": subject_token, "subject_token_type": settings.subject_token_type}
    scopes = (request.scopes or settings.default_scopes) if settings.sends_scope else ()
    form: dict[str, Any] = {
        "grant_type": settings.grant_type,
        **({"assertion": subject_token} if settings.grant_type == JWT_BEARER else subject),
        "audience": settings.audience,
        "resource": settings.resource,
        "requested_token_type": settings.requested_token_type,
        "scope": " ".join(scopes),
        **settings.extra,
    }
    # RFC 8693 §2.1: the type is sent if and only if there is an actor token.
    if settings.actor is not None and actor_token is not None:
        form |= {"actor_token": actor_token, "actor_token_type": settings.actor.token_type}
    if request.tenant_id is not None:
        for name, value in settings.tenant.items():
            form[name] = value.replace(TENANT, request.tenant_id)
    return {name: value for name, value in form.items() if value}


def _check_parameters(parameters: Mapping[str, str], reserved: Collection[str]) -> None:
    taken = sorted(reserved & parameters.keys())
    if taken:
        raise ValueError(f"{taken[0]} has a setting of its own: take it out of extra= and tenant=")
