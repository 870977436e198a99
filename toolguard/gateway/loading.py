"""Make the gateway that a file describes, and ask its upstream what it offers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio

from toolguard.gateway.configuration import read_configuration
from toolguard.gateway.gateway import Gateway
from toolguard.gateway.session import UpstreamError
from toolguard.gateway.survey import survey

__all__ = ["load_gateway"]


def load_gateway(
    path: str | Path,
    environ: Mapping[str, str] = os.environ,
    *,
    command: Sequence[str] = (),
    url: str | None = None,
) -> Gateway:
    """Return the gateway that a file describes; the upstream is started, asked and ended.

    Args:
        path: the file.
        environ: the environment variables.
        command: the command of the upstream, instead of the file's.
        url: the URL of the upstream, instead of the file's.

    Raises:
        ValueError: naming the file, the key, its value and what to write; or if the upstream cannot
            be reached.
    """
    configuration = read_configuration(path, environ, command=command, url=url)
    try:
        return Gateway(configuration, anyio.run(survey, configuration))
    except UpstreamError as fault:
        raise ValueError(str(fault)) from None
    except ValueError as fault:
        raise ValueError(f"{path}: {fault}") from None
