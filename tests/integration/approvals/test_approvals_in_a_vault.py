"""Are approvals kept, and people signed in, as those of the vault?"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import pytest

from support.lines import LINES
from support.vault_world import ISSUER, ORIGIN, World, in_world
from toolguard import ToolGuard, requires_approval
from toolguard.approvals import Approvals
from toolguard.testing import LocalIssuer


@pytest.fixture
def issuer() -> LocalIssuer:
    return LocalIssuer(ISSUER, audience=f"{ORIGIN}/mcp")


class Office:
    """A server whose calls are approved with the vault of a world."""

    def __init__(self, world: World, issuer: LocalIssuer) -> None:
        self.paid: list[int] = []
        self.world, self.issuer = world, issuer
        self.line = LINES[-1]
        self.server = self.line.server("office")

        @self.server.tool()
        @requires_approval(summary="Pay {amount}")
        async def pay(amount: int) -> str:
            self.paid.append(amount)
            return "paid"

        self.guard = ToolGuard(
            verifier=issuer.verifier(),
            issuer=ISSUER,
            audience=issuer.audience,
            connections=world.vault,
        )
        self.guard.protect(self.server)
        self.app = self.line.http_app(self.server, stateless=True, json=True)
        world.transport.apps["127.0.0.1"] = self.app

    async def pay(self, amount: int, user: str = "alice") -> Any:
        headers = {
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {self.issuer.mint(user)}",
            "mcp-protocol-version": "2025-11-25",
        }
        params = {"name": "pay", "arguments": {"amount": amount}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with httpx.AsyncClient(transport=self.world.transport, base_url=ORIGIN) as client:
            reply = await client.post("/mcp", headers=headers, json=body)
        return reply.json()["result"]

    async def link(self, amount: int) -> str:
        refusal = json.loads((await self.pay(amount))["content"][0]["text"])
        assert refusal["error"] == "approval_required"
        return str(refusal["approve_url"])


def in_office(url: str, issuer: LocalIssuer, test: Any) -> None:
    async def inside(world: World) -> None:
        office = Office(world, issuer)
        async with office.app.router.lifespan_context(office.app):
            await test(office)

    in_world(url, inside)


async def answer(browser: httpx.AsyncClient, link: str) -> httpx.Response:
    page = await browser.get(link)
    proof = re.search(r'name="csrf" value="([^"]+)"', page.text)
    form = {"csrf": proof[1] if proof else "", "answer": "approved"}
    return await browser.post(link, data=form)


def test_a_person_signs_in_and_approves(tmp_path_url: str, issuer: LocalIssuer) -> None:
    async def test(office: Office) -> None:
        link = await office.link(5)
        async with office.world.browser() as browser:
            page = await answer(browser, link)
        assert "This call is approved" in page.text
        assert "alice@corp.test" in page.text
        assert (await office.pay(5))["content"][0]["text"] == "paid"
        assert office.paid == [5]

    in_office(tmp_path_url, issuer, test)


def test_another_person_who_signs_in_approves_nothing(
    tmp_path_url: str, issuer: LocalIssuer
) -> None:
    async def test(office: Office) -> None:
        link = await office.link(5)
        office.world.issuer.user = "mallory"
        async with office.world.browser() as browser:
            page = await browser.get(link)
            assert page.status_code == 403
            assert "another person" in page.text
            assert "Sign in as someone else" in page.text
            assert (await answer(browser, link)).status_code == 403
        assert await office.link(5) == link

    in_office(tmp_path_url, issuer, test)


def test_of_many_calls_at_once_after_a_yes_one_runs(tmp_path_url: str, issuer: LocalIssuer) -> None:
    async def test(office: Office) -> None:
        link = await office.link(5)
        async with office.world.browser() as browser:
            await browser.get(link)
            await asyncio.gather(*(answer(browser, link) for _ in range(3)))
        await asyncio.gather(*(office.pay(5) for _ in range(6)))
        assert office.paid == [5]

    in_office(tmp_path_url, issuer, test)


def test_a_person_who_is_forgotten_leaves_no_question(
    tmp_path_url: str, issuer: LocalIssuer
) -> None:
    async def test(office: Office) -> None:
        await office.link(5)
        await office.world.vault.forget(ISSUER, "bob")
        assert len(await office.world.sql("SELECT * FROM vault_approval")) == 1
        await office.world.vault.forget(ISSUER, "alice")
        assert await office.world.sql("SELECT * FROM vault_approval") == []

    in_office(tmp_path_url, issuer, test)


def test_a_guard_with_a_vault_has_approvals(tmp_path_url: str, issuer: LocalIssuer) -> None:
    async def test(office: Office) -> None:
        approvals = office.guard.approvals
        assert isinstance(approvals, Approvals)
        assert approvals.vault is office.world.vault

    in_office(tmp_path_url, issuer, test)
