"""How does a user prove that their guards hold?

Through the real verifier, the real wrapper and the real middleware: nothing here fakes a verdict.
"""

from toolguard.testing.client import Answer, call_as
from toolguard.testing.issuer import LocalIssuer
from toolguard.testing.loopback import Loopback

__all__ = ["Answer", "LocalIssuer", "Loopback", "call_as"]
