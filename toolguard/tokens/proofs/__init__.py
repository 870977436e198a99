"""Proof of possession: tokens that are bound to a key of their client (DPoP, RFC 9449). Public."""

from toolguard.tokens.proofs.replays import MemoryReplays, Replays
from toolguard.tokens.proofs.settings import DPoP, Mode

__all__ = ["DPoP", "MemoryReplays", "Mode", "Replays"]
