"""A vault described by a TOML file, which the environment names in ``TOOLGUARD_VAULT``."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolguard.environment import taken
from toolguard.vault import presets
from toolguard.vault.providers import OAuthProvider
from toolguard.vault.sign_in import OpenIDSignIn
from toolguard.vault.vault import Vault

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["vault_from_file"]


def vault_from_file(path: str | Path, environ: Mapping[str, str] = os.environ) -> Vault:
    """Return the vault that a file describes.

    The file holds no secrets: ``client_secret_env`` names the variable that has one, and the keys
    are in ``TOOLGUARD_VAULT_KEYS``::

        database = "sqlite:///vault.db"

        [sign_in]
        client_id = "mcp-server"
        client_secret_env = "SIGN_IN_SECRET"

        [connections.github]
        provider = "github"
        client_id = "Iv1.0123456789abcdef"
        client_secret_env = "GITHUB_CLIENT_SECRET"
        scopes = ["read:user"]

    Args:
        path: the file.
        environ: the environment variables.

    Raises:
        ValueError: if the file cannot be read, or something in it is missing or unknown.
    """
    try:
        text = Path(path).read_text("utf-8")
        settings = tomllib.loads(text)
    except (OSError, ValueError) as fault:
        raise ValueError(f"TOOLGUARD_VAULT={str(path)!r} cannot be read: {fault}") from None
    unknown = settings.keys() - {"database", "public_url", "sign_in", "connections"}
    if unknown:
        raise ValueError(f"{path}: nothing is called {', '.join(sorted(unknown))}")
    sign_in = None
    if "sign_in" in settings:
        sign_in = OpenIDSignIn(**_arguments("sign_in", settings["sign_in"], environ))
    return Vault(
        settings.get("database", "sqlite:///vault.db"),
        public_url=settings.get("public_url"),
        sign_in=sign_in,
        connections={
            name: _provider(name, each, environ)
            for name, each in settings.get("connections", {}).items()
        },
    )


def _provider(name: str, settings: Mapping[str, Any], environ: Mapping[str, str]) -> OAuthProvider:
    preset = settings.get("provider", name)
    if preset not in presets.__all__:
        raise ValueError(
            f"connections.{name}: there is no provider {preset!r}: write one of "
            f"{', '.join(presets.__all__)}"
        )
    make = getattr(presets, preset)
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
    made: OAuthProvider = make(**arguments)
    return made


def _arguments(
    where: str, settings: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, Any]:
    arguments = dict(settings)
    if "client_secret" in arguments:
        raise ValueError(f'{where}: a file holds no secret: write client_secret_env = "VARIABLE"')
    variable = arguments.pop("client_secret_env", None)
    if variable is not None:
        secret = taken(str(variable), environ)
        if secret is None:
            raise ValueError(f"{where}: the environment has no {variable}")
        arguments["client_secret"] = secret
    return arguments
