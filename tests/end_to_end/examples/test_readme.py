"""Does the code of the README and of the guides run as it stands?"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import typing
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from toolguard.descope.default import default
from toolguard.settings import GuardSettings
from toolguard.telemetry import DecisionRecord
from toolguard.testing import GuardedClient

pytest.importorskip("mcp.server.mcpserver", reason="the documents show the official SDK 2.x")

ROOT = Path(__file__).parents[3]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / ".docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?://)([^)#]*)(?:#([^)]*))?\)")
ENVIRONMENT = {
    "MCP_SERVER_URL": "http://127.0.0.1:8000/mcp",
    "TOOLGUARD_ISSUER": "https://auth.example.com",
    "TOOLGUARD_VAULT_KEYS": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
    **dict.fromkeys(
        ("GITHUB_CLIENT_SECRET", "GOOGLE_CLIENT_SECRET", "SIGN_IN_SECRET", "TRACKER_SECRET"),
        "s3cret",
    ),
}
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def slug(heading: str) -> str:
    """Return the name that GitHub and the site give to a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def blocks(page: Path, language: str = "python") -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [str(each) for each in found]


def run(page: Path, environment: Mapping[str, str] = ENVIRONMENT) -> dict[str, Any]:
    """Run the blocks of a page one after the other; return the names they define."""
    names: dict[str, Any] = {"__name__": page.stem}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DESCOPE_MCP_WELL_KNOWN_URL", raising=False)
        for variable, text in environment.items():
            patch.setenv(variable, text)
        for name, value in [*vars(default).items()]:  # restored afterwards
            patch.setattr(default, name, value)
        for number, block in enumerate(blocks(page)):
            exec(compile(block, f"{page.name}, block {number}", "exec"), names)
    return names


@pages
def test_every_code_block_runs_as_it_stands(page: Path) -> None:
    run(page)


@pages
def test_every_test_that_a_page_shows_passes(page: Path) -> None:
    for name, value in run(page).items():
        if name.startswith("test_"):
            value()


# Why a command is shown and not run here. Another reason needs another entry.
NOT_RUN = {
    "installs packages": "CI installs the package in the README's way",
    "serves until it is stopped": "tests of the commands start and stop them",
    "needs the servers of the page": "test_dev_guide.py and test_tutorial.py run it with them",
    "opens a browser": "toolguard call takes the same steps in test_tutorial.py",
    "is about a module of yours": "the same command runs on the page of the tutorial",
}
SHELL = re.compile(r"(?:^<!-- ([^\n]*) -->\n)?^```sh\n(.*?)^```$", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```$", re.DOTALL | re.MULTILINE)
IN_CI = {"demo command", "test command"}  # of the README, which .ci/run runs


@pages
def test_every_command_runs_or_says_why_not(page: Path, tmp_path: Path) -> None:
    for name, text in FILE.findall(page.read_text()):
        (tmp_path / name).write_text(text)
    for mark, commands in SHELL.findall(page.read_text()):
        if mark.startswith("not run: "):
            assert mark.removeprefix("not run: ") in NOT_RUN, commands
        elif mark not in IN_CI:
            assert mark == "run", f"mark this block of {page.name}: {commands}"
            shell(commands, tmp_path)


def shell(commands: str, folder: Path) -> None:
    """Run the commands of a block, with `toolguard` of this Python."""
    (folder / "toolguard").write_text(f'#!/bin/sh\nexec {sys.executable} -m toolguard "$@"\n')
    (folder / "toolguard").chmod(0o755)
    paths = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["/bin/bash", "-euc", commands],
        cwd=folder,
        env={**os.environ, **paths},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pages
def test_every_link_inside_the_repository_leads_somewhere(page: Path) -> None:
    for path, heading in LINK.findall(page.read_text()):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), path
        if heading:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert heading in {slug(each) for each in headings}


@pages
def test_no_page_has_a_heading_twice(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    slugs = [slug(each) for each in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]

    assert sorted(slugs) == sorted(set(slugs))


def test_every_guide_is_listed() -> None:
    guides = {str(page.relative_to(ROOT / ".docs")) for page in PAGES[1:]}

    assert {path for path, _ in LINK.findall((ROOT / ".docs/README.md").read_text())} >= (
        guides - {"README.md"}
    )


# --- the example


@pytest.fixture(scope="module", params=["any issuer", "Descope"])
def example(request: pytest.FixtureRequest) -> Any:
    descope = "https://api.descope.com/P2abc/.well-known/openid-configuration"
    environment = dict(ENVIRONMENT)
    if request.param == "Descope":
        environment |= {"TOOLGUARD_ISSUER": "", "DESCOPE_MCP_WELL_KNOWN_URL": descope}
    return run(README, environment)["mcp"]


def test_the_example_serves_its_caller_with_any_issuer(example: Any) -> None:
    alice = GuardedClient(example, user="alice", scopes=["mcp:calendar.write"])

    answer = alice.call("create_event", {"title": "tea"})

    assert answer.result["content"][0]["text"] == "'tea' for alice"


def test_the_example_tells_a_client_without_a_token_what_the_readme_says(example: Any) -> None:
    (shown,) = (block for block in blocks(README, "text") if "WWW-Authenticate" in block)

    answer = GuardedClient(example, user=None).call("create_event", {"title": "tea"})

    assert answer.challenge is not None
    header = f"WWW-Authenticate: {answer.challenge.header}"
    assert (answer.status, header) == (401, " ".join(shown.splitlines()[1:]).replace("   ", " "))


def test_the_example_shows_no_injected_parameter(example: Any) -> None:
    tools = example._tool_manager.list_tools()

    assert [sorted(tool.parameters["properties"]) for tool in tools] == [["title"]]


def test_the_settings_page_lists_every_setting() -> None:
    listed = (ROOT / ".docs/settings.md").read_text()

    assert [
        name for name in typing.get_type_hints(GuardSettings) if f"`{name}`" not in listed
    ] == []


def test_the_page_of_the_records_names_every_field() -> None:
    shown = (ROOT / ".docs/records.md").read_text()

    assert [each.name for each in fields(DecisionRecord) if f"`{each.name}`" not in shown] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120
