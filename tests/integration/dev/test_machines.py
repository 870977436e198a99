"""Tokens of the development server for machines and agents, and tools that ask for one of them.

Over loopback: the server signs, the guard discovers and verifies.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from support.devrooms import MCP, READ, WRITE
from support.lines import Line
from toolguard import ToolGuard, requires_actor, requires_machine, requires_user
from toolguard.connections.client_auth import PrivateKeyJWT
from toolguard.dev.oauth.config import World, WorldError, parse_world
from toolguard.dev.oauth.server import DevServer
from toolguard.dev.store import Store
from toolguard.testing import Loopback, ServerAnswer, call_as

JOB_KEY, PROVIDER_KEY, OTHER_KEY = (generate_private_key(SECP256R1()) for _ in range(3))
AGENT = "http://127.0.0.1:9000/agent"
PROVIDER = "https://idp.example.com"
BUILT_IN = files("toolguard.dev.oauth").joinpath("world.toml").read_text("utf-8")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
SECRET = ("nightly-report", "a-secret")


def pem(key: EllipticCurvePrivateKey) -> str:
    public = key.public_key()
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


WORLD = f'''{BUILT_IN}
[[resources]]
url = "{AGENT}"
client_id = "agent-planner"

[[machines]]
client_id = "nightly-report"
client_secret = "a-secret"
scopes = ["{READ}"]

[[machines]]
client_id = "job"
public_key = """{pem(JOB_KEY)}"""
scopes = ["{READ}", "{WRITE}"]

[[identity_providers]]
issuer = "{PROVIDER}"
public_key = """{pem(PROVIDER_KEY)}"""
'''


@dataclass
class Place:
    """A development server on loopback, and a client of it."""

    server: DevServer
    http: httpx.Client

    def ask(
        self, grant_type: str, *, auth: tuple[str, str] | None = None, **form: Any
    ) -> httpx.Response:
        given = {"grant_type": grant_type, **form}
        credentials = httpx.USE_CLIENT_DEFAULT if auth is None else auth
        return self.http.post(f"{self.server.issuer}/token", data=given, auth=credentials)

    def assertion(self, client_id: str = "job", **settings: Any) -> dict[str, Any]:
        key = settings.pop("key", JOB_KEY)
        proves = PrivateKeyJWT(client_id, key, key_id="one", **settings)
        made = proves.credentials(f"{self.server.issuer}/token", time.time())
        return dict(made.parameters)

    def id_jag(self, *, key: EllipticCurvePrivateKey = PROVIDER_KEY, **changes: Any) -> str:
        now = int(time.time())
        typ = changes.pop("typ", "oauth-id-jag+jwt")
        claims = {
            "iss": PROVIDER,
            "sub": "alice",
            "aud": self.server.issuer,
            "client_id": "job",
            "jti": uuid.uuid4().hex,
            "resource": MCP,
            "scope": f"{READ} {WRITE}",
            "iat": now,
            "exp": now + 60,
            **changes,
        }
        stated = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(stated, key, algorithm="ES256", headers={"typ": typ})

    def bring(self, assertion: str, **form: Any) -> httpx.Response:
        return self.ask(JWT_BEARER, assertion=assertion, **self.assertion(), **form)


def serve(world: World) -> Iterator[Place]:
    with Loopback() as loopback, Store() as store, httpx.Client() as http:
        server = DevServer(world, store, origin=loopback.url)
        loopback.start(server.app)
        yield Place(server, http)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    yield from serve(parse_world(WORLD))


def claims_of(response: httpx.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return dict(jwt.decode(response.json()["access_token"], options={"verify_signature": False}))


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]


# Client credentials


def test_a_machine_with_a_secret_gets_a_token_of_its_own(place: Place) -> None:
    answer = place.ask("client_credentials", auth=SECRET, resource=MCP)

    claims = claims_of(answer)
    assert (claims["sub"], claims["client_id"]) == ("nightly-report", "nightly-report")
    assert (claims["aud"], claims["scope"]) == (MCP, READ)
    assert "refresh_token" not in answer.json()
    assert answer.headers["cache-control"] == "no-store"


def test_a_secret_may_be_in_the_form(place: Place) -> None:
    form: dict[str, Any] = {"client_id": SECRET[0], "client_secret": SECRET[1], "resource": MCP}

    assert claims_of(place.ask("client_credentials", **form))["sub"] == "nightly-report"


def test_a_machine_with_a_key_signs_an_assertion(place: Place) -> None:
    for audience in (None, place.server.issuer):
        proof = place.assertion(audience=audience)
        claims = claims_of(place.ask("client_credentials", resource=MCP, scope=WRITE, **proof))
        assert (claims["sub"], claims["scope"]) == ("job", WRITE)


def test_an_assertion_is_good_once(place: Place) -> None:
    proof = place.assertion()

    assert place.ask("client_credentials", resource=MCP, **proof).status_code == 200
    again = place.ask("client_credentials", resource=MCP, **proof)
    assert error(again) == (401, "invalid_client")


@pytest.mark.parametrize(
    "settings",
    [
        {"key": OTHER_KEY},
        {"audience": "https://other.example"},
        {"client_id": "nightly-report"},  # which has a secret
        {"client_id": "nobody"},
    ],
)
def test_an_assertion_of_another_client_is_refused(place: Place, settings: dict[str, Any]) -> None:
    answer = place.ask("client_credentials", resource=MCP, **place.assertion(**settings))

    assert error(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("changes", "algorithm"),
    [
        ({"jti": None}, "ES256"),
        ({"exp": None}, "ES256"),
        ({"exp": 1}, "ES256"),
        ({"exp": 9_000_000_000}, "ES256"),
        ({"iss": "nightly-report"}, "ES256"),
        ({"sub": "nightly-report"}, "ES256"),
        ({"aud": None}, "ES256"),
        ({}, "none"),
    ],
)
def test_a_forged_assertion_is_refused(
    place: Place, changes: dict[str, Any], algorithm: str
) -> None:
    good = {
        "iss": "job",
        "sub": "job",
        "aud": place.server.issuer,
        "jti": uuid.uuid4().hex,
        "exp": int(time.time()) + 60,
    }
    claims = {name: value for name, value in {**good, **changes}.items() if value is not None}
    forged = jwt.encode(claims, "" if algorithm == "none" else JOB_KEY, algorithm=algorithm)
    proof = {**place.assertion(), "client_assertion": forged}

    answer = place.ask("client_credentials", resource=MCP, **proof)
    assert error(answer) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ({"scope": WRITE}, (400, "invalid_scope")),
        ({"resource": "https://other.example"}, (400, "invalid_target")),
        ({"resource": ""}, (400, "invalid_target")),  # there are two
        ({"client_assertion": "x"}, (400, "invalid_request")),
    ],
)
def test_a_machine_gets_no_more_than_the_world_says(
    place: Place, form: dict[str, Any], expected: tuple[int, str]
) -> None:
    answer = place.ask("client_credentials", **{"auth": SECRET, "resource": MCP, **form})

    assert error(answer) == expected


@pytest.mark.parametrize("auth", [("nightly-report", "wrong"), ("job", "x"), ("nobody", "x"), None])
def test_a_machine_that_is_not_known_is_refused(place: Place, auth: Any) -> None:
    answer = place.ask("client_credentials", auth=auth, resource=MCP)

    assert error(answer) == (401, "invalid_client")


# ID-JAG


def test_an_identity_assertion_gives_a_token_for_its_user(place: Place) -> None:
    claims = claims_of(place.bring(place.id_jag()))

    assert (claims["sub"], claims["client_id"], claims["aud"]) == ("alice", "job", MCP)
    assert set(claims["scope"].split()) == {READ, WRITE}
    assert claims["dct"] == "tenant-a"


def test_the_policy_decides_what_the_user_may_give(place: Place) -> None:
    assert claims_of(place.bring(place.id_jag(sub="bob")))["scope"] == READ


def test_an_identity_assertion_is_good_once(place: Place) -> None:
    assertion = place.id_jag()

    assert place.bring(assertion).status_code == 200
    assert error(place.bring(assertion)) == (400, "invalid_grant")


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://other.example"},
        {"aud": "https://other.example"},
        {"client_id": "nightly-report"},
        {"client_id": None},
        {"sub": "nobody"},
        {"sub": None},
        {"jti": None},
        {"exp": 1},
        {"exp": None},
        {"typ": "JWT"},
        {"typ": "at+jwt"},
        {"key": OTHER_KEY},
        {"cnf": {"jkt": "x"}},
    ],
)
def test_a_forged_identity_assertion_is_refused(place: Place, changes: dict[str, Any]) -> None:
    assert error(place.bring(place.id_jag(**changes))) == (400, "invalid_grant")


@pytest.mark.parametrize(
    ("changes", "form", "expected"),
    [
        ({}, {"resource": AGENT}, "invalid_target"),
        ({"resource": None}, {}, "invalid_target"),
        ({"scope": READ}, {"scope": WRITE}, "invalid_scope"),
        ({"sub": "bob", "scope": WRITE}, {}, "invalid_scope"),
    ],
)
def test_an_identity_assertion_is_not_stretched(
    place: Place, changes: dict[str, Any], form: dict[str, str], expected: str
) -> None:
    assert error(place.bring(place.id_jag(**changes), **form)) == (400, expected)


# With a guard


def call(line: Line, place: Place, tool: str, token: str) -> ServerAnswer:
    server = line.server("reports")

    @server.tool()
    @requires_machine
    async def report() -> str:
        return "made"

    @server.tool()
    @requires_user
    async def sign(*, user_id: str) -> str:
        return f"signed by {user_id}"

    @server.tool()
    @requires_actor("agent-*")
    async def draft(*, user_id: str) -> str:
        return f"drafted for {user_id}"

    ToolGuard(issuer=place.server.issuer, audience=MCP).protect(server)
    return call_as(server, tool, token=token)


def test_tools_tell_machines_users_and_agents_apart(line: Line, place: Place) -> None:
    machine = place.ask("client_credentials", auth=SECRET, resource=MCP).json()["access_token"]
    user = place.bring(place.id_jag()).json()["access_token"]
    for_agent = place.bring(place.id_jag(resource=AGENT)).json()["access_token"]
    exchanged = place.ask(
        "urn:ietf:params:oauth:grant-type:token-exchange",
        auth=place.server.credentials(AGENT),
        subject_token=for_agent,
        subject_token_type=ACCESS,
        resource=MCP,
    )
    agent = exchanged.json()["access_token"]
    assert claims_of(exchanged)["act"] == {"sub": "agent-planner"}

    served = {
        (tool, name)
        for tool in ("report", "sign", "draft")
        for name, token in (("machine", machine), ("user", user), ("agent", agent))
        if call(line, place, tool, token).error is None
    }
    assert served == {
        ("report", "machine"),
        ("sign", "user"),
        ("sign", "agent"),
        ("draft", "agent"),
    }


# The world


def test_the_metadata_names_what_the_world_allows(place: Place) -> None:
    found = place.http.get(place.server.well_known_url).json()

    assert {"client_credentials", JWT_BEARER} <= set(found["grant_types_supported"])
    assert "private_key_jwt" in found["token_endpoint_auth_methods_supported"]
    assert "ES256" in found["token_endpoint_auth_signing_alg_values_supported"]
    assert found["authorization_grant_profiles_supported"] == [
        "urn:ietf:params:oauth:grant-profile:id-jag"
    ]


def test_a_world_without_identity_providers_takes_no_assertion() -> None:
    for place in serve(replace(parse_world(WORLD), identity_providers=())):
        assert error(place.bring(place.id_jag())) == (400, "invalid_grant")
        found = place.http.get(place.server.well_known_url).json()
        assert "authorization_grant_profiles_supported" not in found


MACHINE = f'[[machines]]\nclient_id = "m"\nscopes = ["{READ}"]\n'


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (MACHINE, "write either client_secret or public_key"),
        (f'{MACHINE}client_secret = "x"\npublic_key = "x"', "not a public key"),
        (f'{MACHINE}public_key = "x"', "machine 1: this is not a public key"),
        (f'{MACHINE}client_secret = "x"\n' * 2, "client_id 'm' is defined twice"),
        (
            MACHINE.replace('"m"', '"calendar-server"') + 'client_secret = "x"',
            "client_id 'calendar-server' is defined twice",
        ),
        ('[[machines]]\nclient_id = "m"\nclient_secret = "x"\nscopes = ["y"]', "'y' is not under"),
        ('[[identity_providers]]\nissuer = "x"\npublic_key = "y"', "identity provider 1: "),
    ],
)
def test_a_machine_that_cannot_be_meant_is_refused(added: str, said: str) -> None:
    with pytest.raises(WorldError) as caught:
        parse_world(f"{BUILT_IN}\n{added}\n")
    assert said in str(caught.value)
