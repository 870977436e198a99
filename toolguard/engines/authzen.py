"""Ask a policy decision point by the OpenID AuthZEN Authorization API 1.0.

Access Evaluation for a call, Access Evaluations for a list, and the metadata at
``/.well-known/authzen-configuration``, as the final specification of 11 January 2026 has them. What
is asked about each method is the default mapping of "COAZ-MCP: COAZ Binding for the Model Context
Protocol", draft 1 of 13 February 2026. Mappings in CEL are not read, as that would need an
evaluator at run time: a function takes their place. :mod:`toolguard.engines.mapping` says what else
differs from the draft, and why.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any, TypeAlias

import anyio

from toolguard.connections.http import Transport
from toolguard.engines.decision_point import DecisionPoint, UnavailableError
from toolguard.engines.mapping import Evaluation, build_evaluations, default_mapping, without
from toolguard.policies.answers import Answer, AnswerVerdict
from toolguard.policies.formulas import Formula
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import Check, CheckByName
from toolguard.principal import Principal
from toolguard.tokens.introspection_client import IntrospectionClient

__all__ = ["AuthZEN", "Denial", "Mapped", "authzen"]

_log = logging.getLogger("toolguard.engines")

Mapped: TypeAlias = Callable[
    [Principal, OperationCall], Mapping[str, Any] | Sequence[Mapping[str, Any]]
]
"""A function that returns the action, the resource or further context of a request.

Or a list of these, for a call that needs several permits.
"""

Denial: TypeAlias = Callable[[Mapping[str, Any]], Answer | None]
"""A function that reads the context of a denial: an answer, or None for a plain denial."""

_MAX_IN_ONE_REQUEST = 500
_MAX_AT_ONCE = 8
_MAX_REASON = 200
_SERVER_ERROR = 500


class AuthZEN:
    """A check that asks a policy decision point; made by :func:`authzen`.

    Args:
        point: the decision point.
        mapping: returns what to ask, instead of the default mapping.
        never_sent: the names of arguments that never leave this process, at any depth.
        denial: reads the context of a denial.
    """

    def __init__(
        self,
        point: DecisionPoint,
        mapping: Mapped | None = None,
        never_sent: Collection[str] = (),
        denial: Denial | None = None,
    ) -> None:
        self._point, self._mapping, self._denial = point, mapping, denial
        self._never_sent = frozenset(never_sent)

    @property
    def reads_arguments(self) -> bool:
        """Whether arguments are sent: only a mapping of the developer's can do that."""
        return self._mapping is not None

    @property
    def policy(self) -> Policy:
        """The policy that asks it, so that it can stand in ``protect(rules=...)``."""
        return Policy(Formula((Check if self.reads_arguments else CheckByName)(self)))

    async def __call__(self, principal: Principal, call: OperationCall) -> Answer:
        """Return whether the caller may do the call.

        Args:
            principal: the verified caller.
            call: the call.
        """
        try:
            asked = self._asked(principal, call)
        except Exception as error:  # noqa: BLE001 - fail closed: a mapping of the developer's
            return _unmapped(error)
        if len(asked) == 1:
            return await self._decide(principal, asked[0])
        return _together(await self._decide_all(principal, asked))

    async def answer(
        self, principal: Principal, method: str, params: Mapping[str, Any], server: str
    ) -> Answer:
        """Return whether the caller may send a message, by the default mapping of its method.

        For messages that name no operation, such as ``tasks/list``, in code of your own.

        Args:
            principal: the verified caller.
            method: the JSON-RPC method.
            params: its parameters.
            server: the resource identifier of this server.
        """
        try:
            asked = default_mapping(method, params, principal, server)
        except ValueError as error:
            return _unmapped(error)
        return Answer.permit() if asked is None else await self._decide(principal, asked)

    async def answer_each(
        self, principal: Principal, calls: Sequence[OperationCall]
    ) -> Sequence[Answer | None]:
        """Return the answers for the operations of a list; None where arguments decide.

        Args:
            principal: the verified caller.
            calls: the operations, without arguments.
        """
        found: list[Answer | None] = [None] * len(calls)
        asked: dict[int, Sequence[Evaluation]] = {}
        for at, call in enumerate(calls):
            if call.kind == "resource" and "{" in call.name:  # a template stands for many
                continue
            try:
                asked[at] = self._asked(principal, call)
            except Exception as error:  # noqa: BLE001 - a mapping that needs the arguments
                if self._mapping is None:
                    found[at] = _unmapped(error)
        answers = iter(await self._decide_all(principal, [*chain(*asked.values())]))
        for at, questions in asked.items():
            found[at] = _together([*islice(answers, len(questions))])
        return found

    async def warm_up(self) -> None:
        """Find out where to ask.

        Raises:
            ConnectionError: if that is not possible now.
        """
        try:
            await self._point.endpoints(None)
        except UnavailableError as fault:
            raise ConnectionError(f"{self._point}: {fault}") from None

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later question opens new ones."""
        await self._point.aclose()

    def _asked(self, principal: Principal, call: OperationCall) -> Sequence[Evaluation]:
        if self._never_sent:
            call = replace(call, arguments=without(call.arguments, self._never_sent))
        return build_evaluations(principal, call, self._mapping)

    async def _decide(self, principal: Principal, asked: Evaluation) -> Answer:
        caller = principal.issuer, principal.user_id
        try:
            url = (await self._point.endpoints(caller)).evaluation
            return self._read(await self._point.ask(url, asked, caller))
        except UnavailableError as fault:
            return Answer.try_again(str(fault))
        except (TypeError, ValueError, RecursionError) as error:  # not JSON, or too long
            return _unmapped(error)

    async def _decide_all(
        self, principal: Principal, asked: Sequence[Evaluation]
    ) -> Sequence[Answer]:
        """Return the answers to several questions of one caller, in as few requests as possible."""
        if not asked:
            return []
        try:
            url = (await self._point.endpoints((principal.issuer, principal.user_id))).evaluations
        except UnavailableError as fault:
            return [Answer.try_again(str(fault))] * len(asked)
        if url is None:
            return await self._decide_one_by_one(principal, asked)
        answers: list[Answer] = []
        for at in range(0, len(asked), _MAX_IN_ONE_REQUEST):
            part = asked[at : at + _MAX_IN_ONE_REQUEST]
            answers += await self._decide_together(url, principal, part)
        return answers

    async def _decide_one_by_one(
        self, principal: Principal, asked: Sequence[Evaluation]
    ) -> Sequence[Answer]:
        answers: dict[int, Answer] = {}
        limiter = anyio.CapacityLimiter(_MAX_AT_ONCE)

        async def ask(at: int) -> None:
            async with limiter:
                answers[at] = await self._decide(principal, asked[at])

        async with anyio.create_task_group() as group:
            for at in range(len(asked)):
                group.start_soon(ask, at)
        return [answers[at] for at in range(len(asked))]

    async def _decide_together(
        self, url: str, principal: Principal, asked: Sequence[Evaluation]
    ) -> Sequence[Answer]:
        subject = asked[0]["subject"]
        entries = [{name: each[name] for name in each if name != "subject"} for each in asked]
        question = {
            "subject": subject,
            "evaluations": entries,
            "options": {"evaluations_semantic": "execute_all"},
        }
        try:
            answer = await self._point.ask(url, question, (principal.issuer, principal.user_id))
        except UnavailableError as fault:
            return [Answer.try_again(str(fault))] * len(asked)
        except (TypeError, ValueError, RecursionError) as error:
            return [_unmapped(error)] * len(asked)
        found = answer.get("evaluations")
        if not isinstance(found, list) or len(found) != len(asked):
            return [Answer.try_again("not one answer for each question")] * len(asked)
        return [self._read_entry(each) for each in found]

    def _read_entry(self, entry: object) -> Answer:
        try:
            return self._read(entry)
        except UnavailableError as fault:
            return Answer.try_again(str(fault))

    def _read(self, answer: object) -> Answer:
        """Return what an answer says.

        Raises:
            UnavailableError: if that is not clear.
        """
        if not isinstance(answer, Mapping) or not isinstance(answer.get("decision"), bool):
            raise UnavailableError("an answer without a decision")
        context = answer.get("context")
        if context is None:
            context = {}
        if not isinstance(context, Mapping):
            raise UnavailableError("an answer whose context is not an object")
        error = context.get("error")
        if answer["decision"]:
            if error is not None:
                raise UnavailableError("a permit with an error")
            return Answer.permit()
        status = error.get("status") if isinstance(error, Mapping) else None
        if isinstance(status, int) and status >= _SERVER_ERROR:
            raise UnavailableError(f"an error of the decision point ({status})")
        return self._read_denial(context)

    def _read_denial(self, context: Mapping[str, Any]) -> Answer:
        said: object = None
        if self._denial is not None:
            try:
                said = self._denial(context)
            except Exception as error:  # noqa: BLE001 - fail closed: a function of the developer's
                _log.error("a denial cannot be read: %s", type(error).__name__)
        if isinstance(said, Answer) and said.verdict != "permit":
            return said
        return Answer.deny(next(_reasons(context), ""))

    def __repr__(self) -> str:
        return f"<AuthZEN: {self._point}>"


def authzen(  # noqa: PLR0913 - the settings of a decision point, by name
    url: str,
    *,
    client: IntrospectionClient | None = None,
    mapping: Mapped | None = None,
    never_sent: Collection[str] = (),
    denial: Denial | None = None,
    timeout: float = 2.0,
    transport: Transport | None = None,
    clock: Callable[[], float] = time.time,
) -> AuthZEN:
    """Return a check that asks the policy decision point at ``url``.

    By default nothing of the arguments is sent, and no token: who calls (``sub`` and issuer),
    through which client and actor, the method, and the name of the tool, the prompt or the
    resource. Without a usable answer in time it cannot be told now whether the caller is permitted:
    an error that is neither a permit nor a denial.

    Args:
        url: the identifier of the decision point; https, or http to this machine. Its endpoints
            are those of its metadata, or the ones of the specification if it has none.
        client: how this server proves itself there: a :class:`BearerClient` with a token of its
            own, a :class:`BasicClient`, or any object with ``credentials`` that returns an
            ``Authorization`` header.
        mapping: a function of the principal and the call that returns ``action``, ``resource`` or
            further ``context``, to replace those of the default mapping. Only through it do
            arguments leave this process, and lists are filtered where it needs none. The subject
            is always the one of the token. It may return a list of these, for a call that needs
            several permits: they are asked for in one request.
        never_sent: the names of arguments that never leave this process: ``mapping`` does not
            see them, at any depth.
        denial: reads the ``context`` of a denial, which the specification leaves open, for what
            a client can act on: ``Answer.needs_scopes``, ``Answer.needs_sign_in``. It cannot
            make a permit of a denial.
        timeout: seconds for one question with all attempts.
        transport: an httpx transport instead of sockets, for proxies and private authorities.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if the URL is not secure, or a setting cannot be used.
        TypeError: if ``never_sent`` is a string.

    Example::

        engine = authzen("https://pdp.example.com", client=BearerClient(os.environ["PDP_TOKEN"]))
        guard.protect(mcp, rules={"*": engine})
    """
    if isinstance(never_sent, str):
        raise TypeError(f"write never_sent=[{never_sent!r}]: a list")
    point = DecisionPoint(url, client=client, timeout=timeout, transport=transport, clock=clock)
    return AuthZEN(point, mapping, never_sent, denial)


_RANKS: Mapping[AnswerVerdict, int] = {
    "deny": 0,
    "needs scopes": 1,
    "needs sign-in": 1,
    "try again": 2,
    "permit": 3,
}


def _together(answers: Sequence[Answer]) -> Answer:
    """Return the answer to a call that needs a permit for each of several questions."""
    return min(answers, key=lambda each: _RANKS[each.verdict])


def _unmapped(error: Exception) -> Answer:
    # Not the text of the error: it may hold an argument.
    return Answer.deny(f"nothing can be asked: {type(error).__name__}")


def _reasons(context: Mapping[str, Any]) -> Iterator[str]:
    """Yield the reasons in the context of a denial, those for administrators first."""
    for name in ("reason_admin", "reason", "reason_user"):
        value = context.get(name)
        for text in value.values() if isinstance(value, Mapping) else (value,):
            if isinstance(text, str):
                yield text[:_MAX_REASON]
