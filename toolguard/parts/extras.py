"""Say which extra brings a package that is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["explained", "missing_extra"]

_EXTRAS = {
    "aiosqlite": "vault",
    "asyncpg": "vault",
    "hypothesis": "testing",
    "jinja2": "dev",
    "opentelemetry": "otel",
    "pytest": "testing",
    "redis": "redis",
    "sqlalchemy": "vault",
}


def missing_extra(error: ImportError, extra: str | None = None) -> str | None:
    """Return what to install for a failed import; None if no extra brings that package.

    Args:
        error: the failed import.
        extra: the extra that brings all of what was wanted, if that is known.
    """
    package = (error.name or "").partition(".")[0]
    if package == "descope":
        return "descope is not installed: write pip install descope"
    if package not in _EXTRAS:
        return None
    extra = extra or _EXTRAS[package]
    return f"{package} is not installed: write pip install 'toolguard-mcp[{extra}]'"


@contextmanager
def explained() -> Iterator[None]:
    """Name the extra where an import in the block fails for want of one."""
    try:
        yield
    except ModuleNotFoundError as error:
        sentence = missing_extra(error)
        if sentence is None:
            raise
        raise ModuleNotFoundError(sentence, name=error.name) from None
