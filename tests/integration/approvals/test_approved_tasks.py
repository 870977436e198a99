"""Does a background task wait for its approval before it is queued, and use it when it runs?"""

from __future__ import annotations

import importlib
import json
from typing import Any

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


def _payer(paid: list[int], context: str) -> Any:
    """Return a tool that pays, with or without the framework's context."""

    async def pay(amount: int, note: str = "") -> str:
        paid.append(amount)
        return f"paid {amount}{note}"

    async def with_context(amount: int, note: str = "", *, ctx: Any) -> str:
        assert type(ctx).__name__ == "Context"
        return await pay(amount, note)

    if context == "none":
        return pay
    assert TASK_LINE is not None
    optional = context == "optional"
    with_context.__annotations__["ctx"] = (
        TASK_LINE.context | None if optional else TASK_LINE.context
    )
    if optional:
        with_context.__kwdefaults__ = {"ctx": None}
    elif context == "dependency":
        found = importlib.import_module("fastmcp.dependencies").CurrentContext()
        with_context.__kwdefaults__ = {"ctx": found}
    with_context.__name__ = "pay"
    return with_context


@pytest.mark.parametrize("context", ["none", "required", "optional", "dependency"])
def test_a_task_is_queued_once_approved_and_runs_once(
    guarding: Guarding, serve: Serve, http: httpx.Client, issuer: LocalIssuer, context: str
) -> None:
    async def signed_in(_: Request) -> Person | None:
        return Person(issuer.issuer, "alice")

    paid: list[int] = []
    server = server_with_tasks()

    pay: Any = _payer(paid, context)
    server.tool(task=True)(requires_approval(summary="Pay {amount}")(pay))
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
