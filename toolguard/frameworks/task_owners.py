"""The owners of background tasks, of mcp 1.x and of fastmcp.

On a stateless server the SDK lets every caller that has the id of a task read and cancel it;
fastmcp compares client and subject, but not the issuer. Here a task belongs to the principal that
started it (:attr:`Principal.owner_key`). For others it does not exist. The owners are known to this
process only.
"""

from __future__ import annotations

from collections.abc import Iterable

from cachetools import LRUCache

from toolguard.principal import OwnerKey, Principal

__all__ = ["TaskOwners"]

# The least recently used is dropped first, and then inaccessible to all. The bounds are for each
# caller, so that one caller's tasks do not end those of another.
_MAX_OWNERS = 4_096
_MAX_TASKS = 256

_UNKNOWN = object()


class TaskOwners:
    """The owners of the tasks of one server.

    Args:
        max_owners: the maximum number of callers.
        max_tasks: the maximum number of tasks of one caller.

    >>> owners = TaskOwners()
    >>> alice = Principal("alice", "https://auth.example.com")
    >>> owners.note("1", alice)
    >>> owners.owns(alice, "1"), owners.owns(Principal("bob", "https://auth.example.com"), "1")
    (True, False)
    """

    def __init__(self, max_owners: int = _MAX_OWNERS, max_tasks: int = _MAX_TASKS) -> None:
        self._max_tasks = max_tasks
        self._tasks: LRUCache[OwnerKey | None, LRUCache[str, object]] = LRUCache(max_owners)

    def note(self, task_id: str, principal: Principal | None, kept: object = None) -> None:
        """Record the owner of a task.

        Args:
            task_id: the task.
            principal: the caller; None for a caller without a token.
            kept: an object to keep a reference to for as long as the record exists.
        """
        if principal is not None and principal.user_id is None:
            return  # two users of one client cannot be told apart
        owner = _key(principal)
        if owner not in self._tasks:
            self._tasks[owner] = LRUCache(self._max_tasks)
        self._tasks[owner][task_id] = kept

    def owns(self, principal: Principal | None, task_id: str) -> bool:
        """Return whether a task belongs to the principal."""
        return task_id in self.of(principal, [task_id])

    def of(self, principal: Principal | None, task_ids: Iterable[str]) -> set[str]:
        """Return those of these tasks that belong to the principal."""
        owned = self._tasks.get(_key(principal))
        if owned is None:
            return set()
        # Looking one up makes it the most recently used.
        return {each for each in task_ids if owned.get(each, _UNKNOWN) is not _UNKNOWN}


def _key(principal: Principal | None) -> OwnerKey | None:
    return None if principal is None else principal.owner_key
