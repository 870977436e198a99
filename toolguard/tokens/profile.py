"""How the tokens of one issuer differ from those of RFC 9068, as far as that is declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolguard.parsing.scope_names import SAME, ScopeNames
from toolguard.tokens.issuer_names import IssuerNames
from toolguard.tokens.proofs.settings import Mode

__all__ = ["STRICT", "Profile"]

# Claims that only another kind of JWT carries (RFC 8725 §3.12).
_FOREIGN_CLAIMS = frozenset(
    {
        *("at_hash", "c_hash", "s_hash"),  # ID token: OpenID Connect Core §3.3.2.11, FAPI 1.0
        *("htm", "htu", "ath"),  # DPoP proof: RFC 9449 §4.2
        *("_sd", "_sd_alg", "vct"),  # SD-JWT and credentials: RFC 9901
        "token_introspection",  # signed introspection response: RFC 9701 §5
    }
)
# Claims that state the kind of a token: Keycloak, Cognito, common frameworks, Descope.
_KIND_CLAIMS = ("typ", "token_use", "token_type", "drn")
_FOREIGN_KINDS = frozenset(
    {"id", "id_token", "refresh", "refresh_token", "offline", "logout", "dsr"}
)
_ACCESS_KINDS = frozenset({"bearer", "access", "access_token"})
# The claims that may tell that a JWT is for another purpose.
_TELLING = _FOREIGN_CLAIMS.union(_KIND_CLAIMS, ("events", "nonce"))


@dataclass(frozen=True)
class Profile:
    """The declared differences of one issuer; see :class:`toolguard.tokens.issuers.Issuer`.

    Attributes:
        names: the ``iss`` values of its tokens; None for the issuer of the verifier only.
        clients: the clients whose tokens are accepted without ``aud``.
        may_carry: claims of ID tokens that its access tokens have too.
        must_carry: claims that every access token has, with their value, or None for any.
        must_carry_one_of: claims of which every access token has at least one.
        ignored_parameters: header parameters that name a key and are ignored.
        key_issuer_claim: the claim that fills in the ``issuer`` of its keys.
        reads_token_issuer: whether the metadata of its keys may name a further ``iss``.
        published: the authorization servers that clients are told of; empty for the issuer.
        shares_connections: whether its subjects are known to the connection provider.
        scope_names: how its scopes are called in tokens and by clients.
        dpop: whether its bound tokens are accepted, or only those; None for what the guard says.
    """

    names: IssuerNames | None = None
    clients: frozenset[str] = frozenset()
    may_carry: frozenset[str] = frozenset()
    must_carry: Mapping[str, str | None] = field(default_factory=dict)
    must_carry_one_of: frozenset[str] = frozenset()
    ignored_parameters: frozenset[str] = frozenset()
    key_issuer_claim: str | None = None
    reads_token_issuer: bool = False
    published: tuple[str, ...] = ()
    shares_connections: bool = False
    scope_names: ScopeNames = SAME
    dpop: Mode | None = None

    def issued(self, claims: Mapping[str, Any], issuer: str | None) -> bool:
        """Return whether the claims are of this issuer."""
        if self.names is None:
            return issuer is not None and claims.get("iss") == issuer
        return self.names.accept(claims)

    def admits_client(self, claims: Mapping[str, Any]) -> bool:
        """Return whether a token without ``aud`` is accepted because of its client."""
        client = claims.get("client_id")
        return "aud" not in claims and isinstance(client, str) and client in self.clients

    def vouches(self, key_issuer: str | None, claims: Mapping[str, Any]) -> bool:
        """Return whether a key with this ``issuer`` member may sign tokens with these claims."""
        if self.key_issuer_claim is None or self.names is None or key_issuer is None:
            return True
        member = claims.get(self.key_issuer_claim)
        named = key_issuer.replace("{tenantid}", member if isinstance(member, str) else "")
        return self.names.accept({**claims, "iss": named})

    def fault_of_kind(self, claims: Mapping[str, Any], typ: str) -> str | None:
        """Return what tells that a JWT of this issuer is for another purpose; None if nothing does.

        Args:
            claims: its claims.
            typ: the ``typ`` of its header.
        """
        fault = None if _TELLING.isdisjoint(claims) else self._fault_told(claims, typ)
        # RFC 7523 §3: a JWT whose `sub` is its `iss` is an assertion, not an access token.
        if fault is None and claims.get("sub") == claims["iss"]:
            return "its sub is its iss"
        return fault or self._fault_of_marks(claims)

    def _fault_told(self, claims: Mapping[str, Any], typ: str) -> str | None:
        """Return what tells that a JWT is for another purpose, of the claims that may tell it."""
        stated = [claims.get(name) for name in _KIND_CLAIMS]
        kinds = [value.lower() for value in stated if isinstance(value, str)]
        carried = sorted(claims.keys() & (_FOREIGN_CLAIMS - self.may_carry))
        if carried:
            return f"it has {carried[0]}"
        if not _FOREIGN_KINDS.isdisjoint(kinds):
            return "it states another kind"
        # RFC 8417 §2.2: the events of a security event, such as a logout token, are an object.
        if isinstance(claims.get("events"), dict):
            return "it has events"
        # OpenID Connect Core §2: an ID token repeats the nonce of its request. Keycloak before
        # 25 put it into access tokens too, but says of those that they are "Bearer".
        repeats = "nonce" in claims and "nonce" not in self.may_carry
        if repeats and typ == "jwt" and _ACCESS_KINDS.isdisjoint(kinds):
            return "it has nonce"
        return None

    def _fault_of_marks(self, claims: Mapping[str, Any]) -> str | None:
        """Return which mark of this issuer's access tokens is missing."""
        for name, value in self.must_carry.items():
            if claims.get(name) is None or value not in (None, claims[name]):
                return f"it lacks {name}{'' if value is None else f' {value!r}'}"
        if self.must_carry_one_of and self.must_carry_one_of.isdisjoint(claims):
            return f"it lacks {' or '.join(sorted(self.must_carry_one_of))}"
        return None


STRICT = Profile()
"""No differences."""
