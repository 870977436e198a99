"""Decisions made elsewhere: policy decision points that speak OpenID AuthZEN. Public.

An engine is a check that also answers for whole lists. It goes where a check goes::

    from toolguard.engines import authzen

    engine = authzen("https://pdp.example.com")

    @mcp.tool()
    @requires(engine)  # one operation
    async def pay(amount: int) -> str: ...

    guard.protect(mcp, rules={"*": engine})  # all of them

An engine in this process needs no more than :func:`toolguard.requires` and an
:class:`toolguard.Answer`.
"""

from toolguard.engines.authzen import AuthZEN, authzen
from toolguard.engines.mapping import MappingError, default_mapping
from toolguard.tokens.introspection_client import BasicClient, BearerClient

__all__ = [
    "AuthZEN",
    "BasicClient",
    "BearerClient",
    "MappingError",
    "authzen",
    "default_mapping",
]
