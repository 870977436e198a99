"""Parse the well-known URLs of Descope."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolguard.parsing.secure_urls import secure_origin

__all__ = ["FETCH_SCOPE", "DescopeProject"]

FETCH_SCOPE = "outbound.token.fetch"
"""The scope that lets a caller's access token fetch connections from the vault."""

# "test" is the id that the SDK's users write in their tests.
_PROJECT_ID = re.compile(r"P[A-Za-z0-9_-]+|test")
_SERVER_ID = re.compile(r"[A-Za-z0-9_-]+")
_WELL_KNOWN_PATH = re.compile(
    r"/(?:v1/apps/(?P<agentic>agentic/)?)?"
    rf"(?P<project>{_PROJECT_ID.pattern})(?(agentic)/(?P<server>{_SERVER_ID.pattern}))"
    r"/\.well-known/(?:openid-configuration|oauth-authorization-server)"
)
# What examples write for an id: "your-project-id", "YOUR_PROJECT_ID", "P...".
_PLACEHOLDER = re.compile(
    r"(?<=/)(?:your[-_][a-z_-]+|project[-_]id|(?:P|MS)\.\.\.|\.\.\.)(?=/)", re.ASCII | re.IGNORECASE
)
_EXAMPLE = "https://api.descope.com/v1/apps/agentic/P.../MS.../.well-known/openid-configuration"


@dataclass(frozen=True)
class DescopeProject:
    """A Descope project, as named by a well-known URL.

    Attributes:
        base_url: the base URL of the API, such as ``"https://api.descope.com"`` or a custom domain.
        project_id: the project, such as ``"P2abc"``.
        mcp_server_id: the MCP server, if the URL is that of an MCP server.
        well_known_url: the URL itself.

    Raises:
        ValueError: if ``base_url`` is not a secure origin, or an identifier is not one.
    """

    base_url: str
    project_id: str
    mcp_server_id: str | None
    well_known_url: str

    def __post_init__(self) -> None:
        if self.base_url != secure_origin(self.base_url):
            raise ValueError('write base_url="https://api.descope.com": an origin without a path')
        if not _PROJECT_ID.fullmatch(self.project_id):
            raise ValueError('write project_id="P...": letters and digits that begin with P')
        if self.mcp_server_id is not None and not _SERVER_ID.fullmatch(self.mcp_server_id):
            raise ValueError('write mcp_server_id="MS...": letters and digits, or None')

    @classmethod
    def from_well_known_url(cls, url: str) -> DescopeProject:
        """Parse the URL of a project, of its inbound apps, or of an MCP server.

        Raises:
            ValueError: if ``url`` has none of the three forms, or is http to another machine.
            TypeError: if it is not a string.

        >>> project = DescopeProject.from_well_known_url(
        ...     "https://api.descope.com/v1/apps/agentic/P2abc/MS3d/.well-known/openid-configuration"
        ... )
        >>> project.base_url, project.project_id, project.mcp_server_id
        ('https://api.descope.com', 'P2abc', 'MS3d')
        """
        if not isinstance(url, str):
            raise TypeError(f"a well-known URL is a string: write {_EXAMPLE!r}")
        origin = secure_origin(url)
        if origin is None:
            raise ValueError(
                "a well-known URL is https without user name and password (http only on this "
                f"machine): write one such as {_EXAMPLE!r}"
            )
        placeholder = _PLACEHOLDER.search(url, len(origin))
        if placeholder is not None:
            raise ValueError(
                f"{placeholder[0]!r} stands for a value of your own: copy the whole URL from "
                f"Descope's console, such as {_EXAMPLE!r}"
            )
        match = _WELL_KNOWN_PATH.fullmatch(url, pos=len(origin))
        if match is None:
            raise ValueError(
                "not a well-known URL of Descope: copy it from the console, such as "
                f"{_EXAMPLE!r}, '.../v1/apps/P.../.well-known/openid-configuration' or "
                "'.../P.../.well-known/openid-configuration'; the id of a project begins with P"
            )
        return cls(origin, match["project"], match["server"], url)
