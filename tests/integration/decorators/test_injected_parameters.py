"""What does a client see of the injected parameters, and can it set them?"""

from __future__ import annotations
import __future__

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from support.lines import Guarding, Line, ServeOnce
from support.wire import Caller
from toolguard.testing import LocalIssuer

# For each shape: what is sent, what the schema may show, what it must require, what comes back.
SHAPES: Mapping[str, tuple[dict[str, Any], set[str], set[str], str]] = {
    "takes_user_id": ({"day": "monday"}, {"day"}, {"day"}, "monday alice"),
    "takes_principal": ({"day": "monday"}, {"day"}, {"day"}, "monday alice"),
    "takes_connection_token": (
        {"day": "monday"},
        {"day"},
        {"day"},
        "monday google-calendar token of alice",
    ),
    "takes_connection": (
        {"day": "monday"},
        {"day"},
        {"day"},
        "monday Bearer google-calendar token of alice",
    ),
    "takes_context": ({"day": "monday"}, {"day"}, {"day"}, "monday alice True"),
    "takes_defaults": ({}, {"day", "limit"}, set(), "today 10 alice"),
    "takes_model": (
        {"place": {"city": "oslo", "floor": 3}},
        {"place"},
        {"place"},
        "oslo 3 alice",
    ),
    "takes_annotated": ({"day": "monday"}, {"day", "limit"}, {"day"}, "monday 10 alice"),
    "takes_self": ({"day": "monday"}, {"day"}, {"day"}, "shared monday alice"),
    "takes_partial": ({"day": "monday"}, {"day"}, {"day"}, "utc monday alice"),
}
HIDDEN = ("user_id", "caller", "principal", "connection_token", "google", "ctx", "self", "injected")


def _shapes(line: Line, flags: int) -> ModuleType:
    """Execute the module of shapes with the line's own context class."""
    path = Path(__file__).parents[2] / "support" / "shapes.py"
    code = compile(path.read_text(), path, "exec", flags=flags, dont_inherit=True)
    module = ModuleType(f"shapes_{line.name}_{flags}")
    module.Context = line.context  # type: ignore[attr-defined]
    exec(code, vars(module))
    return module


@pytest.fixture(params=[0, __future__.annotations.compiler_flag], ids=["evaluated", "postponed"])
def alice(
    request: pytest.FixtureRequest,
    line: Line,
    guarding: Guarding,
    serve_once: ServeOnce,
    http: httpx.Client,
    issuer: LocalIssuer,
) -> Caller:
    """Call a server whose tools have every shape."""

    def app() -> Any:
        module = _shapes(line, request.param)
        server = line.server("shapes")
        for name in SHAPES:
            server.tool(name=name)(getattr(module, name))
        return line.http_app(guarding().protect(server), stateless=True, json=True)

    url = serve_once((line.name, request.param), app)
    return Caller(http, f"{url}/mcp", token=issuer.mint("alice", scopes=["calendar.read"]))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tool_shows_its_own_parameters_and_nothing_that_is_injected(
    alice: Caller, shape: str
) -> None:
    tool = alice.tools()[shape]
    _, properties, required, _ = SHAPES[shape]

    assert set(tool["inputSchema"]["properties"]) == properties
    assert set(tool["inputSchema"].get("required", ())) == required
    # What it requires is published on purpose, the name of a connection too.
    del tool["_meta"]["toolguard/requires"]
    shown = str(tool).replace(shape, "")
    assert [word for word in HIDDEN if word in shown] == []


@pytest.mark.parametrize("shape", SHAPES)
def test_a_tool_of_any_shape_is_called_with_what_is_injected(alice: Caller, shape: str) -> None:
    arguments, _, _, expected = SHAPES[shape]

    assert alice.call(shape, arguments).value == expected


@pytest.mark.parametrize("shape", ["takes_user_id", "takes_principal", "takes_connection_token"])
def test_the_description_keeps_the_parameters_that_are_not_injected(
    alice: Caller, shape: str
) -> None:
    description = alice.tools()[shape]["description"]

    assert "List the events of a day." in description
    assert "he day to list." in str(alice.tools()[shape])


def test_constraints_and_descriptions_of_arguments_survive(alice: Caller) -> None:
    properties = alice.tools()["takes_annotated"]["inputSchema"]["properties"]

    assert properties["day"]["description"] == "such as monday"
    assert (properties["limit"]["minimum"], properties["limit"]["maximum"]) == (1, 50)
    assert "50" in alice.call("takes_annotated", {"day": "monday", "limit": 51}).tool_error


def test_the_fields_of_a_model_survive(alice: Caller) -> None:
    schema = alice.tools()["takes_model"]["inputSchema"]
    place = schema["properties"]["place"]
    definition = schema["$defs"]["Place"] if "$ref" in place else place

    assert definition["properties"]["city"]["type"] == "string"
    assert definition["required"] == ["city"]
    assert "city" in alice.call("takes_model", {"place": {"floor": 1}}).tool_error


@pytest.mark.parametrize("shape", SHAPES)
def test_what_a_client_sends_never_becomes_an_injected_value(
    alice: Caller, line: Line, shape: str
) -> None:
    arguments, _, _, expected = SHAPES[shape]
    forged = {
        "user_id": "bob",
        "caller": {"user_id": "bob", "issuer": "https://issuer.test", "client_id": "theirs"},
        "principal": {"user_id": "bob"},
        "connection_token": "stolen",
        "google": {"token": "stolen"},
    }
    reply = alice.call(shape, {**arguments, **forged})

    assert "bob" not in expected
    if line.family == "sdk":  # drops arguments it does not know
        assert reply.value == expected
    else:
        assert "nexpected keyword argument" in reply.tool_error
