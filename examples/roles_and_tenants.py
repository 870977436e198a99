"""A server whose tools ask for more than scopes: roles, tenants, machines, checks, a fresh sign-in.

Run it: ``python roles_and_tenants.py`` with TOOLGUARD_ISSUER and MCP_SERVER_URL set.
"""

from __future__ import annotations

from fastmcp import FastMCP

from toolguard import (
    Answer,
    OperationCall,
    Principal,
    ToolGuard,
    any_of,
    requires,
    requires_machine,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)

LIMIT = 1_000

mcp = FastMCP("invoices")


async def within_limit(principal: Principal, call: OperationCall) -> bool | Answer:
    """Ask for one scope more above the limit, and refuse what nobody may pay alone."""
    amount = call.arguments["amount"]
    if amount > 100 * LIMIT:
        return Answer.deny("above every limit")
    if amount > LIMIT and "invoices.large" not in principal.scopes:
        return Answer.needs_scopes("invoices.large")
    return True


@mcp.tool
@requires_tenant(tenant_from="tenant_id")  # the tenant of the token, whatever the client writes
@requires_scopes("invoices.read")
async def list_invoices(tenant_id: str) -> list[str]:
    """List the invoices of your tenant."""
    return [f"invoice 1 of {tenant_id}"]


@mcp.tool
@requires_roles("accountant")
@requires_scopes("invoices.pay")
@requires(within_limit)
async def pay(invoice: str, amount: int, *, user_id: str) -> str:
    """Pay an invoice."""
    return f"{user_id} paid {amount} for {invoice}"


@mcp.tool
@any_of(requires_roles("owner"), requires_scopes("invoices.admin"))
@requires_recent_auth(max_age=300)
async def delete_invoice(invoice: str) -> str:
    """Delete an invoice."""
    return f"{invoice} deleted"


@mcp.tool
@requires_machine
@requires_scopes("invoices.read")
async def nightly_report() -> str:
    """Report, for a job that no user started."""
    return "all invoices"


ToolGuard.from_env(
    default="deny",  # a tool without a guard is a mistake here
    scope_hierarchy={"invoices.admin": ["invoices.pay", "invoices.read"]},
).protect(mcp)

if __name__ == "__main__":
    mcp.run(transport="http")  # http://127.0.0.1:8000/mcp
