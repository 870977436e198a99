"""A keep-alive client of plain sockets, so that next to nothing but the server is measured."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

__all__ = ["MODERN", "Connection", "request"]

MODERN = "2026-07-28"
_META = "io.modelcontextprotocol/"
_LENGTH = re.compile(rb"\ncontent-length: (\d+)", re.IGNORECASE)
_SESSION = re.compile(rb"\nmcp-session-id: (\S+)", re.IGNORECASE)


class Connection:
    """One connection to a server on this machine."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, sent: bytes) -> tuple[bytes, bytes]:
        """Send a request and return head and body of the response."""
        self._socket.sendall(sent)
        got = self._socket.recv(65_536)
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._socket.recv(65_536)
        head = got[:end]
        length = _LENGTH.search(head)
        if length is not None:
            whole = end + 4 + int(length[1])
            while len(got) < whole:
                got += self._socket.recv(65_536)
        else:  # chunks
            while not got.endswith(b"\r\n0\r\n\r\n"):
                got += self._socket.recv(65_536)
        return head, got[end + 4 :]

    def status(self, sent: bytes) -> int:
        """Send a request and return the status of the response."""
        return int(self.exchange(sent)[0][9:12])

    def cpu(self) -> int:
        """Return the CPU time that the server has used, in nanoseconds."""
        return int(self.exchange(b"GET /cpu HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")[1])

    def open_session(self, path: str, revision: str, token: str) -> str:
        """Return the id of a new session."""
        params = {
            "protocolVersion": revision,
            "capabilities": {},
            "clientInfo": {"name": "benchmark", "version": "1"},
        }
        head, body = self.exchange(request(path, revision, token, "initialize", params))
        found = _SESSION.search(head)
        if found is None:
            raise RuntimeError(f"no session: {head!r} {body!r}")
        session = found[1].decode()
        self.exchange(request(path, revision, token, "notifications/initialized", {}, session))
        return session

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


def request(
    path: str,
    revision: str,
    token: str,
    method: str,
    params: dict[str, Any],
    session: str | None = None,
) -> bytes:
    """Return one message as an HTTP request."""
    headers = {
        "Host": "127.0.0.1:8000",
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        "Authorization": f"Bearer {token}",
        **({"MCP-Protocol-Version": revision} if method != "initialize" else {}),
        **({"Mcp-Session-Id": session} if session is not None else {}),
    }
    if revision == MODERN:
        headers |= {"Mcp-Method": method, "Mcp-Name": params["name"]}
        about = {
            "protocolVersion": revision,
            "clientCapabilities": {},
            "clientInfo": {"name": "benchmark", "version": "1"},
        }
        params = {**params, "_meta": {f"{_META}{name}": said for name, said in about.items()}}
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if not method.startswith("notifications/"):
        message["id"] = 1
    body = json.dumps(message).encode()
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {said}" for name, said in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
