"""Guards that tell users, machines, and agents that act for users apart."""

from __future__ import annotations

import functools
import operator

from toolguard.decorators.wrapper import GuardDecorator
from toolguard.policies.formulas import Formula
from toolguard.policies.policy import Policy
from toolguard.policies.requirements import ActsThrough, IsMachine, IsUser

__all__ = ["requires_actor", "requires_machine", "requires_user"]

requires_user = GuardDecorator(Policy(Formula(IsUser())))
"""Require a caller with a user: no application on its own, as far as its token tells.

See :attr:`toolguard.Principal.is_machine`. An agent that acts for a user is such a caller.
"""

requires_machine = GuardDecorator(Policy(Formula(IsMachine())))
"""Require an application on its own, whose token says that no user takes part."""


def requires_actor(*patterns: str) -> GuardDecorator:
    """Require the caller to be an agent that acts for the user (RFC 8693 ``act``): any of these.

    The current actor decides, the earlier ones do not (§4.1). It has to be known to the issuer of
    the token.

    Args:
        patterns: subjects of actors; ``*`` stands for letters, digits and ``._~-``.

    Raises:
        ValueError: if there is none, or it is empty.
        TypeError: if one is not a string.

    Example::

        @mcp.tool()
        @requires_actor("agent-*")
        async def summarize(thread: str) -> str: ...
    """
    if not patterns or not all(patterns):
        raise ValueError('name at least one: write requires_actor("agent-*")')
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError('names are strings: write requires_actor("agent-*")')
    return GuardDecorator(
        Policy(functools.reduce(operator.or_, (Formula(ActsThrough(p)) for p in patterns)))
    )
