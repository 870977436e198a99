"""An authorization server, as a resource server sees it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.introspection_client import Introspection
from toolguard.tokens.issuer_names import IssuerNames, read_names
from toolguard.tokens.network import DEFAULT_NETWORK, Network
from toolguard.tokens.profile import Profile
from toolguard.tokens.tokeninfo import TokenInfo

if TYPE_CHECKING:
    from toolguard.tokens.keys import KeySource

__all__ = ["MAX_LEEWAY", "Issuer", "host_of"]

MAX_LEEWAY = 300
"""RFC 9068 §4 allows a leeway of "no more than a few minutes"."""

_CARRIED = frozenset({"at_hash", "nonce"})
_KEY_PARAMETERS = frozenset({"jku", "jwk", "x5c", "x5u"})


@dataclass(frozen=True)
class Issuer:
    """One authorization server: which tokens are its own, and how to read them.

    What is not stated is strict: exactly one ``iss``, the guard's audience, RFC 9068 tokens or
    plain JWTs that are nothing else. Each leniency is one field, and holds for this issuer only.
    The presets of :mod:`toolguard.tokens.issuers` describe well-known authorization servers.

    Attributes:
        url: the issuer. Its metadata is found there (RFC 8414, OpenID Connect Discovery), and
            clients are sent there.
        names: the ``iss`` values of its tokens; only ``url`` by default. A name may have
            placeholders: ``"https://login.example.com/{tenant}/v2.0"``.
        members: what each placeholder may stand for: ``{"tenant": ["acme", "initech"]}``. None
            stands for any one path segment.
        member_claims: the claim that has to repeat a placeholder's value: ``{"tenant": "tid"}``.
        reads_token_issuer: whether its metadata may name a further ``iss`` of its tokens, as
            ``access_token_issuer`` (AD FS). Beside other issuers, write it into ``names``: there a
            token with an unknown ``iss`` causes no request.
        published: the authorization servers that clients are told of (RFC 9728); ``url`` by
            default.
        metadata_url: the URL of its metadata, if it is not derived from ``url``.
        metadata_issuer: the ``issuer`` that the metadata names, if it is not ``url``.
        jwks_url: the URL of its keys, if they are not to be discovered.
        keys: the source of its keys, if they are not fetched.
        key_issuer_claim: for keys with an ``issuer`` of their own (Entra): the claim that fills
            in its ``{tenantid}``; the result has to be one of ``names``.
        audience: the ``aud`` of its tokens for this server, if it is not that of the guard.
        clients: the clients whose tokens are accepted although they have no ``aud`` (Cognito).
        algorithms: the signature algorithms to accept; all asymmetric ones by default.
        token_types: the ``typ`` headers to accept; ``at+jwt`` and ``JWT`` by default.
        may_carry: claims of ID tokens that its access tokens have too: ``at_hash``, ``nonce``.
        must_carry: the claims that every access token of it has, with their value, or None for
            any value: ``{"token_use": "access"}``.
        must_carry_one_of: claims of which every access token of it has at least one.
        ignored_parameters: header parameters that name a key and are ignored, instead of refused:
            ``jku``, ``jwk``, ``x5c``, ``x5u``. The keys are never taken from there.
        permissions_are_scopes: whether the ``permissions`` claim counts as scopes.
        network: the proxies, the certificates and the origins without TLS, for its documents.
        introspection: how to ask it about tokens (RFC 7662), which may then be opaque.
        confirm: whether its tokens are JWTs that are verified here, and confirmed by
            ``introspection`` afterwards: for revocation.
        scope_names: how its scopes are called in tokens, and when a client asks for them; tools
            use the short names.
        leeway: seconds by which its clock may differ, from 0 to 300.
        shares_connections: where several issuers are trusted: whether the subjects of this one
            are known to the connection provider by the same ids. The first issuer's always are.

    Raises:
        ValueError: if a field is empty, out of range, or contradicts another one.

    >>> Issuer("https://auth.example.com", leeway=30)
    Issuer('https://auth.example.com')
    """

    url: str
    _: KW_ONLY
    names: Sequence[str] = ()
    members: Mapping[str, Collection[str] | None] = field(default_factory=dict)
    member_claims: Mapping[str, str] = field(default_factory=dict)
    reads_token_issuer: bool = False
    published: Sequence[str] = ()
    metadata_url: str | None = None
    metadata_issuer: str | None = None
    jwks_url: str | None = None
    keys: KeySource | None = None
    key_issuer_claim: str | None = None
    audience: str | Sequence[str] = ()
    clients: Collection[str] = ()
    algorithms: Collection[str] = ()
    token_types: Collection[str] = ()
    may_carry: Collection[str] = ()
    must_carry: Mapping[str, str | None] = field(default_factory=dict)
    must_carry_one_of: Collection[str] = ()
    ignored_parameters: Collection[str] = ()
    permissions_are_scopes: bool = False
    network: Network = DEFAULT_NETWORK
    introspection: Introspection | TokenInfo | None = None
    confirm: bool = False
    scope_names: ScopeNames = SAME
    leeway: float = 5.0
    shares_connections: bool = False

    def __post_init__(self) -> None:
        _check_url(self.url, self.network)
        self._normalize()
        object.__setattr__(
            self, "issuer_names", read_names(self.names, self.members, self.member_claims)
        )
        if sum(given is not None for given in (self.metadata_url, self.jwks_url, self.keys)) > 1:
            raise ValueError("write one of metadata_url=, jwks_url= and keys=")
        if self.confirm and not isinstance(self.introspection, Introspection):
            raise ValueError("confirm=True needs introspection=Introspection(...)")
        _check_subset("may_carry", self.may_carry, _CARRIED)
        _check_subset("ignored_parameters", self.ignored_parameters, _KEY_PARAMETERS)
        # NaN fails this comparison, too.
        if not 0 <= self.leeway <= MAX_LEEWAY or math.isnan(self.leeway):
            raise ValueError(
                f"leeway is a number of seconds from 0 to {MAX_LEEWAY}, not {self.leeway!r}"
            )

    issuer_names: IssuerNames = field(init=False, repr=False, compare=False)

    def _normalize(self) -> None:
        lists = ("names", "published", "audience", "clients", "algorithms", "token_types")
        for name in (*lists, "may_carry", "must_carry_one_of", "ignored_parameters"):
            given = getattr(self, name)
            if isinstance(given, str):
                given = (given,)
            if not all(isinstance(each, str) and each for each in given):
                raise ValueError(f"{name} of {self.url} holds an empty value: is a variable unset?")
            object.__setattr__(self, name, tuple(dict.fromkeys(given)))
        for name in ("members", "member_claims", "must_carry"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        for name in ("names", "published"):
            if not getattr(self, name):
                object.__setattr__(self, name, (self.url,))

    @property
    def audiences(self) -> tuple[str, ...]:
        """The ``aud`` values of its tokens for this server; empty for those of the guard."""
        return tuple(self.audience)

    @property
    def profile(self) -> Profile:
        """How its tokens differ from those of RFC 9068."""
        return Profile(
            names=self.issuer_names,
            clients=frozenset(self.clients),
            may_carry=frozenset(self.may_carry),
            must_carry=self.must_carry,
            must_carry_one_of=frozenset(self.must_carry_one_of),
            ignored_parameters=frozenset(self.ignored_parameters),
            key_issuer_claim=self.key_issuer_claim,
            reads_token_issuer=self.reads_token_issuer,
            published=tuple(self.published),
            shares_connections=self.shares_connections,
            scope_names=self.scope_names,
        )

    def key_source(self) -> KeySource:
        """Return the source of its keys: the given one, or a new one that fetches them."""
        if self.keys is not None:
            return self.keys
        from toolguard.tokens.jwks import JWKS  # noqa: PLC0415 - imports httpx

        if self.jwks_url is not None:
            return JWKS(url=self.jwks_url, network=self.network)
        if self.metadata_url is None and self.metadata_issuer is None:
            return JWKS(issuer=self.url, network=self.network)
        return JWKS(
            well_known_url=self.metadata_url,
            issuer=self.metadata_issuer or self.url,
            network=self.network,
        )

    def with_settings(self, **settings: Any) -> Issuer:
        """Return a copy with other values for some fields.

        >>> Issuer("https://auth.example.com").with_settings(leeway=30).leeway
        30
        """
        return replace(self, **settings)

    def __repr__(self) -> str:
        return f"Issuer({self.url!r})"

    def __hash__(self) -> int:
        return hash((self.url, tuple(self.names)))


def _check_url(url: str, network: Network) -> None:
    if not url:
        raise ValueError('an issuer is a URL: write Issuer("https://auth.example.com")')
    if "/.well-known/" in url:
        raise ValueError(
            f"{_shown(url)} is the URL of metadata, not of an issuer: write the part before "
            "/.well-known/, as the tokens have it in iss, or well_known_url= instead of issuer="
        )
    # RFC 8414 §2: an issuer has neither query nor fragment.
    if not network.admits(url) or "?" in url:
        raise ValueError(
            f"{_shown(url)} is not an issuer: write https://auth.example.com, without user name, "
            "query and fragment (http only on this machine, or from "
            'network=Network(insecure_origins=["http://keycloak:8080"]))'
        )


def _shown(url: str) -> str:
    """Return a URL for a message, without what may be a password."""
    return repr(url) if "@" not in url else "the URL"


def _check_subset(name: str, given: Collection[str], allowed: frozenset[str]) -> None:
    others = [each for each in given if each not in allowed]
    if others:
        raise ValueError(f"{name} holds {others[0]!r}: write some of {', '.join(sorted(allowed))}")


def host_of(server: str) -> str:
    """Return the host name in ``server``: a name such as ``acme.auth0.com``, or its https URL.

    Raises:
        ValueError: if it is neither.
    """
    parts = urlsplit(server if "://" in server else f"https://{server}")
    url = f"https://{parts.netloc}"
    if parts.scheme != "https" or parts.path.strip("/") or not is_secure_url(url):
        raise ValueError(f"{_shown(server)} is not the name of a host: write one such as id.test")
    return parts.netloc
