"""Who may import whom, and how large may anything grow?"""

from __future__ import annotations

import ast
import inspect
import re
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import toolguard
from support.source import MODULES, PACKAGE, Function, Module

# Low to high (DESIGN section 3). A room that ends in a dot is everything inside it. A room imports
# from floors below and from itself; imports in functions and for annotations count as well.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "principal", "parts.", "parsing."),
    ("tokens.", "policies.", "pages."),
    ("connections.",),
    ("calls.", "engines."),
    ("decorators.", "http.", "telemetry."),
    ("frameworks.", "vault."),
    ("settings", "approvals."),
    ("guard",),
    ("", "audit.", "descope.", "gateway.", "testing."),
    ("dev.",),
    ("cli.", "__main__"),
)

FRAMEWORKS = {"mcp", "mcp_types", "fastmcp", "starlette", "uvicorn"}
KNOW_A_FRAMEWORK = (
    *("http.", "frameworks.", "pages.", "vault.", "approvals."),
    *("gateway.", "testing.", "dev."),
)
SPEAK_HTTP = (
    *("connections.http", "connections.sockets", "connections.auth"),
    *("tokens.fetching", "tokens.introspection", "tokens.posting"),
    *("parts.bounded", "audit.doctor.", "testing.", "dev."),
)

# The edges where code of other people's runs: a check, a function of scopes, a provider, a guarded
# function, a framework's handler, a transport to a server. They fail closed, or pass on what is not
# a refusal; the verifiers take the token out of what they pass on.
CATCH_EVERYTHING = {
    "audit.loading": ["_run"],
    "calls.recorder": ["Recorder._tell", "Recorder._tell_now"],
    "connections.cache": ["CachedConnections._counted"],
    "connections.fetching": ["ConnectionFetcher._outcome"],
    "connections.server.tokens": ["ServerTokens._replace"],
    "decorators.wrapper": ["_guarded", "_guarded.guarded"],
    "engines.authzen": ["AuthZEN.__call__", "AuthZEN._read_denial", "AuthZEN.answer_each"],
    "frameworks.background": ["BackgroundTasks.run"],
    "frameworks.fastmcp_catalog": ["_CatalogBuilder._made_of"],
    "frameworks.framework_verifier": ["FrameworkVerifier.verify_request"],
    "frameworks.lowlevel": ["LowLevelAdapter._survey"],
    "frameworks.serving": ["_answer", "run", "serve"],
    "policies.decision": [
        *("_Evaluation._ask", "_Evaluation._with_named_scopes", "_ask_together"),
    ],
    "tokens.introspection": ["ConfirmedVerifier.verify", "JWTOrOpaqueVerifier.verify"],
    "gateway.session": ["Session.run"],
    "parts.contained": ["_called", "contained"],
    "parts.readiness": ["_fault_of"],
    "tokens.jwt": ["JWTVerifier.verify", "JWTVerifier.verify_now"],
    "tokens.trust": ["TrustedIssuers.verify", "TrustedIssuers.verify_now"],
}

CHECKOUT = Path(__file__).parents[2]

NO_NOUNS = {"utils", "util", "helpers", "common", "base", "types", "core", "misc"}


def called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    return str(getattr(node.func, "id", getattr(node.func, "attr", "")))


def offenders(offences: Callable[[Module], Iterable[str]]) -> dict[str, list[str]]:
    """Return what is wrong with which module."""
    found = {str(module): sorted(set(offences(module))) for module in MODULES}
    return {name: wrong for name, wrong in found.items() if wrong}


def is_in(name: str, rooms: tuple[str, ...]) -> bool:
    return any(
        f"{name}.".startswith(room) if room.endswith(".") else name == room for room in rooms
    )


# --- floors


def floor(name: str) -> int:
    found = [level for level, rooms in enumerate(FLOORS) if is_in(name, rooms)]
    assert len(found) == 1, f"{name or 'toolguard'} is on no floor, or on several: {found}"
    return found[0]


def test_every_module_has_a_floor_and_every_floor_a_module() -> None:
    assert {floor(module.name) for module in MODULES} == set(range(len(FLOORS)))


def test_the_house_has_few_floors_and_few_rooms() -> None:
    rooms = {module.name.partition(".")[0] for module in MODULES} - {"", "__main__"}

    assert len(FLOORS) <= 11
    assert floor("guard") <= 8  # that many are below it
    assert len(rooms) <= 24


@pytest.mark.parametrize("guide", [".docs/architecture.md", ".github/CONTRIBUTING.md"])
def test_guides_name_every_room(guide: str) -> None:
    told = (CHECKOUT / guide).read_text(encoding="utf-8")
    rooms = {module.name.partition(".")[0] for module in MODULES} - {"", "__main__"}

    absent = {room for room in rooms if not re.search(rf"[`/]{room}(\.py)?`", told)}
    assert absent <= ({"errors", "principal"} if "CONTRIBUTING" in guide else set())


def test_a_module_imports_only_from_floors_below_its_own() -> None:
    def upward(module: Module) -> Iterator[str]:
        room = module.name.partition(".")[0]
        for each in module.inner_imports:
            is_inside = each.name.partition(".")[0] == room
            if not is_inside and floor(each.name) >= floor(module.name):
                yield each.name

    assert offenders(upward) == {"__main__": ["cli"]}


def test_there_are_no_circles() -> None:
    graph = {module.name: {each.name for each in module.inner_imports} for module in MODULES}

    assert len(tuple(TopologicalSorter(graph).static_order())) == len(MODULES)


PRIVATE = re.compile(r"_[a-zA-Z]\w*")


def test_private_names_of_the_frameworks_are_in_one_file() -> None:
    def private(module: Module) -> Iterator[str]:
        own = {function.name for _, function in module.functions}
        own |= {
            node.attr
            for node in module.nodes
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        }
        own |= {
            node.target.id
            for node in module.nodes
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }
        # argparse has no public name for the type of its subparsers.
        own |= {"_SubParsersAction", "_actions"} if is_in(module.name, ("cli.",)) else set()
        for node in module.nodes:
            if isinstance(node, ast.Attribute) and PRIVATE.fullmatch(node.attr):
                inherited = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
                if node.attr not in own and not inherited:
                    yield node.attr

        for node in module.nodes:
            if isinstance(node, ast.Call) and called(node) in ("getattr", "hasattr"):
                named = node.args[1]
                if isinstance(named, ast.Constant) and PRIVATE.fullmatch(str(named.value)):
                    yield str(named.value)

    found = offenders(private)
    assert found.pop("frameworks.internals")
    assert found == {}


# --- what is imported from outside


def outer_imports(module: Module) -> set[str]:
    return {each.name.split(".")[0] for each in module.imports if each.when != "type checking"}


def test_only_the_top_floors_know_a_framework() -> None:
    def known(module: Module) -> Iterable[str]:
        return () if is_in(module.name, KNOW_A_FRAMEWORK) else outer_imports(module) & FRAMEWORKS

    assert offenders(known) == {}


def test_only_a_few_modules_speak_http() -> None:
    def spoken(module: Module) -> Iterable[str]:
        return () if is_in(module.name, SPEAK_HTTP) else outer_imports(module) & {"httpx"}

    assert offenders(spoken) == {}


# What a user lacks is named, and the import fails all the same.
EXPLAIN_IMPORTS = ("audit.loading", "cli", "parts.extras")


def test_nothing_is_imported_on_trial() -> None:
    def tried(module: Module) -> Iterator[str]:
        if module.name in EXPLAIN_IMPORTS:
            return
        for node in module.nodes:
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                yield from re.findall(r"\b(?:Import|ModuleNotFound)Error\b", ast.unparse(node.type))

    assert offenders(tried) == {}


# What importing a module does not import, nor importing those above it. The frameworks, and what
# takes long and is used when something is served.
NOT_IMPORTED = {
    "toolguard": {
        *("mcp", "fastmcp", "starlette", "uvicorn", "httpx", "urllib.request"),
        *("asyncio", "cryptography", "importlib.metadata", "jwt", "pydantic", "ssl"),
    },
    "toolguard.telemetry": {"mcp", "fastmcp", "starlette", "httpx", "opentelemetry"},
    "toolguard.descope": {"mcp", "fastmcp", "starlette", "uvicorn", "pydantic_core"},
    "toolguard.testing": {"hypothesis"},
}


def test_an_import_takes_nothing_along_that_it_does_not_need() -> None:
    code = (
        "import importlib, sys\n"
        f"for name, absent in {NOT_IMPORTED!r}.items():\n"
        "    importlib.import_module(name)\n"
        "    print(name, *absent.intersection(sys.modules))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout.splitlines() == [*NOT_IMPORTED]


# --- sizes


def body_length(function: Function) -> int:
    body = function.body
    if ast.get_docstring(function, clean=False) is not None:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_no_function_body_has_more_than_50_lines() -> None:
    def long(module: Module) -> Iterator[str]:
        return (name for name, function in module.functions if body_length(function) > 50)

    assert offenders(long) == {}


def test_most_function_bodies_have_fewer_than_10_lines() -> None:
    lengths = [body_length(function) for module in MODULES for _, function in module.functions]

    assert statistics.median(lengths) < 10


def test_the_guard_has_at_most_15_settings() -> None:
    settings = inspect.signature(toolguard.ToolGuard).parameters

    assert len(settings) <= 15


def mentions(module: Module) -> Iterator[str]:
    """Yield the names that are read, attributes included."""
    for node in module.nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr


def test_few_private_functions_are_short_and_called_once() -> None:
    """Such a function belongs into its caller, unless its name says more than its body."""

    def splinters(module: Module) -> Iterator[str]:
        # Private names are used in their own module only, by whatever way they are reached there.
        used = Counter(mentions(module))
        calls = {called(node) for node in module.nodes if isinstance(node, ast.Call)}
        for name, function in module.functions:
            own = function.name
            is_private = own.startswith("_") and not own.startswith("__")
            is_kept = "cache" in " ".join(map(ast.unparse, function.decorator_list))
            is_called_once = own in calls and used[own] == 1
            if is_private and is_called_once and not is_kept and body_length(function) <= 3:
                yield name

    found = offenders(splinters)
    assert sum(map(len, found.values())) <= 20, found


def test_crowded_functions_take_settings_by_name_and_say_why() -> None:
    def crowded(module: Module) -> Iterator[str]:
        for name, function in module.functions:
            given = function.args
            by_position = {each.arg for each in (*given.posonlyargs, *given.args)}
            by_position -= {"self", "cls"}
            line = module.text.splitlines()[function.lineno - 1]
            excused = len(by_position) <= 2 and re.search(r"# noqa: PLR0913 - \w", line)
            is_public = not re.search(r"(^|\.)_(?!_init__$)", name)
            if is_public and len(by_position) + len(given.kwonlyargs) > 6 and not excused:
                yield name

    assert offenders(crowded) == {}


# --- words


def exported(module: Module) -> list[str]:
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def is_described(module: Module, node: ast.Assign | ast.AnnAssign, following: ast.stmt) -> bool:
    return (
        # A plain value, or a list of plain values, says what it is.
        isinstance(node.value, ast.Constant)
        or ast.unparse(node).partition(" = ")[2].startswith("Literal[")
        or (isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant))
        or module.text.splitlines()[node.lineno - 2].startswith("#:")
    )


def test_a_modules_first_paragraph_is_a_question_or_a_statement() -> None:
    def silent(module: Module) -> Iterator[str]:
        first = (ast.get_docstring(module.tree) or "").partition("\n\n")[0]
        if not re.fullmatch(r"[A-Z].*[.?:]", first.strip(), re.DOTALL):
            yield first

    assert offenders(silent) == {}


def test_every_folder_says_whether_it_is_public() -> None:
    def silent(module: Module) -> Iterator[str]:
        first = (ast.get_docstring(module.tree) or "").partition("\n\n")[0]
        is_folder = module.path.name == "__init__.py" and module.name
        if is_folder and not re.search(r"\b(Public|Private)\b", first):
            yield first

    assert offenders(silent) == {}


def test_every_public_name_is_documented() -> None:
    def undocumented(module: Module) -> Iterator[str]:
        names = exported(module)
        for node, following in zip(
            module.tree.body, [*module.tree.body[1:], ast.Pass()], strict=True
        ):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                overload = "overload" in map(ast.unparse, node.decorator_list)
                if node.name in names and not overload and ast.get_docstring(node) is None:
                    yield node.name
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if ast.unparse(target) in names and not is_described(module, node, following):
                    yield ast.unparse(target)

    assert offenders(undocumented) == {}


def test_every_public_method_of_a_public_class_is_documented() -> None:
    def undocumented(module: Module) -> Iterator[str]:
        for kind in module.tree.body:
            if isinstance(kind, ast.ClassDef) and kind.name in exported(module):
                for method in kind.body:
                    if (
                        isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef))
                        and not method.name.startswith("_")
                        and ast.get_docstring(method) is None
                    ):
                        yield f"{kind.name}.{method.name}"

    assert offenders(undocumented) == {}


def test_every_module_says_what_is_public() -> None:
    def mute(module: Module) -> Iterator[str]:
        defines = any(isinstance(n, (ast.FunctionDef, ast.ClassDef)) for n in module.tree.body)
        if defines and not exported(module):
            yield "no __all__"

    assert offenders(mute) == {}


# Each framework line has its own, of the framework's classes.
OF_EACH_LINE = {"_NestedRefusalError", "_Server"}


def test_a_class_name_stands_for_one_class() -> None:
    homes: dict[str, list[str]] = {}
    for module in MODULES:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef):
                homes.setdefault(node.name.lstrip("_"), []).append(f"{module}.{node.name}")

    taken = {name: found for name, found in homes.items() if len(found) > 1}
    assert taken.keys() == {name.lstrip("_") for name in OF_EACH_LINE}, taken


def test_what_another_module_imports_is_exported() -> None:
    named = {module.name: exported(module) for module in MODULES}

    def taken(module: Module) -> Iterator[str]:
        for each in module.imports:
            source, _, name = each.name.removeprefix("toolguard").lstrip(".").rpartition(".")
            is_module = f"{source}.{name}".lstrip(".") in named
            if each.name.startswith("toolguard.") and not is_module and name not in named[source]:
                yield each.name

    assert offenders(taken) == {}


def test_every_module_is_named_after_what_it_is() -> None:
    assert offenders(lambda module: NO_NOUNS & set(module.name.split("."))) == {}


def test_names_of_tests_are_short_enough_to_read_in_a_list() -> None:
    tests = (CHECKOUT / "tests").rglob("test_*.py")
    names = re.findall(r"def (test_\w+)", "".join(each.read_text("utf-8") for each in tests))

    assert [each for each in names if each.count("_") > 13] == []


def test_nothing_is_left_to_do() -> None:
    assert offenders(lambda m: re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b", m.text)) == {}


# --- exceptions


def catches_everything(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        caught = "Exception" if node.type is None else ast.unparse(node.type)
    elif isinstance(node, ast.Call) and called(node) == "suppress":
        caught = ast.unparse(node)
    else:
        return False
    return re.search(r"\b(Base)?Exception(Group)?\b", caught) is not None


def test_only_the_named_edges_catch_everything() -> None:
    def broad(module: Module) -> Iterator[str]:
        outside = broadly = set(filter(catches_everything, module.nodes))
        for name, function in module.functions if broadly else ():
            inside = broadly.intersection(ast.walk(function))
            if inside:
                yield name
            outside = outside - inside
        if outside:
            yield "outside of functions"

    assert offenders(broad) == CATCH_EVERYTHING


def test_the_whole_package_is_looked_at() -> None:
    assert len(MODULES) == len(list(PACKAGE.rglob("*.py"))) > 30
