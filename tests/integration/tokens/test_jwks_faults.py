"""Can a misbehaving key endpoint hold a source up, fill its memory or lead it elsewhere?

With the real fetch over real sockets to this machine, and limits of tenths of a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import gzip
import ipaddress
import json
import socket
import ssl
import struct
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from typing_extensions import Self

from support.issuing import Endpoint, names, refresh, settle
from toolguard.errors import KeysUnavailableError
from toolguard.testing import FrozenClock
from toolguard.tokens.fetching import BusyError
from toolguard.tokens.jwks import JWKS, HttpFetch
from toolguard.tokens.network import Network

# A fetch that did not end by itself would last ten seconds or more; a busy machine needs some.
SOON = 8.0
KEY_SET = Endpoint("a").body
MEBIBYTE = 1024 * 1024


class Server:
    """Answers every connection to a free local port as the test says, one at a time."""

    url: str

    def __init__(self, answer: Callable[[Server, socket.socket], None]) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.sent = 0
        self.stopped = threading.Event()
        self.tls: ssl.SSLContext | None = None

    def _serve(self) -> None:
        while not self.stopped.is_set():
            with contextlib.suppress(OSError), self.listener.accept()[0] as plain:
                plain.settimeout(10)
                with self.tls.wrap_socket(plain, server_side=True) if self.tls else plain as each:
                    request = each.recv(65_536)
                    if request:
                        self.requests.append(request)
                        self.answer(self, each)

    def send(self, connection: socket.socket, data: bytes) -> None:
        connection.sendall(data)
        self.sent += len(data)

    def __enter__(self) -> Self:
        self.listener = socket.create_server(("127.0.0.1", 0))
        scheme = "https" if self.tls else "http"
        self.url = f"{scheme}://127.0.0.1:{self.listener.getsockname()[1]}/jwks"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        # A listener that is only closed would leave the thread in accept().
        with contextlib.suppress(OSError):
            socket.create_connection(self.listener.getsockname(), 1).close()
        self.thread.join(10)
        self.listener.close()


def replies(body: bytes, status: str = "200 OK", *headers: str) -> Server:
    """Return a server that gives this one answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    head = "\r\n".join([*lines, "", ""]).encode()
    return Server(lambda server, connection: server.send(connection, head + body))


def sends(data: bytes) -> Server:
    return Server(lambda server, connection: server.send(connection, data))


def drips(head: bytes, drop: bytes) -> Server:
    """Return a server that sends a drop every 20 ms for as long as anybody listens."""

    def answer(server: Server, connection: socket.socket) -> None:
        server.send(connection, head)
        while not server.stopped.wait(0.02):
            server.send(connection, drop)

    return Server(answer)


def floods(head: bytes) -> Server:
    """Return a server that sends 200 MiB."""

    def answer(server: Server, connection: socket.socket) -> None:
        server.send(connection, head)
        for _ in range(3_200):
            server.send(connection, b" " * 65_536)

    return Server(answer)


def resets() -> Server:
    def answer(_: Server, connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return Server(answer)


def silent() -> Server:
    def answer(server: Server, _: socket.socket) -> None:
        server.stopped.wait(10)

    return Server(answer)


def fails(server: Server, timeout: float = 5.0) -> str:
    """Return why the document of this server cannot be had."""
    with server, pytest.raises(KeysUnavailableError) as caught:
        HttpFetch()(server.url, timeout)
    assert caught.value.__cause__ is None
    return str(caught.value)


OK = b"HTTP/1.1 200 OK\r\n"


def test_a_key_set_is_fetched_from_a_server_that_behaves() -> None:
    with replies(KEY_SET) as server:
        assert HttpFetch()(server.url, 5.0) == KEY_SET
    (request,) = server.requests
    assert request.startswith(b"GET /jwks HTTP/1.1\r\n")
    assert b"accept-encoding: identity\r\n" in request.lower()
    assert b"authorization" not in request.lower()
    assert b"cookie" not in request.lower()


def test_a_chunked_answer_is_put_together() -> None:
    chunked = b'Transfer-Encoding: chunked\r\n\r\n4\r\n{"ke\r\n4\r\nys":\r\n0\r\n\r\n'
    with sends(OK + chunked) as server:
        assert HttpFetch()(server.url, 5.0) == b'{"keys":'


@pytest.mark.parametrize(
    ("server", "reason"),
    [
        (replies(b"", "404 Not Found"), "HTTP 404"),
        (replies(KEY_SET, "500 Internal Server Error"), "HTTP 500"),
        (replies(b"", "503 Service Unavailable", "Retry-After: 1"), "HTTP 503"),
        (replies(KEY_SET, "203 Non-Authoritative Information"), "HTTP 203"),
        (replies(b"", "301 Moved Permanently", "Location: /elsewhere"), "a second redirect"),
        (replies(b"", "301 Moved Permanently", "Location: https://127.0.0.1/"), "another origin"),
        (replies(b"", "301 Moved Permanently"), "HTTP 301"),
        (replies(KEY_SET, "200 OK", "Content-Encoding: gzip"), "not gzip"),
        (replies(KEY_SET, "200 OK", "Content-Encoding: br"), "compressed"),
        (resets(), "no answer"),
        (sends(b""), "no answer"),
        (sends(b"SSH-2.0-OpenSSH_9.6\r\n"), "no answer"),
        (sends(OK + b"Content-Length: 999\r\n\r\n{}"), "no answer"),
        (sends(OK + b"Content-Length: many\r\n\r\n{}"), "no answer"),
        (sends(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "no answer"),
        (sends(OK + b"X: " + b"a" * MEBIBYTE), "no answer"),
    ],
)
def test_an_answer_that_is_not_a_document_is_a_failure(server: Server, reason: str) -> None:
    assert reason in fails(server)


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_an_endpoint_says_when_to_come_back(status: str) -> None:
    with replies(b"", status, "Retry-After: 17") as server, pytest.raises(BusyError) as caught:
        HttpFetch()(server.url, 5.0)
    assert caught.value.retry_after == 17


def test_nothing_listens() -> None:
    with replies(b"") as server:
        pass
    with pytest.raises(KeysUnavailableError, match="no answer"):
        HttpFetch()(server.url, 5.0)


def test_a_name_that_cannot_be_a_host_is_a_failure() -> None:
    with pytest.raises(KeysUnavailableError, match="no answer"):
        HttpFetch()(f"https://{'a' * 70}.example/", 5.0)


@pytest.mark.parametrize(
    "server",
    [
        silent(),
        drips(b"", b"H"),
        drips(OK, b"X-Header: drip\r\n"),
        drips(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        drips(OK + b"Content-Length: 100000\r\n\r\n", b" "),
        drips(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ],
)
def test_a_fetch_ends_in_time_however_slowly_the_answer_drips(server: Server) -> None:
    started = time.monotonic()
    assert fails(server, timeout=0.3) == "no answer (TimeoutError)"
    assert time.monotonic() - started < SOON


def test_a_fetch_ends_in_time_however_long_the_name_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = threading.Event()

    def look_up(*_: object, **__: object) -> list[object]:
        answered.wait(10)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    started = time.monotonic()
    with pytest.raises(KeysUnavailableError):
        HttpFetch()("https://auth.example.com/jwks", 0.3)
    assert time.monotonic() - started < SOON
    answered.set()


@pytest.mark.parametrize(
    "head",
    [
        OK + b"Content-Length: 209715200\r\n\r\n",
        OK + b"Connection: close\r\n\r\n",
    ],
)
def test_an_endless_answer_is_cut_off_and_not_kept(head: bytes) -> None:
    server = floods(head)
    tracemalloc.start()
    try:
        assert "too long" in fails(server)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MEBIBYTE
    # What the sockets have buffered was sent too, but nobody has read it.
    assert server.sent < 20 * MEBIBYTE


def test_the_longest_answer_is_512_kibibytes() -> None:
    limit = 512 * 1024
    with replies(b" " * limit) as server:
        assert len(HttpFetch()(server.url, 5.0)) == limit
    assert "too long" in fails(replies(b" " * (limit + 1)))


def test_a_compressed_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b" " * (50 * MEBIBYTE))
    tracemalloc.start()
    try:
        assert "too long" in fails(replies(bomb, "200 OK", "Content-Encoding: gzip"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * MEBIBYTE


def test_gzip_and_a_byte_order_mark_are_read() -> None:
    body = gzip.compress(b"\xef\xbb\xbf" + KEY_SET)
    with replies(body, "200 OK", "Content-Encoding: gzip") as server:
        assert HttpFetch()(server.url, 5.0) == KEY_SET


def test_a_redirect_to_another_origin_is_not_followed() -> None:
    with replies(KEY_SET) as other:
        for status in ("301 Moved Permanently", "302 Found", "307 Temporary Redirect"):
            assert "another origin" in fails(replies(b"", status, f"Location: {other.url}"))
    assert other.requests == []


def test_one_redirect_within_the_origin_is_followed() -> None:
    def answer(server: Server, connection: socket.socket) -> None:
        moved = b"HTTP/1.1 308 Permanent Redirect\r\nContent-Length: 0\r\nConnection: close\r\n"
        if len(server.requests) == 1:
            server.send(connection, moved + b"Location: /keys\r\n\r\n")
        else:
            server.send(connection, OK + b"Connection: close\r\n\r\n" + KEY_SET)

    with Server(answer) as server:
        assert HttpFetch()(server.url, 5.0) == KEY_SET
    assert server.requests[1].startswith(b"GET /keys ")


def test_the_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with replies(KEY_SET) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "elsewhere.test")
        assert HttpFetch()("http://auth.test/jwks", 5.0) == KEY_SET
    assert proxy.requests[0].startswith(b"GET http://auth.test/jwks HTTP/1.1\r\n")


def test_a_proxy_can_be_set() -> None:
    with replies(KEY_SET) as proxy:
        assert HttpFetch(network=Network(proxy=proxy.url))("http://auth.test/", 5.0) == KEY_SET


def test_certificates_of_the_environment_are_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with https(tmp_path) as (server, _):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
        assert HttpFetch()(server.url, 5.0) == KEY_SET


@contextlib.contextmanager
def https(folder: Path) -> Iterator[tuple[Server, ssl.SSLContext]]:
    """Serve the key set with a certificate of its own, and yield who trusts that."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.timezone.utc)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    pem = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem.write_bytes(private + certificate)
    server = replies(KEY_SET)
    server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.tls.load_cert_chain(pem)
    with server:
        yield server, ssl.create_default_context(cadata=certificate.decode())


def test_a_certificate_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    with https(tmp_path) as (server, trusting):
        with pytest.raises(KeysUnavailableError, match="ConnectError"):
            HttpFetch()(server.url, 5.0)
        with pytest.raises(KeysUnavailableError, match="ConnectError"):
            HttpFetch(ssl_context=trusting)(server.url.replace("127.0.0.1", "localhost"), 5.0)
        assert HttpFetch(ssl_context=trusting)(server.url, 5.0) == KEY_SET
    assert len(server.requests) == 1


# With a source of keys


BROKEN = {
    "empty": b"",
    "truncated": KEY_SET[:-1],
    "html": b"<!doctype html><title>Sign in</title>",
    "utf-16": KEY_SET.decode().encode("utf-16"),
    "not utf-8": KEY_SET[:-1] + b',"x":"\xff"}',
    "null": b"null",
    "list": b"[]",
    "no keys": b'{"keys": []}',
    "keys twice": b'{"keys": [], "keys": []}',
    "nested": b'{"keys": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "nested objects": b'{"keys": [' + b'{"a":' * 50_000,
    "long number": b'{"keys": [' + b"9" * 500_000 + b"]}",
    "101 keys": json.dumps({"keys": json.loads(KEY_SET)["keys"] * 101}).encode(),
    "gzip without saying so": gzip.compress(KEY_SET),
}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_old_keys_serve_when_the_document_is_no_key_set(body: bytes) -> None:
    clock, served = FrozenClock(1_000), [KEY_SET, body]
    server = Server(lambda server, connection: server.send(connection, OK + b"\r\n" + served[0]))
    with server:
        source = JWKS(url=server.url, clock=clock)
        refresh(source)
        clock.advance(300)
        served.reverse()
        assert names(source) is None
        refresh(source)
        settle(source)
        assert names(source) == ["a"]
        cold = JWKS(url=server.url, clock=clock)
        with pytest.raises(KeysUnavailableError):
            refresh(cold)


def test_waiting_calls_are_answered_in_time_and_the_next_at_once() -> None:
    with silent() as server:
        source = JWKS(url=server.url, timeout=2)
        started = time.monotonic()

        async def wait() -> list[BaseException | None]:
            waits = (source.refresh() for _ in range(50))
            return await asyncio.gather(*waits, return_exceptions=True)

        assert {type(answer) for answer in asyncio.run(wait())} == {KeysUnavailableError}
        assert time.monotonic() - started < SOON
        with pytest.raises(KeysUnavailableError):
            names(source)
    assert len(server.requests) == 1


def test_calls_of_known_keys_never_wait_for_a_hung_fetch() -> None:
    clock, hang = FrozenClock(1_000), threading.Event()

    def answer(server: Server, connection: socket.socket) -> None:
        if hang.is_set():
            server.stopped.wait(10)
        server.send(connection, OK + b"\r\n" + KEY_SET)

    with Server(answer) as server:
        source = JWKS(url=server.url, clock=clock, timeout=8)
        refresh(source)
        hang.set()
        clock.advance(240)
        times = []
        for _ in range(1_000):
            started = time.perf_counter()
            assert names(source) == ["a"]
            times.append(time.perf_counter() - started)
        assert sorted(times)[-10] < 0.05
        server.stopped.set()
        settle(source)
