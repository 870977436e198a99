"""The requirements of each operation of a server, with all guards on the way to it."""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from dataclasses import replace

from toolguard.audit.report import Access, AuditedOperation, Code, Finding
from toolguard.decorators.wrapper import bare_policy, injected_parameters
from toolguard.frameworks import Adapter, Operation, adapter_for
from toolguard.frameworks.adapter import check_declaration
from toolguard.frameworks.custom_routes import custom_routes
from toolguard.frameworks.framework_auth import has_auth
from toolguard.policies.policy import DEFAULT_POLICIES, Policy

__all__ = ["inventory", "open_routes"]

# The server and those mounted on it that lead to an operation, with its names there.
_MountPath = Sequence[tuple[Adapter, str]]


def inventory(server: object, listed: Sequence[Operation]) -> tuple[AuditedOperation, ...]:
    """Return the requirements of the operations of ``server``, in the same order."""
    return tuple(_audited(server, each) for each in listed)


def open_routes(adapter: Adapter) -> Iterator[AuditedOperation]:
    """Yield the custom routes of a server, which are not guarded."""
    for path, methods in custom_routes(adapter.server):
        named = path in adapter.open_routes
        yield AuditedOperation(
            "route",
            f"{','.join(methods) or 'ANY'} {path}",
            None,
            "everybody",
            "everybody (open_routes)" if named else "everybody: a custom route",
            named,
        )


def _audited(server: object, listed: Operation) -> AuditedOperation:
    path = [(adapter_for(each), name) for each, name in ((server, listed.name), *listed.mounts)]
    problems = [*_misdeclared(path, listed)]
    try:
        audited = _with_own_check(_decided(server, path, listed), listed)
    except ValueError as error:
        audited = _described(listed, "nobody", "nobody: public and guarded at once")
        named = f"{listed.kind} {listed.name!r}"
        message = str(error) if named in str(error) else f"{named}: {error}"
        problems.append(_finding("contradiction", listed, message))
    if audited.guarded and path[0][0].guard is None and audited.access == "nobody":
        problems.append(_no_guard(listed))
    return replace(audited, problems=tuple(problems))


def _decided(server: object, path: _MountPath, listed: Operation) -> AuditedOperation:
    policies = [*_policies(path, listed)]
    if path[0][0].guard is not None:
        return _protected(listed, policies)
    if not policies:
        return _open(listed, server)
    # A decorated operation of a server without a guard refuses every caller.
    whole = _together([policy for policy, _ in policies if policy is not None])
    words = f"nobody: no guard protects the server (would be: {_words(whole)})"
    return _described(listed, "nobody", words, guarded=True, policy=whole)


def _policies(path: _MountPath, listed: Operation) -> Iterator[tuple[Policy | None, bool]]:
    """Yield the policy of every guard on the way, and whether it is more than its default.

    Without a guard on the way, only the function's own decorators count.

    Raises:
        ValueError: if one of them would make the operation public and guarded at once.
    """
    deciding = None
    for at, (adapter, name) in enumerate(path):
        if adapter.guard is not None:
            deciding = adapter.guard
            others = listed.other_names if at == 0 else tuple(below for _, below in path[at + 1 :])
            operation = Operation(
                listed.kind,
                name,
                listed.function,
                other_names=others,
                tags=listed.tags,
                remade=listed.remade,
            )
            policy = adapter.policy(operation)
            yield (policy or DEFAULT_POLICIES[deciding.default]), policy is not None
    declared = Operation(listed.kind, listed.name, listed.function).declared
    if deciding is None and declared is not None:
        yield declared, True


def _protected(
    listed: Operation, policies: Sequence[tuple[Policy | None, bool]]
) -> AuditedOperation:
    guarded = any(is_ruled for _, is_ruled in policies)
    asked = [policy for policy, _ in policies if policy is not None]
    if listed.function is not None and bare_policy(listed.function) is not None:
        return _described(listed, "nobody", "nobody: registered without its guards")
    if len(asked) < len(policies):
        return _described(listed, "nobody", "nobody (default)", guarded=guarded)
    whole = _together(asked)
    words = _words(whole) if guarded else f"{_words(whole)} (default)"
    access: Access = "authenticated" if whole.formula is None else "restricted"
    if whole.public:
        access = "everybody"
    return _described(listed, access, words, guarded=guarded, policy=whole)


def _open(listed: Operation, server: object) -> AuditedOperation:
    if has_auth(server):
        words = "any caller that the server's own auth accepts"
        return _described(listed, "authenticated", words)
    return _described(listed, "everybody", "everybody: no guard protects the server")


def _described(
    listed: Operation,
    access: Access,
    words: str,
    *,
    guarded: bool = False,
    policy: Policy | None = None,
) -> AuditedOperation:
    rule = policy.formula if policy is not None else None
    requirements = rule.requirements if rule is not None else ()
    return AuditedOperation(
        listed.kind,
        listed.name,
        listed.version,
        access,
        words,
        guarded,
        tuple(tuple(map(str, group)) for group in (rule.alternatives if rule is not None else ())),
        rule.scopes if rule is not None else (),
        tuple(str(each) for each in requirements if each.names_scopes),
        policy.connections if policy is not None else (),
        injected_parameters(listed.function) if listed.function is not None else (),
        policy.approval.approver if policy is not None and policy.approval is not None else None,
    )


def _with_own_check(audited: AuditedOperation, listed: Operation) -> AuditedOperation:
    if not listed.own_check or audited.access == "nobody":
        return audited
    own = "fastmcp's auth= of its own"
    words = f"{audited.rule}, and {own}" if audited.guarded else own
    return replace(audited, access="restricted", rule=words, guarded=True)


def _together(policies: Sequence[Policy]) -> Policy:
    """Return the policy that requires all of them; public policies require nothing."""
    asking = [policy for policy in policies if not policy.public]
    return functools.reduce(operator.and_, asking) if asking else Policy(public=bool(policies))


def _words(policy: Policy) -> str:
    return str(replace(policy, connections=()))


def _misdeclared(path: _MountPath, listed: Operation) -> Iterator[Finding]:
    guards = (adapter.guard for adapter, _ in path if adapter.guard is not None)
    operation = Operation(listed.kind, listed.name, listed.function)
    sent = {each for adapter, name in path for each in adapter.sent_by_client.get(name, ())}
    try:
        check_declaration(operation, next(guards, None), sent)
    except ValueError as error:
        yield _finding("misdeclared", listed, str(error))


def _no_guard(listed: Operation) -> Finding:
    message = (
        f"{listed.kind} {listed.name!r} refuses everybody, because no guard protects the server: "
        "write ToolGuard(...).protect(server)"
    )
    return _finding("no-guard", listed, message)


def _finding(code: Code, listed: Operation, message: str) -> Finding:
    return Finding(code, listed.kind, listed.name, message)
