"""Does an app that hangs, or a caller whose requests hang, hold up anybody else?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from support.keeping import asked
from toolguard.connections import CachedConnections, Connection, ConnectionRequest
from toolguard.connections.http import VaultClient, VaultRequest

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"


@asynccontextmanager
async def hanging_server(arrived: asyncio.Semaphore) -> AsyncIterator[str]:
    """A server that answers everything but ``/hang``."""
    released = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/hang" in head.partition(b"\r\n")[0]:
            arrived.release()
            await released.wait()
        writer.write(_ANSWER)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=200)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        released.set()
        server.close()


def test_an_app_that_hangs_holds_up_no_other_app() -> None:
    async def main() -> int:
        client = VaultClient(timeout=20)
        arrived = asyncio.Semaphore(0)
        async with hanging_server(arrived) as url:
            hanging = VaultRequest("slow", f"{url}/hang", {}, None)
            waiting = [asyncio.ensure_future(client.post(hanging)) for _ in range(60)]
            for _ in range(50):
                await arrived.acquire()
            answer = await client.post(VaultRequest("quick", url, {}, None))
            assert not any(each.done() for each in waiting)
            for each in waiting:
                each.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        await client.aclose()
        return answer.status

    assert asyncio.run(main()) == 200


def test_a_caller_whose_requests_hang_takes_ten_places_only() -> None:
    async def main() -> tuple[int, str]:
        gate, under_way = asyncio.Event(), 0

        async def vault(request: ConnectionRequest) -> Connection:
            nonlocal under_way
            if request.principal.user_id == "alice":
                under_way += 1
                await gate.wait()
            return Connection("t-" + str(request.principal.user_id))

        connections = CachedConnections(vault)
        alice = [asked(scopes=(f"scope{n}",)) for n in range(60)]
        waiting = [asyncio.ensure_future(connections.fetch(each)) for each in alice]
        bob = replace(alice[0], principal=replace(alice[0].principal, user_id="bob"))
        token = (await connections.fetch(bob)).token
        seen = under_way
        gate.set()
        await asyncio.gather(*waiting)
        assert len(connections._lanes._lanes.get()) == 0
        return seen, token

    assert asyncio.run(main()) == (10, "t-bob")
