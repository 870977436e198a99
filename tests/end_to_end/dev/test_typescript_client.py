"""The MCP client of another language, with tokens that are bound to its key (DPoP)."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import pytest

from support.node_packages import installed
from toolguard.dev.calendar import calendar_server
from toolguard.dev.oauth.config import builtin_world
from toolguard.dev.services import run_services
from toolguard.dev.store import Store
from toolguard.dev.story.browser import Browser
from toolguard.dev.story.oauth_client import Callback
from toolguard.dev.story.people import ScriptedPerson
from toolguard.testing import Loopback
from toolguard.tokens.proofs import DPoP

PACKAGE = "@modelcontextprotocol/client@2.4.0"
EVENT = {"title": "Review", "start": "2030-01-07T10:00:00Z", "end": "2030-01-07T11:00:00Z"}


class TypeScript:
    """The client, whose user is Alice."""

    def __init__(self, process: subprocess.Popen[str], callback: Callback) -> None:
        self._process = process
        self._callback = callback

    def signed_in(self) -> Any:
        """Return what the client has, once its user has signed in."""
        return self._answer()

    def call(self, name: str, **arguments: str) -> Any:
        """Return the result of a call."""
        self._write({"name": name, "arguments": arguments})
        return self._answer()

    def _answer(self) -> Any:
        """Return what the client says, after its user has seen pages through, if it asks for it."""
        answer = self._read()
        if "url" not in answer:
            return answer
        self._write(anyio.run(self._visit, answer["url"]))
        return self._read()

    async def _visit(self, url: str) -> dict[str, str]:
        browser = Browser()
        try:
            await ScriptedPerson("alice@tenant-a.example", browser).visit(url)
            return await self._callback.answer()
        finally:
            await browser.aclose()

    def _write(self, value: object) -> None:
        assert self._process.stdin is not None
        print(json.dumps(value), file=self._process.stdin, flush=True)

    def _read(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed(tmp_path_factory.mktemp("typescript"), "dpop_client.mjs", PACKAGE)


@pytest.fixture
def typescript(script: Path) -> Iterator[TypeScript]:
    with ExitStack() as running:
        listener, callback = (running.enter_context(each) for each in (Loopback(), Callback()))
        assert isinstance(callback, Callback)
        url = f"{listener.url}/mcp"
        store = running.enter_context(Store())
        on = running.enter_context(run_services(builtin_world().with_resources(url), store))
        dpop = DPoP("optional", nonces=True)
        listener.start(on.guarded(calendar_server(on.google_url), url, dpop=dpop))
        process = running.enter_context(
            subprocess.Popen(
                ["node", script.name, url, callback.redirect_uri],
                cwd=script.parent,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        running.callback(process.kill)
        yield TypeScript(process, callback)


def test_the_typescript_client_is_served_with_tokens_bound_to_its_key(
    typescript: TypeScript,
) -> None:
    assert typescript.signed_in()["token_type"] == "DPoP"

    created = typescript.call("create_calendar_event", **EVENT)

    assert json.loads(created["content"][0]["text"])["title"] == "Review"
