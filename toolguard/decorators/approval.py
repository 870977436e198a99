"""The decorator that has a person approve each call."""

from __future__ import annotations

from typing import Literal

from toolguard.decorators.wrapper import GuardDecorator
from toolguard.policies.approval import ApprovalNeed
from toolguard.policies.formulas import Formula
from toolguard.policies.policy import Policy

__all__ = ["requires_approval"]


def requires_approval(
    *, summary: str, by: Literal["caller"] | GuardDecorator = "caller", within: float = 300.0
) -> GuardDecorator:
    """Require a person to approve each call, on a page that shows its arguments.

    The call is answered with a link, in the form that the client can show. Once the person has said
    yes, the same call with the same arguments runs once. It is asked for after everything else
    that the tool requires, and before connections are fetched.

    Args:
        summary: what the call does, in words for the person. ``{name}`` stands for an argument.
        by: ``"caller"``: the user of the caller's token. Or a guard: another person than the
            caller, of the same issuer and tenant, who meets it according to their sign-in.
        within: seconds for which a question waits for its answer, and a yes for the call.

    Raises:
        ValueError: if the summary is empty, ``within`` is not positive, or ``by`` cannot be held
            against a person who signs in.
        TypeError: if an argument has the wrong type.

    Example::

        @mcp.tool()
        @requires_scopes("payments.write")
        @requires_approval(summary="Pay {amount} to {payee}", by=requires_roles("treasurer"))
        async def pay(payee: str, amount: int, *, user_id: str) -> str: ...
    """
    if not isinstance(summary, str):
        raise TypeError('write @requires_approval(summary="Pay {amount} to {payee}")')
    if not summary.strip():
        raise ValueError('say what is approved: @requires_approval(summary="Delete the archive")')
    if isinstance(within, bool) or not isinstance(within, (int, float)):
        raise TypeError(f"within={within!r}: write seconds, such as within=300")
    if not 1 <= within <= 86_400:  # noqa: PLR2004 - a day
        raise ValueError(f"within={within!r}: write seconds, from 1 to 86400")
    need = ApprovalNeed(summary, None if by == "caller" else _formula_of(by), float(within))
    _ = need.arguments  # raises for a summary that cannot be read
    return GuardDecorator(Policy(approval=need))


def _formula_of(by: object) -> Formula:
    if not isinstance(by, GuardDecorator):
        raise TypeError(f'by={by!r}: write by="caller", or a guard: by=requires_roles("treasurer")')
    policy = by.policy
    if policy.public or policy.connections or policy.approval or policy.formula is None:
        raise ValueError(
            f"by={by!r} says nothing about a person: write a guard that does, such as "
            'by=requires_roles("treasurer")'
        )
    if policy.reads_arguments:
        raise ValueError(
            f"by={by!r} reads the call, which is over when a person answers: write a guard on "
            "scopes, roles, permissions, tenants, claims or the sign-in"
        )
    return policy.formula
