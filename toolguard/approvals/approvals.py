"""Ask people to approve calls: the questions of one server, and what each one is bound to."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from toolguard.approvals.approval import Approval, ApprovalStore, Asker, Binding, PersonAnswer
from toolguard.approvals.canonical import UnreadableArgumentError, digest_of, sent_arguments
from toolguard.approvals.memory import MemoryApprovals
from toolguard.approvals.sessions import MemorySessions
from toolguard.approvals.shown import shown_arguments, summary_of
from toolguard.calls.recording import answer_record
from toolguard.calls.records import ApprovalVerdict
from toolguard.calls.request import Guard
from toolguard.connections.http import Transport, VaultClient
from toolguard.errors import (
    AccessDeniedError,
    ApprovalRefusedError,
    ApprovalRequiredError,
    InvalidInputError,
)
from toolguard.parsing.secure_urls import secure_origin
from toolguard.policies.decision import PERMIT, Caller, decide
from toolguard.policies.policy import Policy
from toolguard.principal import Principal
from toolguard.vault.oauth_client import new_secret
from toolguard.vault.sign_in import Person, check_sign_in

if TYPE_CHECKING:
    from toolguard.policies.approval import CallToApprove
    from toolguard.policies.formulas import Formula
    from toolguard.vault.sign_in import SignIn
    from toolguard.vault.vault import Vault

__all__ = ["Approvals"]


class ApprovingGuard(Guard, Protocol):
    """The guard of a server whose calls are approved."""

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies of all operations."""
        ...


class Approvals:
    """Approvals of single calls, kept in memory, for a server that is one process.

    A guard whose connections come from a :class:`~toolguard.vault.Vault` with ``sign_in=`` has
    approvals in the database of that vault, and needs none of this::

        guard.protect(mcp, approvals=Approvals(sign_in=OpenIDSignIn(client_id)))

    Args:
        sign_in: how a person who opens a page is recognized: :class:`~toolguard.vault.OpenIDSignIn`
            or an async function of the request that returns a :class:`~toolguard.vault.Person`.
        public_url: the origin at which the pages are reached; by default that of the guard's
            resource.
        transport: carries the requests to the issuer instead of sockets.
        clock: returns the time, in seconds since the epoch.

    Raises:
        TypeError: if people cannot be recognized by ``sign_in``.
        ValueError: if ``public_url`` is not an origin.
    """

    def __init__(
        self,
        *,
        sign_in: SignIn,
        public_url: str | None = None,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._origin = None if public_url is None else secure_origin(public_url)
        if public_url is not None and self._origin != public_url.rstrip("/"):
            raise ValueError(f'public_url={public_url!r}: write "https://mcp.example.com"')
        check_sign_in(sign_in)
        self.sign_in: SignIn = sign_in
        self.clock = clock
        #: The sessions of people who are signed in; a vault keeps those in its database instead.
        self.sessions = MemorySessions(clock)
        #: Keeps the approvals.
        self.store: ApprovalStore = MemoryApprovals()
        #: The vault whose pages and database these approvals share; None if there is none.
        self.vault: Vault | None = None
        self._http: VaultClient | None = VaultClient(transport=transport, clock=clock)
        self.issuer: str | None = None
        self._guard: ApprovingGuard | None = None
        # What approvers must meet, of functions that are no operations of their own.
        self._rules: dict[str, set[Formula]] = {}

    @classmethod
    def of_vault(cls, vault: Vault) -> Approvals:
        """Return approvals that are kept in the database of a vault, and use its sign-in.

        Args:
            vault: the vault.

        Raises:
            ValueError: if the vault has no sign-in.
        """
        from toolguard.approvals.table import ApprovalTable  # noqa: PLC0415 - imports SQLAlchemy

        if vault.sign_in is None:
            raise ValueError("write Vault(..., sign_in=OpenIDSignIn(...)): a page asks a person")
        approvals = cls(sign_in=vault.sign_in, clock=vault.clock)
        approvals.store = ApprovalTable(vault.database, vault.seal)
        approvals.vault, approvals._http = vault, None
        return approvals

    @property
    def http(self) -> VaultClient:
        """The client that asks the issuer."""
        client = self._http if self.vault is None else self.vault.http
        assert client is not None  # noqa: S101 - one of the two has it
        return client

    @property
    def pages_url(self) -> str | None:
        """The URL below which the pages are; None while the origin is unknown."""
        if self.vault is not None:
            return self.vault.pages_url
        return None if self._origin is None else f"{self._origin}/connections"

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; the guard calls this."""
        if self._http is not None:  # that of a vault is closed with the vault
            await self._http.aclose()

    def bind(self, resource: str, issuer: str | None, guard: ApprovingGuard) -> None:
        """Take the origin of the pages and the issuer from the guard; the guard calls this.

        Args:
            resource: the URL of the guarded server.
            issuer: the issuer of the callers' tokens.
            guard: the guard, which gets a record of each answer.

        Raises:
            ValueError: if another guard has these approvals.
        """
        if self._guard not in (None, guard):
            raise ValueError("these approvals belong to another guard: write Approvals(...) twice")
        self._guard = guard
        self._origin = self._origin or secure_origin(resource)
        self.issuer = self.issuer or issuer

    async def require(self, call: CallToApprove, *, use: bool) -> None:
        """Return if the call is approved; else ask, and refuse it.

        Args:
            call: the call.
            use: whether the call runs now, so that the approval is used up.

        Raises:
            ApprovalRequiredError: if a person has to answer first.
            ApprovalRefusedError: if a person has said no.
            ApprovalUnavailableError: if the database is away.
            InvalidInputError: if an argument has no canonical form.
            AccessDeniedError: if the caller should approve it, and is no user.
        """
        if call.need.by is not None:
            self._rules.setdefault(str(call.need.by), set()).add(call.need.by)
        arguments = sent_arguments(call.arguments)
        binding, now = self._binding(call, arguments), self.clock()
        if use and await self.store.use(binding.digest, now):
            return
        new = self._question(call, arguments, binding, now)
        found = await self.store.ask(new, now)
        if found.state == "approved" and (
            not use or await self.store.use(binding.digest, self.clock())
        ):
            return
        if found.state == "refused":
            raise ApprovalRefusedError("The person who was asked refused this call", tool=call.tool)
        raise self._required(call, found, is_waiting=found.id != new.id)

    def is_asker(self, approval: Approval, person: Person) -> bool:
        """Return whether a person is the user of the call.

        Args:
            approval: the question.
            person: the person who is signed in.
        """
        asker = approval.asker
        return (person.issuer, person.subject) == (asker.issuer, asker.subject)

    async def may_answer(self, approval: Approval, person: Person) -> bool:
        """Return whether a person may answer a question.

        Args:
            approval: the question.
            person: the person who is signed in.
        """
        by, guard = approval.facts["by"], self._guard
        if by is None:
            return self.is_asker(approval, person)
        if guard is None or self.is_asker(approval, person):
            return False
        facts = Principal.from_claims(person.claims)
        principal = replace(
            facts, user_id=person.subject, issuer=person.issuer, expires_at=math.inf
        )
        tenant = approval.facts["tenant"]
        if principal.issuer != approval.asker.issuer or (
            tenant is not None and tenant not in principal.tenant_ids
        ):
            return False
        scopes = guard.scope_hierarchy.expand(principal.scopes)
        caller = Caller(principal, scopes, self.clock(), guard.leeway)
        # Of rules that are written alike all are held against the person.
        decisions = [await decide(Policy(rule), caller) for rule in self._rules_written(by)]
        return bool(decisions) and all(each == PERMIT for each in decisions)

    def _rules_written(self, by: str) -> set[Formula]:
        policies = self._guard.policies if self._guard is not None else ()
        rules = [each.approval.by for each in policies if each.approval is not None]
        declared = {rule for rule in rules if rule is not None and str(rule) == by}
        return declared | self._rules.get(by, set())

    async def answer(self, approval: Approval, person: Person, answer: PersonAnswer) -> bool:
        """Keep what a person answered; return False if there is an answer, or it is too late.

        Args:
            approval: the question.
            person: the person, who :meth:`may_answer` it.
            answer: the answer.
        """
        now = self.clock()
        until = now + float(approval.facts["within"])
        is_kept = await self.store.answer(approval, answer, now, until)
        guard = self._guard
        if is_kept and guard is not None and guard.recorder.wanted():
            verdict: ApprovalVerdict = "approved" if answer == "approved" else "not_approved"
            told = (approval.facts["tool"], person.issuer, person.subject)
            guard.recorder.put([answer_record(guard, verdict, *told)])
        return is_kept

    def _binding(self, call: CallToApprove, sent: dict[str, Any]) -> Binding:
        principal = call.principal
        if principal.user_id is None and call.need.by is None:
            raise AccessDeniedError.unnamed("user", "This call is approved by its user")
        try:
            arguments = digest_of(sent)
        except UnreadableArgumentError as error:
            fault = f"This call cannot be approved: {error}"
            raise InvalidInputError(fault) from None
        asker = Asker(principal.issuer, principal.user_id, principal.client_id)
        server = self._guard.resource if self._guard is not None else ""
        rule = f"{call.need.summary} {call.need}"
        owner = principal.owner_key
        return Binding(server, asker, owner, call.tool, call.function, rule, arguments)

    def _question(
        self, call: CallToApprove, arguments: dict[str, Any], binding: Binding, now: float
    ) -> Approval:
        facts: dict[str, Any] = {
            "tool": call.tool,
            "server": binding.server,
            "summary": summary_of(call.need.summary, arguments),
            "by": None if call.need.by is None else str(call.need.by),
            "tenant": call.principal.tenant_id,
            "within": call.need.within,
            **shown_arguments(arguments),
        }
        until = now + call.need.within
        return Approval(binding.digest, new_secret(), binding.asker, facts, until)

    def _required(
        self, call: CallToApprove, found: Approval, *, is_waiting: bool
    ) -> ApprovalRequiredError:
        who = "You have" if call.need.by is None else "Another person has"
        text = f"{who} to approve this call of {call.tool}: open the link, then try again"
        if is_waiting:
            text = f"Still waiting: {text[0].lower()}{text[1:]} with the same arguments"
        return ApprovalRequiredError(
            text,
            tool=call.tool,
            approve_url=f"{self.pages_url}/approvals/{found.id}",
            expires_at=found.expires_at,
            is_waiting=is_waiting,
        )

    def __repr__(self) -> str:
        return f"<Approvals: in {'memory' if self.vault is None else repr(self.vault)}>"
