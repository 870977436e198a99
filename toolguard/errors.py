"""Which ways are there to be refused or to fail?

::

    ToolGuardError
    ├── MissingTokenError              401  no credentials were sent
    ├── MalformedCredentialsError      400  an Authorization header that cannot be read
    ├── MalformedMessageError          400  a body that more than one message could be read in
    ├── InvalidTokenError              401  a token that does not hold up, with a ``reason``
    ├── InsufficientScopeError         403  a good token with too few scopes: step up
    ├── InsufficientAuthenticationError  401  a good token of too long ago, or too weak a sign-in
    ├── AccessDeniedError              403  a good token that more scopes would not help
    ├── KeysUnavailableError           503  nobody can be verified right now: not the caller's fault
    ├── InvalidInputError              ---  an argument that no rule can be applied to
    ├── GuardNotConfiguredError        500  a guarded tool runs where no guard protects it
    └── ConnectionTokenError           ---  a connection token could not be had
        ├── ConnectionRequiredError         the user has to connect the account (again)
        ├── ConnectionDeniedError           the vault's policy says no
        ├── ConnectionRateLimitedError      the vault says "later"
        ├── ConnectionUnavailableError      the vault cannot be reached
        └── ConnectionResponseError         the vault's answer makes no sense

``status`` is the HTTP status of a refusal that is answered at the HTTP level; ``None`` marks
those that are always reported as the result of the tool. Misconfiguration is not in this tree:
it is a ``ValueError`` or ``TypeError`` when the user's module is imported.

No message, attribute or representation in this tree holds a token.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

__all__ = [
    "AccessDeniedError",
    "ConnectionDeniedError",
    "ConnectionRateLimitedError",
    "ConnectionRequiredError",
    "ConnectionResponseError",
    "ConnectionTokenError",
    "ConnectionUnavailableError",
    "GuardNotConfiguredError",
    "InsufficientAuthenticationError",
    "InsufficientScopeError",
    "InvalidInputError",
    "InvalidTokenError",
    "InvalidTokenReason",
    "KeysUnavailableError",
    "MalformedCredentialsError",
    "MalformedMessageError",
    "MissingTokenError",
    "ToolGuardError",
]

InvalidTokenReason = Literal[
    "malformed",
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
]
"""Why a token was refused. For logs and tests; the caller is told a sentence, not a claim."""


# RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E )
_SCOPE_TOKEN = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")


class ToolGuardError(Exception):
    """Everything toolguard raises while it serves a call."""

    #: HTTP status of this refusal, or None where it is always the result of the tool.
    status: ClassVar[int | None] = None
    #: The error code a client can switch on (RFC 6750 §3.1 where that names one).
    error: ClassVar[str] = "error"

    @property
    def error_description(self) -> str:
        """One sentence for the person who reads it; free of claims, tokens and secrets."""
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
    """Rebuild an error from another process, whatever its constructor takes."""
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class MissingTokenError(ToolGuardError):
    """The request carries no access token (RFC 6750 §3.1: a challenge without an error code).

    Args:
        message: one sentence.
        scopes: what a token would need for the operation, where that is known.
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
    """The body of the request is no MCP message, or not the same one to every reader.

    Args:
        message: one sentence.
        code: the JSON-RPC error code that the protocol has for it.

    Attributes:
        message_id: the JSON-RPC id of the message, where that could be read.
    """

    status = 400
    error = "invalid_request"

    def __init__(self, message: str, *, code: int = -32600) -> None:
        super().__init__(message)
        self.code = code
        self.message_id: str | int | None = None


class InvalidTokenError(ToolGuardError):
    """The access token does not hold up (RFC 6750 §3.1, invalid_token).

    Args:
        reason: what was wrong, as one word for logs and tests.
        message: one sentence about it, without anything from inside the token.
    """

    status = 401
    error = "invalid_token"

    def __init__(self, reason: InvalidTokenReason, message: str) -> None:
        super().__init__(message)
        self.reason: InvalidTokenReason = reason


class InsufficientScopeError(ToolGuardError):
    """The token is good and lacks scopes (RFC 6750 §3.1, insufficient_scope).

    Raised by guards, and by tool bodies when an upstream API asks for more.

    Args:
        required_scopes: what the operation needs, in the declared order.
        token_scopes: what the token holds, in its order.
        missing_scopes: what has to be added; by default the required ones the token lacks.

    Raises:
        ValueError: if nothing is required, or something that is not one scope.

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
        *,
        token_scopes: Sequence[str] = (),
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
        self.required_scopes = tuple(dict.fromkeys(required_scopes))
        self.token_scopes = tuple(token_scopes)
        self.missing_scopes = tuple(dict.fromkeys(missing_scopes))
        super().__init__("Token missing required scopes: " + " ".join(self.missing_scopes))

    @property
    def combined_scopes(self) -> tuple[str, ...]:
        """What the token holds, in its order, then what is missing, in the declared order."""
        return tuple(dict.fromkeys((*self.token_scopes, *self.missing_scopes)))

    @property
    def scope_parameter(self) -> str:
        """``combined_scopes`` as one space-separated string (RFC 6749 §3.3).

        What a token holds and is not one scope is left out: joined, it would be several.
        """
        return " ".join(each for each in self.combined_scopes if _SCOPE_TOKEN.fullmatch(each))

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON body: what to ask for (``scope``), and what was compared."""
        return {
            "error": self.error,
            "scope": self.scope_parameter,
            "error_description": self.error_description,
            "missing_scopes": list(self.missing_scopes),
            "token_scopes": list(self.token_scopes),
            "required_scopes": list(self.required_scopes),
        }


class InsufficientAuthenticationError(ToolGuardError):
    """The token is good, and the user's sign-in too long ago or too weak (RFC 9470 §3).

    Args:
        max_age: how many seconds ago the user may have signed in at most; None for any time.
        acr_values: the authentication context class references of which one would do.
        scopes: what to ask for along with it, so that the new token loses nothing.
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
        """Return the error, with what is asked for."""
        body = super().to_dict()
        if self.max_age is not None:
            body["max_age"] = self.max_age
        if self.acr_values:
            body["acr_values"] = " ".join(self.acr_values)
        if self.scopes:
            body["scope"] = " ".join(self.scopes)
        return body


class AccessDeniedError(ToolGuardError):
    """The caller may not do this, and no further scope would change it.

    The text names no scope and no rule, so that no client loops on it and nobody learns what
    would have been enough. ``rule`` is for the log.
    """

    status = 403
    error = "access_denied"

    def __init__(
        self, message: str = "You are not allowed to do this", *, rule: str | None = None
    ) -> None:
        super().__init__(message)
        self.rule = rule


class InvalidInputError(ToolGuardError):
    """An argument of the call is nothing that the operation's rule could be applied to.

    Args:
        message: one sentence, without the value.
        argument: the name of the argument, where it is one in particular.
    """

    error = "invalid_input"

    def __init__(self, message: str, *, argument: str | None = None) -> None:
        super().__init__(message)
        self.argument = argument


class KeysUnavailableError(ToolGuardError):
    """No signing keys good enough are at hand and the issuer cannot be reached.

    Args:
        message: one sentence.
        retry_after: seconds after which asking again makes sense, at least 1.
    """

    status = 503
    error = "temporarily_unavailable"

    def __init__(self, message: str, *, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = max(1, retry_after)


class GuardNotConfiguredError(ToolGuardError):
    """A guarded function was called where no guard protects the server that serves the call."""

    status = 500
    error = "guard_not_configured"


class ConnectionTokenError(ToolGuardError):
    """A connection token could not be had; the tool body did not run.

    Args:
        message: one sentence that says what the caller can do.
        connection: the name the tool was declared with, such as ``"google-calendar"``.
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
        connection: the name the tool was declared with.
        connect_url: where this user, and nobody else, can connect; None if the vault gave none.
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

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with the connect URL and the missing scopes where known."""
        body = super().to_dict()
        if self.connect_url is not None:
            body["connect_url"] = self.connect_url
        if self.missing_scopes:
            body["missing_scopes"] = list(self.missing_scopes)
        return body


class ConnectionDeniedError(ConnectionTokenError):
    """The vault knows the connection and its policy does not give it to this caller."""

    error = "connection_denied"


class ConnectionRateLimitedError(ConnectionTokenError):
    """The vault asks to come back later; ``retry_after`` is in seconds where it said so."""

    error = "connection_rate_limited"

    def __init__(self, message: str, *, connection: str, retry_after: int | None = None) -> None:
        super().__init__(message, connection=connection)
        self.retry_after = retry_after

    def to_dict(self) -> dict[str, Any]:
        """Return the error, with ``retry_after`` where the vault said so."""
        body = super().to_dict()
        return body if self.retry_after is None else {**body, "retry_after": self.retry_after}


class ConnectionUnavailableError(ConnectionTokenError):
    """The vault did not answer in time, or with a server error: trying again may help."""

    error = "connection_unavailable"


class ConnectionResponseError(ConnectionTokenError):
    """The vault's answer is not what its protocol says: trying again will not help."""

    error = "connection_response"
