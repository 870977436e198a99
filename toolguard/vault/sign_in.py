"""Recognize the person who opens a link: by a sign-in at the issuer, or by a session of yours."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from toolguard.connections.functions import is_async, takes
from toolguard.parsing.kinds import secret_text
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.vault.token_answers import id_token_claims

__all__ = ["OpenIDSignIn", "Person", "SignIn", "SignInFunction", "check_sign_in", "read_person"]


@dataclass(frozen=True)
class Person:
    """A person who is signed in.

    Attributes:
        issuer: the issuer of their access tokens.
        subject: the ``sub`` of their access tokens.
        name: what to call them on a page; by default the subject.
        claims: what the sign-in says about them, for what a person who approves calls has to meet:
            ``roles``, ``scope`` and so on, as in an access token; not in the representation.
    """

    issuer: str
    subject: str
    name: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def shown(self) -> str:
        """What to call them on a page."""
        return self.name or self.subject


SignInFunction: TypeAlias = Callable[[Request], Awaitable[Person | Response | None]]
"""Returns the person of a session of your own, a response that begins a sign-in, or None.

The session's cookie has to be ``SameSite=Lax``: people come back from other sites.
"""


@dataclass(frozen=True)
class OpenIDSignIn:
    """Sign-in at the issuer of the access tokens (OpenID Connect Core §3.1).

    The redirect URI to register there is ``https://YOUR-SERVER/connections/signed-in``.

    Attributes:
        client_id: the id of your OAuth client there.
        client_secret: its secret; empty for a public client. Never in the representation.
        issuer: the issuer; None takes the guard's.
        subject_claim: the claim of the ID token that is the ``sub`` of access tokens. (Issuers
            with pairwise subjects have another one, such as ``oid``.)
        scopes: what to ask for beside ``openid``.

    Raises:
        TypeError: if the secret is not text.
        ValueError: if there is no client id, or the issuer is not an https URL.
    """

    client_id: str
    client_secret: str = field(default="", repr=False)
    issuer: str | None = field(default=None, kw_only=True)
    subject_claim: str = field(default="sub", kw_only=True)
    scopes: tuple[str, ...] = field(default=("email",), kw_only=True)

    def __post_init__(self) -> None:
        if not self.client_id:
            raise ValueError("write the client id that your issuer has for this server")
        secret_text("client_secret", self.client_secret, may_be_empty=True)
        if self.issuer is not None and not is_secure_url(self.issuer):
            raise ValueError(f'issuer={self.issuer!r}: write "https://auth.example.com"')


SignIn: TypeAlias = OpenIDSignIn | SignInFunction
"""How a person who opens a link is recognized."""


def check_sign_in(sign_in: object) -> None:
    """Check that people can be recognized by ``sign_in``.

    Raises:
        TypeError: if it is neither an :class:`OpenIDSignIn` nor an async function of a request.
    """
    if isinstance(sign_in, OpenIDSignIn):
        return
    if not callable(sign_in) or isinstance(sign_in, type) or not is_async(sign_in):
        kind = getattr(sign_in, "__qualname__", type(sign_in).__name__)
    elif takes(sign_in, object()):
        return
    else:
        kind = "a function that does not take one argument"
    raise TypeError(
        f"sign_in is {kind}: write OpenIDSignIn(client_id, client_secret), or `async def "
        "who(request: Request) -> Person | Response | None`"
    )


def read_person(
    answer: Mapping[str, object], sign_in: OpenIDSignIn, issuer: str, nonce: str, now: float
) -> Person | None:
    """Return the person of a token answer; None if its ID token is not good for this sign-in.

    The token came from the token endpoint over TLS, which stands for its signature (OpenID Connect
    Core §3.1.3.7, item 6).

    Args:
        answer: the members of the token answer.
        sign_in: the settings of the sign-in.
        issuer: the issuer that was asked.
        nonce: the nonce of this sign-in.
        now: seconds since the epoch.
    """
    claims = id_token_claims(answer.get("id_token"))
    subject = claims.get(sign_in.subject_claim)
    audiences = claims.get("aud")
    audiences = audiences if isinstance(audiences, list) else [audiences]
    expires_at = claims.get("exp")
    is_good = (
        claims.get("iss") == issuer
        and sign_in.client_id in audiences
        and claims.get("azp", sign_in.client_id) == sign_in.client_id
        and claims.get("nonce") == nonce
        and isinstance(expires_at, (int, float))
        and expires_at > now
    )
    if not is_good or not isinstance(subject, str) or not subject:
        return None
    names = (claims.get(each) for each in ("email", "preferred_username", "name"))
    name = next((each for each in names if isinstance(each, str) and each), "")
    return Person(issuer, subject, name, claims)
