"""A server that lists the caller's GitHub issues, with a vault of its own, on fastmcp.

See README.md for how to run it, with an imitation of GitHub or with GitHub.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import httpx
from fastmcp import FastMCP

from toolguard import Connection, Refusals, ToolGuard, requires_scopes, with_connection
from toolguard.vault import Endpoints, OpenIDSignIn, Vault, github

GITHUB = github(
    os.environ["GITHUB_CLIENT_ID"], os.environ["GITHUB_CLIENT_SECRET"], scopes=["read:user"]
)
API = "https://api.github.com"

if imitation := os.environ.get("GITHUB_URL"):  # github.py, on this machine
    login, API = f"{imitation}/login/oauth", imitation
    endpoints = Endpoints(f"{login}/authorize", f"{login}/access_token", account=f"{API}/user")
    GITHUB = replace(GITHUB, endpoints=endpoints)

vault = Vault(
    os.environ.get("VAULT_DATABASE", "sqlite:///vault.db"),
    connections={"github": GITHUB},
    sign_in=OpenIDSignIn(os.environ["SIGN_IN_CLIENT_ID"], os.environ.get("SIGN_IN_SECRET", "")),
    allow={"github": requires_scopes("issues.read")},
)

mcp = FastMCP("issues")


@mcp.tool
@requires_scopes("issues.read")
@with_connection("github", scopes=["read:user"], as_="account")
async def list_issues(*, account: Connection) -> list[dict[str, Any]]:
    """List the open issues that are assigned to you at GitHub."""
    accept = {"accept": "application/vnd.github+json"}
    async with httpx.AsyncClient(base_url=API, auth=account.auth, headers=accept) as client:
        answer = await client.get("/issues")
    answer.raise_for_status()
    return [
        {"title": issue["title"], "repository": issue["repository"]["full_name"]}
        for issue in answer.json()
    ]


@mcp.tool
@requires_scopes("profile.read")
@with_connection("github", scopes=["read:user"], as_="account")
async def my_account(*, account: Connection) -> str:
    """Say which GitHub account you have connected."""
    async with httpx.AsyncClient(base_url=API, auth=account.auth) as client:
        answer = await client.get("/user")
    return str(answer.raise_for_status().json()["login"])


# Clients sign in for the first scope, and ask for the other one when a call lacks it.
ToolGuard.from_env(connections=vault, refusals=Refusals(initial_scopes=["issues.read"])).protect(
    mcp
)

if __name__ == "__main__":
    mcp.run(transport="http")  # http://127.0.0.1:8000/mcp
