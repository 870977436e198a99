"""How does a user prove that their guards hold?

Through the real verifier, the real wrapper and the real middleware: nothing here fakes a verdict.
"""

from toolguard.testing.answer import Answer
from toolguard.testing.bad_tokens import INVALID_TOKENS
from toolguard.testing.client import AsyncGuardedClient, GuardedClient, call_as, call_as_async
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.loopback import Loopback
from toolguard.testing.providers import PROVIDERS, Grant, Provider

__all__ = [
    "INVALID_TOKENS",
    "PROVIDERS",
    "Answer",
    "AsyncGuardedClient",
    "Grant",
    "GuardedClient",
    "LocalIssuer",
    "Loopback",
    "Provider",
    "call_as",
    "call_as_async",
]
