"""A server for the people of two authorization servers: each is described by its preset.

The issuers come from TOOLGUARD_ISSUER, such as ``keycloak:https://sso.example.com/realms/staff
okta:https://partners.okta.com/oauth2/mcp``, and the server's URL from MCP_SERVER_URL. In code it
would be ``ToolGuard(issuers=[keycloak(...), okta(...)], audience=...)``.
"""

from __future__ import annotations

from fastmcp import FastMCP

from toolguard import Principal, ToolGuard, requires_scopes

mcp = FastMCP("wiki")


@mcp.tool
@requires_scopes("wiki.read")  # Keycloak writes it into `scope`, Okta into `scp`
async def read_page(title: str, *, caller: Principal) -> str:
    """Read a page."""
    return f"{title} for {caller.user_id} of {caller.issuer}"


ToolGuard.from_env().protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="http")  # http://127.0.0.1:8000/mcp
