"""Combine the decorators of an operation and every rule for its names into its whole policy.

This is the only place that combines them. All matching rules apply, so adding a rule never lifts
another; the default applies to operations without decorators and rules.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterable, Sequence

from toolguard.errors import AccessDeniedError
from toolguard.parsing.spellings import MAX_LENGTH, uri_spellings
from toolguard.policies.by_name import PoliciesByName
from toolguard.policies.operations import Kind
from toolguard.policies.policy import Policy

__all__ = ["combine_policies"]


def combine_policies(  # noqa: PLR0913 - everything that has a say
    rules: PoliciesByName,
    kind: Kind,
    *,
    names: Sequence[str],
    declared: Policy | None,
    default: Policy | None,
    sent: str | None = None,
    tags: Collection[str] = (),
) -> Policy | None:
    """Return the whole policy of an operation; None if no caller may do it.

    Args:
        rules: the rules by name.
        kind: the kind of the operation.
        names: its registered names, and those that lists show.
        declared: the policy of its decorators; None if it has none.
        default: the policy if there are neither decorators nor rules; None refuses every caller.
        sent: the name or URI that a client sent for it.
        tags: its tags.

    Raises:
        ValueError: if the operation would be public and guarded at once.
        AccessDeniedError: if no caller may do it under the name that was sent.
    """
    otherwise = default if declared is None else Policy(public=declared.public)
    ruled = _both(rules.policy(kind, name, tags=tags) for name in names)
    if sent is not None and len(sent) > MAX_LENGTH:  # costly to match with every rule
        raise AccessDeniedError(rule=f"a name of more than {MAX_LENGTH} characters")
    if sent is not None and kind == "resource":
        ruled = _with_spellings(rules, sent, ruled, otherwise)
    elif sent is not None and sent not in names:
        ruled = _both((ruled, rules.policy(kind, sent)))
    if ruled is None:
        return declared if declared is not None else default
    if declared is None:
        return ruled
    if ruled.public != declared.public:
        raise ValueError(
            f"{kind} {names[0]!r} is public by its decorators or by a rule, and guarded by the "
            "other: write narrower patterns"
        )
    return ruled & declared


def _both(policies: Iterable[Policy | None]) -> Policy | None:
    found = [each for each in policies if each is not None]
    return functools.reduce(operator.and_, found) if found else None


def _with_spellings(
    rules: PoliciesByName, sent: str, ruled: Policy | None, otherwise: Policy | None
) -> Policy | None:
    """Return the policy of the rules for every spelling that a server may look a URI up by."""
    try:
        names = uri_spellings(sent)
    except ValueError:  # percent-encoded repeatedly, to be read as something else
        raise AccessDeniedError(rule="a URI without a plain spelling") from None
    if ruled is None and not any(rules.policy("resource", n, respelled=True) for n in names):
        return None
    found = rules.policy_of_all("resource", names, ruled or otherwise)
    if found is None:
        raise AccessDeniedError(rule="default=deny")
    if ruled is None or ruled.public:
        return found
    return ruled if found.public else ruled & found
