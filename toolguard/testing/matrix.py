"""The scope matrix: the scopes that every operation of a server needs.

The matrix is computed from the policies; :func:`verify_scope_matrix` then calls every operation
over the server's own HTTP application, and compares the answers with the matrix.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from typing import Any, TypeAlias

from toolguard.calls.message import caller_of
from toolguard.calls.waiting import wait_for
from toolguard.errors import ToolGuardError
from toolguard.frameworks import Operation
from toolguard.policies.argument_scopes import resolve_argument_scopes
from toolguard.policies.decision import PERMIT, decide
from toolguard.policies.formulas import Formula
from toolguard.policies.operations import OperationCall
from toolguard.policies.policy import Policy
from toolguard.principal import Principal
from toolguard.testing.client import AsyncGuardedClient
from toolguard.testing.server_answer import ServerAnswer
from toolguard.testing.subject import Subject
from toolguard.testing.trust import issuer_for

__all__ = [
    "PUBLIC",
    "ScopeSets",
    "assert_scope_matrix",
    "scope_matrix",
    "verify_scope_matrix",
]

PUBLIC = "public"
"""Instead of scope sets: callers without a token are permitted."""

ScopeSets: TypeAlias = "str | tuple[frozenset[str], ...]"
"""The smallest sets of scopes that suffice, or ``PUBLIC``; empty if every caller is refused."""

Claims: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Operation -> claims of the caller's token, as :meth:`LocalIssuer.mint` takes them."""

Arguments: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Operation -> its arguments; for a template the URI to read, as ``{"uri": ...}``."""

_SUPERSETS = 3
# For one alternative; a larger number is not useful in a test.
_MAX_SETS = 1_000


def scope_matrix(
    server: object, *, claims: Claims | None = None, arguments: Arguments | None = None
) -> dict[str, ScopeSets]:
    """Return the smallest sets of scopes that open each operation of a protected server.

    A scope that the guard's hierarchy includes in another may be granted as that one, so both are
    listed. Operations are named as in ``protect(rules=...)``: ``"delete_event"``,
    ``"resource:calendar://today"``, ``"prompt:plan"``. No scope at all is the empty set.

    Args:
        server: the server, after ``guard.protect(server)``.
        claims: the claims of the caller by operation, where a rule requires more than scopes:
            ``{"approve": {"roles": ["boss"]}}``. By default, the caller has no role, no tenant, ...
        arguments: the arguments by operation, where its rule depends on them.

    Raises:
        ValueError: if the server is not protected, or has no operation of a given name.

    Example::

        assert scope_matrix(server) == {
            "list_events": ({"calendar.read"}, {"admin"}),
            "opening_hours": PUBLIC,
        }
    """
    survey = _Matrix(server, claims or {}, arguments or {})
    found: dict[str, ScopeSets] = wait_for(survey.matrix)
    return found


def assert_scope_matrix(
    server: object,
    expected: Mapping[str, str | Collection[Collection[str]]],
    *,
    claims: Claims | None = None,
    arguments: Arguments | None = None,
) -> None:
    """Fail if the scope matrix of ``server`` differs from ``expected``, and name the differences.

    Args:
        server: as for :func:`scope_matrix`.
        expected: operation -> the smallest sets of scopes that should suffice, or ``PUBLIC``.
        claims: as for :func:`scope_matrix`.
        arguments: as for :func:`scope_matrix`.

    Raises:
        AssertionError: naming each operation that differs, is missing, or was not expected.
        TypeError: for one scope where a set of scopes belongs.

    Example::

        assert_scope_matrix(server, {"list_events": [{"calendar.read"}], "hours": "public"})
    """
    for name, sets in expected.items():
        one = None if isinstance(sets, str) else next((s for s in sets if isinstance(s, str)), None)
        if one is not None:  # its letters would be a set, too
            raise TypeError(f"write {{{name!r}: [{{{one!r}}}]}}: a list of sets of scopes")
    found = scope_matrix(server, claims=claims, arguments=arguments)
    wanted = {
        name: sets if isinstance(sets, str) else tuple(frozenset(each) for each in sets)
        for name, sets in expected.items()
    }
    wrong = [
        f"{name}: expected {_written(wanted.get(name))}, is {_written(found.get(name))}"
        for name in {**wanted, **found}
        if _comparable(wanted.get(name)) != _comparable(found.get(name))
    ]
    if wrong:
        raise AssertionError("the scope matrix differs:\n  " + "\n  ".join(wrong))


def verify_scope_matrix(
    server: object,
    *,
    claims: Claims | None = None,
    arguments: Arguments | None = None,
    seed: int = 0,
) -> None:
    """Call every operation with enough scopes, one scope too few, and more; fail if one is wrong.

    Each smallest set of scopes has to be permitted; each of them without one scope has to be
    refused, with a challenge that names exactly the missing scope; random supersets have to be
    permitted; and without a token every operation that is not public has to be refused. The
    operations run for real, with ``arguments`` or none; their results are ignored.

    Args:
        server: as for :func:`scope_matrix`.
        claims: as for :func:`scope_matrix`; needed for operations that scopes alone cannot permit.
        arguments: as for :func:`scope_matrix`.
        seed: the seed of the random supersets.

    Raises:
        AssertionError: naming each operation that does not behave as its policy requires.

    Example::

        def test_my_whole_server() -> None:
            verify_scope_matrix(server)
    """
    survey = _Matrix(server, claims or {}, arguments or {})
    wrong = wait_for(functools.partial(survey.disagreements, random.Random(seed)))  # noqa: S311
    if wrong:
        raise AssertionError("the server does not do as its guards say:\n  " + "\n  ".join(wrong))


class _Matrix:
    """One look at all operations of one server."""

    def __init__(self, server: object, claims: Claims, arguments: Arguments) -> None:
        self._server = server
        self._subject = Subject(server)
        self._guard = self._subject.guard
        self._claims = claims
        self._arguments = arguments

    def _operations(self) -> dict[str, Operation]:
        return self._subject.operations({*self._claims, *self._arguments})

    async def matrix(self) -> dict[str, ScopeSets]:
        """Return the scope sets of every operation."""
        return {
            name: await self._sets(name, operation)
            for name, operation in self._operations().items()
        }

    async def _sets(self, name: str, operation: Operation) -> ScopeSets:
        policy = self._subject.policy(operation)
        if policy is None:
            return ()
        if policy.public:
            return PUBLIC
        rule = policy.formula if policy.formula is not None else Formula.of(((),))
        arguments = self._arguments.get(name, {})
        invocation = OperationCall(operation.kind, operation.name, arguments)
        smallest: dict[frozenset[str], None] = {}
        for candidate in self._candidates(rule, invocation):
            if await self._opens(name, rule, invocation, candidate):
                smallest[await self._reduced(name, rule, invocation, candidate)] = None
        return tuple(smallest)

    def _candidates(self, rule: Formula, invocation: OperationCall) -> Iterator[frozenset[str]]:
        """Yield the scopes of each alternative, and those that include them in their place."""
        including = self._guard.scope_hierarchy.including
        for grant in _grants(rule, invocation):
            choices = ((scope, *including(scope)) for scope in grant)
            yield from map(frozenset, itertools.islice(itertools.product(*choices), _MAX_SETS))

    async def _reduced(
        self, name: str, rule: Formula, invocation: OperationCall, scopes: frozenset[str]
    ) -> frozenset[str]:
        """Leave out every scope that a hierarchy or another alternative makes superfluous."""
        for scope in sorted(scopes):
            if await self._opens(name, rule, invocation, scopes - {scope}):
                scopes -= {scope}
        return scopes

    async def _opens(
        self, name: str, rule: Formula, invocation: OperationCall, scopes: frozenset[str]
    ) -> bool:
        issuer = issuer_for(self._guard)
        claims = issuer.claims("alice", scopes=sorted(scopes), **self._claims.get(name, {}))
        principal = Principal.from_claims(claims)
        caller = caller_of(self._guard, principal)
        return await decide(Policy(rule), caller, invocation) is PERMIT

    async def disagreements(self, chance: random.Random) -> list[str]:
        """Return a sentence for everything that comes out otherwise over HTTP."""
        found: list[str] = []
        for name, operation in self._operations().items():
            sets = await self._sets(name, operation)
            found += [f"{name} {wrong}" async for wrong in self._wrong(operation, sets, chance)]
        return found

    async def _wrong(
        self, operation: Operation, sets: ScopeSets, chance: random.Random
    ) -> AsyncIterator[str]:
        anonymous = await self._ask(operation, None)
        if isinstance(sets, str):
            if _is_refused(anonymous):
                yield f"is public and refuses a caller without a token ({anonymous.status})"
            return
        if not _is_refused(anonymous):
            yield "lets in a caller without a token"
        if not sets and self._guard.default != "deny":
            yield "is opened by no scopes: say who may do it in claims= (and with what, arguments=)"
        spare = sorted(self._guard.scopes_supported)
        for scopes in sets:
            for wrong in await self._around(operation, scopes, sets):
                yield wrong
            for _ in range(_SUPERSETS):
                more = scopes | frozenset(chance.sample(spare, chance.randint(0, len(spare))))
                if _is_refused(await self._ask(operation, more)):
                    yield f"refuses {_written((more,))}, which is more than enough"

    async def _around(
        self, operation: Operation, scopes: frozenset[str], sets: tuple[frozenset[str], ...]
    ) -> list[str]:
        """Return what is wrong with exactly ``scopes``, and with one of them taken away."""
        wrong = []
        if _is_refused(answer := await self._ask(operation, scopes)):
            wrong.append(f"refuses {_written((scopes,))} ({answer.status} {answer.error})")
        for scope in sorted(scopes):
            answer = await self._ask(operation, scopes - {scope})
            missing = frozenset(answer.missing_scopes)
            if not _is_refused(answer):
                wrong.append(f"lets in without {scope}")
            elif not self._is_exact(missing, scopes - {scope}, sets):
                wrong.append(f"asks for {_written((missing,))} where {scope} is missing")
        return wrong

    def _is_exact(
        self, missing: frozenset[str], held: frozenset[str], sets: tuple[frozenset[str], ...]
    ) -> bool:
        """Return whether ``missing`` is what has to be added to ``held``, and nothing else."""
        expand = self._guard.scope_hierarchy.expand
        # An operation may name a scope together with one that includes it: both are missing then.
        alone = [
            each
            for each in missing
            if not any(each in expand({other}) for other in missing - {each})
        ]
        granted = expand(held | missing)
        suffices = any(granted >= each for each in sets)
        return len(alone) == 1 and suffices and not missing & expand(held)

    async def _ask(self, operation: Operation, scopes: frozenset[str] | None) -> ServerAnswer:
        user = None if scopes is None else "alice"
        claims = self._claims.get(operation.key, {}) if scopes is not None else {}
        client = AsyncGuardedClient(self._server, user=user, scopes=sorted(scopes or ()), **claims)
        given = dict(self._arguments.get(operation.key, {}))
        if operation.kind == "resource":
            return await client.read(str(given.get("uri", operation.name)))
        call = client.call if operation.kind == "tool" else client.get_prompt
        return await call(operation.name, given)


def _grants(rule: Formula, invocation: OperationCall) -> tuple[tuple[str, ...], ...]:
    """Return the scopes of each alternative, as this call needs them."""
    try:
        return resolve_argument_scopes(rule, invocation).grants
    except ToolGuardError:  # not with these arguments
        return ()


def _is_refused(answer: ServerAnswer) -> bool:
    """Return whether a guard said no; a tool may fail for reasons of its own."""
    return answer.status in (401, 403) or (answer.error in _CODES and not answer.ok)


_CODES = frozenset(
    {
        *("missing_token", "invalid_token", "insufficient_user_authentication"),
        *("insufficient_scope", "access_denied", "guard_not_configured"),
    }
)


def _comparable(sets: ScopeSets | None) -> object:
    return sets if sets is None or isinstance(sets, str) else frozenset(sets)


def _written(sets: ScopeSets | None) -> str:
    if sets is None:
        return "no such operation"
    if isinstance(sets, str):
        return sets
    return " or ".join("{" + ", ".join(sorted(each)) + "}" for each in sets) or "nobody"
