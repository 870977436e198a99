"""Does anything that is for this machine go to a proxy of the environment?

Plain http is for this machine. A proxy would read the tokens in it, and could make up keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address
from pathlib import Path

import anyio
import httpx
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from support.certificates import make_certificates
from toolguard import Connection
from toolguard.audit.doctor.command import new_client, run_doctor
from toolguard.dev.one_call.command import CallSettings, run_call
from toolguard.errors import KeysUnavailableError
from toolguard.gateway.configuration import Upstream
from toolguard.gateway.session import Session
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.fetching import HttpFetch
from toolguard.tokens.network import Network
from toolguard.tokens.posting import HttpPost

# Every example opens sockets and reads the certificates of the authorities.
SOME = settings(max_examples=15)

SECRET = "a-secret-of-alice"


_HANDSHAKE = b"\x16"


class Refusal(socketserver.StreamRequestHandler):
    """Refuses one request, and notes what it says."""

    def handle(self) -> None:
        assert isinstance(self.server, Recorder)
        line, head = self.rfile.readline(1), b""
        if line in (b"", _HANDSHAKE):  # a closed connection, or TLS sent to a plain server
            return
        while line not in (b"", b"\r\n"):
            head, line = head + line, self.rfile.readline()
        length = re.search(rb"(?i)content-length: *([0-9]+)", head)
        body = self.rfile.read(int(length[1])) if length else b""
        self.server.requests.append((head + body).decode())
        self.wfile.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n")
        self.wfile.write(b"Connection: close\r\n\r\n")


class Recorder(socketserver.ThreadingTCPServer):
    """A server or a proxy at a local address that counts who connects."""

    daemon_threads = True

    def __init__(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        super().__init__((address, 0), Refusal)
        self.tls = tls
        self.requests: list[str] = []
        self.connections = 0

    def get_request(self) -> tuple[socket.socket, object]:
        connection, peer = super().get_request()
        self.connections += 1
        return (
            self.tls.wrap_socket(connection, server_side=True) if self.tls else connection
        ), peer

    @property
    def port(self) -> int:
        return int(self.server_address[1])


@contextlib.contextmanager
def recording(address: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Recorder]:
    with Recorder(address, tls) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


VARIABLES = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")


@contextlib.contextmanager
def proxied(names: Sequence[str] = VARIABLES) -> Iterator[Recorder]:
    """Run a proxy that the environment names in these variables."""
    with recording() as proxy, pytest.MonkeyPatch.context() as patched:
        for name in (*VARIABLES, "NO_PROXY", "no_proxy"):
            patched.delenv(name, raising=False)
        for name in names:
            patched.setenv(name, f"http://127.0.0.1:{proxy.port}")
        yield proxy


def fetches_keys(url: str) -> None:
    with contextlib.suppress(KeysUnavailableError):
        HttpFetch()(url, 10.0)


def introspects(url: str) -> None:
    async def post() -> None:
        sender = HttpPost(Network())
        await sender(url, f"token={SECRET}".encode(), {}, 10.0)
        await sender.aclose()

    asyncio.run(post())


def looks_as_doctor(url: str) -> None:
    run_doctor(url, io.StringIO(), token=SECRET)


def calls_a_tool(url: str) -> None:
    run_call(CallSettings(url, "hour", {}, token=SECRET), io.StringIO(), io.StringIO())


def passes_on(url: str) -> None:
    """Open a session of a gateway."""

    async def run() -> None:
        await Session(Upstream(url=url, token=SECRET)).run()

    anyio.run(run)


asked_by = pytest.mark.parametrize(
    "ask", [fetches_keys, introspects, looks_as_doctor, calls_a_tool, passes_on]
)
Ask = Callable[[str], None]


def cased(name: str) -> st.SearchStrategy[str]:
    return st.tuples(*(st.sampled_from([each, each.upper()]) for each in name)).map("".join)


# Without the address of the network and the one for broadcasts, at which nothing is served.
LOOPBACK = st.integers(int(IPv4Address("127.0.0.1")), int(IPv4Address("127.255.255.254")))
# Those that are refused today are left out by the test; one that is accepted one day is not.
HOSTS = st.one_of(
    LOOPBACK.map(IPv4Address).map(str),
    LOOPBACK.map(IPv4Address).map("[::ffff:{}]".format),
    cased("localhost"),
    st.sampled_from(
        ["[::1]", "[0::1]", "[::0001]", "[0:0::0:1]", "[0:0:0:0:0:0:0:1]", "[::0.0.0.1]"]
    ),
    st.sampled_from(
        ["localhost.", "127.0.0.1.", "a.localhost", "127.1", "2130706433", "0x7f.0.0.1"]
    ),
)


def address_of(host: str) -> str:
    """Return the address to serve at so that ``host`` is reached."""
    bare = host.strip("[]")
    if ":" not in bare:
        return bare if bare.replace(".", "").isdigit() else "127.0.0.1"
    return bare if bare.startswith("::ffff:") else "::1"


@asked_by
@SOME
@given(
    host=HOSTS,
    scheme=st.sampled_from(["http", "https"]),
    names=st.sampled_from([*((name,) for name in VARIABLES), VARIABLES]),
)
@example(host="127.0.0.2", scheme="http", names=VARIABLES)
@example(host="[0:0:0:0:0:0:0:1]", scheme="http", names=VARIABLES)
@example(host="LOCALHOST", scheme="http", names=VARIABLES)
@example(host="127.0.0.2", scheme="https", names=VARIABLES)
def test_a_proxy_sees_nothing_that_is_for_this_machine(
    ask: Ask, host: str, scheme: str, names: Sequence[str]
) -> None:
    assume(is_secure_url(f"http://{host}/mcp"))
    with contextlib.ExitStack() as running:
        try:
            server = running.enter_context(recording(address_of(host)))
        except OSError:
            return  # this machine does not have the address
        proxy = running.enter_context(proxied(names))

        ask(f"{scheme}://{host}:{server.port}/mcp")

        assert proxy.connections == 0
        assert server.connections > 0


@asked_by
@pytest.mark.parametrize("host", ["auth.test", "localhost.test", "127.0.0.1.test", "10.0.0.1"])
def test_what_is_elsewhere_is_asked_through_the_proxy_in_a_tunnel(ask: Ask, host: str) -> None:
    with proxied(["HTTPS_PROXY"]) as proxy:
        ask(f"https://{host}/mcp")

    assert proxy.requests
    for each in proxy.requests:
        assert each.startswith(f"CONNECT {host}:443 ")
        assert SECRET not in each


def test_it_is_decided_on_each_request_of_a_client() -> None:
    async def post(here: str) -> None:
        sender = HttpPost(Network())
        for url in ("https://auth.test/a", here, "https://auth.test/b", here):
            await sender(url, b"token=" + SECRET.encode(), {}, 10.0)
        await sender.aclose()

    with recording() as server, proxied() as proxy:
        asyncio.run(post(f"http://127.0.0.1:{server.port}/introspect"))

    assert [each[:22] for each in proxy.requests] == ["CONNECT auth.test:443 "] * 2
    assert len(server.requests) == 2


def test_a_name_in_the_url_changes_nothing() -> None:
    async def get(url: str) -> int:
        async with new_client() as client:
            return (await client.get(url)).status_code

    with recording() as server, proxied() as proxy:
        assert anyio.run(get, f"http://alice:{SECRET}@127.0.0.1:{server.port}/[x]") == 401

    assert proxy.connections == 0


def test_a_client_that_is_closed_sends_nothing_any_more() -> None:
    async def get(url: str) -> None:
        async with new_client() as client:
            await client.get(url)
        with pytest.raises(RuntimeError, match="closed"):
            await client.get(url)

    with recording() as server:
        anyio.run(get, f"http://127.0.0.1:{server.port}/")
        assert server.connections == 1


@asked_by
def test_a_private_authority_of_the_environment_holds_on_this_machine(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_certificates(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.chain, made.key)
    monkeypatch.setenv("SSL_CERT_FILE", str(made.authority))
    with recording(tls=tls) as server, proxied() as proxy:
        ask(f"https://127.0.0.1:{server.port}/mcp")

    assert server.requests
    assert proxy.connections == 0


@pytest.mark.parametrize("host", ["localhost.", "a.localhost", "127.1", "2130706433", "128.0.0.1"])
def test_what_is_no_spelling_of_this_machine_gets_no_token_by_plain_http(host: str) -> None:
    with proxied() as proxy:
        calls_a_tool(f"http://{host}/mcp")
        looks_as_doctor(f"http://{host}/mcp")

    assert all(SECRET not in each for each in proxy.requests)


# --- a connection of a tool, which the client of a tool sends


def test_the_client_of_a_tool_takes_no_proxy_if_it_is_told_so() -> None:
    connection = Connection(SECRET)
    with proxied() as proxy, recording() as api:
        url = f"http://127.0.0.1:{api.port}/"
        with httpx.Client(auth=connection.auth) as client:
            client.get(url)
        assert (len(proxy.requests), len(api.requests)) == (1, 0), "as the guide says"

        with httpx.Client(auth=connection.auth, trust_env=False) as client:
            client.get(url)
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("NO_PROXY", "127.0.0.1")
            with httpx.Client(auth=connection.auth) as client:
                client.get(url)

    assert (len(proxy.requests), len(api.requests)) == (1, 2)
    assert all(SECRET in each for each in api.requests)
