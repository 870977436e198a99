"""The protected resource metadata of a server (RFC 9728)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from toolguard.parsing.audience import canonical_audience
from toolguard.parsing.secure_urls import secure_origin
from toolguard.policies.formulas import Formula
from toolguard.policies.scopes import ScopeHierarchy

__all__ = [
    "canonical_resource",
    "first_scopes",
    "protected_resource_metadata",
    "scopes_supported",
]

_RESOURCE = re.compile(
    r"https?://(?:[a-z0-9._~-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?(?:/[a-z0-9._~!$&'()*+,;:%-]+)*/?",
    re.ASCII | re.IGNORECASE,
)


def canonical_resource(url: str) -> str:
    """Return ``url`` as a resource identifier.

    RFC 9728 §1.2: a URL without a fragment. MCP, canonical server URI: in the form of
    :func:`canonical_audience`, without the trailing slash. Tokens are sent there, so it must be
    https, or http on this machine (RFC 6750 §5.3).

    Raises:
        ValueError: if it is not an absolute https URL in ASCII (http only on this machine), or
            has a user name, a query (RFC 8707 §2 advises against one, and no challenge could
            name it) or a fragment.
    """
    if "@" in url:  # not repeated: it may hold a password
        raise ValueError("the URL of a resource carries no user name or password")
    if not _RESOURCE.fullmatch(url):
        raise ValueError(
            f"{url!r} is not the URL of a resource: write the address that clients connect to, "
            "such as https://mcp.example.com/mcp, without user name, query and fragment"
        )
    if not url.lower().startswith("https:") and secure_origin(url) is None:
        raise ValueError(
            f"{url!r} would have clients send their tokens in the clear: write the https address "
            "that clients connect to, such as https://mcp.example.com/mcp (http only on this "
            "machine, such as http://localhost:8000/mcp)"
        )
    return canonical_audience(url).rstrip("/")


def scopes_supported(rules: Iterable[Formula | None]) -> tuple[str, ...]:
    """Return every scope in any of the rules, in the order of the operations."""
    return tuple(dict.fromkeys(t for rule in rules if rule is not None for t in rule.scopes))


def first_scopes(rules: Iterable[Formula | None], hierarchy: ScopeHierarchy) -> tuple[str, ...]:
    """Return the scopes a client needs to begin: the smallest grant that permits some operation.

    The size counts included scopes, so that a read scope comes before the write scope that
    includes it; ties: the first declared.
    """
    grants = [group for rule in rules if rule is not None for group in rule.grants if group]
    return min(grants, key=lambda group: len(hierarchy.expand(group)), default=())


def protected_resource_metadata(
    resource: str,
    authorization_servers: Sequence[str],
    scopes: Sequence[str],
    *,
    proof_algorithms: Sequence[str] = (),
    bound_only: bool = False,
) -> dict[str, Any]:
    """Return the RFC 9728 §2 document; empty members are left out (§3.2).

    Args:
        resource: the URL of this server.
        authorization_servers: the issuers of its tokens.
        scopes: the scopes in its policies.
        proof_algorithms: the signature algorithms of DPoP proofs; empty without DPoP.
        bound_only: whether every token has to be bound to a key.
    """
    document: dict[str, Any] = {
        "resource": resource,
        "authorization_servers": list(authorization_servers),
        "scopes_supported": list(scopes),
        "bearer_methods_supported": ["header"],
        "dpop_signing_alg_values_supported": list(proof_algorithms),
        "dpop_bound_access_tokens_required": bound_only,
    }
    return {name: value for name, value in document.items() if value}
