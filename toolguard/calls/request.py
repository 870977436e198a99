"""The caller of one HTTP request, and the refusal that the middleware answers with.

The HTTP middleware makes one :class:`RequestAuth` for each request; without HTTP (stdio, in-memory
clients), the framework's adapter makes one for each message.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from toolguard.calls.recorder import Recorder
from toolguard.calls.records import MessageTransport
from toolguard.connections.protocol import ConnectionProvider
from toolguard.errors import ToolGuardError
from toolguard.policies.approval import CallToApprove
from toolguard.policies.policy import DefaultPolicy
from toolguard.policies.scopes import ScopeHierarchy
from toolguard.principal import Principal
from toolguard.tokens.proofs.settings import Mode
from toolguard.tokens.verifier import Verifier

__all__ = [
    "SCOPE_KEY",
    "Approver",
    "Guard",
    "RequestAuth",
    "SignedIn",
    "TaskExpiry",
    "UnauthorizedTools",
    "signed_in",
]

SCOPE_KEY = "toolguard.request"
"""The key of the :class:`RequestAuth` in an ASGI scope."""

UnauthorizedTools = Literal["show", "hide", "hide-all"]
"""The operations that a list omits: none; those that no consent could permit; all refused ones."""

TaskExpiry = Literal["continue", "stop"]
"""How to treat a background task whose token expires before the task has ended."""


class Approver(Protocol):
    """Has people approve calls, such as :class:`toolguard.approvals.Approvals`."""

    async def require(self, call: CallToApprove, *, use: bool) -> None:
        """Return if the call is approved.

        Args:
            call: the call.
            use: whether the call runs now, so that the approval is used up.

        Raises:
            ToolGuardError: if it is not approved.
        """
        ...


class Guard(Protocol):
    """The part of a guard that a message uses."""

    resource: str
    recorder: Recorder
    verifier: Verifier
    scope_hierarchy: ScopeHierarchy
    connections: ConnectionProvider | None
    default: DefaultPolicy
    unauthorized_tools: UnauthorizedTools
    leeway: float
    clock: Callable[[], float]

    @property
    def approvals(self) -> Approver | None:
        """Has people approve calls; None if nothing does."""
        ...

    @property
    def admits_anonymous(self) -> bool:
        """Whether some operation of the server is public."""
        ...

    def dpop_mode(self, issuer: str) -> Mode:
        """Return whether bound tokens of an issuer are accepted, or only those."""
        ...


@dataclass(eq=False)
class RequestAuth:
    """The caller of one request, and the outcome of its message.

    Attributes:
        token: the caller's access token; never in the representation.
        principal: the verified caller, as ``guard`` verified it.
        guard: the guard whose verifier that was.
        user: the same caller as a user object of the framework.
        failure: why the token is invalid; None if it is valid or missing.
        on_missing: the error text if a token is needed and there was none.
        message_id: the JSON-RPC id of the message, once the framework has read it.
        refusal: the refusal that the message ended in; the middleware answers with it.
        permitted: whether the message's own operation has been permitted.
        on_permitted: called once, when that happens; the middleware then releases the response.
        revision: the protocol revision that the request names; None if it names none.
        opens_public: whether public operations are permitted in spite of ``failure``, because no
            client sent the token.
        outlives_token: whether the call continues when the token has expired, as that of a
            background task; connections are refused from then on.
        transport: how the message came.
        verification: the seconds that it took to verify the token; None if none was verified.
    """

    token: str | None = field(repr=False)
    principal: Principal | None
    guard: Guard = field(repr=False)
    user: object = field(default=None, repr=False)
    failure: ToolGuardError | None = None
    on_missing: str = "This operation needs an access token"
    message_id: str | int | None = None
    refusal: ToolGuardError | None = None
    noted: ToolGuardError | None = None
    permitted: bool = False
    on_permitted: Callable[[], None] | None = field(default=None, repr=False)
    revision: str | None = None
    opens_public: bool = False
    outlives_token: bool = False
    transport: MessageTransport = "http"
    verification: float | None = None

    def in_background(self, *, outlives_token: bool) -> RequestAuth:
        """Return the same caller, for work that continues after the response."""
        return replace(
            self,
            message_id=None,
            refusal=None,
            noted=None,
            permitted=False,
            on_permitted=None,
            verification=None,
            outlives_token=outlives_token,
        )

    def permit(self) -> None:
        """Record that the message's own operation has been permitted."""
        if not self.permitted:
            self.permitted = True
            if self.on_permitted is not None:
                self.on_permitted()


class SignedIn(Protocol):
    """A caller of messages that come without an HTTP request."""

    async def auth_for(self, guard: Guard) -> RequestAuth:
        """Return this caller as ``guard`` verifies them; never raises a refusal."""
        ...


signed_in: ContextVar[SignedIn | None] = ContextVar("toolguard_signed_in", default=None)
"""The caller of messages that come without an HTTP request, set by a test."""
