"""Read secrets from the environment, and remove them there.

The variables in ``os.environ`` can be read by every library and are inherited by every child
process. Mappings other than ``os.environ`` are not changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

__all__ = ["CACHE_KEYS", "MANAGEMENT_KEY", "SECRET", "VAULT_KEYS", "secret", "taken", "withhold"]

MANAGEMENT_KEY = "DESCOPE_MANAGEMENT_KEY"
CACHE_KEYS = "TOOLGUARD_CACHE_KEYS"
VAULT_KEYS = "TOOLGUARD_VAULT_KEYS"
SECRET = "TOOLGUARD_SECRET"  # noqa: S105 - the name of a variable

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
