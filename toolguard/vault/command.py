"""The command ``toolguard vault``: what an operator does to a vault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TextIO

from toolguard.errors import ConnectionTokenError
from toolguard.vault.from_file import vault_from_file
from toolguard.vault.schema import SchemaError
from toolguard.vault.vault import Vault

__all__ = ["VaultSettings", "run_vault"]


@dataclass(frozen=True)
class VaultSettings:
    """What to do to which vault.

    Attributes:
        action: what to do.
        file: the file that describes the vault.
        person: issuer and subject, for ``list`` and ``forget``.
        tenant: whether the subject is the id of a tenant.
    """

    action: Literal["upgrade", "rotate", "list", "forget"]
    file: str
    person: tuple[str, ...] = ()
    tenant: bool = False


def run_vault(settings: VaultSettings, out: TextIO, errors: TextIO) -> int:
    """Run the command; return its exit code.

    Args:
        settings: what to do.
        out: where the result goes.
        errors: where faults go.
    """
    if settings.action in ("list", "forget") and len(settings.person) != 2:  # noqa: PLR2004 - a pair
        action = settings.action
        errors.write(
            f"toolguard vault {action}: name the issuer and the subject: write toolguard vault "
            f"{action} https://auth.example.com USER\n"
        )
        return 2
    try:
        out.write(f"{asyncio.run(_run(settings))}\n")
    except ValueError as fault:
        errors.write(f"toolguard vault: {fault}\n")
        return 2
    except (ConnectionTokenError, SchemaError) as fault:
        errors.write(f"toolguard vault: {fault}\n")
        return 1
    return 0


async def _run(settings: VaultSettings) -> str:
    vault = vault_from_file(settings.file)
    try:
        return await _ACTIONS[settings.action](vault, settings)
    finally:
        await vault.aclose()


async def _upgrade(vault: Vault, settings: VaultSettings) -> str:  # noqa: ARG001 - one signature
    before, after = await vault.upgrade()
    return f"the tables have version {after}; they had {before or 'none'}"


async def _rotate(vault: Vault, settings: VaultSettings) -> str:  # noqa: ARG001 - one signature
    return f"rows sealed anew: {await vault.rotate()}; the other keys may be removed"


async def _list(vault: Vault, settings: VaultSettings) -> str:
    issuer, subject = settings.person
    connected = await vault.list(issuer, subject, tenant=settings.tenant)
    lines = [
        f"{each.connection}: {each.account or '-'} [{' '.join(each.scopes)}]"
        + ("" if each.works else " (has to be connected again)")
        for each in connected
    ]
    return "\n".join(lines or ["nothing is connected"])


async def _forget(vault: Vault, settings: VaultSettings) -> str:
    issuer, subject = settings.person
    count = await vault.forget(issuer, subject, tenant=settings.tenant)
    return f"deleted connections: {count}"


_ACTIONS: Mapping[str, Callable[[Vault, VaultSettings], Awaitable[str]]] = {
    "upgrade": _upgrade,
    "rotate": _rotate,
    "list": _list,
    "forget": _forget,
}
