"""How the documents of an issuer are fetched: proxies, certificates, origins without TLS."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from toolguard.parsing.kinds import text_list
from toolguard.parsing.secure_urls import is_secure_url

if TYPE_CHECKING:
    import ssl

__all__ = ["DEFAULT_NETWORK", "Network"]

_log = logging.getLogger("toolguard.tokens")

_HTTP_ORIGIN = re.compile(
    r"http://[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?(?::[0-9]{1,5})?", re.ASCII | re.IGNORECASE
)
_PATH = re.compile(r"(?:/[a-z0-9!$&'()*+,./:;=%_~-]*)?", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True)
class Network:
    """How the documents of an issuer are fetched.

    By default as httpx does: ``HTTPS_PROXY``, ``ALL_PROXY``, ``NO_PROXY``, ``SSL_CERT_FILE`` and
    ``SSL_CERT_DIR`` of the environment apply; credentials of ``.netrc`` do not. This machine
    (``localhost`` and loopback addresses) is asked without a proxy of the environment.

    Attributes:
        ssl_context: the TLS settings, for a private certificate authority; None for the default.
        proxy: the URL of a proxy, instead of those of the environment.
        insecure_origins: the origins that may be asked by plain http, such as
            ``"http://keycloak:8080"`` in a network of containers: whoever controls that network
            can make up keys. They are logged when the issuer is described.

    Raises:
        ValueError: if an insecure origin is not an http origin.
    """

    ssl_context: ssl.SSLContext | None = None
    proxy: str | None = field(default=None, repr=False)
    insecure_origins: Collection[str] = ()

    def __post_init__(self) -> None:
        if isinstance(self.insecure_origins, str):
            raise TypeError(f"write insecure_origins=[{self.insecure_origins!r}]: a list")
        write = 'insecure_origins=["http://keycloak:8080"]'
        origins = text_list("insecure_origins", self.insecure_origins, write)
        object.__setattr__(self, "insecure_origins", origins)
        for origin in self.insecure_origins:
            if not _HTTP_ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r} is not an origin of plain http: write http://keycloak:8080"
                )
            _log.warning(
                "keys are fetched without TLS from %s: only in a network of your own", origin
            )

    def admits(self, url: str) -> bool:
        """Return whether a document may be fetched from ``url``."""
        if is_secure_url(url):
            return True
        return any(
            url.startswith(origin) and _PATH.fullmatch(url, pos=len(origin)) is not None
            for origin in self.insecure_origins
        )


DEFAULT_NETWORK = Network()
"""The settings of the environment."""
