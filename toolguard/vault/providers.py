"""A third-party service, described: where users consent, where tokens come from, its oddities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlencode, urlsplit

from toolguard.parsing.kinds import secret_text
from toolguard.parsing.secure_urls import is_secure_url

__all__ = ["Endpoints", "OAuthProvider"]


@dataclass(frozen=True)
class Endpoints:
    """The URLs of a service.

    Attributes:
        authorize: where users consent (RFC 6749 §3.1).
        token: where codes and refresh tokens are exchanged (RFC 6749 §3.2).
        revoke: where tokens are revoked (RFC 7009); None if the service has no such endpoint.
        account: where the name of the account is, for the token; None if it is not asked.

    Raises:
        ValueError: if one is not https (http only on this machine), or has a fragment.
    """

    authorize: str
    token: str
    revoke: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        for url in (self.authorize, self.token, self.revoke, self.account):
            if url is not None and not is_secure_url(url):
                raise ValueError(f"{url!r}: an endpoint is an https URL without user and fragment")


@dataclass(frozen=True, kw_only=True)
class OAuthProvider:
    """A third-party service at which users connect accounts (RFC 6749 §4.1, RFC 7636).

    The presets of :mod:`toolguard.vault` are such descriptions; write one for another service.

    Attributes:
        title: what users call the service.
        client_id: the id of your OAuth client at the service.
        client_secret: its secret; never in the representation. Empty for a public client.
        endpoints: the URLs of the service; None takes them from the metadata of ``issuer``.
        issuer: the issuer of the service, where it is an OpenID provider. An answer that names
            another one is refused (RFC 9207 §2.4).
        scopes: what is asked for where a tool asks for nothing in particular.
        always: scopes that are asked for in any case, such as ``offline_access``.
        scope_parameter: the name of the parameter that asks for scopes; empty if the service has
            no scopes, so that none can be missing.
        scope_separator: what separates scopes in an answer beside spaces.
        includes: the scopes that a scope includes at this service.
        parameters: what else is sent to the consent page.
        login_hint: whether the consent page is told the name of the person who connects (OpenID
            Connect Core §3.1.2.1); for services at which people have the same account.
        client_auth: how the client authenticates at the token endpoint (RFC 6749 §2.3.1).
        encoding: the encoding of requests to the token endpoint.
        answer_member: the member of a token answer that holds the tokens, if they are nested.
        account_names: the members to take the name of the account from, dotted; the first wins.
        gone: error codes of a refresh that mean "connect again" beside ``invalid_grant``.
        documentation: the page that describes all this.

    Raises:
        TypeError: if the secret is not text, or scopes are not a list.
        ValueError: if a required setting is missing.
    """

    title: str
    client_id: str
    client_secret: str = field(repr=False)
    endpoints: Endpoints | None = None
    issuer: str | None = None
    scopes: Sequence[str] = ()
    always: Sequence[str] = ()
    scope_parameter: str = "scope"
    scope_separator: str = " "
    includes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    login_hint: bool = False
    client_auth: Literal["post", "basic"] = "post"
    encoding: Literal["form", "json"] = "form"
    answer_member: str = ""
    account_names: tuple[str, ...] = ("email", "preferred_username", "name", "sub")
    gone: frozenset[str] = frozenset()
    documentation: str = ""

    def __post_init__(self) -> None:
        if not self.client_id:
            raise ValueError(f"write the client id of your application at {self.title}")
        secret_text("client_secret", self.client_secret, may_be_empty=True)
        if self.endpoints is None and (self.issuer is None or not is_secure_url(self.issuer)):
            raise ValueError("write endpoints=Endpoints(...), or issuer= with an https URL")
        if isinstance(self.scopes, str) or isinstance(self.always, str):
            raise TypeError('write scopes=["a.scope"]: a list, not a string')
        object.__setattr__(self, "scopes", tuple(self.scopes))
        object.__setattr__(self, "always", tuple(self.always))

    def asked(self, scopes: Sequence[str]) -> tuple[str, ...]:
        """Return the scopes to ask for, where a tool needs ``scopes``."""
        return tuple(dict.fromkeys((*(scopes or self.scopes), *self.always)))

    def missing(self, needed: Sequence[str], granted: Sequence[str]) -> list[str]:
        """Return the scopes of ``needed`` that ``granted`` does not include."""
        if not self.scope_parameter:
            return []
        held = {*granted, *(each for scope in granted for each in self.includes.get(scope, ()))}
        return [scope for scope in needed if scope not in held]

    def consent_url(
        self, endpoints: Endpoints, redirect_uri: str, scopes: Sequence[str], **more: str
    ) -> str:
        """Return the URL at which the user consents.

        Args:
            endpoints: the URLs of the service.
            redirect_uri: where its consent page sends users back to.
            scopes: what to ask for.
            more: ``state``, ``code_challenge`` and what else is sent for this person.
        """
        asked = {self.scope_parameter: " ".join(scopes)} if self.scope_parameter and scopes else {}
        parameters = {
            **self.parameters,
            **asked,
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": redirect_uri,
            "code_challenge_method": "S256",
            **more,
        }
        joint = "&" if urlsplit(endpoints.authorize).query else "?"
        return f"{endpoints.authorize}{joint}{urlencode(parameters)}"
