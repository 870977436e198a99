"""A vault that misbehaves on the wire. The tests here open sockets, on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import socketserver
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from support.keeping import fetched
from support.vaults import GOOD, asked, fetch_from, provider
from toolguard.connections import Connection
from toolguard.errors import ConnectionResponseError, ConnectionUnavailableError

# A fetch that did not end by itself would last ten seconds or more; a busy machine needs some.
SOON = 8.0

# A server's side of one connection: what it reads from, where it writes to.
Behaviour = Callable[["Line"], None]


class Line(socketserver.StreamRequestHandler):
    """One connection to the misbehaving vault."""

    def handle(self) -> None:
        # Whoever hangs up on a misbehaving server is right to.
        with contextlib.suppress(OSError):
            self.vault.connections += 1
            self.vault.behaviour(self)

    @property
    def vault(self) -> WireVault:
        assert isinstance(self.server, WireVault)
        return self.server

    def read_request(self) -> bool:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            line = self.rfile.readline()
            if not line:
                return False
            head += line
        length = int(re.findall(rb"(?i)content-length: *([0-9]+)", head)[0])
        self.rfile.read(length)
        self.vault.heads.append(head)
        return True

    def answer(self, body: bytes, *headers: str, status: str = "200 OK") -> None:
        lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", "")
        self.wfile.write("\r\n".join(lines).encode() + body)

    def pause(self, seconds: float) -> None:
        """Wait, but no longer than the test."""
        self.vault.over.wait(seconds)


class WireVault(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    # With the default of 5, the kernel refuses some of the connections that arrive together.
    request_queue_size = 128

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Line)
        self.behaviour = behaviour
        self.over = threading.Event()
        self.heads: list[bytes] = []
        self.connections = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def serving(behaviour: Behaviour) -> Iterator[WireVault]:
    with WireVault(behaviour) as vault:
        thread = threading.Thread(target=vault.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield vault
        finally:
            vault.over.set()
            vault.shutdown()
            thread.join()


def good(line: Line) -> None:
    while line.read_request():
        line.answer(json.dumps(GOOD).encode())


def fetch_over(url: str, *, timeout: float = 10.0) -> Connection:
    return asyncio.run(fetch_from(provider(url, timeout=timeout), asked()))


def test_a_good_vault_on_this_machine_is_understood() -> None:
    with serving(good) as vault:
        assert fetch_over(vault.url).token == "ya29.third-party"

    assert vault.heads[0].startswith(b"POST /v1/mgmt/outbound/app/user/token/latest HTTP/1.1\r\n")


def test_requests_share_one_connection() -> None:
    with serving(good) as vault:
        asyncio.run(fetch_from(provider(vault.url), asked(), times=3))

    assert len(vault.heads) == 3
    assert vault.connections == 1


MALLORYS = json.dumps({"token": {**GOOD["token"], "accessToken": "ya29.mallorys"}}).encode()
TOO_MUCH = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(MALLORYS), MALLORYS)


def says_too_much(line: Line) -> None:
    body = json.dumps(GOOD).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    while line.read_request():
        line.wfile.write(head + body + TOO_MUCH)


def says_too_much_in_chunks(line: Line) -> None:
    body = json.dumps(GOOD).encode()
    while line.read_request():
        line.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        line.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) + TOO_MUCH)


def says_too_much_after_nothing(line: Line) -> None:
    while line.read_request():
        line.wfile.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n" + TOO_MUCH)


@pytest.mark.parametrize(
    "behaviour", [says_too_much, says_too_much_in_chunks, says_too_much_after_nothing]
)
def test_what_is_left_over_of_an_answer_is_not_the_next_ones(behaviour: Behaviour) -> None:
    async def four() -> list[str]:
        connections = provider(vault.url)
        found = [await fetched(connections, asked()) for _ in range(4)]
        await connections.aclose()
        return found

    with serving(behaviour) as vault:
        found = asyncio.run(four())

    assert "ya29.mallorys" not in found
    assert len(set(found)) == 1
    assert vault.connections == 4


def test_one_provider_serves_one_event_loop_after_the_other() -> None:
    with serving(good) as vault:
        connections = provider(vault.url)
        tokens = [asyncio.run(fetch_from(connections, asked())).token for _ in range(3)]

    assert tokens == ["ya29.third-party"] * 3
    assert vault.connections == 3


def test_one_provider_serves_several_event_loops_at_once() -> None:
    tokens: list[str] = []

    async def several() -> None:
        try:
            found = await asyncio.gather(*(connections.fetch(asked()) for _ in range(5)))
            tokens.extend(connection.token for connection in found)
        finally:
            await connections.aclose()

    with serving(good) as vault:
        connections = provider(vault.url)
        threads = [threading.Thread(target=asyncio.run, args=(several(),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    assert tokens == ["ya29.third-party"] * 20


def hangs_up(line: Line) -> None:
    line.read_request()


def hangs_up_in_the_middle(line: Line) -> None:
    line.read_request()
    line.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"token": ')


def speaks_no_http(line: Line) -> None:
    line.read_request()
    line.wfile.write(b"220 mail.example ESMTP\r\n")


def writes_headers_without_end(line: Line) -> None:
    line.read_request()
    line.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not line.vault.over.is_set():
        line.wfile.write(b"X-More: and more\r\n" * 1_000)


@pytest.mark.parametrize(
    "behaviour", [hangs_up, hangs_up_in_the_middle, speaks_no_http, writes_headers_without_end]
)
def test_a_vault_that_breaks_http_is_unavailable(behaviour: Behaviour) -> None:
    with serving(behaviour) as vault, pytest.raises(ConnectionUnavailableError):
        fetch_over(vault.url)


def test_a_vault_that_is_not_there_is_unavailable() -> None:
    with serving(good) as vault:
        pass

    with pytest.raises(ConnectionUnavailableError, match=r"cannot be reached \(ConnectError\)"):
        fetch_over(vault.url)


def test_a_vault_without_tls_is_not_spoken_to_in_the_clear() -> None:
    heard: list[bytes] = []

    def listens(line: Line) -> None:
        heard.append(line.rfile.read(3))

    with serving(listens) as vault, pytest.raises(ConnectionUnavailableError):
        fetch_over(vault.url.replace("http://", "https://"))

    # RFC 8446 §5.1: a handshake record.
    assert heard == [b"\x16\x03\x01"]


def never_answers(line: Line) -> None:
    line.read_request()
    line.pause(30.0)


def drips(line: Line) -> None:
    line.read_request()
    line.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not line.vault.over.is_set():
        line.wfile.write(b" ")
        line.pause(0.02)


def drips_headers(line: Line) -> None:
    line.read_request()
    line.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not line.vault.over.is_set():
        line.wfile.write(b"x")
        line.pause(0.02)


@pytest.mark.parametrize("behaviour", [never_answers, drips, drips_headers])
def test_the_deadline_is_for_the_whole_request_however_slowly_it_drips(
    behaviour: Behaviour,
) -> None:
    with serving(behaviour) as vault:
        began = time.monotonic()
        with pytest.raises(ConnectionUnavailableError, match=r"did not answer in 0\.2 s"):
            fetch_over(vault.url, timeout=0.2)
        assert time.monotonic() - began < SOON


def test_a_body_without_end_is_not_read_to_the_end() -> None:
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    written = []

    def endless(line: Line) -> None:
        line.read_request()
        line.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not line.vault.over.is_set():
            line.wfile.write(chunk)
            written.append(len(chunk))

    with serving(endless) as vault, pytest.raises(ConnectionResponseError, match="too long"):
        fetch_over(vault.url)

    # What is over the limit is in the buffers of the two sockets.
    assert sum(written) < 16 * 1024 * 1024


def test_a_redirect_takes_the_credential_nowhere() -> None:
    with serving(good) as elsewhere:

        def redirects(line: Line) -> None:
            while line.read_request():
                line.answer(b"", f"Location: {elsewhere.url}/", status="307 Temporary Redirect")

        with serving(redirects) as vault, pytest.raises(ConnectionResponseError, match="elsewhere"):
            fetch_over(vault.url)

    assert elsewhere.heads == []


def test_a_cookie_is_not_kept() -> None:
    def sets_a_cookie(line: Line) -> None:
        while line.read_request():
            line.answer(json.dumps(GOOD).encode(), "Set-Cookie: session=alice; Path=/")

    with serving(sets_a_cookie) as vault:
        asyncio.run(fetch_from(provider(vault.url), asked(), times=2))

    assert len(vault.heads) == 2
    assert b"cookie" not in vault.heads[1].lower()


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(hangs_up) as proxy, serving(good) as vault:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)

        assert fetch_over(vault.url).token == "ya29.third-party"

    assert proxy.connections == 0


def test_a_cancelled_call_stays_cancelled_and_leaves_the_pool_in_order() -> None:
    first = threading.Event()

    def answers_the_second(line: Line) -> None:
        if first.is_set():
            good(line)
        else:
            line.read_request()
            first.set()
            line.pause(30.0)

    async def cancel_one_and_fetch_again() -> Connection:
        connections = provider(vault.url)
        call = asyncio.create_task(connections.fetch(asked()))
        await asyncio.to_thread(first.wait)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        return await fetch_from(connections, asked())

    with serving(answers_the_second) as vault:
        assert asyncio.run(cancel_one_and_fetch_again()).token == "ya29.third-party"


def test_no_log_line_of_the_client_on_the_wire_shows_a_credential(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    async def fetch_with_canary() -> None:
        connections = provider(vault.url)
        await connections.fetch(asked(access_token="ey.canary"))
        await connections.aclose()

    with serving(good) as vault:
        asyncio.run(fetch_with_canary())

    assert b"ey.canary" in vault.heads[0]
    assert caplog.records
    assert "canary" not in caplog.text
