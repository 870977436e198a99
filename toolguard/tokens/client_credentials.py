"""How a client proves itself in a request to an authorization server (RFC 6749 §2.3.1)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote_plus

__all__ = ["ClientCredentials", "basic_credentials"]


@dataclass(frozen=True)
class ClientCredentials:
    """The client credentials of one request, to be used for that request only.

    Attributes:
        parameters: the parameters to add to the form of the request.
        authorization: the ``Authorization`` header; None if the form has the credentials. Neither
            attribute is in the representation.
    """

    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    authorization: str | None = field(default=None, repr=False)


def basic_credentials(client_id: str, client_secret: str) -> ClientCredentials:
    """Return id and secret as an ``Authorization`` header; both are form-encoded first."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    encoded = base64.b64encode(pair.encode()).decode()
    return ClientCredentials(authorization=f"Basic {encoded}")
