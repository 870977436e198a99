"""A vault described by a TOML file, which the environment names in ``TOOLGUARD_VAULT``."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toolguard.connections.client_auth import ClientSecretBasic
from toolguard.connections.server import (
    ClientCredentialsGrant,
    GitHubInstallation,
    ServerSource,
    ServiceAccount,
)
from toolguard.parts.environment import taken
from toolguard.parts.toml_file import Table, read_toml
from toolguard.vault import presets
from toolguard.vault.providers import OAuthProvider
from toolguard.vault.sign_in import OpenIDSignIn
from toolguard.vault.vault import Vault

__all__ = ["SETTINGS", "vault_from_file", "vault_from_table"]

SETTINGS = ("database", "public_url", "sign_in", "connections")
"""The keys of a file that describe a vault."""


def vault_from_file(path: str | Path, environ: Mapping[str, str] = os.environ) -> Vault:
    """Return the vault that a file describes.

    The file holds no secrets: ``client_secret_env``, ``private_key_env`` and ``key_env`` name the
    variables that have them, and the keys of the vault are in ``TOOLGUARD_VAULT_KEYS``::

        database = "sqlite:///vault.db"

        [sign_in]
        client_id = "mcp-server"
        client_secret_env = "SIGN_IN_SECRET"

        [connections.github]
        provider = "github"
        client_id = "Iv1.0123456789abcdef"
        client_secret_env = "GITHUB_CLIENT_SECRET"
        scopes = ["read:user"]

        [connections.orders]
        provider = "client_credentials"  # or "service_account", "github_installation"
        token_endpoint = "https://auth.example.com/token"
        client_id = "mcp-server"
        client_secret_env = "ORDERS_SECRET"

    Args:
        path: the file.
        environ: the environment variables.

    Raises:
        ValueError: if the file cannot be read, or something in it is missing or unknown.
    """
    settings = read_toml(
        path,
        "the vault's file",
        "write the path of a TOML file into TOOLGUARD_VAULT, or after --file",
    )
    Table(str(path), settings).check_known(*SETTINGS)
    try:
        return vault_from_table(settings, environ)
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from None


def vault_from_table(settings: Mapping[str, Any], environ: Mapping[str, str]) -> Vault:
    """Return the vault that some keys of a TOML file describe, as a file of its own would.

    Args:
        settings: the values of :data:`SETTINGS`.
        environ: the environment variables.

    Raises:
        ValueError: if something in it is missing or unknown.
    """
    connections = settings.get("connections")
    if not connections or not isinstance(connections, Mapping):
        raise ValueError(
            'there are no connections: write [connections.github], and below it client_id = "..." '
            'and client_secret_env = "GITHUB_CLIENT_SECRET"'
        )
    for name, value in (*connections.items(), ("sign_in", settings.get("sign_in", {}))):
        if not isinstance(value, Mapping):
            table = name if name == "sign_in" else f"connections.{name}"
            raise ValueError(f"{table} is {value!r}: write [{table}], and its settings below it")  # noqa: TRY004 - of a file
    sign_in = None
    if "sign_in" in settings:
        sign_in = OpenIDSignIn(**_arguments("sign_in", settings["sign_in"], environ))
    return Vault(
        settings.get("database", "sqlite:///vault.db"),
        public_url=settings.get("public_url"),
        sign_in=sign_in,
        connections={name: _provider(name, each, environ) for name, each in connections.items()},
    )


def _client_credentials(
    token_endpoint: str,
    client_id: str,
    client_secret: str,
    scopes: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None,
) -> ClientCredentialsGrant:
    auth = ClientSecretBasic(client_id, client_secret)
    return ClientCredentialsGrant(token_endpoint, auth, scopes=scopes, parameters=parameters)


def _service_account(
    key: str, scopes: Sequence[str] = (), subject: str | None = None
) -> ServiceAccount:
    return ServiceAccount.from_json(key, scopes=scopes, subject=subject)


_MAKERS: Mapping[str, Callable[..., OAuthProvider | ServerSource]] = {
    **{preset: getattr(presets, preset) for preset in presets.__all__},
    "client_credentials": _client_credentials,
    "service_account": _service_account,
    "github_installation": GitHubInstallation,
}


def _provider(
    name: str, settings: Mapping[str, Any], environ: Mapping[str, str]
) -> OAuthProvider | ServerSource:
    preset = settings.get("provider", name)
    make = _MAKERS.get(preset)
    if make is None:
        raise ValueError(
            f"connections.{name}: there is no provider {preset!r}: write one of "
            f"{', '.join(_MAKERS)}"
        )
    rest = {key: value for key, value in settings.items() if key != "provider"}
    arguments = _arguments(f"connections.{name}", rest, environ)
    known = inspect.signature(make).parameters
    unknown = arguments.keys() - known.keys()
    absent = [
        each
        for each, parameter in known.items()
        if parameter.default is parameter.empty and each not in arguments
    ]
    if unknown or absent:
        raise ValueError(
            f"connections.{name}: {preset} takes {', '.join(known)}; "
            f"missing: {', '.join(absent) or '-'}; unknown: {', '.join(sorted(unknown)) or '-'}"
        )
    return make(**arguments)


def _arguments(
    where: str, settings: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    arguments = dict(settings)
    for secret in ("client_secret", "private_key", "key"):
        if secret in arguments:
            raise ValueError(
                f'{where}: a file must not hold a secret: write {secret}_env = "VARIABLE"'
            )
        variable = arguments.pop(f"{secret}_env", None)
        if variable is not None:
            arguments[secret] = taken(str(variable), environ)
            if arguments[secret] is None:
                raise ValueError(f"{where}: the environment has no {variable}")
    return arguments
