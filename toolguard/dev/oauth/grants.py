"""Grants: the codes and tokens that follow from a consent.

A consent creates one grant. Its code, refresh tokens and access tokens belong to it, and end with
it: the second use of a code or refresh token revokes the whole grant (RFC 9700 §4.14.2), because
one of the two uses is an attacker's, and the server cannot tell which.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from dataclasses import dataclass, field, replace

from toolguard.dev.oauth.config import User
from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.refusals import Refusal
from toolguard.dev.oauth.sign_in_state import AuthorizationRequest
from toolguard.dev.store import digest
from toolguard.parsing.pkce import s256_challenge

__all__ = [
    "AuthorizationGrant",
    "CodeProof",
    "find_refresh_token",
    "grant_of_access_token",
    "keep_access_token",
    "new_refresh_token",
    "open_direct_grant",
    "open_grant",
    "redeem_code",
    "refresh_token_grant",
    "revoke_access_token",
    "revoke_grant",
    "use_assertion",
    "use_refresh_token",
]

_log = logging.getLogger("toolguard.dev")

_GRANT_COLUMNS = "grant_id, client_id, user_id, resource, scopes, grant_.expires_at"


@dataclass(frozen=True)
class AuthorizationGrant:
    """What a user gave to a client.

    Attributes:
        grant_id: its name in the store.
        client_id: the client.
        user_id: the user who consented.
        resource: the server that tokens are for.
        scopes: the granted scopes.
        expires_at: in seconds since the epoch; a refresh does not change it.
        nonce: of the authorization request, where its code was redeemed.
    """

    grant_id: str
    client_id: str
    user_id: str
    resource: str
    scopes: tuple[str, ...]
    expires_at: float
    nonce: str | None = None


@dataclass(frozen=True)
class CodeProof:
    """What a client shows with a code: who it is, where it was, and its PKCE verifier."""

    client_id: str
    redirect_uri: str | None
    verifier: str = field(repr=False)


def open_grant(
    context: ServerContext, request: AuthorizationRequest, user: User, scopes: tuple[str, ...]
) -> str:
    """Make a grant; return the code for it (RFC 6749 §4.1.2)."""
    grant_id, code, now = secrets.token_hex(16), secrets.token_urlsafe(32), context.clock()
    lifetimes = context.world.lifetimes
    expires_at = now + lifetimes.refresh_token
    redirect_uri = request.redirect_uri if request.redirect_uri_given else None
    with context.store.transaction() as db:
        db.execute(
            "INSERT INTO grant_ VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (
                *(grant_id, request.client_id, user.id, request.resource),
                *(json.dumps(scopes), expires_at),
            ),
        )
        db.execute(
            "INSERT INTO code (digest, grant_id, redirect_uri, challenge, expires_at, nonce)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (
                *(digest(code), grant_id, redirect_uri, request.challenge),
                *(now + lifetimes.code, request.nonce),
            ),
        )
    return code


def open_direct_grant(
    context: ServerContext,
    client_id: str,
    subject: str,
    *,
    resource: str,
    scopes: tuple[str, ...],
) -> AuthorizationGrant:
    """Make a grant without a consent, for one access token of a machine; return it."""
    expires_at = context.clock() + context.world.lifetimes.access_token
    grant = AuthorizationGrant(
        secrets.token_hex(16), client_id, subject, resource, scopes, expires_at
    )
    with context.store.transaction() as db:
        db.execute(
            "INSERT INTO grant_ VALUES (?, ?, ?, ?, ?, ?, NULL)",
            (grant.grant_id, client_id, subject, resource, json.dumps(scopes), expires_at),
        )
    return grant


def use_assertion(context: ServerContext, issuer: str, jti: str, expires_at: float) -> bool:
    """Remember that an assertion was used; return whether it was for the first time."""
    with context.store.transaction() as db:
        cursor = db.execute(
            "INSERT OR IGNORE INTO assertion VALUES (?, ?)",
            (digest(json.dumps([issuer, jti])), expires_at),
        )
    return cursor.rowcount == 1


def redeem_code(context: ServerContext, code: str, proof: CodeProof) -> AuthorizationGrant:
    """Return the grant of ``code``, and use the code up, even if the proof turns out wrong.

    Raises:
        Refusal: ``invalid_grant`` if the code is unknown, was used (which ends the grant), has
            expired, is another client's, or the proof does not match.
    """
    now = context.clock()
    with context.store.transaction() as db:
        row = db.execute(
            f"SELECT used_at, code.expires_at, redirect_uri, challenge, nonce, {_GRANT_COLUMNS}"  # noqa: S608
            " FROM code JOIN grant_ USING (grant_id) WHERE digest = ? AND revoked_at IS NULL",
            (digest(code),),
        ).fetchone()
        if row is None:
            raise _invalid("The code is not known, or has ended")
        used_at, expires_at, redirect_uri, challenge, nonce, *columns = row
        grant = replace(_grant(columns), nonce=nonce)
        if used_at is None and grant.client_id != proof.client_id:
            raise _invalid("The code was issued to another client")
        db.execute("UPDATE code SET used_at = ? WHERE digest = ?", (now, digest(code)))
    if used_at is not None:
        revoke_grant(context, grant.grant_id)
        _log.warning("a code was used twice: its tokens are revoked")
        raise _invalid("The code was used before: its tokens are revoked")
    if expires_at <= now:
        raise _invalid("The code has expired")
    if proof.redirect_uri != redirect_uri:
        raise _invalid("redirect_uri is not that of the authorization request")
    if not hmac.compare_digest(s256_challenge(proof.verifier).encode(), challenge.encode()):
        raise _invalid("code_verifier does not fit the code_challenge")
    return grant


def new_refresh_token(
    context: ServerContext, grant: AuthorizationGrant, jkt: str | None = None
) -> str:
    """Return a new refresh token of ``grant``, bound to a key if there is one (RFC 9449 §5)."""
    token = secrets.token_urlsafe(32)
    with context.store.transaction() as db:
        db.execute(
            "INSERT INTO refresh_token VALUES (?, ?, NULL, ?)",
            (digest(token), grant.grant_id, jkt),
        )
    return token


def refresh_token_grant(
    context: ServerContext, token: str
) -> tuple[AuthorizationGrant, bool] | None:
    """Return the grant of a refresh token, and whether it was used; None if it is not valid."""
    with context.store.lock:
        row = context.store.db.execute(
            f"SELECT used_at, {_GRANT_COLUMNS} FROM refresh_token JOIN grant_ USING (grant_id)"  # noqa: S608
            " WHERE digest = ? AND revoked_at IS NULL AND grant_.expires_at > ?",
            (digest(token), context.clock()),
        ).fetchone()
    return None if row is None else (_grant(row[1:]), row[0] is not None)


def find_refresh_token(
    context: ServerContext, token: str, client_id: str, jkt: str | None = None
) -> AuthorizationGrant:
    """Return the grant of a refresh token of this client, without using it.

    Args:
        context: the server.
        token: the refresh token.
        client_id: the client.
        jkt: the key whose possession the client has proved; None for none.

    Raises:
        Refusal: ``invalid_grant`` if the token is unknown, is another client's, or was used, which
            ends the grant.
    """
    found = refresh_token_grant(context, token)
    if found is None:
        raise _invalid("The refresh token is not known, or has ended")
    grant, used = found
    if grant.client_id != client_id:
        raise _invalid("The refresh token was issued to another client")
    if _key_of_refresh_token(context, token) not in (None, jkt):
        raise _invalid("The refresh token is bound to a key: send a DPoP proof made with it")
    if used:
        raise _replayed(context, grant)
    return grant


def _key_of_refresh_token(context: ServerContext, token: str) -> str | None:
    with context.store.lock:
        (jkt,) = context.store.db.execute(
            "SELECT jkt FROM refresh_token WHERE digest = ?", (digest(token),)
        ).fetchone()
    return None if jkt is None else str(jkt)


def use_refresh_token(context: ServerContext, token: str, grant: AuthorizationGrant) -> None:
    """Use the refresh token up; it is replaced, not kept (RFC 9700 §4.14.2).

    Raises:
        Refusal: if another request has used it in the meantime, which ends the grant.
    """
    with context.store.transaction() as db:
        done = db.execute(
            "UPDATE refresh_token SET used_at = ? WHERE digest = ? AND used_at IS NULL",
            (context.clock(), digest(token)),
        )
    if done.rowcount != 1:
        raise _replayed(context, grant)


def keep_access_token(
    context: ServerContext, jti: str, grant: AuthorizationGrant, expires_at: float
) -> None:
    """Remember that an access token was issued, so that it can be revoked."""
    with context.store.transaction() as db:
        db.execute(
            "INSERT INTO access_token VALUES (?, ?, ?, NULL)", (jti, grant.grant_id, expires_at)
        )


def grant_of_access_token(context: ServerContext, jti: str) -> AuthorizationGrant | None:
    """Return the grant that an access token was issued for; None if it is not known."""
    with context.store.lock:
        row = context.store.db.execute(
            f"SELECT {_GRANT_COLUMNS} FROM access_token JOIN grant_ USING (grant_id)"  # noqa: S608
            " WHERE jti = ?",
            (jti,),
        ).fetchone()
    return None if row is None else _grant(row)


def revoke_access_token(context: ServerContext, jti: str) -> None:
    """Revoke one access token; its grant lives on (RFC 7009 §2.1 allows either)."""
    with context.store.transaction() as db:
        db.execute("UPDATE access_token SET revoked_at = ? WHERE jti = ?", (context.clock(), jti))


def revoke_grant(context: ServerContext, grant_id: str) -> None:
    """End a grant and every token of it."""
    with context.store.transaction() as db:
        db.execute(
            "UPDATE grant_ SET revoked_at = ? WHERE grant_id = ? AND revoked_at IS NULL",
            (context.clock(), grant_id),
        )


def _replayed(context: ServerContext, grant: AuthorizationGrant) -> Refusal:
    revoke_grant(context, grant.grant_id)
    _log.warning("a refresh token was used twice: its family is revoked")
    return _invalid("The refresh token was used before: every token of its family is revoked")


def _grant(columns: list[str] | tuple[str, ...]) -> AuthorizationGrant:
    grant_id, client_id, user_id, resource, scopes, expires_at = columns
    return AuthorizationGrant(
        grant_id, client_id, user_id, resource, tuple(json.loads(scopes)), float(expires_at)
    )


def _invalid(description: str) -> Refusal:
    return Refusal("invalid_grant", description)
