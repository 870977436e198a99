"""Load the server that ``module:attribute`` names.

The module runs as in an import: ``__name__`` is not ``"__main__"``.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from toolguard.decorators.wrapper import policy_of
from toolguard.frameworks import adapter_for
from toolguard.frameworks.lowlevel import Capture

__all__ = ["LoadError", "load_server"]

T = TypeVar("T")

_FRAMEWORKS = {"mcp", "fastmcp"}
_OWN_FILES = str(Path(__file__).parent.parent)


class LoadError(Exception):
    """The server cannot be loaded; the text says why, and what to write."""


def load_server(target: str) -> Any:
    """Return the server that ``target`` names.

    Output of the module is redirected to standard error.

    Args:
        target: ``package.module:attribute``, or ``path/to/file.py:attribute``. The attribute may
            have dots, and may be a function without arguments that returns the server, or
            that runs a low-level one. Without an attribute, it is the only server of the module.

    Raises:
        LoadError: if there is no such server, or more than one.
    """
    source, _, attribute = (target, "", "") if target.endswith(".py") else target.partition(":")
    names = (*source.split("."), *(attribute.split(".") if attribute else ()))
    if not source.endswith(".py") and not all(each.isidentifier() for each in names):
        raise LoadError(
            f"{target!r} names no server: write module:server, path/file.py:server, or "
            "https://... for the doctor of a running one"
        )
    with _import_path(_directory(source)):
        module = _run(f"cannot load {source}", lambda: _module(source))
        found = _attribute(module, source, attribute) if attribute else _only(module, source)
        if not _is_server(found) and callable(found):
            if (fault := _never_a_server(found)) is not None:
                raise LoadError(f"{target} is {fault}; {_known(module, source)}")
            found = _run(f"cannot call {target}", lambda: _made_by(found))
    if not _is_server(found):
        kind = type(found).__qualname__
        raise LoadError(
            f"{target} is not a server of the official SDK or fastmcp but a {kind}; "
            f"{_known(module, source)}"
        )
    return found


def _run(what: str, code: Callable[[], T]) -> T:
    """Run code of the user's; turn every exception, and an exit, into one sentence."""
    try:
        with redirect_stdout(sys.stderr):
            return code()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever the module does
        raise LoadError(f"{what}: {_reason(error)}") from None


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split())
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_OWN_FILES, "<"))
        and "site-packages" not in frame.filename
    ]
    last = frames[-1] if frames else None
    return said if last is None else f"{said} ({last.filename}, line {last.lineno})"


def _module(source: str) -> ModuleType:
    path = Path(source)
    if path.suffix != ".py":
        try:
            return importlib.import_module(source)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{source}.".startswith(f"{error.name}."):
                raise  # an import in the module
            raise ModuleNotFoundError(
                f"there is no module {error.name!r} here: start in the folder of the server, or "
                "write path/file.py:server"
            ) from None
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    packages = [each.name for each in itertools.takewhile(_is_package, path.resolve().parents)]
    name = ".".join([*reversed(packages), path.stem])
    if "." in name:  # so that its relative imports work
        return importlib.import_module(name)
    # A module of that name may be imported already, such as one of the standard library.
    name = f"_audited_{name}" if name in sys.modules else name
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{source} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    with ExitStack() as broken_off:
        sys.modules[name] = module
        broken_off.callback(sys.modules.pop, name, None)
        spec.loader.exec_module(module)
        broken_off.pop_all()
    return module


def _is_package(directory: Path) -> bool:
    return (directory / "__init__.py").is_file()


def _directory(source: str) -> str:
    """Return the directory to search for the module and its imports."""
    path = Path(source)
    if path.suffix != ".py":
        return str(Path.cwd())
    return str(next(each for each in path.resolve().parents if not _is_package(each)))


@contextmanager
def _import_path(directory: str) -> Iterator[None]:
    before = list(sys.path)
    sys.path.insert(0, directory)
    try:
        yield
    finally:
        sys.path[:] = before


def _attribute(module: ModuleType, source: str, attribute: str) -> Any:
    found: Any = module
    for name in attribute.split("."):
        if not hasattr(found, name):
            raise LoadError(f"{source} has no {attribute!r}; {_known(module, source)}")
        found = getattr(found, name)
    return found


def _only(module: ModuleType, source: str) -> Any:
    servers = _servers(module)
    if len(servers) != 1:
        raise LoadError(f"{source} does not say which server: {_known(module, source)}")
    return next(iter(servers.values()))


def _known(module: ModuleType, source: str) -> str:
    names = [f"{source}:{name}" for name in _servers(module)]
    if not names:
        return f"no server found there; write {source}:make if make() returns one"
    return f"write {' or '.join(names)}"


def _servers(module: ModuleType) -> dict[str, Any]:
    """Return the servers of a module by name, each under one of its names."""
    named = {id(value): (name, value) for name, value in vars(module).items() if _is_server(value)}
    return dict(named.values())


def _is_server(value: object) -> bool:
    # Only its type is read: some objects are accessible only while a request is served.
    packages = {each.__module__.partition(".")[0] for each in type(value).__mro__}
    if packages.isdisjoint(_FRAMEWORKS):
        return False
    try:
        adapter_for(value)
    except TypeError:
        return False
    return True


def _never_a_server(found: Callable[..., Any]) -> str | None:
    """Return why this is not called for a server; None if it may return one."""
    if policy_of(found) is not None:
        return "a guarded function and no server"
    try:
        inspect.signature(found).bind()
    except TypeError as error:
        return f"called without arguments for a server, and takes some ({error})"
    except ValueError:  # no signature
        return None
    return None


def _made_by(factory: Callable[[], Any]) -> Any:
    """Return the server that a function returns, or that it would run."""
    with Capture() as capture:
        made = factory()
        if not inspect.isawaitable(made):
            return made

        async def awaited() -> Any:
            return await made

        return asyncio.run(awaited())
    return capture.server
