"""Two workers behind nginx, and all they depend on, each of which can be ended and started."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from typing_extensions import Self

from support.certificates import make_certificates
from support.deployed import Nginx, Worker
from support.redis_server import RedisServer
from support.vault_database import PostgresCluster
from toolguard.testing import LocalIssuer, Loopback
from toolguard.vault import Endpoints, KeySeal, OAuthProvider, Vault
from toolguard.vault.grants import Grant, GrantKey, Owner

__all__ = ["CONNECTED", "MovedClock", "World"]

CONNECTED = ("alice", "bob")
_KEY = b"k" * 32
_REFRESH = re.compile(r"refresh-(\w+)-(\d+)")
_LIFETIME = 600


class MovedClock:
    """A clock that is moved for this process, and by a file for the workers.

    Args:
        file: the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._offset = 0.0
        self.move(0.0)

    def move(self, seconds: float) -> None:
        """Move it by so many seconds."""
        self._offset += seconds
        new = self._file.with_suffix(".new")
        new.write_text(str(self._offset), "ascii")
        new.replace(self._file)

    def __call__(self) -> float:
        """Return the time, in seconds since the epoch."""
        return time.time() + self._offset


class World:
    """Everything that runs.

    Args:
        directory: an empty folder, which other users may enter.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.certificates = make_certificates(directory)
        self.clock = MovedClock(directory / "clock")
        self.workers = [Worker("endurance.app:app", directory / f"worker{n}.log") for n in range(2)]
        self.nginx = Nginx(directory, self.workers, self.certificates)
        self.redis = RedisServer(directory)
        (directory / "postgres").mkdir()
        self.postgres = PostgresCluster(directory / "postgres")
        self._service = Loopback()
        self._issuing = Loopback()
        url = self._issuing.url
        self._issuer_port = int(url.rpartition(":")[2])
        self.issuer = LocalIssuer(
            url, audience=f"{self.nginx.url}/mcp", algorithm="ES256", clock=self.clock
        )
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._issuing.start(self.issuer.app)
            stack.callback(self.stop_issuer)
            self._service.start(_token_service())
            stack.callback(self._service.stop)
            stack.enter_context(self.redis)
            self.postgres.start()
            stack.callback(self.postgres.kill)
            asyncio.run(self._connect())
            for worker in self.workers:
                worker.environ.update(self._environ(self._records_of(worker)))
                worker.launch()
                stack.callback(worker.kill)
            for worker in self.workers:
                worker.wait()
            stack.enter_context(self.nginx)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def stop_issuer(self) -> None:
        """Close the issuer's port."""
        self._issuing.stop()

    def start_issuer(self) -> None:
        """Serve the issuer's documents again, at the same port."""
        self._issuing = Loopback(port=self._issuer_port)
        self._issuing.start(self.issuer.app)

    def wait_until_ready(self) -> None:
        """Wait until both workers say that they are ready."""
        deadline = time.monotonic() + 120
        with httpx.Client(timeout=30, trust_env=False) as client:
            for worker in self.workers:
                while client.get(f"{worker.url}/readyz").status_code != httpx.codes.OK:
                    assert time.monotonic() < deadline, "a worker is not ready again"
                    time.sleep(0.1)

    def records_lost(self) -> int:
        """Return how many records the workers' consumers did not get."""
        urls = [f"{worker.url}/figures" for worker in self.workers]
        return sum(httpx.get(url, trust_env=False, timeout=30).json()["lost"] for url in urls)

    @property
    def records(self) -> list[str]:
        """The lines that the workers have written."""
        files = map(self._records_of, self.workers)
        return [line for file in files for line in file.read_text("utf-8").splitlines()]

    def _records_of(self, worker: Worker) -> Path:
        return self._directory / f"records{self.workers.index(worker)}"

    def _environ(self, records: Path) -> dict[str, str]:
        key = base64.b64encode(_KEY).decode()
        return {
            "MCP_SERVER_URL": self.issuer.audience,
            "TOOLGUARD_ISSUER": self.issuer.issuer,
            "TOOLGUARD_SECRET": "s" * 32,
            "TOOLGUARD_CACHE_KEYS": key,
            "TOOLGUARD_VAULT_KEYS": key,
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "ENDURANCE_CLOCK": str(self._directory / "clock"),
            "ENDURANCE_RECORDS": str(records),
            "ENDURANCE_SERVICE": self._service.url,
        }

    async def _connect(self) -> None:
        """Put the grants of the connected users into the vault."""
        url = self._service.url
        endpoints = Endpoints(f"{url}/authorize", f"{url}/token")
        mail = OAuthProvider(
            title="Mail", client_id="vault", client_secret="hidden", endpoints=endpoints
        )
        vault = Vault(self.postgres.url, connections={"mail": mail}, keys=KeySeal([_KEY]))
        for user in CONNECTED:
            grant = Grant(
                f"access-{user}-0", f"refresh-{user}-0", expires_at=self.clock() + _LIFETIME
            )
            key = GrantKey(Owner(self.issuer.issuer, user), "mail")
            await vault.store.put(key, grant, self.clock())
        await vault.aclose()


def _token_service() -> Starlette:
    """Return a service that renews tokens, and names their owner in them.

    It takes a refresh token more than once: what a killed worker has spent is lost otherwise, and
    its user has to connect again.
    """

    async def token(request: Request) -> Response:
        form = parse_qs((await request.body()).decode())
        found = _REFRESH.fullmatch(form["refresh_token"][0])
        if found is None:
            return JSONResponse({"error": "invalid_grant"}, 400)
        user, number = found[1], int(found[2]) + 1
        answer = {
            "access_token": f"access-{user}-{number}",
            "refresh_token": f"refresh-{user}-{number}",
            "token_type": "Bearer",
            "expires_in": _LIFETIME,
        }
        return JSONResponse(answer)

    return Starlette(routes=[Route("/token", token, methods=["POST"])])
