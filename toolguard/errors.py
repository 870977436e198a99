"""The exceptions that toolguard raises while it serves a call.

::

    ToolGuardError
    ├── MissingTokenError              401  no credentials were sent
    ├── MalformedCredentialsError      400  an Authorization header that cannot be read
    ├── MalformedMessageError          400  a body that more than one message could be read in
    ├── InvalidTokenError              401  an invalid token, with a ``reason``
    ├── InvalidProofError              401  an invalid DPoP proof, with a ``reason``
    │   ├── KeyMismatchError           401  a DPoP proof of another key than the token's
    │   └── NonceRequiredError         401  a DPoP proof without the nonce of this server
    ├── InsufficientScopeError         403  a valid token with too few scopes: step up
    ├── InsufficientAuthenticationError  401  a valid token of an old or weak sign-in
    ├── AccessDeniedError              403  a denial that more scopes would not change
    ├── KeysUnavailableError           503  tokens cannot be verified now: not the caller's fault
    ├── DecisionUnavailableError       ---  a check cannot tell now: not the caller's fault
    ├── ApprovalRequiredError          ---  a person has to approve this call first
    ├── ApprovalRefusedError           ---  a person has said no to this call
    ├── ApprovalUnavailableError       ---  approvals cannot be asked for now
    ├── InvalidInputError              ---  an argument that the rule cannot be applied to
    ├── GuardNotConfiguredError        500  a guarded tool runs on a server without a guard
    └── ConnectionTokenError           ---  a connection token is not available
        ├── ConnectionRequiredError         the user has to connect the account (again)
        ├── ConnectionDeniedError           the vault's policy refuses
        ├── ConnectionRateLimitedError      the vault limits the rate
        ├── ConnectionUnavailableError      the vault cannot be reached
        └── ConnectionResponseError         the vault's answer is invalid

``status`` is the HTTP status of a refusal that is answered at the HTTP level; ``None`` marks errors
that are always reported as the result of the tool. Misconfiguration is not in this tree: it is a
``ValueError`` or ``TypeError`` when the user's module is imported.

No message, attribute or representation of these errors contains a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal

from typing_extensions import Self

__all__ = [
    "AccessDeniedError",
    "ApprovalRefusedError",
    "ApprovalRequiredError",
    "ApprovalUnavailableError",
    "ConnectionDeniedError",
    "ConnectionRateLimitedError",
    "ConnectionRequiredError",
    "ConnectionResponseError",
    "ConnectionTokenError",
    "ConnectionUnavailableError",
    "DecisionUnavailableError",
    "GuardNotConfiguredError",
    "InsufficientAuthenticationError",
    "InsufficientScopeError",
    "InvalidInputError",
    "InvalidProofError",
    "InvalidProofReason",
    "InvalidTokenError",
    "InvalidTokenReason",
    "KeyMismatchError",
    "KeysUnavailableError",
    "MalformedCredentialsError",
    "MalformedMessageError",
    "MissingTokenError",
    "NonceRequiredError",
    "OutageReason",
    "ToolGuardError",
]

InvalidTokenReason = Literal[
    "malformed",
    "encrypted",
    "type",
    "algorithm",
    "key",
    "signature",
    "expired",
    "not_yet_valid",
    "audience",
    "issuer",
    "claims",
    "bound",
    "inactive",
]
"""Why a token was refused. For logs and tests; the caller gets a sentence without claims."""

InvalidProofReason = Literal[
    "missing",
    "repeated",
    "malformed",
    "type",
    "algorithm",
    "key",
    "binding",
    "signature",
    "id",
    "method",
    "target",
    "time",
    "token_hash",
    "nonce",
    "replay",
]
"""Why a DPoP proof was refused. For logs and tests; the caller gets a sentence without claims."""


OutageReason = Literal["unreachable", "status", "unreadable", "unsigned", "encrypted"]
"""Why an issuer that was asked about a token told nothing. For logs and tests."""


# RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class ToolGuardError(Exception):
    """The base class of everything that toolguard raises while it serves a call."""

    #: HTTP status of this refusal; None if it is always reported as the result of the tool.
    status: ClassVar[int | None] = None
    #: The error code for clients (of RFC 6750 §3.1 where it defines one).
    error: ClassVar[str] = "error"
    #: The authentication scheme whose credentials are at fault (RFC 9110 §11.1).
    scheme: str = "Bearer"
    #: Returns how a client has to ask for a scope, where that is not its name on this server.
    request_name: Callable[[str], str] | None = None

    def as_requested(self, scopes: Iterable[str]) -> tuple[str, ...]:
        """Return the names by which a client asks for scopes.

        Args:
            scopes: the scopes, as they are called on this server.
        """
        return tuple(scopes if self.request_name is None else map(self.request_name, scopes))

    @property
    def error_description(self) -> str:
        """One sentence for people; contains no claims, tokens or secrets."""
        return str(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body of this refusal."""
        return {"error": self.error, "error_description": self.error_description}

    def to_json(self) -> str:
        """Return ``to_dict()`` as JSON text."""
        return json.dumps(self.to_dict())

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.args, vars(self))


def _restore(
    kind: type[ToolGuardError], args: tuple[Any, ...], state: dict[str, Any]
) -> ToolGuardError:
    """Rebuild an error from another process, without its constructor."""
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class MissingTokenError(ToolGuardError):
    """The request carries no access token (RFC 6750 §3.1: a challenge without an error code).

    Args:
        message: one sentence.
        scopes: the scopes that the operation needs, where they are known.
    """

    status = 401
    error = "missing_token"

    def __init__(
        self,
        message: str = "This operation needs an access token",
        *,
        scopes: Sequence[str] = (),
    ) -> None:
        super().__init__(message)
        self.scopes = tuple(scopes)


class MalformedCredentialsError(ToolGuardError):
    """The Authorization header is repeated or cannot be read (RFC 6750 §3.1, invalid_request)."""

    status = 400
    error = "invalid_request"


class MalformedMessageError(ToolGuardError):
    """The body of the request is not an MCP message, or is ambiguous.

    Args:
        message: one sentence.
        code: the JSON-RPC error code that the protocol has for it.

    Attributes:
        message_id: the JSON-RPC id of the message, if it could be read.
    """

    status = 400
    error = "invalid_request"

    def __init__(self, message: str, *, code: int = -32600) -> None:
        super().__init__(message)
        self.code = code
        self.message_id: str | int | None = None


class InvalidTokenError(ToolGuardError):
    """The access token is not valid (RFC 6750 §3.1, invalid_token).

    Args:
        reason: the fault, as one word for logs and tests.
        message: one sentence about the fault, without any content of the token.
    """

    status = 401
    error = "invalid_token"

    def __init__(self, reason: InvalidTokenReason, message: str) -> None:
        super().__init__(message)
        self.reason: InvalidTokenReason = reason


class InvalidProofError(ToolGuardError):
    """The DPoP proof of the request is not valid (RFC 9449 §7.1, invalid_dpop_proof).

    Args:
        reason: the fault, as one word for logs and tests.
        message: one sentence about the fault, without any content of the proof.
    """

    status = 401
    error = "invalid_dpop_proof"
    scheme = "DPoP"

    def __init__(self, reason: InvalidProofReason, message: str) -> None:
        super().__init__(message)
        self.reason: InvalidProofReason = reason


class KeyMismatchError(InvalidProofError):
    """The token is bound to another key than the proof's (RFC 9449 §7.1, invalid_token)."""

    error = "invalid_token"

    def __init__(self) -> None:
        super().__init__("binding", "The token is bound to another key")


class NonceRequiredError(InvalidProofError):
    """The DPoP proof lacks the current nonce of this server (RFC 9449 §9, use_dpop_nonce).

    Args:
        nonce: the nonce that the next proof has to contain.
    """

    error = "use_dpop_nonce"

    def __init__(self, nonce: str) -> None:
        super().__init__("nonce", "The DPoP proof needs the nonce of the DPoP-Nonce header")
        self.nonce = nonce


class _Scopes(tuple[str, ...]):
    """Scopes that equal a list of the same ones, which Descope's SDK has in their place."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return super().__eq__(tuple(other) if isinstance(other, list) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__


class InsufficientScopeError(ToolGuardError):
    """The token is valid but lacks scopes (RFC 6750 §3.1, insufficient_scope).

    Raised by guards, and by tool bodies when an upstream API requires more scopes.

    Args:
        required_scopes: the scopes that the operation needs, in the declared order.
        token_scopes: the scopes of the token, in its order.
        missing_scopes: the scopes to add; by default the required ones that the token lacks.

    Raises:
        ValueError: if no scope is required, or one is not a scope-token.

    >>> error = InsufficientScopeError(["read", "calendar.read"], token_scopes=["read", "write"])
    >>> error.missing_scopes
    ('calendar.read',)
    >>> error.scope_parameter
    'read write calendar.read'
    """

    status = 403
    error = "insufficient_scope"

    def __init__(
        self,
        required_scopes: Sequence[str],
        token_scopes: Sequence[str] = (),
        *,
        missing_scopes: Sequence[str] | None = None,
    ) -> None:
        if isinstance(required_scopes, str) or not required_scopes:
            raise ValueError('write required_scopes=["a.scope"]: a list that names at least one')
        if isinstance(token_scopes, str) or isinstance(missing_scopes, str):
            raise TypeError('write token_scopes=["a.scope"]: lists of scopes, not strings')
        for scope in (*required_scopes, *(missing_scopes or ())):
            if not _SCOPE_TOKEN.fullmatch(scope):
                raise ValueError(
                    f"{scope!r} is not one scope: write required_scopes=[...] one by one"
                )
        if missing_scopes is None:
            missing_scopes = [scope for scope in required_scopes if scope not in token_scopes]
        self.required_scopes: tuple[str, ...] = _Scopes(dict.fromkeys(required_scopes))
        self.token_scopes: tuple[str, ...] = _Scopes(token_scopes)
        self.missing_scopes: tuple[str, ...] = _Scopes(dict.fromkeys(missing_scopes))
        super().__init__("Token missing required scopes: " + " ".join(self.missing_scopes))

    def __str__(self) -> str:
        if self.request_name is None:
            return super().__str__()
        missing = self.as_requested(self.missing_scopes)
        return "Token missing required scopes: " + " ".join(missing)

    @property
    def combined_scopes(self) -> tuple[str, ...]:
        """The token's scopes, in its order, then the missing ones, in the declared order."""
        return _Scopes(dict.fromkeys((*self.token_scopes, *self.missing_scopes)))

    @property
    def scope_parameter(self) -> str:
        """``combined_scopes`` as a client asks for them (RFC 6749 §3.3), separated by spaces.

        Scopes of the token that are not single scope-tokens are omitted.
        """
        combined = self.as_requested(self.combined_scopes)
        return " ".join(each for each in combined if _SCOPE_TOKEN.fullmatch(each))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body: the scopes to request (``scope``), and those compared."""
        return {
            "error": self.error,
            "scope": self.scope_parameter,
            "error_description": self.error_description,
            "missing_scopes": list(self.as_requested(self.missing_scopes)),
            "token_scopes": list(self.as_requested(self.token_scopes)),
            "required_scopes": list(self.as_requested(self.required_scopes)),
        }


class InsufficientAuthenticationError(ToolGuardError):
    """The token is valid, but the user's sign-in is too old or too weak (RFC 9470 §3).

    Args:
        max_age: the maximum age of the sign-in in seconds; None for any.
        acr_values: the accepted authentication context class references.
        scopes: the scopes to request with it, so that the new token keeps them.
    """

    status = 401
    error = "insufficient_user_authentication"

    def __init__(
        self,
        *,
        max_age: int | None = None,
        acr_values: Sequence[str] = (),
        scopes: Sequence[str] = (),
    ) -> None:
        super().__init__("A more recent or a stronger authentication is required")
        self.max_age = max_age
        self.acr_values = tuple(acr_values)
        self.scopes = tuple(scopes)

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with the required ``max_age`` and ``acr_values``."""
        body = super().to_dict()
        if self.max_age is not None:
            body["max_age"] = self.max_age
        if self.acr_values:
            body["acr_values"] = " ".join(self.acr_values)
        if self.scopes:
            body["scope"] = " ".join(self.as_requested(self.scopes))
        return body


class AccessDeniedError(ToolGuardError):
    """The caller is refused, and no further scope would change that.

    The text names no scope and no rule, so that clients do not retry and do not learn what would
    have sufficed. ``rule`` is for the log.

    Args:
        message: one sentence for the caller; it names no scope and no rule.
        rule: the rule that refused, for the log only.
    """

    status = 403
    error = "access_denied"

    def __init__(
        self, message: str = "You are not allowed to do this", *, rule: str | None = None
    ) -> None:
        super().__init__(message)
        self.rule = rule

    @classmethod
    def unnamed(cls, what: str, needed: str) -> Self:
        """Return the refusal of a token that does not name its user, or its tenant.

        Args:
            what: "user" or "tenant".
            needed: what needs it, such as "This operation needs a user".
        """
        return cls(f"{needed}, and the token names no {what}", rule=f"a token that names a {what}")


class DecisionUnavailableError(ToolGuardError):
    """It cannot be decided now whether the caller is permitted: retrying may help.

    Args:
        message: one sentence for the caller.
        rule: the checks that cannot tell now, with their reasons, for the record only.
    """

    error = "decision_unavailable"

    def __init__(
        self,
        message: str = "It cannot be decided now whether you may do this: try again",
        *,
        rule: str | None = None,
    ) -> None:
        super().__init__(message)
        self.rule = rule


class ApprovalRequiredError(ToolGuardError):
    """A person has to approve this call first; the tool did not run.

    Args:
        message: one sentence that says what the caller can do.
        tool: the name of the tool.
        approve_url: the URL of the page with the question; None if there is none.
        expires_at: when the question ends, in seconds since the epoch.
        is_waiting: whether the same call has been asked about before, and has no answer yet.
    """

    error = "approval_required"

    def __init__(
        self,
        message: str,
        *,
        tool: str,
        approve_url: str | None = None,
        expires_at: float = 0.0,
        is_waiting: bool = False,
    ) -> None:
        super().__init__(message)
        self.tool = tool
        self.approve_url = approve_url
        self.expires_at = expires_at
        self.is_waiting = is_waiting

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with the tool, the state, and the URL of the page if there is one."""
        body = {
            **super().to_dict(),
            "tool": self.tool,
            "state": "waiting" if self.is_waiting else "asked",
            "expires_at": int(self.expires_at),
        }
        return body if self.approve_url is None else {**body, "approve_url": self.approve_url}


class ApprovalRefusedError(ToolGuardError):
    """A person has said no to this call.

    Args:
        message: one sentence.
        tool: the name of the tool.
    """

    error = "approval_refused"

    def __init__(self, message: str, *, tool: str) -> None:
        super().__init__(message)
        self.tool = tool

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with the tool."""
        return {**super().to_dict(), "tool": self.tool}


class ApprovalUnavailableError(ToolGuardError):
    """Where approvals are kept cannot be reached: retrying may help."""

    error = "approval_unavailable"


class InvalidInputError(ToolGuardError):
    """An argument of the call is not one that the operation's rule can be applied to.

    Args:
        message: one sentence, without the value.
        argument: the name of the argument, if it is a single one.
    """

    error = "invalid_input"

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class KeysUnavailableError(ToolGuardError):
    """There are no usable signing keys, and the issuer cannot be reached.

    Args:
        message: one sentence.
        retry_after: seconds after which to try again, at least 1.
        reason: why an issuer that was asked about a token told nothing; None for keys.
    """

    status = 503
    error = "temporarily_unavailable"

    def __init__(
        self, message: str, *, retry_after: int = 5, reason: OutageReason | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after = max(1, retry_after)
        self.reason: OutageReason | None = reason


class GuardNotConfiguredError(ToolGuardError):
    """A guarded function was called on a server that no guard protects."""

    status = 500
    error = "guard_not_configured"


class ConnectionTokenError(ToolGuardError):
    """A connection token is not available; the tool body did not run.

    Args:
        message: one sentence that says what the caller can do.
        connection: the connection's name in the decorator, such as ``"google-calendar"``.
    """

    error = "connection_error"

    def __init__(self, message: str, *, connection: str) -> None:
        super().__init__(message)
        self.connection = connection

    def to_dict(self) -> dict[str, Any]:
        """Return the error, its description and the connection's name."""
        return {**super().to_dict(), "connection": self.connection}


class ConnectionRequiredError(ConnectionTokenError):
    """The user has not connected the account, or has to connect it again.

    Args:
        message: one sentence that says what the caller can do.
        connection: the connection's name in the decorator.
        connect_url: the URL at which only this user can connect; None if there is none.
        missing_scopes: third-party scopes that an existing connection lacks.
    """

    error = "connection_required"

    def __init__(
        self,
        message: str,
        *,
        connection: str,
        connect_url: str | None = None,
        missing_scopes: Sequence[str] = (),
    ) -> None:
        super().__init__(message, connection=connection)
        self.connect_url = connect_url
        self.missing_scopes = tuple(missing_scopes)

    @classmethod
    def not_connected(cls, connection: str) -> Self:
        """Return the error for an account that the user has not connected.

        Args:
            connection: the name of the connection.
        """
        return cls(f"Connect {connection} first, then try again", connection=connection)

    @classmethod
    def lacking_scopes(cls, connection: str, missing_scopes: Sequence[str]) -> Self:
        """Return the error for an account that is connected with too few scopes.

        Args:
            connection: the name of the connection.
            missing_scopes: the scopes that the account was not connected with.
        """
        return cls(
            f"Connect {connection} again and allow what is missing",
            connection=connection,
            missing_scopes=missing_scopes,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with the connect URL and the missing scopes if they are known."""
        body = super().to_dict()
        if self.connect_url is not None:
            body["connect_url"] = self.connect_url
        if self.missing_scopes:
            body["missing_scopes"] = list(self.missing_scopes)
        return body


class ConnectionDeniedError(ConnectionTokenError):
    """The vault's policy refuses the connection to this caller."""

    error = "connection_denied"


class ConnectionRateLimitedError(ConnectionTokenError):
    """The vault limits the rate of requests; ``retry_after`` is in seconds if it sent one.

    Args:
        message: one sentence.
        connection: the name of the connection.
        retry_after: seconds until the next attempt, if the vault sent them.
    """

    error = "connection_rate_limited"

    def __init__(self, message: str, *, connection: str, retry_after: int | None = None) -> None:
        super().__init__(message, connection=connection)
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with ``retry_after`` if the vault sent one."""
        body = super().to_dict()
        return body if self.retry_after is None else {**body, "retry_after": self.retry_after}


class ConnectionUnavailableError(ConnectionTokenError):
    """The vault did not answer in time, or answered with a server error: retrying may help."""

    error = "connection_unavailable"


class ConnectionResponseError(ConnectionTokenError):
    """The vault's answer violates its protocol: retrying will not help."""

    error = "connection_response"
