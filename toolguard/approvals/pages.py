"""The page on which a person approves one call, or refuses it.

A link is no secret and no permit: the page asks who opens it, shows nothing to others, and takes an
answer only from the form that it has shown to this person in this browser.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolguard.approvals.approval import Approval, PersonAnswer
from toolguard.pages.layout import page
from toolguard.pages.names import display_name
from toolguard.vault.browser import read_form, redirect
from toolguard.vault.sign_in import Person
from toolguard.vault.visitors import PageError, Visitors

if TYPE_CHECKING:
    from toolguard.approvals.approvals import Approvals

__all__ = ["approval_routes"]

_log = logging.getLogger("toolguard.approvals")

_MINUTE = 60
_OVER = "This request has ended. If the call is made again, it is asked again."
_STATUS = {
    "pending": "Another person has to answer this. Send them the address of this page.",
    "approved": "This call is approved, and can be made once now.",
    "refused": "This call is refused.",
    "used": "This call was approved, and has been made.",
}


def approval_routes(approvals: Approvals) -> list[Route]:
    """Return the pages of approvals, with those of the sign-in, for the root of an application.

    A server of the SDK or of fastmcp that the guard protects serves them by itself.

    Args:
        approvals: the approvals.

    Raises:
        ValueError: if they do not know their origin.
        ModuleNotFoundError: if Jinja2 is not installed.
    """
    vault = approvals.vault
    host, sessions = (approvals, approvals.sessions) if vault is None else (vault, vault.slips)
    return _ApprovalPages(approvals, Visitors(host, sessions)).routes()


class _ApprovalPages:
    """The pages of the approvals of one guard."""

    def __init__(self, approvals: Approvals, visitors: Visitors) -> None:
        self._approvals = approvals
        self._visitors = visitors

    def routes(self) -> list[Route]:
        path, answering = "/connections/approvals/{id}", self._visitors.answering
        return [
            Route(path, answering(self._answer_to), methods=["GET", "POST"]),
            *self._visitors.routes(),
        ]

    async def _answer_to(self, request: Request) -> Response:
        return await (self._take if request.method == "POST" else self._show)(request)

    async def _show(self, request: Request) -> Response:
        id_ = request.path_params["id"]
        person = await self._visitors.person_or_sign_in(request, f"approvals/{id_}")
        if isinstance(person, Response):
            return person
        approval = await self._found(id_)
        may_answer = await self._approvals.may_answer(approval, person)
        self._check_visitor(approval, person, may_answer=may_answer)
        browser = self._visitors.cookies.browser(request)
        response = self._page(approval, person, browser, may_answer=may_answer)
        self._visitors.cookies.set(response, "browser", browser)
        return response

    async def _take(self, request: Request) -> Response:
        form = await read_form(request)
        id_, answer = request.path_params["id"], form.get("answer", "")
        person = await self._visitors.person(request)
        if not isinstance(person, Person) or not self._visitors.cookies.is_own_form(
            request, form.get("csrf", ""), *_about(id_, person)
        ):
            raise PageError("This form was not sent from the page of this request.", 403)
        approval = await self._found(id_)
        may_answer = await self._approvals.may_answer(approval, person)
        if not may_answer or answer not in ("approved", "refused"):
            raise PageError("This is not an answer to this question.", 403)
        await self._approvals.answer(approval, person, cast("PersonAnswer", answer))
        # A second answer changes nothing: the page says which one counts.
        return redirect(self._url(id_))

    async def _found(self, id_: str) -> Approval:
        found = await self._approvals.store.find(id_, self._approvals.clock())
        if found is None:
            raise PageError(_OVER, 410)
        return found

    def _check_visitor(self, approval: Approval, person: Person, *, may_answer: bool) -> None:
        """Check that a person may see the question: whoever may answer it, and who asks."""
        if may_answer or self._approvals.is_asker(approval, person):
            return
        _log.warning("a question of %r was opened by %r", approval.asker, person.subject)
        raise PageError(
            f"This question is for another person. You are signed in as "
            f"{display_name(person.shown)}.",
            403,
            link=self._visitors.again_link(f"approvals/{approval.id}"),
            link_text="Sign in as someone else",
        )

    def _page(
        self, approval: Approval, person: Person, browser: str, *, may_answer: bool
    ) -> Response:
        facts, asker = approval.facts, approval.asker
        is_open = approval.state == "pending"
        values: dict[str, Any] = {
            "heading": "Approve this call?" if is_open and may_answer else "A call to approve",
            "person": display_name(person.shown),
            "asker": display_name(asker.subject or "An application"),
            "client": display_name(asker.client or ""),
            "tool": display_name(facts["tool"]),
            "server": facts["server"],
            "summary": facts["summary"],
            "arguments": facts["arguments"],
            "left_out": facts["left_out"],
            "within": _duration(facts["within"]),
            "may_answer": is_open and may_answer,
            "told": _STATUS[approval.state],
            "action": self._url(approval.id),
            "csrf": self._visitors.cookies.form_proof(browser, *_about(approval.id, person)),
        }
        return page("approval.html", issuer=self._visitors.url, **values)

    def _url(self, id_: str) -> str:
        return f"{self._visitors.url}/approvals/{id_}"


def _about(id_: str, person: Person) -> tuple[str, str, str]:
    return id_, person.issuer, person.subject


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 2 * _MINUTE:
        return f"{whole} seconds"
    return f"{whole // _MINUTE} minutes"
