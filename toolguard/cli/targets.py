"""Load the server that an argument names: of a module, or behind a gateway."""

from __future__ import annotations

from typing import Any

from toolguard.audit.loading import LoadError, load_server

__all__ = ["load_target"]


def load_target(target: str) -> Any:
    """Return the server that ``target`` names.

    Args:
        target: ``module:server``, or a file of rules for ``toolguard proxy``: ``rules.toml``.

    Raises:
        LoadError: if there is no such server, or something in the file is wrong.
    """
    if not target.endswith(".toml"):
        return load_server(target)
    from toolguard.gateway.loading import load_gateway  # noqa: PLC0415 - its only use

    try:
        return load_gateway(target).server
    except ValueError as fault:
        raise LoadError(str(fault)) from None
