"""Authorization servers as values: :class:`Issuer`, and presets for well-known ones. Public."""

from toolguard.tokens.issuers.issuer import Issuer

__all__ = ["Issuer"]
