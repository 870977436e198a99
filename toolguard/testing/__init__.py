"""Test guarded servers with real tokens. Public.

Calls pass the real verifier, the real wrapper and the real middleware: no decision is faked.
"""

from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.testing.client import AsyncGuardedClient, GuardedClient, call_as, call_as_async
from toolguard.testing.clock import FrozenClock
from toolguard.testing.connections import ScriptedConnections
from toolguard.testing.in_memory import signed_in
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.leaks import LeakError, assert_no_leaks, assert_no_leaks_async
from toolguard.testing.loopback import Loopback
from toolguard.testing.matrix import (
    PUBLIC,
    assert_scope_matrix,
    scope_matrix,
    verify_scope_matrix,
)
from toolguard.testing.proofs import INVALID_PROOFS, ProofKey
from toolguard.testing.providers import PROVIDERS, Provider, TokenContent
from toolguard.testing.server_answer import ServerAnswer

__all__ = [
    "INVALID_PROOFS",
    "INVALID_TOKENS",
    "PROVIDERS",
    "PUBLIC",
    "AsyncGuardedClient",
    "FrozenClock",
    "GuardedClient",
    "LeakError",
    "LocalIssuer",
    "Loopback",
    "ProofKey",
    "Provider",
    "ScriptedConnections",
    "ServerAnswer",
    "TokenContent",
    "assert_no_leaks",
    "assert_no_leaks_async",
    "assert_scope_matrix",
    "call_as",
    "call_as_async",
    "scope_matrix",
    "signed_in",
    "verify_scope_matrix",
]
