"""Look at the configuration of a server that does not run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from toolguard.audit import audit
from toolguard.audit.doctor.diagnosis import Diagnosis
from toolguard.frameworks import adapter_for
from toolguard.guard import ToolGuard
from toolguard.parsing.secure_urls import is_this_machine
from toolguard.parts.environment import SECRET, secret

__all__ = ["guard_of", "look_at_configuration"]

_DECLARED = "each operation with a declared guard, each rule with an operation"


def guard_of(server: object) -> ToolGuard | None:
    """Return the guard that protects ``server``; None if it has none."""
    guard = adapter_for(server).guard
    return guard if isinstance(guard, ToolGuard) else None


def look_at_configuration(server: object, environ: Mapping[str, str]) -> Iterator[Diagnosis]:
    """Yield what is wrong with the configuration of a server.

    Args:
        server: the server.
        environ: the environment that it is given.
    """
    guard, name = guard_of(server), str(getattr(server, "name", "the server"))
    if guard is None:
        yield Diagnosis(
            "unprotected",
            name,
            "a guard",
            "none",
            "call guard.protect(server) where the server is made",
        )
        return
    for finding in audit(server).findings:
        found, _, remedy = finding.message.partition(": ")
        yield Diagnosis(finding.code, finding.name, _DECLARED, found, remedy or "see the finding")
    if is_this_machine(guard.resource):
        yield Diagnosis(
            "loopback-url",
            guard.resource,
            "the address that clients use",
            "one of this machine only",
            "set MCP_SERVER_URL to the public https URL before you deploy",
            level="note",
        )
    if not secret(SECRET, environ):
        yield Diagnosis(
            "secret-unset",
            SECRET,
            "a secret that all replicas share",
            "none, so that each process makes its own",
            "set it to what `openssl rand -hex 32` prints, if there is more than one worker",
            level="note",
        )
    if guard.default == "public":
        yield Diagnosis(
            "default-public",
            name,
            'default="authenticated" or "deny"',
            'default="public"',
            "write @public above those operations that are open on purpose",
        )
    yield from _unknown_host(server, urlsplit(guard.resource).netloc)


def _unknown_host(server: object, host: str) -> Iterator[Diagnosis]:
    """Yield the 421 that the SDK will answer to requests for the server's own address."""
    settings = getattr(getattr(server, "settings", None), "transport_security", None)
    if settings is None or not settings.enable_dns_rebinding_protection:
        return
    allowed = settings.allowed_hosts
    bare = host.partition(":")[0]
    if host not in allowed and f"{bare}:*" not in allowed:
        yield Diagnosis(
            "unknown-host",
            host,
            f"{host} among the allowed hosts of the SDK",
            " ".join(allowed) or "none",
            f"write TransportSecuritySettings(allowed_hosts=[{host!r}, ...]): else it answers 421",
        )
