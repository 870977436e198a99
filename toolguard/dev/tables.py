"""Read tables of TOML strictly, refusing unknown keys.

An unknown key is refused: a misspelt ``permisions`` would otherwise result in a user without
permissions, or a rule without conditions.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Table", "WorldError", "parse_toml"]


class WorldError(ValueError):
    """A world file that cannot be used; the text says where and what to write instead."""


def parse_toml(text: str) -> Table:
    """Return the top table of a TOML document.

    Raises:
        WorldError: if it is not TOML, naming line and column.
    """
    try:
        return Table(tomllib.loads(text), "")
    except tomllib.TOMLDecodeError as error:
        raise WorldError(f"not TOML: {error}") from None


class Table:
    """One table, whose keys are taken out one by one.

    Args:
        values: the parsed table.
        name: where it is, for messages: ``"user 2"``; empty for the top of the file.
    """

    def __init__(self, values: Mapping[str, Any], name: str) -> None:
        self._values = dict(values)
        self._name = name

    def text(self, key: str, default: str | None = None) -> str:
        """Take a text that is not empty; ``default`` if it is absent, unless that is None."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f'{key} is a text: write {key} = "..."')
        return value

    def optional_text(self, key: str) -> str | None:
        """Take a text that is not empty; None if it is absent."""
        return self.text(key) if key in self._values else None

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Take a list of texts; ``default`` if it is absent, unless that is None."""
        value = self._take(key, default)
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(item, str) and item for item in value
        ):
            raise self.error(f'{key} is a list of texts: write {key} = ["...", "..."]')
        return tuple(value)

    def seconds(self, key: str, default: int) -> int:
        """Take a whole number of seconds, at least 1."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(f"{key} is a number of seconds: write {key} = {default}")
        return value

    def table(self, key: str) -> Table:
        """Take a table within this one; an empty one if it is absent."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise self.error(f"{key} is a table: write [{key}]")
        return Table(value, f"{self._name}, {key}" if self._name else key)

    def tables(self, key: str, singular: str) -> list[Table]:
        """Take an array of tables, at least one; ``singular`` names one of them in messages."""
        value = self._take(key, ())
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.error(f"there is no {singular}: write [[{key}]]")
        return [Table(item, f"{singular} {number}") for number, item in enumerate(value, 1)]

    def remaining_keys(self) -> tuple[str, ...]:
        """Return the keys that were not read, for tables whose keys are names."""
        return tuple(self._values)

    def finish(self) -> None:
        """Refuse keys that were not read.

        Raises:
            WorldError: naming the first such key.
        """
        for key in self._values:
            raise self.error(f"{key} means nothing here")

    def error(self, message: str) -> WorldError:
        """Return an error that says where it is."""
        return WorldError(f"{self._name}: {message}" if self._name else message)

    def _take(self, key: str, default: object) -> object:
        value = self._values.pop(key, default)
        if value is None:
            raise self.error(f"{key} is missing")
        return value
