"""How a server asks an authorization server about tokens (RFC 7662), and proves itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from toolguard.parsing.kinds import secret_text
from toolguard.parsing.strict_json import strict_object
from toolguard.tokens.client_credentials import ClientCredentials, basic_credentials

__all__ = [
    "MAX_CACHE_FOR",
    "AnonymousClient",
    "BasicClient",
    "BearerClient",
    "Introspection",
    "IntrospectionClient",
]

MAX_CACHE_FOR = 300.0
"""The longest time for which an answer may be used again, in seconds."""


class IntrospectionClient(Protocol):
    """How this server proves itself at the endpoint, such as a ``ClientSecretPost``."""

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:
        """Return the credentials for one request to an endpoint, made at ``now``."""
        ...


@dataclass(frozen=True)
class BasicClient:
    """Sends id and secret in the ``Authorization`` header (RFC 6749 §2.3.1).

    Attributes:
        client_id: the id of this server at the authorization server.
        client_secret: its secret; never in the representation.

    Raises:
        TypeError: if one of them is not text.
        ValueError: if one of them is empty.
    """

    client_id: str
    client_secret: str = field(repr=False)

    def __post_init__(self) -> None:
        secret_text("client_id", self.client_id)
        secret_text("client_secret", self.client_secret)

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:  # noqa: ARG002 - the protocol's
        """Return the ``Authorization`` header.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        return basic_credentials(self.client_id, self.client_secret)


@dataclass(frozen=True)
class BearerClient:
    """Sends a token of this server's own (RFC 7662 §2.1).

    Attributes:
        token: the token; never in the representation.

    Raises:
        TypeError: if it is not text.
        ValueError: if it is empty.
    """

    token: str = field(repr=False)

    def __post_init__(self) -> None:
        secret_text("token", self.token)

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:  # noqa: ARG002 - the protocol's
        """Return the ``Authorization`` header.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        return ClientCredentials(authorization=f"Bearer {self.token}")


@dataclass(frozen=True)
class AnonymousClient:
    """Sends nothing: for endpoints that answer everybody who has a token."""

    def credentials(self, token_endpoint: str, now: float) -> ClientCredentials:  # noqa: ARG002 - the protocol's
        """Return no credentials.

        Args:
            token_endpoint: the URL that the request goes to.
            now: seconds since the epoch.
        """
        return ClientCredentials()


@dataclass(frozen=True)
class Introspection:
    """How to ask an authorization server about its tokens (RFC 7662).

    Attributes:
        client: how this server proves itself: a :class:`BasicClient`, a :class:`BearerClient`, or
            a method of :mod:`toolguard.connections`, such as ``PrivateKeyJWT``.
        endpoint: the URL; the ``introspection_endpoint`` of the issuer's metadata by default.
        cache_for: seconds for which an active answer is used again, 0 to 300 and never beyond
            ``exp``: a revoked token stays good that long.
        timeout: seconds for a whole request.
        signed: whether to ask for signed answers (RFC 9701), and accept no others: verified with
            the keys of the issuer, and addressed to the ``client_id`` of ``client``, or to the
            audience of this server.

    Raises:
        ValueError: if a time is out of range.
    """

    client: IntrospectionClient
    endpoint: str | None = None
    cache_for: float = 0.0
    timeout: float = 5.0
    signed: bool = False

    jwts: ClassVar[bool] = False
    #: Whether the endpoint can be asked about tokens that are JWTs.
    takes_jwts: ClassVar[bool] = True
    #: The HTTP statuses of answers about a token; others are outages (RFC 7662 §2.3).
    statuses: ClassVar[tuple[int, ...]] = (200,)

    def __post_init__(self) -> None:
        if not callable(getattr(self.client, "credentials", None)) or isinstance(self.client, type):
            raise TypeError(
                "client is how this server proves itself: write "
                f'BasicClient("client-id", "secret"), not {type(self.client).__name__}'
            )
        if not 0 <= self.cache_for <= MAX_CACHE_FOR or not 0 < self.timeout < math.inf:
            raise ValueError(
                f"cache_for is 0 to {MAX_CACHE_FOR:.0f} seconds, timeout is more than 0"
            )

    def form(self, token: str) -> dict[str, str]:
        """Return the parameters of a request about ``token`` (RFC 7662 §2.1)."""
        return {"token": token, "token_type_hint": "access_token"}

    def read(self, status: int, body: bytes) -> Mapping[str, Any] | None:
        """Return the members of an answer (RFC 7662 §2.2); None if it cannot be read.

        Args:
            status: the HTTP status.
            body: the body of the response.
        """
        del status
        return strict_object(body)
