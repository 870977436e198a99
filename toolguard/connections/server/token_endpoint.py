"""Credentials of the server from a token endpoint: client credentials and JWT assertions."""

from __future__ import annotations

import json
import math
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Literal

from typing_extensions import Self

from toolguard.connections.client_auth import ClientAuth, PublicClient, check_token_endpoint
from toolguard.connections.http import VaultAnswer, VaultRequest
from toolguard.connections.protocol import Connection, listed_scopes
from toolguard.connections.server.source import SourceRequest, lacking
from toolguard.connections.signing import PrivateKey, SigningKey
from toolguard.errors import (
    ConnectionResponseError,
    ConnectionTokenError,
    ConnectionUnavailableError,
)
from toolguard.parsing.secure_urls import secure_origin
from toolguard.parsing.token_members import read_scopes, read_token, whole_seconds

__all__ = ["ClientCredentialsGrant", "ServiceAccount"]

_CLIENT_CREDENTIALS = "client_credentials"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_GOOGLE = "https://oauth2.googleapis.com/token"
# Google accepts an hour; an assertion is used at once.
_ASSERTION_LIFETIME = 300
_KEY_FILE_MEMBERS = ("client_email", "private_key", "private_key_id")
_OURS = frozenset({"grant_type", "scope", "client_id", "client_secret", "client_assertion"})
_LATER = frozenset({"temporarily_unavailable", "server_error"})
# RFC 6749 §5.2, RFC 8707 §2: what is to be done about each error.
_REMEDIES: Mapping[str, str] = {
    "invalid_client": "check the client's id, and its secret or key",
    "invalid_grant": "check the key, the account, and this machine's clock",
    "invalid_request": "check the parameters of the connection",
    "invalid_scope": "check the scopes of the connection and of the tool",
    "invalid_target": "check the audience and resource of the connection",
    "unauthorized_client": "allow this grant, or these scopes, to the client",
    "unsupported_grant_type": "this token endpoint has no such grant",
    "access_denied": "the server's policy refuses this client",
}


class _TokenEndpoint(ABC):
    """A token endpoint that issues tokens for the server."""

    owner: Literal["server"] = "server"

    async def issue(self, request: SourceRequest) -> Connection | ConnectionTokenError:
        """Return a new token, or the error that explains its absence.

        Args:
            request: what is asked for.

        Raises:
            ConnectionTokenError: if the endpoint cannot be asked.
        """
        # Each attempt is prepared anew: an assertion may be used once.
        answer = await request.http.post(
            self._prepared(request), again=lambda: self._prepared(request)
        )
        return _read(answer, request)

    @abstractmethod
    def _prepared(self, request: SourceRequest) -> VaultRequest: ...


class ClientCredentialsGrant(_TokenEndpoint):
    """A token for the server's own client (RFC 6749 §4.4).

    ::

        ClientCredentialsGrant(
            "https://auth.example.com/token",
            ClientSecretBasic("mcp-server", os.environ["CLIENT_SECRET"]),
            scopes=["orders.read"],
        )

    Args:
        token_endpoint: the URL of the token endpoint; https, or http to this machine.
        client_auth: the client authentication: ``ClientSecretBasic``, ``ClientSecretPost`` or
            ``PrivateKeyJWT`` of :mod:`toolguard.connections`.
        scopes: the scopes to ask for where the tool declares none.
        parameters: further parameters, such as ``{"audience": "https://api.example.com"}``
            (Auth0) or ``{"resource": ...}`` (RFC 8707).

    Raises:
        ValueError: if one of these cannot be used.
        TypeError: if ``client_auth`` authenticates nothing, or ``scopes`` is a string.
    """

    def __init__(
        self,
        token_endpoint: str,
        client_auth: ClientAuth,
        *,
        scopes: Sequence[str] = (),
        parameters: Mapping[str, str] | None = None,
    ) -> None:
        check_token_endpoint(token_endpoint)
        if not callable(getattr(client_auth, "credentials", None)):
            raise TypeError(
                'client_auth= needs credentials(): write ClientSecretBasic("client-id", secret)'
            )
        if isinstance(client_auth, PublicClient):
            # RFC 6749 §4.4: this grant is for confidential clients only.
            raise TypeError("client credentials need a secret or key: a public client has none")
        self._parameters = dict(parameters or {})
        taken = sorted(_OURS & self._parameters.keys())
        if taken:
            raise ValueError(f"{taken[0]} has a setting of its own: take it out of parameters=")
        self._endpoint = token_endpoint
        self._client_auth = client_auth
        self._scopes = listed_scopes(scopes)

    @property
    def identity(self) -> str:
        """The endpoint, the client and its parameters."""
        return _digest(self._endpoint, self._client_auth.client_id, self._scopes, self._parameters)

    def _prepared(self, request: SourceRequest) -> VaultRequest:
        proof = self._client_auth.credentials(self._endpoint, request.clock())
        scope = " ".join(request.scopes or self._scopes)
        form = {"grant_type": _CLIENT_CREDENTIALS, **({"scope": scope} if scope else {})}
        return VaultRequest(
            request.connection,
            self._endpoint,
            {**form, **self._parameters, **proof.parameters},
            proof.authorization,
            encoding="form",
            is_idempotent=True,
        )

    def __repr__(self) -> str:
        client = self._client_auth.client_id
        return f"<ClientCredentialsGrant: {client} at {secure_origin(self._endpoint)}>"


class ServiceAccount(_TokenEndpoint):
    """A token for an account of the server that signs an assertion (RFC 7523 §2.1).

    The assertion is as Google documents it: the scopes are a claim of it
    (https://developers.google.com/identity/protocols/oauth2/service-account). ::

        ServiceAccount.from_json(os.environ["GOOGLE_KEY"], scopes=["https://www.../auth/drive"])

    Args:
        email: the account: the ``iss`` of the assertion.
        private_key: its key, or the key's PEM text without a password.
        scopes: the scopes to ask for where the tool declares none.
        key_id: the ``kid`` of the key.
        subject: the user to act for, where the account may (domain-wide delegation); the same one
            for all callers. Google takes no ``sub`` otherwise; other servers may require one.
        token_endpoint: the URL of the token endpoint.
        audience: the ``aud`` of the assertion; None takes the URL of the token endpoint.

    Raises:
        ValueError: if one of these cannot be used.
        TypeError: if ``scopes`` is a string.
    """

    def __init__(  # noqa: PLR0913 - a settings constructor
        self,
        email: str,
        private_key: str | bytes | PrivateKey,
        *,
        scopes: Sequence[str] = (),
        key_id: str | None = None,
        subject: str | None = None,
        token_endpoint: str = _GOOGLE,
        audience: str | None = None,
    ) -> None:
        check_token_endpoint(token_endpoint)
        if not email:
            raise ValueError('write email="robot@project.iam.gserviceaccount.com"')
        self._email = email
        self._key = SigningKey(private_key, None, {"kid": key_id})
        self._scopes = listed_scopes(scopes)
        self._subject = subject
        self._endpoint = token_endpoint
        self._audience = audience or token_endpoint

    @classmethod
    def from_json(
        cls, text: str | bytes, *, scopes: Sequence[str] = (), subject: str | None = None
    ) -> Self:
        """Return the account of a key file that Google made.

        Args:
            text: the text of the file. Its token endpoint is used only if it is Google's.
            scopes: the scopes to ask for where the tool declares none.
            subject: the user to act for, where the account may.

        Raises:
            ValueError: if this is not the key of a service account.
        """
        members = _key_file(text)
        if members is None:
            del text  # so that no local variable holds a key
            raise ValueError(
                'not the key file of a service account, which has "type": "service_account", '
                f'"token_uri": "{_GOOGLE}", {", ".join(_KEY_FILE_MEMBERS)}'
            )
        return cls(
            members["client_email"],
            members["private_key"],
            key_id=members["private_key_id"],
            scopes=scopes,
            subject=subject,
        )

    @property
    def identity(self) -> str:
        """The endpoint, the account, its scopes, and for whom it acts."""
        return _digest(self._endpoint, self._email, self._scopes, self._subject or "")

    def _prepared(self, request: SourceRequest) -> VaultRequest:
        issued_at = math.floor(request.clock())
        claims = {
            "iss": self._email,
            "sub": self._subject,
            "scope": " ".join(request.scopes or self._scopes),
            "aud": self._audience,
            "jti": secrets.token_urlsafe(16),
            "iat": issued_at,
            "exp": issued_at + _ASSERTION_LIFETIME,
        }
        signed = {name: value for name, value in claims.items() if value}
        return VaultRequest(
            request.connection,
            self._endpoint,
            {"grant_type": _JWT_BEARER, "assertion": self._key.sign(signed)},
            None,
            encoding="form",
            is_idempotent=True,
        )

    def __repr__(self) -> str:
        return f"<ServiceAccount: {self._email} at {secure_origin(self._endpoint)}>"


def _read(answer: VaultAnswer, request: SourceRequest) -> Connection | ConnectionTokenError:
    """Read an answer of a token endpoint (RFC 6749 §5). Errors quote nothing but known codes."""
    name, members = request.connection, answer.members
    if answer.is_refusal or "error" in members:
        return _refusal(answer, name)
    try:
        connection = _connection(members, request)
    except ValueError as fault:
        problem = str(fault)
    else:
        missing = [each for each in request.scopes if each not in connection.scopes]
        return lacking(request, missing) if missing else connection
    return ConnectionResponseError(
        f"The token endpoint's answer for {name} {problem}", connection=name
    )


def _refusal(answer: VaultAnswer, name: str) -> ConnectionTokenError:
    code = answer.members.get("error")
    if isinstance(code, str) and code in _LATER:
        return ConnectionUnavailableError(
            f"The token endpoint of {name} has a problem ({code}): try again", connection=name
        )
    remedy = _REMEDIES.get(code) if isinstance(code, str) else None
    shown = f"{answer.status}, {code}): {remedy}" if remedy else f"{answer.status})"
    return ConnectionResponseError(
        f"The token endpoint did not give {name} to the server ({shown}", connection=name
    )


def _connection(members: Mapping[str, Any], request: SourceRequest) -> Connection:
    """Read a successful answer; a fault is a ValueError that continues "the answer"."""
    token = read_token(members.get("access_token"))
    # RFC 6749 §7.1: a token of an unknown type is not used.
    if str(members.get("token_type", "bearer")).lower() != "bearer":
        raise ValueError("holds no bearer token")
    # RFC 6749 §5.1: without it, the scopes are those that were asked for.
    scope = members.get("scope")
    scopes = request.scopes if scope is None else read_scopes(scope)
    if members.get("expires_in") is None:
        return Connection(token, scopes=scopes)
    lifetime = whole_seconds(members["expires_in"])
    if not lifetime:
        raise ValueError("holds a token that has expired")
    return Connection(token, scopes=scopes, expires_at=request.clock() + lifetime)


def _digest(*facts: object) -> str:
    return sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _key_file(text: str | bytes) -> dict[str, str] | None:
    try:
        members = json.loads(text)
        found = {name: members[name] for name in _KEY_FILE_MEMBERS}
    except (ValueError, TypeError, KeyError):
        return None
    is_good = (
        members.get("type") == "service_account"
        and members.get("token_uri", _GOOGLE) == _GOOGLE
        and all(isinstance(value, str) for value in found.values())
    )
    return found if is_good else None
