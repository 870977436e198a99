"""Read rules from a table of a TOML file: the name of an operation, and what its callers need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toolguard.decorators.requires import (
    all_of,
    any_of,
    public,
    requires_auth,
    requires_client,
    requires_permissions,
    requires_recent_auth,
    requires_roles,
    requires_scopes,
    requires_tenant,
)
from toolguard.decorators.wrapper import GuardDecorator
from toolguard.parts.toml_file import Table
from toolguard.policies.by_name import PoliciesByName

__all__ = ["rules_of"]

_WRITE = (
    'write a scope, such as "notes.read", a list of scopes, or a table with '
    "scopes, any_of, roles, permissions, tenants, clients, max_age, acr_values, "
    "or with authenticated = true or public = true"
)
# Each takes a list of names.
_NAMED: Mapping[str, Callable[..., GuardDecorator]] = {
    "scopes": requires_scopes,
    "roles": requires_roles,
    "permissions": requires_permissions,
    "tenants": requires_tenant,
    "clients": requires_client,
}
_OPEN: Mapping[str, GuardDecorator] = {"authenticated": requires_auth, "public": public}
_SIGN_IN = ("max_age", "acr_values")
_KNOWN = (*_NAMED, "any_of", *_SIGN_IN, *_OPEN)


def rules_of(table: Table) -> dict[str, GuardDecorator]:
    """Return the guards by the patterns of operation names.

    Args:
        table: the table ``[rules]`` of a file::

            [rules]
            "get_*" = "time.read"                       # a scope
            "convert_time" = ["time.read", "time.convert"]  # both
            "delete_*" = { any_of = ["admin", { roles = ["owner"] }] }
            "resource:file://*" = { scopes = ["files.read"], tenants = ["acme"] }  # both
            "*" = { authenticated = true }

    Raises:
        ValueError: naming the file, the rule, what it is and what to write.
    """
    return {pattern: _rule(table, pattern, value) for pattern, value in table.values.items()}


def _rule(table: Table, pattern: str, value: object) -> GuardDecorator:
    try:
        guard = _guard(value)
        PoliciesByName({pattern: guard})
    except (ValueError, TypeError) as fault:
        raise table.fault(pattern, str(fault)) from None
    return guard


def _guard(value: object) -> GuardDecorator:
    """Return the guard that a value describes.

    Raises:
        ValueError: if it describes none.
    """
    if isinstance(value, str) and value:
        return requires_scopes(value)
    if isinstance(value, list) and value:
        return requires_scopes(*_names("scopes", value))
    if not isinstance(value, Mapping) or not value:
        raise ValueError(_WRITE)
    Table("the rule", value).check_known(*_KNOWN)
    for word, guard in _OPEN.items():
        if word in value:
            if value != {word: True}:
                raise ValueError(f"write {{ {word} = true }} by itself")
            return guard
    return all_of(*_required(value))


def _required(value: Mapping[str, Any]) -> list[GuardDecorator]:
    """Return the guards that the keys of a table stand for, all of which must be met."""
    asked = [_NAMED[key](*_names(key, value[key])) for key in _NAMED if key in value]
    if "any_of" in value:
        choices = value["any_of"]
        if not isinstance(choices, list) or len(choices) < 2:  # noqa: PLR2004 - a choice
            raise ValueError('write any_of = ["admin", { roles = ["owner"] }], with two or more')
        asked.append(any_of(*map(_guard, choices)))
    if not value.keys().isdisjoint(_SIGN_IN):
        max_age = value.get("max_age")
        if max_age is not None and (isinstance(max_age, bool) or not isinstance(max_age, int)):
            raise ValueError("write max_age = 300, in seconds")
        classes = _names("acr_values", value["acr_values"]) if "acr_values" in value else ()
        asked.append(requires_recent_auth(max_age=max_age, acr_values=classes))
    return asked


def _names(key: str, value: object) -> Sequence[str]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise ValueError(f'write {key} = ["..."]: a list of one or more names')
    return names
