"""Call the tools as a person would: sign in, and connect an account where that is asked for."""

from __future__ import annotations

import asyncio

from fastmcp import Client


async def main() -> None:
    async with Client("http://127.0.0.1:8000/mcp", auth="oauth") as client:
        while True:
            answer = await client.call_tool("list_issues", raise_on_error=False)
            if not answer.is_error:
                break
            print(answer.content[0].text)
            await asyncio.to_thread(input, "Open the link; then press Enter. ")
        print(answer.data)
        # Refused with 403 at first: the client asks the person for the scope that is missing.
        print((await client.call_tool("my_account")).data)


asyncio.run(main())
