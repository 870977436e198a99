"""Client authentication at a token endpoint (RFC 6749 §2.3, RFC 7523 §2.2)."""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass, field
from typing import Protocol

from toolguard.connections.signing import PrivateKey, SigningKey
from toolguard.parsing.kinds import secret_text
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.client_credentials import ClientCredentials
from toolguard.tokens.introspection_client import BasicClient

__all__ = [
    "ClientAuth",
    "ClientCredentials",
    "ClientSecretBasic",
    "ClientSecretPost",
    "PrivateKey",
    "PrivateKeyJWT",
    "PublicClient",
    "check_token_endpoint",
]

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_MAX_LIFETIME = 60


class ClientAuth(Protocol):
    """A client authentication method (RFC 6749 §2.3)."""

    @property
    def client_id(self) -> str:
        """The client's id at the authorization server."""
        ...

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:
        """Return the credentials for one request to ``token_endpoint``, made at ``now``.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        ...


@dataclass(frozen=True)
class ClientSecretBasic(BasicClient):
    """Sends the client secret in the ``Authorization`` header (RFC 6749 §2.3.1).

    Id and secret are form-encoded before they are joined, as that section requires. Use
    :class:`ClientSecretPost` for the few servers that do not decode them.

    Attributes:
        client_id: the client's id.
        client_secret: its secret; never in the representation.

    Raises:
        TypeError: if the secret is not text.
        ValueError: if one of them is empty.
    """

    def __post_init__(self) -> None:
        _check_secret(self.client_id, self.client_secret)


@dataclass(frozen=True)
class ClientSecretPost:
    """Sends the client secret in the form (RFC 6749 §2.3.1).

    Attributes:
        client_id: the client's id.
        client_secret: its secret; never in the representation.

    Raises:
        TypeError: if the secret is not text.
        ValueError: if one of them is empty.
    """

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        _check_secret(self.client_id, self.client_secret)

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:  # noqa: ARG002 - the protocol's
        """Return ``client_id`` and ``client_secret`` as form parameters.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        return ClientCredentials({"client_id": self.client_id, "client_secret": self.client_secret})


@dataclass(frozen=True)
class PublicClient:
    """Sends no secret: a public client names itself at most (RFC 6749 §3.2.1).

    For servers that take the subject token as the only proof, such as Google's Security Token
    Service. Whoever has such a token can exchange it there.

    Attributes:
        client_id: the client's id; empty if the server takes none.
    """

    client_id: str = ""

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:  # noqa: ARG002 - the protocol's
        """Return ``client_id`` as a form parameter, if there is one.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        return ClientCredentials({"client_id": self.client_id} if self.client_id else {})


class PrivateKeyJWT:
    """Sends an assertion signed with the client's key (RFC 7523 §2.2, OpenID Connect Core §9).

    No secret leaves this process, and each assertion is for one request: it has a unique ``jti``,
    expires within a minute, and has one audience.

    Args:
        client_id: the client's id.
        private_key: a key, or its PEM text without a password. RSA from 2,048 bits, P-256, P-384,
            P-521 or Ed25519.
        key_id: the ``kid`` of the public key at the server.
        algorithm: the signature algorithm; None takes the usual one of the key: ``RS256``,
            ``ES256``, ``ES384``, ``ES512`` or ``EdDSA``.
        audience: the ``aud`` of the assertion; None takes the URL of the token endpoint. Where the
            server accepts its issuer URL, prefer that: no other server can replay the assertion.
        lifetime: seconds until the assertion expires, 1 to 60.
        certificate_thumbprint: the ``x5t#S256`` of the key's certificate, in base64url, for
            servers that know keys by it (Entra).

    Raises:
        ValueError: if one of these cannot be used.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        client_id: str,
        private_key: str | bytes | PrivateKey,
        *,
        key_id: str | None = None,
        algorithm: str | None = None,
        audience: str | None = None,
        lifetime: int = _MAX_LIFETIME,
        certificate_thumbprint: str | None = None,
    ) -> None:
        if not client_id:
            raise ValueError('write client_id="...", as the authorization server knows this client')
        if not key_id and not certificate_thumbprint:
            raise ValueError('write key_id="...": the server has to find the public key')
        if not 1 <= lifetime <= _MAX_LIFETIME:
            raise ValueError("write lifetime=60 or less: an assertion is for one request")
        if audience == "":
            raise ValueError('write audience="https://auth.example.com", or leave it out')
        self._client_id = client_id
        named = {"kid": key_id, "x5t#S256": certificate_thumbprint}
        self._key = SigningKey(private_key, algorithm, named)
        self._audience = audience
        self._lifetime = lifetime

    @property
    def client_id(self) -> str:
        """The client's id at the authorization server."""
        return self._client_id

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:
        """Return the form parameters, with an assertion made for this request.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        issued_at = math.floor(now)
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._audience or token_endpoint,
            "jti": secrets.token_urlsafe(16),
            "iat": issued_at,
            "exp": issued_at + self._lifetime,
        }
        return ClientCredentials(
            {
                "client_id": self._client_id,
                "client_assertion_type": _ASSERTION_TYPE,
                "client_assertion": self._key.sign(claims),
            }
        )

    def __repr__(self) -> str:
        return f"<PrivateKeyJWT: {self._client_id} with {self._key.algorithm}>"


def check_token_endpoint(url: str) -> None:
    """Check the URL of a token endpoint.

    Raises:
        ValueError: if credentials may not be sent there, or it has a fragment (RFC 6749 §3.2).
    """
    if not is_secure_url(url):
        raise ValueError(
            'write "https://auth.example.com/token": a token endpoint is https (http only on this '
            "machine), without user name, password and fragment"
        )


def _check_secret(client_id: str, client_secret: str) -> None:
    if not client_id:
        raise ValueError('write client_id="...", as the authorization server knows this client')
    secret_text("client_secret", client_secret)
