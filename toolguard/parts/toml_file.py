"""Read settings from a TOML file; an error names the file, the key, the value and what to write."""

from __future__ import annotations

import difflib
import reprlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Table", "read_toml"]


def read_toml(path: str | Path, what: str, instead: str) -> dict[str, Any]:
    """Return the values of a TOML file.

    Args:
        path: the file.
        what: what the file is, for the error message: ``"the vault's file"``.
        instead: what to do if it cannot be read, for the error message.

    Raises:
        ValueError: if it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text("utf-8"))
    except OSError as fault:
        raise ValueError(
            f"{what} {str(path)!r} cannot be read ({fault.strerror}): {instead}"
        ) from None
    except ValueError as fault:
        raise ValueError(f"{what} {str(path)!r} is not TOML: {fault}") from None


class Table:
    """One table of a TOML file, whose values are checked as they are read.

    Args:
        file: the name of the file, for error messages.
        values: the values of the table.
        path: the keys that lead to the table.

    >>> Table("rules.toml", {"timeout": "soon"}, ("upstream",)).seconds("timeout", 60.0)
    Traceback (most recent call last):
    ...
    ValueError: rules.toml: upstream.timeout is 'soon': write seconds, such as 60
    """

    def __init__(self, file: str, values: Mapping[str, Any], path: tuple[str, ...] = ()) -> None:
        self.file = file
        self.values = values
        self._path = path

    def fault(self, key: str, write: str) -> ValueError:
        """Return the error for a key, with its value and what to write instead.

        Args:
            key: the key in this table.
            write: what to write, after a colon.
        """
        where = ".".join((*self._path, key))
        if key not in self.values:
            return ValueError(f"{self.file}: {where} is missing: {write}")
        text = reprlib.repr(self.values[key])
        shown = "a URL with a name in it" if "@" in text else text
        return ValueError(f"{self.file}: {where} is {shown}: {write}")

    def text(self, key: str, write: str) -> str | None:
        """Return a text that is not empty; None if the key is absent.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            raise self.fault(key, write)
        return value

    def texts(self, key: str, write: str) -> tuple[str, ...]:
        """Return a list of texts, or a single one, as a tuple; empty if the key is absent.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key, ())
        found = (value,) if isinstance(value, str) else value
        if not isinstance(found, (list, tuple)) or not all(
            isinstance(each, str) and each for each in found
        ):
            raise self.fault(key, write)
        return tuple(found)

    def flag(self, key: str) -> bool:
        """Return true or false; False if the key is absent.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise self.fault(key, "write true or false")
        return value

    def seconds(self, key: str, default: float) -> float:
        """Return a number of seconds above zero.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.fault(key, f"write seconds, such as {default:g}")
        return float(value)

    def count(self, key: str, default: int) -> int:
        """Return a whole number above zero.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.fault(key, f"write a number, such as {default}")
        return value

    def table(self, key: str, write: str) -> Table:
        """Return the table under a key; an empty one if the key is absent.

        Raises:
            ValueError: if it is something else.
        """
        value = self.values.get(key, {})
        if not isinstance(value, Mapping):
            raise self.fault(key, write)
        return Table(self.file, value, (*self._path, key))

    def check_known(self, *known: str) -> None:
        """Check that the table has no other keys.

        Raises:
            ValueError: naming one of the others, and the known one that resembles it.
        """
        for fault in self._unknown(known):
            raise ValueError(f"{self.file}: {fault}")

    def _unknown(self, known: tuple[str, ...]) -> Iterator[str]:
        for key in self.values:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                where = ".".join((*self._path, key))
                yield f"nothing is called {where}: write {near[0] if near else ', '.join(known)}"
