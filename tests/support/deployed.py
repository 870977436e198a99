"""A server as ``examples/deploy`` has it, on this machine: workers behind nginx, over TLS.

What is run are that folder's own nginx.conf and the command of its Dockerfile; only addresses and
the paths of certificates are replaced.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import pytest
from typing_extensions import Self

from support.certificates import Certificates

__all__ = ["DEPLOY", "Nginx", "Worker", "free_port"]

DEPLOY = Path(__file__).parents[2] / "examples" / "deploy"

_BINARY = "nginx"
_PATIENCE = 120.0
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Worker:
    """A uvicorn process that can be killed and started again, on the same port.

    Args:
        app: the application, as uvicorn is given it.
        log: the file for what it writes.

    Attributes:
        environ: its environment, beside that of this process.
    """

    def __init__(self, app: str, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self.environ: dict[str, str] = {}
        replaced = {"server:app": app, "0.0.0.0": "127.0.0.1", "8000": str(self.port)}
        command = [replaced.get(word, word) for word in _command_of_image()]
        self._command = [sys.executable, "-m", *command]
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its own origin, which only the orchestrator knows."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it; return when it answers."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Start it without waiting."""
        path = os.pathsep.join((str(DEPLOY), *sys.path))
        environ = {**os.environ, **self.environ, "PYTHONPATH": path}
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(self._command, env=environ, stdout=out, stderr=out)

    def wait(self) -> None:
        """Wait until it answers."""
        process = self._process
        assert process is not None
        deadline = time.monotonic() + _PATIENCE
        while not _accepts(self.port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(self.log.read_text("utf-8")[-4_000:])
            time.sleep(0.05)

    def wait_for_line(self, *words: str) -> str:
        """Return the first line of the log that has these words, once there is one."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for line in self.log.read_text("utf-8").splitlines():
                if all(word in line for word in words):
                    return line
            time.sleep(0.05)
        raise RuntimeError(f"no line with {words}: {self.log.read_text('utf-8')[-4_000:]}")

    def kill(self) -> None:
        """End it at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an orchestrator does."""
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_PATIENCE)
            self._process = None


class Nginx:
    """The nginx of ``examples/deploy`` in front of workers.

    Args:
        directory: where its files are.
        workers: the workers.
        certificates: those of the server.
    """

    def __init__(
        self, directory: Path, workers: Sequence[Worker], certificates: Certificates
    ) -> None:
        if shutil.which(_BINARY) is None:
            pytest.skip(f"there is no {_BINARY} on this machine: apt-get install nginx-light")
        self._port = free_port()
        self._directory = directory
        self._log = directory / "nginx.log"
        self._configuration = directory / "nginx.conf"
        text = _on_this_machine(self._port, workers, certificates)
        own = "".join(
            f"{each}_temp_path {directory / each};\n" for each in _TEMPORARY
        )  # the folders of the package belong to another user
        own += f"access_log {directory / 'access.log'};\n"
        self._configuration.write_text(text.replace("http {\n", f"http {{\n{own}", 1), "utf-8")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """The public origin."""
        return f"https://localhost:{self._port}"

    def start(self) -> None:
        """Start it; return when it accepts connections."""
        main = f"daemon off; pid {self._directory / 'nginx.pid'};"
        if os.geteuid() == 0:
            main += " user root;"  # who may enter the folders of a test
        self._process = subprocess.Popen(
            [_BINARY, "-p", self._directory, "-c", self._configuration, "-g", main, "-e", self._log]
        )
        deadline = time.monotonic() + _PATIENCE
        while not _accepts(self._port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{_BINARY}: {self._log.read_text('utf-8')}")
            time.sleep(0.01)

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
            self._process = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _command_of_image() -> list[str]:
    text = (DEPLOY / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
    (line,) = (each for each in text.splitlines() if each.startswith("CMD "))
    exporting, *command = json.loads(line.removeprefix("CMD "))
    # It exports to the collector, which is not here; without it the API measures nothing.
    assert exporting == "opentelemetry-instrument", exporting
    return list(map(str, command))


def _on_this_machine(port: int, workers: Sequence[Worker], certificates: Certificates) -> str:
    text = (DEPLOY / "nginx.conf").read_text("utf-8")
    replacements = {
        "  resolver 127.0.0.11 valid=5s;\n": "",
        "server server:8000 resolve max_fails=0;": " ".join(
            f"server 127.0.0.1:{worker.port} max_fails=0;" for worker in workers
        ),
        "listen 443 ": f"listen 127.0.0.1:{port} ",
        "mcp.example.com": "localhost",
        "/etc/nginx/tls/fullchain.pem": str(certificates.chain),
        "/etc/nginx/tls/privkey.pem": str(certificates.key),
    }
    for old, new in replacements.items():
        assert old in text, f"nginx.conf of examples/deploy no longer has {old!r}"
        text = text.replace(old, new)
    return text
