"""Read secrets from the environment, and remove them there.

The variables in ``os.environ`` can be read by every library and are inherited by every child
process. Mappings other than ``os.environ`` are not changed.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Mapping

__all__ = [
    "CACHE_KEYS",
    "MANAGEMENT_KEY",
    "RECORDS",
    "SECRET",
    "VAULT_KEYS",
    "check_variables",
    "secret",
    "taken",
    "withhold",
]

_log = logging.getLogger("toolguard")

MANAGEMENT_KEY = "DESCOPE_MANAGEMENT_KEY"
CACHE_KEYS = "TOOLGUARD_CACHE_KEYS"
VAULT_KEYS = "TOOLGUARD_VAULT_KEYS"
SECRET = "TOOLGUARD_SECRET"  # noqa: S105 - the name of a variable

RECORDS = "TOOLGUARD_RECORDS"

_PREFIX = "TOOLGUARD_"
# Each holds one value; a secret is stripped where it is read, and the others are lists.
_SINGLE = frozenset({"MCP_SERVER_URL", "DESCOPE_MCP_WELL_KNOWN_URL", MANAGEMENT_KEY, RECORDS})
_SECRETS = frozenset(
    {
        *(MANAGEMENT_KEY, CACHE_KEYS, VAULT_KEYS, SECRET),
        *("TOOLGUARD_ACCESS_TOKEN", "TOOLGUARD_CALL_TOKEN"),
    }
)
_KNOWN = (_SINGLE | _SECRETS) | {
    "TOOLGUARD_ACCESS_TOKEN_FILE",
    "TOOLGUARD_AUDIENCE",
    "TOOLGUARD_CLIENT_ID",
    "TOOLGUARD_DOCTOR_TOKEN",
    "TOOLGUARD_INSECURE_ORIGINS",
    "TOOLGUARD_ISSUER",
    "TOOLGUARD_LEEWAY",
    "TOOLGUARD_PERMISSIONS_ARE_SCOPES",
    "TOOLGUARD_TOKEN_TYPES",
    "TOOLGUARD_VAULT",
}

_withheld: dict[str, str] = {}


def secret(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a secret, also a withheld one; None if it is empty or not set."""
    value = environ.get(name)
    if value is None and environ is os.environ:
        value = _withheld.get(name)
    return value or None


def withhold(*names: str) -> None:
    """Remove secrets from ``os.environ``; :func:`secret` still returns them."""
    for name in names:
        value = os.environ.pop(name, None)
        if value is not None:
            _withheld[name] = value


def taken(name: str, environ: Mapping[str, str] = os.environ) -> str | None:
    """Return a secret as :func:`secret` does, and withhold it."""
    if environ is os.environ:
        withhold(name)
    return secret(name, environ)


def check_variables(environ: Mapping[str, str]) -> None:
    """Check how the variables are written, and warn of names that are not known.

    Raises:
        ValueError: if quotes, or a line break, have become part of a value.
    """
    for name in sorted(_KNOWN & environ.keys()):
        fault = _fault_of(name, environ[name])
        if fault:
            hidden = name in _SECRETS or "@" in environ[name]
            found = f"{name} has" if hidden else f"{name} is {environ[name]!r}, with"
            raise ValueError(f"{found} {fault}: write the value alone")
    for name in sorted(environ.keys() - _KNOWN):
        if name.startswith(_PREFIX):
            near = difflib.get_close_matches(name, _KNOWN, n=1)
            meant = f"write {near[0]}" if near else f"write one of {', '.join(sorted(_KNOWN))}"
            _log.warning("the variable %s is not known and has no effect: %s", name, meant)


def _fault_of(name: str, value: str) -> str | None:
    bare = value.strip()
    if len(bare) > 1 and bare[0] == bare[-1] and bare[0] in "\"'":
        return "quotes around it"
    if name in _SINGLE and ("\n" in value or "\r" in value):
        return "a line break in it"
    return None
