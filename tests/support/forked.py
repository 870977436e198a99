"""How do tests start processes of Python that need not import the frameworks again?

One process has imported them. It is asked for each further one, over a socket in the file system,
by a small program that the test starts as it would start Python: what is run, the environment and
the three standard streams are those of that program, and its end is that of the new process.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["Forked", "forking"]

# Starts in a moment, as it imports nothing else.
_ASK = """
import json, os, socket, sys
asked = socket.socket(socket.AF_UNIX)
asked.connect(sys.argv[1])
told = json.dumps([sys.argv[2:], dict(os.environ), os.getcwd()]).encode()
socket.send_fds(asked, [b"%16d" % len(told)], [0, 1, 2])
asked.sendall(told)
for each in (0, 1):
    os.close(each)
sys.exit(int(asked.recv(16) or b"1"))
"""


class Forked:
    """Python that has imported the frameworks.

    Args:
        path: where the process listens.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def command(self, *arguments: str) -> list[str]:
        """Return what runs ``-m MODULE ...`` or ``-c CODE ...``, as Python would."""
        return [sys.executable, "-IS", "-c", _ASK, self._path, *arguments]


@contextlib.contextmanager
def forking() -> Iterator[Forked]:
    """Start the process; it and all that it started end with the block."""
    with tempfile.TemporaryDirectory() as folder:  # a path of pytest can be too long for a socket
        path = str(Path(folder) / "s")
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, path],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdout, process.stdin:
            assert process.stdout.readline() == b"ready\n"
            yield Forked(path)
        process.wait(timeout=60)


def _serve(path: str) -> socket.socket | None:
    """Fork for each connection until standard input ends; in a fork, return the connection."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    os.write(1, b"ready\n")
    with selectors.DefaultSelector() as ready, listener:
        ready.register(listener, selectors.EVENT_READ)
        ready.register(0, selectors.EVENT_READ)
        while all(key.fileobj is listener for key, _ in ready.select()):
            asked, _ = listener.accept()
            if os.fork() == 0:
                return asked
            asked.close()
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass  # it has ended
    return None


def _become(asked: socket.socket) -> Sequence[str]:
    """Take over streams, environment and folder of who asked; return what is to be run."""
    size, streams, _, _ = socket.recv_fds(asked, 16, 3)
    with asked.makefile("rb") as told:
        arguments, environ, folder = json.loads(told.read(int(size)))
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    assert isinstance(arguments, list)
    return arguments


def _run(arguments: Sequence[str]) -> None:
    kind, what, *rest = arguments
    sys.argv = [what if kind == "-m" else "-c", *rest]
    if kind == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


def main(path: str) -> None:
    """Import what takes long, then fork."""
    for name in ("support.calendar_server", "toolguard.testing", "opentelemetry.sdk.trace.export"):
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)
    asked = _serve(path)
    if asked is None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        return
    try:
        _run(_become(asked))
        sys.stdout.flush()
    except SystemExit as ended:
        asked.sendall(str(int(ended.code or 0)).encode())
        raise
    except BaseException:
        asked.sendall(b"1")
        raise
    asked.sendall(b"0")


if __name__ == "__main__":
    main(*sys.argv[1:])
