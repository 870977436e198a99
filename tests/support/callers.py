"""Who calls where there is no server, no transport and no token of an issuer?

Callers made up of a principal, and a guard with as much as a call and the middleware need of one;
a user's tests have a server, and call it with the kit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toolguard.calls.message import Frame, MessageContext, as_current, refusal_in
from toolguard.calls.recorder import Recorder, Records
from toolguard.calls.request import Approver, RequestAuth, UnauthorizedTools
from toolguard.connections import ConnectionProvider
from toolguard.errors import InvalidTokenError, ToolGuardError
from toolguard.http.challenge import Challenge, challenge_for
from toolguard.http.door import Door
from toolguard.http.event_ids import EventIds
from toolguard.policies.policy import DefaultPolicy
from toolguard.policies.scopes import ScopeHierarchy
from toolguard.principal import Principal
from toolguard.tokens.jwt import Verifier
from toolguard.tokens.proofs import Mode
from toolguard.tokens.proofs.possession import Possession

__all__ = ["ISSUER", "METADATA", "NOW", "RESOURCE", "TOKEN", "Caller", "Desk", "Tokens", "person"]

ISSUER = "https://issuer.example"
METADATA = "https://mcp.example.com/.well-known/oauth-protected-resource/mcp"
RESOURCE = "https://mcp.example.com/mcp"
NOW = 1_000_000.0
TOKEN = "alices-secret-token"


def person(user_id: str | None = "alice", *scopes: str, **facts: Any) -> Principal:
    """Return a caller whose token is good for another minute."""
    known = {"issuer": ISSUER, "client_id": "desktop", "expires_at": NOW + 60, **facts}
    return Principal(user_id, scopes=scopes, **known)


class Tokens:
    """Verifies tokens by looking them up, and remembers which ones it saw.

    Args:
        principals: token -> the caller it speaks for.
    """

    def __init__(self, principals: Mapping[str, Principal] | None = None) -> None:
        self.principals = dict(principals or {})
        self.seen: list[str] = []

    async def verify(self, token: str) -> Principal:
        self.seen.append(token)
        if token not in self.principals:
            raise InvalidTokenError("signature", "The signature of the token is wrong")
        return self.principals[token]


class Desk:
    """A guard that protects no server: what a call and the middleware need of one."""

    def __init__(
        self,
        verifier: Verifier | None = None,
        *,
        hierarchy: Mapping[str, Iterable[str]] | None = None,
        connections: ConnectionProvider | None = None,
        default: DefaultPolicy = "authenticated",
        unauthorized_tools: UnauthorizedTools = "show",
        leeway: float = 0.0,
        clock: Callable[[], float] = lambda: NOW,
        admits_anonymous: bool = False,
        door: Door | None = None,
    ) -> None:
        self.resource = RESOURCE
        self.recorder = Recorder(Records(), b"the secret of every replica")
        self.verifier: Verifier = verifier or Tokens()
        self.scope_hierarchy = ScopeHierarchy(hierarchy)
        self.connections = connections
        self.approvals: Approver | None = None
        self.default: DefaultPolicy = default
        self.unauthorized_tools: UnauthorizedTools = unauthorized_tools
        self.leeway = leeway
        self.clock = clock
        self.admits_anonymous = admits_anonymous
        self.door = door or Door(event_ids=EventIds("the secret of every replica"))

    possession: Possession | None = None

    def dpop_mode(self, issuer: str) -> Mode:
        del issuer
        return "off"

    def challenge(self, refusal: ToolGuardError, revision: str | None = None) -> Challenge | None:
        return challenge_for(
            refusal,
            resource_metadata=METADATA,
            default_scope=("profile",),
            scopes=self.door.refusals.scopes_for(revision),
        )


@dataclass
class Caller:
    """Somebody who calls guarded functions, each in a request of its own.

    Attributes:
        principal: who it is; None for a caller without a token.
        guard: what protects the functions.
        state: the request of the last call.
    """

    principal: Principal | None = field(default_factory=person)
    guard: Desk = field(default_factory=Desk)
    state: RequestAuth | None = None

    def calls(self, function: Callable[..., Awaitable[Any]], /, *args: Any, **kwargs: Any) -> Any:
        """Return what ``function`` answers."""
        token = None if self.principal is None else TOKEN
        self.state = RequestAuth(token, self.principal, self.guard)

        async def message() -> Any:
            table = MessageContext(self.state)
            try:
                with as_current(Frame(self.guard, table)):
                    return await function(*args, **kwargs)
            except Exception as error:
                assert self.state is not None
                self.state.refusal = refusal_in(error)
                raise
            finally:
                table.closed = True

        return asyncio.run(message())
