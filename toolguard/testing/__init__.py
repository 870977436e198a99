"""How does a user prove that their guards hold?

Through the real verifier, the real wrapper and the real middleware: nothing here fakes a verdict.
"""

from toolguard.testing.client import Answer, call_as, call_as_async
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.loopback import Loopback

__all__ = ["Answer", "LocalIssuer", "Loopback", "call_as", "call_as_async"]
