"""Build the site of the guides: ``python .docs/make_site.py OUT`` writes it to OUT/site.

The pages lie where GitHub shows them. Here they are laid out as one tree, their links into the
rest of the repository lead to pages of the site, and what follows from the code is added.
"""

from __future__ import annotations

import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from catalogue import entries, with_texts

ROOT = Path(__file__).parents[1]
DOCS = ".docs"
PATHS = os.pathsep.join(
    (str(ROOT), str(ROOT / DOCS))
)  # where the docstrings, and what reads them, are
LINK = re.compile(r"(\]\()(?!https?://|mailto:|#)([^)#\s]*)((?:#[^)\s]*)?\))")
FENCE = re.compile(r"^```", re.MULTILINE)
LANGUAGES = {".cedar": "text", ".conf": "nginx", ".csv": "text", ".py": "python", ".yaml": "yaml"}
LANGUAGES |= {".toml": "toml", ".json": "json", "": "docker", ".mjs": "js"}
ELSEWHERE = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    ".github/CONTRIBUTING.md": "contributing.md",
    ".github/SECURITY.md": "security-policy.md",
}

API = (
    "toolguard",
    "toolguard.tokens",
    "toolguard.tokens.issuers",
    "toolguard.tokens.proofs",
    "toolguard.connections",
    "toolguard.connections.cache",
    "toolguard.connections.exchange",
    "toolguard.connections.kit",
    "toolguard.connections.redis",
    "toolguard.connections.server",
    "toolguard.connections.vendors",
    "toolguard.engines",
    "toolguard.vault",
    "toolguard.approvals",
    "toolguard.descope",
    "toolguard.telemetry",
    "toolguard.testing",
    "toolguard.testing.fixtures",
    "toolguard.testing.strategies",
)


def page_of(path: str) -> str | None:
    """Return the page of the site that shows a file or folder of the repository."""
    path = path.rstrip("/")
    if path in ELSEWHERE:
        return ELSEWHERE[path]
    if path in ("examples", "examples/README.md"):
        return "examples/index.md"
    if path.startswith("examples/"):
        return f"examples/{path.split('/')[1].removesuffix('.py')}.md"
    if path.startswith(f"{DOCS}/"):
        path = path.removeprefix(f"{DOCS}/")
        return "index.md" if path == "README.md" else path
    return None


def outside_of_code(text: str, change: Callable[[str], str]) -> str:
    """Return ``text`` with everything but its code blocks changed."""
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else change(part) for part in parts)


def on_site(text: str, source: str) -> str:
    """Return a page with links that lead to pages of the site.

    Args:
        text: the page.
        source: where it lies in the repository.

    Raises:
        ValueError: if a link leads to a file that the site does not show.
    """
    here = posixpath.dirname(page_of(source) or "")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[2]))
        page = page_of(target)
        if page is None:
            raise ValueError(f"{source} links to {target}, which is no page of the site")
        return f"{link[1]}{posixpath.relpath(page, here or '.')}{link[3]}"

    return outside_of_code(text, lambda part: LINK.sub(moved, part))


def guides(root: Path) -> Iterator[tuple[str, str]]:
    """Return the pages that lie in the repository, by their place on the site."""
    sources = [*ELSEWHERE, *(str(each.relative_to(root)) for each in files_in(root / DOCS, ".md"))]
    for source in sources:
        yield page_of(source) or source, on_site((root / source).read_text("utf-8"), source)


def files_in(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files below ``folder`` with one of these suffixes, or all, in order."""
    found = (each for each in folder.rglob("*") if each.is_file())
    return sorted(
        each
        for each in found
        if "__pycache__" not in each.parts and (not suffixes or each.suffix in suffixes)
    )


def examples(root: Path) -> Iterator[tuple[str, str]]:
    """Return a page for each example: its README, and its files."""
    folder = root / "examples"
    names = [each for each in sorted(folder.iterdir()) if each.name != "__pycache__"]
    for each in names:
        if each.name == "README.md":
            yield "examples/index.md", on_site(each.read_text("utf-8"), "examples/README.md")
            continue
        readme = each / "README.md"
        source = str(readme.relative_to(root))
        text = on_site(readme.read_text("utf-8"), source) if readme.exists() else f"# {each.name}\n"
        files = [each] if each.is_file() else files_in(each)
        shown = (shown_file(file, folder) for file in files if file.suffix != ".md")
        yield f"examples/{each.stem}.md", "\n".join((text, *shown))


def shown_file(file: Path, folder: Path) -> str:
    """Return the section of a page that shows a file."""
    language = LANGUAGES[file.suffix]
    return f"## {file.relative_to(folder)}\n\n```{language}\n{file.read_text('utf-8')}```\n"


def reference() -> Iterator[tuple[str, str]]:
    """Return a page for each public module, which mkdocstrings fills in from the docstrings."""
    for module in API:
        yield f"api/{module}.md", f"# {module}\n\n::: {module}\n"


def pages(root: Path = ROOT) -> dict[str, str]:
    """Return every page of the site by its path."""
    found = {**dict(guides(root)), **dict(examples(root)), **dict(reference())}
    return found | {"errors.md": with_texts(found["errors.md"], entries(root / "toolguard"))}


def llms(texts: Mapping[str, str]) -> str:
    """Return an index of the pages for language models (llmstxt.org)."""
    index = [f"- [{title_of(text)}]({path})" for path, text in texts.items() if path[:4] != "api/"]
    summary = "Two decorators that give the tools of any Python MCP server real authorization."
    return "\n".join(("# toolguard", "", f"> {summary}", "", "## Pages", "", *index, ""))


def llms_full(texts: Mapping[str, str]) -> str:
    """Return all pages as one text."""
    return "\n\n".join(text for path, text in texts.items() if path[:4] != "api/")


def title_of(text: str) -> str:
    """Return the first heading of a page."""
    return re.findall(r"^# (.*)$", text, re.MULTILINE)[0]


def write(out: Path, files: Mapping[str, str]) -> None:
    """Write texts below ``out``, by their paths."""
    for path, text in files.items():
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")


def main(arguments: Iterable[str] = sys.argv[1:]) -> int:
    """Build the site in the folder that is named."""
    (out,) = (Path(each).resolve() for each in arguments)
    shutil.rmtree(out, ignore_errors=True)
    texts = pages()
    write(out / "pages", texts)
    for each in files_in(ROOT / DOCS, ".svg", ".webp", ".css"):
        target = out / "pages" / each.relative_to(ROOT / DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(each, target)
    shutil.copy(ROOT / DOCS / "mkdocs.yml", out)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", out / "mkdocs.yml"]
    # What concerns MkDocs 2 does not concern the version that is installed here.
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": PATHS}
    status = subprocess.call(command, env=environment)  # noqa: S603 - these words, and no others
    write(out / "site", texts | {"llms.txt": llms(texts), "llms-full.txt": llms_full(texts)})
    return status


if __name__ == "__main__":
    sys.exit(main())
