"""A server with fastmcp's own auth. See README.md for what its clients meet."""

from __future__ import annotations

import os

from fastmcp import FastMCP
from fastmcp.server.auth import RemoteAuthProvider, require_scopes
from fastmcp.server.auth.providers.jwt import JWTVerifier
from fastmcp.server.dependencies import get_access_token
from pydantic import AnyHttpUrl

ISSUER = os.environ["TOOLGUARD_ISSUER"]
URL = os.environ["MCP_SERVER_URL"]

auth = RemoteAuthProvider(
    token_verifier=JWTVerifier(
        jwks_uri=os.environ["JWKS_URL"],
        issuer=ISSUER,
        audience=URL,
    ),
    authorization_servers=[AnyHttpUrl(ISSUER)],
    base_url=URL.removesuffix("/mcp"),
)
mcp = FastMCP("notes", auth=auth)


@mcp.tool(auth=require_scopes("notes.read"))
async def list_notes() -> list[str]:
    """List your notes."""
    token = get_access_token()
    if token is None:
        raise PermissionError("no caller")
    return [f"a note of {token.claims['sub']}"]


@mcp.tool(auth=require_scopes("notes.write"))
async def add_note(text: str) -> str:
    """Add a note."""
    return text


if __name__ == "__main__":
    mcp.run(transport="http")
