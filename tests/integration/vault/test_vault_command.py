"""``toolguard vault``: what an operator does, with the file that describes the vault."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from support.vault_world import ISSUER, KEY, World, in_world
from toolguard import requires_scopes
from toolguard.cli import main

NEW = b"n" * 32
FILE = """
database = "{database}"

[connections.service]
provider = "github"
client_id = "vault"
client_secret_env = "SERVICE_SECRET"
"""


@pytest.fixture
def described(tmp_path: Path, tmp_path_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file that describes a vault on the database at ``tmp_path_url``."""
    file = tmp_path / "vault.toml"
    file.write_text(FILE.format(database=tmp_path_url))
    monkeypatch.setenv("SERVICE_SECRET", "s3cret")
    set_keys(monkeypatch, KEY)
    return str(file)


def set_keys(monkeypatch: pytest.MonkeyPatch, *keys: bytes) -> None:
    text = ",".join(base64.b64encode(key).decode() for key in keys)
    monkeypatch.setenv("TOOLGUARD_VAULT_KEYS", text)


def connect(database: str, *, tenant: bool = False) -> None:
    async def test(world: World) -> None:
        await (world.connect(tenant_id="acme") if tenant else world.connect())

    in_world(database, test, tenant_connectors={"service": requires_scopes("mcp:use")})


def test_what_a_person_connected_is_listed_and_forgotten(
    described: str, tmp_path_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connect(tmp_path_url)

    assert main(["vault", "list", ISSUER, "alice", "--file", described]) == 0
    assert capsys.readouterr().out == "service: alice@service [read]\n"
    assert main(["vault", "forget", ISSUER, "alice", "--file", described]) == 0
    assert capsys.readouterr().out == "deleted connections: 1\n"
    assert main(["vault", "list", ISSUER, "alice", "--file", described]) == 0
    assert capsys.readouterr().out == "nothing is connected\n"


def test_a_tenant_is_no_person_of_the_same_name(
    described: str, tmp_path_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connect(tmp_path_url, tenant=True)

    main(["vault", "forget", ISSUER, "acme", "--file", described])
    assert capsys.readouterr().out == "deleted connections: 0\n"
    main(["vault", "list", ISSUER, "acme", "--tenant", "--file", described])
    assert capsys.readouterr().out.startswith("service: ")
    main(["vault", "forget", ISSUER, "acme", "--tenant", "--file", described])
    assert capsys.readouterr().out == "deleted connections: 1\n"


def test_after_a_rotation_the_old_key_may_go(
    described: str,
    tmp_path_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    connect(tmp_path_url)
    set_keys(monkeypatch, NEW, KEY)
    assert main(["vault", "rotate", "--file", described]) == 0
    assert capsys.readouterr().out == "rows sealed anew: 1; the other keys may be removed\n"

    async def test(world: World) -> None:
        vault = world.replica(keys=[NEW])
        assert (await vault.fetch(world.request())).token.startswith("access-")

    in_world(tmp_path_url, test)


def test_the_tables_of_a_new_database_are_made(
    described: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vault", "upgrade", "--file", described]) == 0
    assert "they had none" in capsys.readouterr().out


@pytest.mark.parametrize("person", [[], [ISSUER]])
def test_a_person_needs_an_issuer_and_a_subject(
    described: str, person: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["vault", "list", *person, "--file", described]) == 2
    assert "name the issuer and the subject" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["vault", "list", ISSUER, "alice", "--file", "nowhere.toml"]) == 2
    assert "nowhere.toml" in capsys.readouterr().err
