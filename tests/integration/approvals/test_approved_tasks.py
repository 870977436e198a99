"""Does a background task wait for its approval before it is queued, and use it when it runs?"""

from __future__ import annotations

import json

import httpx
import pytest
from starlette.requests import Request

from support.lines import Guarding, Serve
from support.task_servers import TASK_LINE, Tasked, server_with_tasks
from toolguard import requires_approval
from toolguard.approvals import Approvals
from toolguard.testing import LocalIssuer
from toolguard.vault import Person

pytestmark = pytest.mark.skipif(TASK_LINE is None, reason="this fastmcp has no background tasks")


def test_a_task_is_queued_once_approved_and_runs_once(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer
) -> None:
    async def signed_in(_: Request) -> Person | None:
        return Person(issuer.issuer, "alice")

    paid: list[int] = []
    server = server_with_tasks()

    @server.tool(task=True)
    @requires_approval(summary="Pay {amount}")
    async def pay(amount: int, note: str = "") -> str:
        paid.append(amount)
        return f"paid {amount}{note}"

    approvals = Approvals(sign_in=signed_in, public_url="http://127.0.0.1:1")
    guarding().protect(server, approvals=approvals)
    assert TASK_LINE is not None
    url = serve(TASK_LINE.http_app(server))
    alice = Tasked.at(http, url, issuer.mint("alice"))

    def ask() -> str:
        refusal = json.loads(alice.ask("pay", amount=5).tool_error)
        return str(refusal["approve_url"].rpartition("/")[2])

    id_ = ask()
    assert ask() == id_
    with httpx.Client(base_url=url) as browser:
        page = browser.get(f"/connections/approvals/{id_}")
        proof = page.text.partition('name="csrf" value="')[2].partition('"')[0]
        form = {"csrf": proof, "answer": "approved"}
        assert browser.post(f"/connections/approvals/{id_}", data=form).status_code == 303

    assert alice.outcome(alice.start("pay", amount=5)) == "paid 5"
    assert paid == [5]
    assert ask() != id_
