"""The caller over stdio, where requests carry no token."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from toolguard.errors import InvalidTokenError, MissingTokenError, ToolGuardError
from toolguard.parsing.kinds import of_kind

__all__ = ["HOW_TO_SET", "StdioToken", "TrustedUser"]

_TOKEN = "TOOLGUARD_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
_FILE = "TOOLGUARD_ACCESS_TOKEN_FILE"
HOW_TO_SET = f"Set {_TOKEN} or {_FILE} in the environment of this stdio server"
"""The advice to a user if there is no token."""

# Far more than the length of a token that any server accepts.
_MAX_BYTES = 65_536
# Two writes of the same size within one tick of a file system's clock cannot be told apart.
_TICK = 2.0


@dataclass(frozen=True)
class TrustedUser:
    """The caller over stdio without a token: everybody who can start the server, with every scope.

    Attributes:
        user_id: the user id of the caller.

    Raises:
        ValueError: if it is empty.
    """

    user_id: str

    def __post_init__(self) -> None:
        of_kind("user_id", self.user_id, str, 'TrustedUser("ada")')
        if not self.user_id:
            raise ValueError('name the user: stdio=TrustedUser("ada")')


class StdioToken:
    """An access token from an environment variable, which is then removed, or from a file.

    A file is read again when it has changed, so that another process can renew the token.

    Args:
        token: the token itself.
        path: the file that holds the token, instead of ``token``.
        clock: returns the time of the file system, in seconds since the epoch.
    """

    __slots__ = ("_clock", "_path", "_seen", "_token")

    def __init__(
        self,
        token: str | None = None,
        path: str | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = (token or "").rstrip("\r\n")
        self._path = Path(path).absolute() if path else None
        self._clock = clock
        self._seen: tuple[int, ...] | None = None

    @classmethod
    def taken_from(cls, environ: MutableMapping[str, str]) -> StdioToken | None:
        """Return the token of the environment, and remove it there; None if there is none.

        Raises:
            ValueError: if the environment names both a token and a file.
        """
        token, path = environ.pop(_TOKEN, None), environ.get(_FILE)
        if token and path:
            del token  # a traceback shows local variables, and none may hold a token
            raise ValueError(f"set one of {_TOKEN} and {_FILE}, not both")
        return cls(token, path) if token or path else None

    def read(self) -> str:
        """Return the current token.

        Raises:
            MissingTokenError: if there is no token, with advice to the user.
            InvalidTokenError: if it is a whole header.
        """
        if self._path is None:
            return _alone(self._token, _TOKEN)
        problem = self._reread(self._path)
        if problem is not None:
            self._token, self._seen = "", None
            raise MissingTokenError(
                f"The file that {_FILE} names {problem}: write an access token to it"
            )
        return _alone(self._token, f"The file that {_FILE} names")

    def _reread(self, path: Path) -> str | None:
        """Read the file if it has changed; return the fault, if there is one."""
        try:
            found = path.stat()
            if self._seen is not None and self._seen == _signature(found):
                return None
            if not stat.S_ISREG(found.st_mode):  # opening a pipe waits for its other end
                return "is not a file"
            with path.open("rb") as file:
                found = os.fstat(file.fileno())
                content = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return "is not there"
        except OSError:
            return "cannot be read"
        if len(content) > _MAX_BYTES:
            return "is too large"
        self._token = content.decode("ascii", "replace").rstrip("\r\n")
        is_settled = self._clock() - found.st_mtime > _TICK
        self._seen = _signature(found) if is_settled else None
        return None if self._token else "is empty"

    def explain(self, failure: ToolGuardError) -> ToolGuardError:
        """Return why the token is invalid, with advice to the user of this server."""
        if not isinstance(failure, InvalidTokenError) or failure.reason != "expired":
            return failure
        remedy = (
            f"write a new one to the file that {_FILE} names"
            if self._path is not None
            else f"start this server with a new {_TOKEN}, or name a file in {_FILE}"
        )
        return InvalidTokenError("expired", f"The access token has expired: {remedy}")

    def __repr__(self) -> str:
        return f"<StdioToken: {_FILE if self._path is not None else _TOKEN}>"


def _alone(token: str, where: str) -> str:
    """Return a token, unless it has the scheme of a header in front."""
    if token[:7].lower() == "bearer ":
        del token  # a traceback shows local variables
        raise InvalidTokenError("malformed", f"{where} has Bearer in it: write the token alone")
    return token


def _signature(found: os.stat_result) -> tuple[int, ...]:
    """Return a value that changes when the file is written to or replaced."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
