"""Law 3: nothing that a server does to an operation makes a refused one run.

Servers are put together out of moves in any order, some of them while the server is served:
mounting, renaming, copying, caching, searching, versions, replacing, late registration.
"""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.lines import FASTMCP_LINES, LINES, Guarding, Line
from toolguard import requires_scopes
from toolguard.testing import AsyncGuardedClient

SDK_LINES = [line for line in LINES if line.family == "sdk"]
SECRET = requires_scopes("secret")
SOME = settings(max_examples=10)

Ask = tuple[str, dict[str, Any]]


def fastmcp(path: str) -> Any:
    """Return what fastmcp has under a dotted path; imported here, as there may be no fastmcp."""
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(f"fastmcp.{module}"), name)


def call(name: str, /, **arguments: Any) -> Ask:
    """Return the message that calls a tool."""
    return "tools/call", {"name": name, "arguments": arguments}


def hold(server: Any, ran: list[str], asks: Sequence[Ask]) -> list[bool]:
    """Hold that no way leads to the body without its scope; return which do so with it."""
    return anyio.run(_hold, server, ran, asks)


async def _hold(server: Any, ran: list[str], asks: Sequence[Ask]) -> list[bool]:
    served = []
    for ask in asks:
        for scopes in (["base"], ["base", "secret"], ["base"]):
            ran.clear()
            answer = await AsyncGuardedClient(server, scopes=scopes).send(*ask)
            if "secret" in scopes:
                served.append("the secret" in str(answer.body))
            else:
                assert not ran, ask
                assert "the secret" not in str(answer.body), ask
    return served


# --- fastmcp


@dataclass(frozen=True)
class Level:
    """What happens to the operation on one server.

    Attributes:
        namespace: under which the next server is mounted.
        renames: whether a transform renames it.
        aliases: whether a middleware makes it of another name.
        searches: whether it can be called through a search.
    """

    namespace: str | None
    renames: bool
    aliases: bool
    searches: bool


@dataclass(frozen=True)
class Plan:
    """How a server is put together.

    Attributes:
        levels: the servers, outermost first; each is mounted on the one before.
        origin: how the operation is registered on the innermost.
        caches: whether every server caches what it answers.
        rule: which of its names has the rule; None for a decorator.
        order: of the moves.
    """

    levels: tuple[Level, ...]
    origin: str
    caches: bool
    rule: int | None
    order: tuple[int, ...]


LEVELS = st.builds(
    Level, st.sampled_from([None, "a", "b"]), st.booleans(), st.booleans(), st.booleans()
)
PLANS = st.builds(
    Plan,
    st.lists(LEVELS, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["function", "copy", "version", "own class", "replaced"]),
    st.booleans(),
    st.none() | st.integers(0, 9),
    st.lists(st.integers(0, 30), max_size=20).map(tuple),
)


class House:
    """Servers that are being put together."""

    def __init__(self, line: Line, plan: Plan) -> None:
        self.plan = plan
        self.ran: list[str] = []
        self.servers: list[Any] = [line.server(f"level{at}") for at, _ in enumerate(plan.levels)]
        names, self.asks = self._ways()
        self.rules = {} if plan.rule is None else {names[plan.rule % len(names)]: SECRET}
        self.protected = False

    def body(self) -> Any:
        async def secret() -> str:
            self.ran.append("secret")
            return "the secret"

        return SECRET(secret) if self.plan.rule is None else secret

    def _ways(self) -> tuple[list[str], list[Ask]]:
        """Return the names of the operation, and the messages that lead to it from outside."""
        name = "renamed_by_copy" if self.plan.origin == "copy" else "secret"
        names = {"secret": None, name: None}
        asks: dict[str, str | None] = {}  # by name, with what a search is to call
        for at in reversed(range(len(self.plan.levels))):
            level = self.plan.levels[at]
            if at < len(self.plan.levels) - 1 and level.namespace:
                prefix = f"{level.namespace}_"
                name, asks = f"{prefix}{name}", {f"{prefix}{each}": to for each, to in asks.items()}
            names[name] = None
            if level.renames:
                name = f"renamed{at}"
                names[name] = None
            if level.aliases and not self.plan.caches:
                asks[f"alias{at}"] = None
            if level.searches and not self.plan.caches:
                asks[f"call_tool{at}"] = name
        ways = [
            call(each, name=to, arguments={}) if to else call(each) for each, to in asks.items()
        ]
        return list(names), [call(name), *ways]

    def moves(self, guarding: Guarding) -> list[Callable[[], None]]:
        """Return all moves, in the order of the plan."""
        moves: list[Callable[[], None]] = [
            functools.partial(self._protect, guarding),
            self._register,
        ]
        name = "renamed_by_copy" if self.plan.origin == "copy" else "secret"
        for at in reversed(range(len(self.servers))):
            level = self.plan.levels[at]
            if at < len(self.servers) - 1:
                moves.append(functools.partial(self._mount, at))
                name = f"{level.namespace}_{name}" if level.namespace else name
            if level.renames:
                moves.append(functools.partial(self._rename, at, name))
                name = f"renamed{at}"
            if level.aliases and not self.plan.caches:
                moves.append(functools.partial(self._alias, at, name))
            if level.searches and not self.plan.caches:
                moves.append(functools.partial(self._search, at))
            if self.plan.caches:
                moves.append(functools.partial(self._cache, at))
        order = [*self.plan.order]
        mixed: list[Callable[[], None]] = []
        while moves:
            mixed.append(moves.pop(order.pop() % len(moves) if order else 0))
        return mixed

    def _protect(self, guarding: Guarding) -> None:
        guarding().protect(self.servers[0], rules=self.rules)
        self.protected = True

    def _register(self) -> None:
        server, tool = self.servers[-1], fastmcp("tools.Tool")
        origin = self.plan.origin
        if origin == "copy":
            made = tool.from_function(self.body(), name="secret")
            server.add_tool(tool.from_tool(made, name="renamed_by_copy"))
        elif origin == "version":
            server.tool("secret", version="1")(self.body())
            server.tool("secret", version="2")(self.body())
        elif origin == "own class":
            own: Any = type("Own", (fastmcp("tools.function_tool.FunctionTool"),), {})
            server.add_tool(own.from_function(self.body(), name="secret"))
        else:
            server.tool("secret")(self.body())

    def replace(self) -> None:
        """Put the operation in the place of itself."""
        if self.plan.origin == "replaced":
            self.servers[-1].local_provider.remove_tool("secret")
            self._register()

    def _mount(self, at: int) -> None:
        self.servers[at].mount(self.servers[at + 1], namespace=self.plan.levels[at].namespace)

    def _rename(self, at: int, name: str) -> None:
        config = fastmcp("tools.tool_transform.ToolTransformConfig")
        transform = fastmcp("server.transforms.ToolTransform")
        self.servers[at].add_transform(transform({name: config(name=f"renamed{at}")}))

    def _alias(self, at: int, name: str) -> None:
        class Renaming(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
            async def on_call_tool(self, context: Any, call_next: Any) -> Any:
                if context.message.name != f"alias{at}":
                    return await call_next(context)
                message = context.message.model_copy(update={"name": name})
                return await call_next(context.copy(message=message))

        async def harmless() -> str:
            return "nothing"

        self.servers[at].tool(f"alias{at}")(harmless)
        self.servers[at].add_middleware(Renaming())

    def _search(self, at: int) -> None:
        transform = fastmcp("server.transforms.search.RegexSearchTransform")
        self.servers[at].add_transform(
            transform(search_tool_name=f"search{at}", call_tool_name=f"call_tool{at}")
        )

    def _cache(self, at: int) -> None:
        kept: dict[str, Any] = {}

        class Keeping(fastmcp("server.middleware.Middleware")):  # type: ignore[misc]
            async def on_call_tool(self, context: Any, call_next: Any) -> Any:
                key = json.dumps([context.message.name, context.message.arguments])
                if key not in kept:
                    kept[key] = await call_next(context)
                return kept[key]

        self.servers[at].add_middleware(Keeping())


@pytest.mark.parametrize("line", FASTMCP_LINES, ids=str)
def test_law_3_no_move_makes_a_refused_operation_run(line: Line, guarding: Guarding) -> None:
    """Whatever was done to a tool of fastmcp, and whenever, its policy holds by every name."""

    @SOME
    @given(PLANS)
    def holds(plan: Plan) -> None:
        house = House(line, plan)
        for move in house.moves(guarding):
            move()
            # The rest is done while it is served; a name that is yet to come guards nothing.
            if house.protected and house.rules.keys() <= {"secret"}:
                hold(house.servers[0], house.ran, house.asks)
        assert hold(house.servers[0], house.ran, house.asks)[0]
        house.replace()
        assert hold(house.servers[0], house.ran, house.asks)[0]

    holds()


# --- the official SDK

KINDS = ("tool", "resource", "template", "prompt")


@dataclass(frozen=True)
class Move:
    """Something that is done to a server of the SDK.

    Attributes:
        name: what is done.
        at: to which of the names.
    """

    name: str
    at: int


MOVES = st.builds(
    Move,
    st.sampled_from(
        ["protect", "register", "register", "replace", "remove", "decorate", "cache", "alias"]
    ),
    st.integers(0, 2),
)


class Desk:
    """One server of the SDK with one operation, under up to three names."""

    def __init__(self, line: Line, kind: str, *, ruled: bool) -> None:
        server: Any = line.server("desk")
        self.server = server
        self.modern, self.kind, self.ruled = line.modern, kind, ruled
        self.ran: list[str] = []
        self.decorated = 0
        self.cached: dict[str, Any] | None = None
        self.aliases: dict[str, str] = {}
        if line.modern:
            server.middleware.append(self._middleware)

    def body(self) -> Any:
        """Return a new function, with as many decorators of somebody else's above its guard."""

        async def secret() -> str:
            self.ran.append("secret")
            return "the secret"

        async def secret_at(at: str) -> str:
            return await secret()

        body: Any = secret_at if self.kind == "template" else secret
        function = body if self.ruled else SECRET(body)
        for _ in range(self.decorated):
            function = _passing(function)
        return function

    def name(self, at: int) -> str:
        """Return one of the names of the operation."""
        uris = {"resource": f"d://secret{at}", "template": f"d://secret{at}/{{at}}"}
        return uris.get(self.kind, f"secret{at}")

    def ask(self, at: int) -> Ask:
        """Return the message that asks for it by one of its names."""
        if self.kind == "prompt":
            return "prompts/get", {"name": self.name(at)}
        if self.kind == "tool":
            return call(self.name(at))
        return "resources/read", {"uri": self.name(at).replace("{at}", "1")}

    def register(self, at: int) -> None:
        """Register it under one of its names."""
        made = {
            "tool": self.server.tool,
            "prompt": self.server.prompt,
        }.get(self.kind, self.server.resource)
        made(self.name(at))(self.body())

    def kept(self) -> tuple[dict[str, Any], Callable[[int], str]]:
        """Return what a manager keeps, and under which key."""
        manager = {"tool": "_tool_manager", "prompt": "_prompt_manager"}.get(
            self.kind, "_resource_manager"
        )
        table = "_templates" if self.kind == "template" else f"_{self.kind}s"
        found: dict[str, Any] = getattr(getattr(self.server, manager), table)
        return found, self.name

    def make(self, move: Move, guarding: Guarding) -> None:
        """Make one move."""
        table, key = self.kept()
        if move.name == "protect" and not hasattr(self.server, "__toolguard_protected__"):
            rules = {"*": SECRET} if self.ruled else {}
            guarding().protect(self.server, rules=rules)
        elif move.name == "register" and key(move.at) not in table:
            self.register(move.at)
        elif move.name == "remove":
            table.pop(key(move.at), None)
        elif move.name == "replace" and key(move.at) in table:
            table[key(move.at)].fn = self.body()
        elif move.name == "decorate":
            self.decorated += 1
        elif move.name == "alias" and self.kind in ("tool", "prompt"):
            self.aliases[key(move.at)] = key((move.at + 1) % 3)
        elif move.name == "cache":
            self.cached = {}

    async def _middleware(self, ctx: Any, call_next: Any) -> Any:
        """Call an operation by another of its names, or give what it gave before."""
        params = {**(ctx.params or {})}
        if params.get("name") in self.aliases:
            params["name"] = self.aliases[params["name"]]
            return await call_next(replace(ctx, params=params))
        if self.cached is None or self.aliases or ctx.method.endswith("list"):
            return await call_next(ctx)
        key = f"{ctx.method} {params.get('name')} {params.get('uri')}"
        if key not in self.cached:
            self.cached[key] = await call_next(ctx)
        return self.cached[key]


def _passing(function: Any) -> Any:
    @functools.wraps(function)
    async def passing(**arguments: Any) -> Any:
        return await function(**arguments)

    return passing


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("line", SDK_LINES, ids=str)
def test_law_3_on_the_sdk_no_move_makes_a_refused_operation_run(
    line: Line, guarding: Guarding, kind: str
) -> None:
    """Whatever is done to a tool, resource, template or prompt of the SDK, its policy holds."""

    @SOME
    @given(st.booleans(), st.lists(MOVES, max_size=8))
    def holds(ruled: bool, moves: list[Move]) -> None:
        desk = Desk(line, kind, ruled=ruled)
        asks = [desk.ask(at) for at in range(3)]
        for move in (*moves, Move("register", 0), Move("protect", 0)):
            desk.make(move, guarding)
            if hasattr(desk.server, "__toolguard_protected__"):
                served = hold(desk.server, desk.ran, asks)
        assert any(served) or desk.aliases or desk.cached

    holds()
