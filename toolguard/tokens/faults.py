"""Tell the operator why tokens are refused: one log line for each kind of fault and minute.

A line has what was expected and what was found, and never a token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.tokens.jws import CompactJWS, parse

__all__ = ["Faults", "warn_of_shared"]

_log = logging.getLogger("toolguard.tokens")

_EACH = 60.0
_MAX_SHOWN = 200
_MAX_NAMES = 5
_SHARED = {
    "account": "Keycloak gives it to every client of the realm: add an audience mapper, and name "
    "this server",
    "authenticated": "Supabase gives it to every application of the project",
}

_MISSING = {
    "aud": "have the authorization server name this server in it (Keycloak: an audience mapper, "
    "WorkOS: a resource indicator); cognito(...) takes the app clients instead",
    "iss": "a token that names no issuer cannot be trusted (WorkOS: sessions of user management; "
    "use a Connect or MCP application)",
}
_OTHER = {
    "aud": "have the authorization server name this server in it (clients ask for that by "
    "resource=, RFC 8707), or write audience=[...] if it is another name of this server alone",
    "iss": "write the issuer exactly as its tokens have it, if it is the same one",
}
_NO_SUBJECT = "it lacks sub"
_BY_KIND = {
    "format": "for opaque tokens write Issuer(..., introspection=Introspection(...)), or a "
    "verifier of your own",
    "encryption": "have the authorization server sign access tokens without encrypting them; "
    "Auth0 encrypts those for no API: have clients ask for yours, by audience or resource",
    "form": "if ID tokens are meant, write google(..., id_tokens=True)",
    "header": "if its issuer sends jku with every token, write Issuer(..., "
    'ignored_parameters=["jku"]); the key is not taken from there',
    "kind": "if it is one, a preset of toolguard.tokens.issuers may know it, or write Issuer(..., "
    "may_carry=[...])",
}
_KIND_BY_REASON = {"key": "header", "encrypted": "encryption"}


class Faults:
    """The faults of the tokens of one issuer, as they are logged.

    Args:
        issuer: the issuer, for the log line.
        clock: returns the time, in seconds.
    """

    def __init__(self, issuer: str, clock: Callable[[], float]) -> None:
        self._issuer = issuer
        self._clock = clock
        self._told: dict[str, float] = {}

    def tell(self, claim: str, expected: str | Sequence[str], found: object) -> None:
        """Log that tokens are refused, unless this kind was logged within the last minute.

        Args:
            claim: the claim or header parameter that differs, or ``format``, ``header``, ``kind``.
            expected: its value, or the values of which it should have one.
            found: its value in the token.
        """
        if not self._is_new(claim):
            return
        names = [expected] if isinstance(expected, str) else list(expected)
        _log.warning(
            "tokens are refused (%s): %s is %s, expected %s%s",
            self._issuer,
            claim,
            _shown(found),
            " or ".join(names[:_MAX_NAMES]),
            _hint(claim, names, found),
        )

    def parsed(self, token: str, ignored: frozenset[str]) -> CompactJWS:
        """Return the parts of a token, as :func:`toolguard.tokens.jws.parse` does; log why not.

        Raises:
            InvalidTokenError: if it is not a signed JWT.
        """
        try:
            return parse(token, ignored)
        except InvalidTokenError as error:
            kind = _KIND_BY_REASON.get(error.reason, "format")
            self.tell(kind, "a signed JWT", str(error))
            raise

    def tell_outage(self, outage: KeysUnavailableError) -> None:
        """Log why tokens cannot be verified, unless this kind was logged within the last minute."""
        if self._is_new(f"outage, {outage.reason}"):
            _log.warning("tokens cannot be verified (%s): %s", self._issuer, outage)

    def _is_new(self, kind: str) -> bool:
        now = self._clock()
        if kind in self._told and now < self._told[kind] + _EACH:
            return False
        self._told[kind] = now
        return True


def warn_of_shared(audiences: Sequence[str]) -> None:
    """Warn of audiences that do not tell this server from others."""
    for audience in audiences:
        if audience in _SHARED:
            _log.warning(
                "audience %r lets the tokens of other applications in: %s",
                audience,
                _SHARED[audience],
            )


def _shown(found: object) -> str:
    if isinstance(found, str):
        return ascii(found[:_MAX_SHOWN])
    if isinstance(found, list):
        return f"[{', '.join(map(_shown, found[:_MAX_NAMES]))}]"
    return "missing" if found is None else f"a {type(found).__name__}"


def _hint(claim: str, expected: Sequence[str], found: object) -> str:
    """Return what to write, after a colon; an empty text if that is not known."""
    if found == _NO_SUBJECT:
        hint = "have the client ask for the scope openid, without which Google names no user"
    elif claim in _BY_KIND:
        hint = _BY_KIND[claim]
    elif found is None:
        hint = _MISSING.get(claim, "")
    else:
        named = found if isinstance(found, list) else [found]
        names = [each for each in named if isinstance(each, str)]
        hint = _hint_of_names(expected, names) or (_OTHER.get(claim, "") if names else "")
    return f": {hint}" if hint else ""


def _hint_of_names(expected: Sequence[str], found: Sequence[str]) -> str:
    plain = {each.rstrip("/") for each in expected}
    if any(text.rstrip("/") in plain for text in found):
        return "they differ by a slash"
    if found and found[0] in _SHARED:
        return _SHARED[found[0]]
    if any(text.startswith("https://api.workos.com/user_management/") for text in found):
        return "sessions of user management name no audience; use a Connect or MCP application"
    if any(each.endswith("/adfs/services/trust") for each in expected):
        return "write adfs(..., access_token_issuer=...), as the metadata of AD FS names it"
    return ""
