"""A guarded server over stdio, on fastmcp: the caller is the subject of one token.

The client that starts the process puts the token into TOOLGUARD_ACCESS_TOKEN, or names a file with
TOOLGUARD_ACCESS_TOKEN_FILE that it keeps fresh. It is verified for each message, expiry included.
"""

from __future__ import annotations

from fastmcp import FastMCP

from toolguard import ToolGuard, requires_scopes

mcp = FastMCP("files")


@mcp.tool
@requires_scopes("files.read")
async def read_file(name: str, *, user_id: str) -> str:
    """Read one of your files."""
    return f"{name} of {user_id}"


@mcp.tool
@requires_scopes("files.delete")
async def delete_file(name: str) -> str:
    """Delete one of your files."""
    return f"{name} deleted"


# For a server that only its own user starts: ToolGuard.from_env(stdio=TrustedUser("ada")).
ToolGuard.from_env().protect(mcp)

if __name__ == "__main__":
    mcp.run(show_banner=False)
