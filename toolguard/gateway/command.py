"""The command ``toolguard proxy``."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TextIO

import uvicorn
from starlette.applications import Starlette

from toolguard.gateway.loading import load_gateway

__all__ = ["ProxySettings", "run_proxy", "serve"]

_UNUSABLE = 2
_PORT = 8000


@dataclass(frozen=True)
class ProxySettings:
    """The arguments of ``toolguard proxy``.

    Attributes:
        rules: the file of rules.
        command: the command of the upstream; empty if the file or ``url`` says which it is.
        url: the URL of the upstream.
        host: the address to serve at.
        port: the port to serve at; None for that of the file's audience on this machine, or 8000.
    """

    rules: str
    command: tuple[str, ...] = ()
    url: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None


def serve(app: Starlette, listener: socket.socket) -> None:
    """Serve an application until the process is told to stop."""
    config = uvicorn.Config(app, log_level="info", ws="none", timeout_graceful_shutdown=10)
    uvicorn.Server(config).run([listener])


def run_proxy(
    settings: ProxySettings,
    err: TextIO,
    findings: Callable[[Any], Iterable[str]],
    serve: Callable[[Starlette, socket.socket], None] = serve,
) -> int:
    """Serve an upstream by rules, until the process is told to stop.

    Args:
        settings: the arguments of the command.
        err: the stream for what is wrong, and where the endpoint is.
        findings: returns what is wrong with the rules of a protected server.
        serve: serves the application.

    Returns:
        The exit code: 0; 2 if it could not start.
    """
    try:
        gateway = load_gateway(settings.rules, command=settings.command, url=settings.url)
        port = settings.port if settings.port is not None else gateway.local_port or _PORT
        listener = socket.create_server((settings.host, port))
    except OSError as error:
        at = f"{settings.host}:{port}"
        print(f"toolguard proxy: {at}: {error.strerror}; write another --port", file=err)
        return _UNUSABLE
    except ValueError as error:
        print(f"toolguard proxy: {error}", file=err)
        return _UNUSABLE
    for finding in findings(gateway.server):
        print(f"toolguard proxy: warning: {finding}", file=err)
    with listener:
        bound = listener.getsockname()[1]
        print(f"toolguard proxy: {gateway.described(settings.host, bound)}", file=err, flush=True)
        serve(gateway.app(), listener)
    return 0
