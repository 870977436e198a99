"""Invalid tokens that a server has to refuse, with the reasons.

Each differs from a valid token in one respect, which is its name; everything else about it is
valid, above all the signature.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeVar

from cryptography.hazmat.primitives import serialization
from jwt import PyJWK
from jwt.algorithms import HMACAlgorithm

from toolguard.errors import InvalidTokenReason
from toolguard.testing.providers import Provider
from toolguard.tokens.jws import MAX_TOKEN_LENGTH

__all__ = ["INVALID_TOKENS", "BadTokens"]

_Mint = TypeVar("_Mint", bound=Callable[..., str])

_HOUR = 3_600
_TIMES = frozenset({"exp", "nbf", "iat", "auth_time"})

_REASONS: dict[str, InvalidTokenReason] = {}
INVALID_TOKENS: Mapping[str, InvalidTokenReason] = MappingProxyType(_REASONS)
"""The name of every kind of invalid token, and the ``reason`` it is refused for.

``issuer.mint_expired()`` mints the token named ``expired``, and so on.
"""


def _refused_for(reason: InvalidTokenReason) -> Callable[[_Mint], _Mint]:
    def register(mint: _Mint) -> _Mint:
        _REASONS[mint.__name__.removeprefix("mint_")] = reason
        return mint

    return register


class BadTokens(ABC):
    """The invalid tokens that :class:`~toolguard.testing.LocalIssuer` mints.

    Every ``mint_...`` takes the arguments of ``mint``; its token is refused for the reason that
    :data:`INVALID_TOKENS` names, with 401 (RFC 6750 §3.1).
    """

    issuer: str
    audience: str
    provider: Provider
    key_id: str

    @abstractmethod
    def claims(
        self,
        user: str | None = "alice",
        *,
        scopes: Sequence[str] = (),
        expires_in: float = 300,
        **claims: Any,
    ) -> dict[str, Any]:
        """Return the claims of a valid token."""

    @abstractmethod
    def sign(self, claims: Mapping[str, Any], *, headers: Mapping[str, Any] | None = None) -> str:
        """Return these claims, signed with the issuer's key."""

    @abstractmethod
    def sign_bytes(self, payload: bytes, *, headers: Mapping[str, Any] | None = None) -> str:
        """Return this payload, signed with the issuer's key."""

    @abstractmethod
    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""

    @abstractmethod
    def _now(self) -> int: ...

    @property
    @abstractmethod
    def _stranger(self) -> BadTokens:
        """An attacker with other keys of the same type, who claims to be this issuer."""

    def mint_invalid(self, name: str, user: str | None = "alice", **token: Any) -> str:
        """Return the invalid token of this name, one of :data:`INVALID_TOKENS`.

        Raises:
            ValueError: if there is no token of that name.

        Example::

            @pytest.mark.parametrize("name", INVALID_TOKENS)
            def test_an_invalid_token_is_refused(issuer, server, name):
                answer = call_as(server, "whoami", token=issuer.mint_invalid(name))
                assert answer.status == 401
        """
        if name not in INVALID_TOKENS:
            raise ValueError(
                f"unknown kind of token {name!r}: write one of {', '.join(INVALID_TOKENS)}"
            )
        minted: str = getattr(self, f"mint_{name}")(user, **token)
        return minted

    def invalid_tokens(self, user: str | None = "alice", **token: Any) -> dict[str, str]:
        """Return one invalid token of every kind, by its name in :data:`INVALID_TOKENS`."""
        return {name: self.mint_invalid(name, user, **token) for name in INVALID_TOKENS}

    # --- times

    @_refused_for("expired")
    def mint_expired(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that expired an hour ago (RFC 7519 §4.1.4)."""
        claims, headers = self._good(user, token)
        ago = claims["exp"] - self._now() + _HOUR
        earlier = {name: claims[name] - ago for name in _TIMES & claims.keys()}
        return self.sign({**claims, **earlier}, headers=headers)

    @_refused_for("not_yet_valid")
    def mint_not_yet_valid(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that becomes valid in an hour (RFC 7519 §4.1.5)."""
        claims, headers = self._good(user, token)
        later = {"nbf": self._now() + _HOUR, "exp": claims["exp"] + _HOUR}
        return self.sign({**claims, **later}, headers=headers)

    @_refused_for("not_yet_valid")
    def mint_issued_in_the_future(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with an ``iat`` an hour in the future (RFC 7519 §4.1.6)."""
        claims, headers = self._good(user, token)
        later = {"iat": self._now() + _HOUR, "exp": claims["exp"] + _HOUR}
        return self.sign({**claims, **later}, headers=headers)

    @_refused_for("claims")
    def mint_without_expiry(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that never expires; RFC 9068 §2.2 requires ``exp``."""
        return self._changed(user, token, exp=None)

    @_refused_for("claims")
    def mint_expiry_as_text(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token whose ``exp`` is a string (RFC 7519 §2: a NumericDate is a number)."""
        claims, headers = self._good(user, token)
        return self.sign({**claims, "exp": str(claims["exp"])}, headers=headers)

    @_refused_for("claims")
    def mint_expiry_in_milliseconds(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token whose ``exp`` counts milliseconds (RFC 7519 §2: seconds)."""
        claims, headers = self._good(user, token)
        # Of a clock that tests have set to an early time they would be a date.
        late = max(claims["exp"] * 1_000, 1_700_000_000_000)
        return self.sign({**claims, "exp": late}, headers=headers)

    # --- parties

    @_refused_for("audience")
    def mint_wrong_audience(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token for another server (RFC 8707 §3)."""
        return self._readdressed(user, token, "https://other-server.test/mcp")

    @_refused_for("audience")
    def mint_lookalike_audience(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token for another server, whose URL begins like this one's."""
        return self._readdressed(user, token, f"{self.audience.rstrip('/')}/other")

    @_refused_for("audience")
    def mint_without_audience(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token without ``aud`` (RFC 9068 §4)."""
        return self._changed(user, token, aud=None)

    @_refused_for("issuer")
    def mint_wrong_issuer(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token of another issuer with the same key (RFC 9068 §4)."""
        return self._changed(user, token, iss="https://other-issuer.test")

    @_refused_for("issuer")
    def mint_lookalike_issuer(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token of another issuer, whose URL begins like this one's."""
        return self._changed(user, token, iss=f"{self.issuer.rstrip('/')}.evil.example")

    @_refused_for("issuer")
    def mint_without_issuer(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token without ``iss``, which RFC 9068 §2.2 requires."""
        return self._changed(user, token, iss=None)

    @_refused_for("claims")
    def mint_numeric_subject(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token whose ``sub`` is a number (RFC 7519 §4.1.2: a string)."""
        return self._changed(user, token, sub=1)

    # --- signatures

    @_refused_for("key")
    def mint_unknown_kid(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that names a key the issuer does not publish."""
        return self._changed(user, token, {"kid": f"{self.key_id}-unknown"})

    @_refused_for("signature")
    def mint_wrong_key(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with the issuer's ``kid`` that another key signed."""
        claims, headers = self._good(user, token)
        return self._stranger.sign(claims, headers={"kid": self.key_id, **headers})

    @_refused_for("key")
    def mint_own_key(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with its key in the header (CVE-2018-0114, RFC 8725 §3.10)."""
        claims, headers = self._good(user, token)
        own = {"kid": self.key_id, "jwk": self._stranger.jwks()["keys"][0]}
        return self._stranger.sign(claims, headers={**headers, **own})

    @_refused_for("key")
    def mint_own_key_url(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with the URL of its key in the header (RFC 8725 §3.10)."""
        claims, headers = self._good(user, token)
        own = {"kid": self.key_id, "jku": "https://evil.example/jwks"}
        return self._stranger.sign(claims, headers={**headers, **own})

    @_refused_for("signature")
    def mint_bad_signature(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with one bit of its signature flipped."""
        header, payload, signature = self._changed(user, token).split(".")
        octets = bytearray(_decoded(signature))
        octets[len(octets) // 2] ^= 1
        return f"{header}.{payload}.{_encoded(bytes(octets))}"

    @_refused_for("signature")
    def mint_tampered_payload(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token whose subject was replaced after signing."""
        claims, headers = self._good(user, token)
        header, _, signature = self.sign(claims, headers=headers).split(".")
        tampered = {**claims, "sub": f"not-{claims.get('sub')}"}
        return f"{header}.{_encoded(_json(tampered))}.{signature}"

    @_refused_for("malformed")
    def mint_unsigned(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with an empty signature and the ``alg`` of the issuer."""
        return self._changed(user, token).rpartition(".")[0] + "."

    @_refused_for("malformed")
    def mint_alg_none(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with ``alg`` "none" and no signature (RFC 8725 §3.2)."""
        return self._reheaded(user, token, "none")[0] + "."

    @_refused_for("algorithm")
    def mint_alg_none_with_signature(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with ``alg`` "none" and a signature."""
        signing_input, signature = self._reheaded(user, token, "none")
        return f"{signing_input}.{signature}"

    @_refused_for("algorithm")
    def mint_hs256_with_public_key(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token signed with the public key, in PEM, as shared secret (RFC 8725 §2.1)."""
        signing_input, _ = self._reheaded(user, token, "HS256")
        hmac = HMACAlgorithm(HMACAlgorithm.SHA256)
        return f"{signing_input}.{_encoded(hmac.sign(signing_input.encode(), self._pem()))}"

    # --- kinds

    @_refused_for("type")
    def mint_id_token(self, user: str | None = "alice", **token: Any) -> str:
        """Mint an ID token with this server as its audience (RFC 9068 §5)."""
        return self._changed(user, token, self._plain, **self.provider.id_token)

    @_refused_for("type")
    def mint_refresh_token(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a refresh token that is a JWT, as some providers issue."""
        return self._changed(user, token, self._plain, **self.provider.refresh_token)

    @_refused_for("type")
    def mint_logout_token(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a logout token (OpenID Connect Back-Channel Logout §2.4)."""
        events: Mapping[str, Any] = {"http://schemas.openid.net/event/backchannel-logout": {}}
        return self._changed(user, token, {"typ": "logout+jwt"}, events=events)

    @_refused_for("type")
    def mint_wrong_type(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with the ``typ`` of another kind of JWT (RFC 8725 §3.11)."""
        return self._changed(user, token, {"typ": "secevent+jwt"})

    @_refused_for("bound")
    def mint_bound(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that requires proof of possession (DPoP: RFC 9449 §6.1, §7.2)."""
        return self._changed(
            user, token, cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"}
        )

    # --- forms

    @_refused_for("malformed")
    def mint_truncated(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token of two parts: the signature was cut off with its dot."""
        return self._changed(user, token).rpartition(".")[0]

    @_refused_for("encrypted")
    def mint_five_parts(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token of five parts, as an encrypted one has (RFC 7516 §9)."""
        return f"{self._changed(user, token)}.AAAA.AAAA"

    @_refused_for("malformed")
    def mint_payload_not_json(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token whose payload is not JSON, with a valid signature."""
        claims, headers = self._good(user, token)
        return self.sign_bytes(_json(claims).removesuffix(b"}"), headers=headers)

    @_refused_for("malformed")
    def mint_duplicate_claim(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with two subjects, so that two parsers may see two users."""
        claims, headers = self._good(user, token)
        second = _json({"sub": f"not-{claims.get('sub')}"})
        first = _json({"sub": None, **claims})
        return self.sign_bytes(first[:-1] + b"," + second[1:], headers=headers)

    @_refused_for("malformed")
    def mint_unknown_critical_header(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token with an unknown critical header extension (RFC 7515 §4.1.11)."""
        name = "https://toolguard.test/extension"
        return self._changed(user, token, {"crit": [name], name: True})

    @_refused_for("malformed")
    def mint_oversized(self, user: str | None = "alice", **token: Any) -> str:
        """Mint a token that is longer than :data:`~toolguard.tokens.jws.MAX_TOKEN_LENGTH`."""
        return self._changed(user, token, padding="x" * MAX_TOKEN_LENGTH)

    # --- how

    @property
    def _plain(self) -> dict[str, Any]:
        """The header of a JWT that is not an access token."""
        return {"typ": self.provider.typ and "JWT"}

    def _good(
        self, user: str | None, token: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the claims and the additional headers of a valid token."""
        claims = {name: value for name, value in token.items() if name != "headers"}
        return self.claims(user, **claims), dict(token.get("headers") or {})

    def _changed(
        self,
        user: str | None,
        token: Mapping[str, Any],
        header: Mapping[str, Any] | None = None,
        /,
        **changes: Any,
    ) -> str:
        """Return a valid token with these changes; a claim that is None is omitted."""
        claims, headers = self._good(user, token)
        changed = {
            name: value for name, value in {**claims, **changes}.items() if value is not None
        }
        return self.sign(changed, headers={**headers, **(header or {})})

    def _readdressed(self, user: str | None, token: Mapping[str, Any], audience: str) -> str:
        """Return a valid token with another audience in place of this server."""
        claims, headers = self._good(user, token)
        is_list = isinstance(claims.get("aud"), list)
        others = [item for item in claims["aud"] if item != self.audience] if is_list else []
        claims["aud"] = [audience, *others] if is_list else audience
        return self.sign(claims, headers=headers)

    def _reheaded(
        self, user: str | None, token: Mapping[str, Any], algorithm: str
    ) -> tuple[str, str]:
        """Return a valid token with another ``alg``: its signing input, and the old signature."""
        header, payload, signature = self._changed(user, token).split(".")
        changed = {**json.loads(_decoded(header)), "alg": algorithm}
        return f"{_encoded(_json(changed))}.{payload}", signature

    def _pem(self) -> bytes:
        (jwk,) = [each for each in self.jwks()["keys"] if each["kid"] == self.key_id]
        pem: bytes = PyJWK(jwk).key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def _decoded(segment: str) -> bytes:
    return urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
