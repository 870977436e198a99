"""The settings of a guard for tokens that are bound to a key (DPoP, RFC 9449)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import KW_ONLY, dataclass
from typing import Literal

from toolguard.parsing.choice import one_of
from toolguard.tokens.proofs.replays import Replays

__all__ = ["MODES", "DPoP", "Mode"]

Mode = Literal["off", "optional", "required"]
"""Whether tokens that are bound to a key are accepted, or only those."""

MODES = ("off", "optional", "required")
"""The values of :data:`Mode`."""

# RFC 7518 §3.1, RFC 8037: asymmetric ones. The first is what clients use.
_ALGORITHMS = ("ES256", "ES384", "ES512", "EdDSA", "Ed25519", "PS256", "PS384", "PS512", "RS256")
_OTHERS = ("RS384", "RS512")
_MAX_WINDOW = 3_600


@dataclass(frozen=True)
class DPoP:
    """How a guard treats tokens that are bound to a key of their client (RFC 9449).

    A bound token is accepted only with the scheme ``DPoP`` and a proof for the request, whatever
    the mode; as a bearer token it is refused.

    Attributes:
        mode: ``"off"``: bound tokens are refused. ``"optional"``: they are accepted beside bearer
            tokens. ``"required"``: bearer tokens are refused.
        algorithms: the signature algorithms of proofs to accept; clients are told of them.
        window: the seconds by which the time of a proof may differ from that of this server.
        nonces: whether proofs need a nonce of this server, which clients get with a first
            refusal; servers of several processes share ``ToolGuard(secret=)``.
        nonce_period: the seconds after which there is a new nonce.
        replays: the proofs that were accepted; by default in the memory of this process. Servers
            of several processes share :class:`~toolguard.connections.redis_replays.RedisReplays`.

    Raises:
        ValueError: if a setting is out of range.

    >>> DPoP("required", window=60)
    DPoP('required')
    """

    mode: Mode = "optional"
    _: KW_ONLY
    algorithms: Collection[str] = _ALGORITHMS
    window: float = 300
    nonces: bool = False
    nonce_period: float = 300
    replays: Replays | None = None

    def __post_init__(self) -> None:
        one_of("dpop", self.mode, MODES)
        known = (*_ALGORITHMS, *_OTHERS)
        if isinstance(self.algorithms, str) or not self.algorithms:
            raise ValueError('write algorithms=["ES256"]: a list that names at least one')
        unknown = [name for name in self.algorithms if name not in known]
        if unknown:
            raise ValueError(
                f"{unknown[0]!r} is not accepted for proofs: choose among {', '.join(known)}"
            )
        object.__setattr__(self, "algorithms", tuple(dict.fromkeys(self.algorithms)))
        for name in ("window", "nonce_period"):
            # NaN fails this comparison, too.
            if not 1 <= getattr(self, name) <= _MAX_WINDOW:
                raise ValueError(
                    f"{name} is a number of seconds from 1 to {_MAX_WINDOW}, not "
                    f"{getattr(self, name)!r}"
                )
        if self.replays is not None and not callable(getattr(self.replays, "is_first", None)):
            raise TypeError("replays= takes a MemoryReplays(), or a RedisReplays(url)")

    @classmethod
    def of(cls, setting: Mode | DPoP) -> DPoP:
        """Return the settings for ``ToolGuard(dpop=...)``.

        Args:
            setting: a mode, or settings.

        Raises:
            ValueError: if it is neither.
        """
        return setting if isinstance(setting, DPoP) else cls(setting)

    def __repr__(self) -> str:
        return f"DPoP({self.mode!r})"
