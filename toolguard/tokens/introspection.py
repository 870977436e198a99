"""Verify tokens by asking the authorization server that issued them (RFC 7662)."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias
from urllib.parse import urlencode

import httpx
from typing_extensions import Self

from toolguard.errors import InvalidTokenError, KeysUnavailableError
from toolguard.parsing.scope_names import ScopeNames
from toolguard.parts.lifecycle import close
from toolguard.principal import Principal
from toolguard.tokens.claims import Times, check_times
from toolguard.tokens.discovery import EndpointLocation
from toolguard.tokens.endpoint_source import EndpointSource
from toolguard.tokens.faults import Faults
from toolguard.tokens.fetching import Fetch, HttpFetch, parse_retry_after
from toolguard.tokens.forgetting import forget_variables
from toolguard.tokens.introspection_client import BasicClient, BearerClient, Introspection
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.jws import MAX_TOKEN_LENGTH, has_jose_header
from toolguard.tokens.jwt import JWTVerifier
from toolguard.tokens.keys import Key
from toolguard.tokens.memo import own_claims
from toolguard.tokens.per_loop import PerLoop
from toolguard.tokens.posting import MAX_ANSWER_BYTES, HTTPAnswer, HttpPost, Post
from toolguard.tokens.profile import Profile
from toolguard.tokens.proofs.presented import check_binding
from toolguard.tokens.signed_answers import MEDIA_TYPE, SignedAnswers, check_not_encrypted
from toolguard.tokens.tokeninfo import TokenInfo

__all__ = [
    "BasicClient",
    "BearerClient",
    "ConfirmedVerifier",
    "HTTPAnswer",
    "HiddenToken",
    "Introspection",
    "IntrospectionVerifier",
    "JWTOrOpaqueVerifier",
    "Post",
]

_MAX_CACHED = 1_024
_OWN_FAULT = ": it does not accept this server: check the credentials in Introspection(...)"
_SIGNED = "is signed: write Introspection(..., signed=True)"
_UNREADABLE = "cannot be read"


class HiddenToken:
    """A token that no representation shows: debuggers and error reporters show variables."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.digest = sha256(text.encode("utf-8", "surrogatepass")).digest()


class _Known(NamedTuple):
    times: Times
    principal: Principal
    until: float


_Outcome: TypeAlias = Mapping[str, Any] | KeysUnavailableError


class IntrospectionVerifier:
    """Verifies tokens of one issuer by asking it (RFC 7662); also opaque ones.

    The answer is checked as a JWT's claims are: ``iss`` (where it has one), ``aud``, ``exp``,
    ``nbf``, ``sub``, ``cnf``. Concurrent calls with one token cause one request.

    Args:
        issuer: the description of the issuer, with its ``introspection``.
        audience: the ``aud`` of this server, if the description has none.
        post: sends the requests, instead of httpx.
        fetch: fetches the metadata, instead of httpx.
        clock: returns the time, in seconds since the epoch.

    Raises:
        ValueError: if the issuer has no ``introspection``, or its endpoint is not https.
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        audience: str | Sequence[str] = (),
        post: Post | None = None,
        fetch: Fetch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        settings = issuer.introspection
        if not isinstance(settings, Introspection | TokenInfo):
            raise TypeError("write Issuer(..., introspection=Introspection(BasicClient(...)))")
        self._settings = settings
        self._rules = JWTVerifier.of(issuer, audience=audience, keys=_NoKeys(), clock=clock)
        self._endpoint = EndpointSource(
            _location_of(issuer, settings.endpoint),
            fetch=HttpFetch(network=issuer.network) if fetch is None else fetch,
            timeout=settings.timeout,
            clock=clock,
        )
        self._signed = _signed_answers(issuer, settings, self._rules, clock)
        self._post: Post = HttpPost(issuer.network) if post is None else post
        self._clock = clock
        self._faults = Faults(issuer.url, clock)
        self._cache: OrderedDict[bytes, _Known] = OrderedDict()
        self._flights: PerLoop[dict[bytes, asyncio.Task[_Outcome]]] = PerLoop(dict)

    #: Whether tokens that are not JWTs are its own.
    takes_opaque = True

    @property
    def issuer(self) -> str | None:
        """The issuer whose tokens are accepted."""
        return self._rules.issuer

    @property
    def audiences(self) -> tuple[str, ...]:
        """The ``aud`` values of this server, as configured."""
        return self._rules.audiences

    @property
    def leeway(self) -> float:
        """Seconds by which the issuer's clock may differ."""
        return self._rules.leeway

    @property
    def profile(self) -> Profile:
        """The declared differences of the issuer's tokens."""
        return self._rules.profile

    @property
    def published(self) -> tuple[str, ...]:
        """The authorization servers that clients are told of (RFC 9728)."""
        return self._rules.published

    @property
    def shares_connections(self) -> bool:
        """Whether the issuer's subjects are known to the connection provider."""
        return self._rules.shares_connections

    def scope_names_of(self, issuer: str | None) -> ScopeNames:
        """Return how scopes are called at the issuer."""
        return self._rules.scope_names_of(issuer)

    def verify_now(self, token: str) -> None:
        """Return None: the issuer has to be asked."""
        del token

    async def verify(self, token: str, *, bound: bool = False) -> Principal:
        """Ask the issuer about ``token`` and return its principal.

        Args:
            token: the access token.
            bound: whether the token has to be bound to a key, whose possession the caller of this
                method checks (RFC 9449 §6.2); otherwise it must not be.

        Raises:
            InvalidTokenError: if the token is not active, or not for this server.
            KeysUnavailableError: if the issuer does not answer.
        """
        hidden = HiddenToken(token)
        del token
        principal = await self.asked(hidden)
        check_binding(principal.jkt, bound=bound)
        return principal

    async def verify_bound(self, token: str) -> Principal:
        """Ask the issuer about a ``token`` that is bound to a key, and return its principal.

        The possession of the key is checked by the caller of this method (RFC 9449 §7).

        Args:
            token: the access token.

        Raises:
            InvalidTokenError: if the token is not active, not for this server, or not bound.
            KeysUnavailableError: if the issuer does not answer.
        """
        verifying = self.verify(token, bound=True)
        del token  # a traceback shows local variables, and none may hold a token
        return await verifying

    async def asked(self, hidden: HiddenToken) -> Principal:
        """Return the principal of a token, which may be bound to a key.

        Args:
            hidden: the access token.

        Raises:
            InvalidTokenError: if the token is not active, or not for this server.
            KeysUnavailableError: if the issuer does not answer.
        """
        self._check_form(hidden)
        known = self._recall(hidden.digest)
        if known is None:
            answer = await self._ask_once(hidden)
            known = self._accept(answer)
            if self._settings.cache_for and known.until > self._clock():
                self._cache[hidden.digest] = known
                if len(self._cache) > _MAX_CACHED:
                    self._cache.popitem(last=False)
        check_times(known.times, self._clock(), self.leeway)
        return known.principal

    def _check_form(self, token: HiddenToken) -> None:
        if not 0 < len(token.text) <= MAX_TOKEN_LENGTH:
            raise InvalidTokenError("malformed", "The token is too long")
        if not self._settings.takes_jwts and has_jose_header(token.text):
            self._faults.tell("form", "an opaque access token", "a JWT")
            raise InvalidTokenError("type", "The token is not an access token")

    def _recall(self, digest: bytes) -> _Known | None:
        known = self._cache.get(digest)
        if known is not None and known.until <= self._clock():
            self._cache.pop(digest, None)
            return None
        return known

    def _accept(self, answer: Mapping[str, Any]) -> _Known:
        """Check an answer as the claims of a JWT are checked, except the time claims."""
        if answer.get("active") is not True:
            raise InvalidTokenError("inactive", "The token is not active")
        claims = {"iss": self.issuer, **own_claims(answer)}
        del claims["active"]
        kind = claims.pop("token_type", "Bearer")
        if not isinstance(kind, str) or kind.lower() not in ("bearer", "access_token", "dpop"):
            raise InvalidTokenError("bound", "The token is not a bearer token")
        self._rules.check_issuer(claims)
        times, principal = self._rules.examined(claims, "at+jwt")
        if kind.lower() == "dpop" and principal.jkt is None:
            raise InvalidTokenError("bound", "The token is bound to a key that is not named")
        until = min(self._clock() + self._settings.cache_for, times.expires)
        return _Known(times, principal, until)

    async def _ask_once(self, token: HiddenToken) -> Mapping[str, Any]:
        """Ask, or wait for the answer that another call with the same token is waiting for."""
        flights = self._flights.get()
        flight = flights.get(token.digest)
        if flight is None:
            flight = asyncio.ensure_future(self._ask(token))
            flights[token.digest] = flight
            flight.add_done_callback(lambda _: flights.pop(token.digest, None))
        # Cancelling one call does not cancel the request of the others.
        outcome = await asyncio.shield(flight)
        if isinstance(outcome, KeysUnavailableError):
            raise KeysUnavailableError(
                str(outcome), retry_after=outcome.retry_after, reason=outcome.reason
            )
        return outcome

    async def _ask(self, token: HiddenToken) -> _Outcome:
        """Return the answer, or the failure: one exception is not raised to several calls."""
        try:
            endpoint = await self._endpoint.find()
        except KeysUnavailableError as outage:
            return outage
        credentials = self._settings.client.credentials(endpoint, self._clock())
        form = {**self._settings.form(token.text), **credentials.parameters}
        headers = {
            "Accept": "application/json" if self._signed is None else MEDIA_TYPE,
            "Accept-Encoding": "identity",
            "Content-Type": "application/x-www-form-urlencoded",
            "User-Agent": "toolguard-mcp",
        }
        if credentials.authorization is not None:
            headers["Authorization"] = credentials.authorization
        body = urlencode(form).encode("ascii")
        try:
            answer = await self._post(endpoint, body, headers, self._settings.timeout)
        finally:  # error reporters show the variables of frames
            del form, body, headers, credentials
        if isinstance(answer, str) or answer.status == httpx.codes.NOT_FOUND:
            self._endpoint.forget()
        return await self._read(answer)

    async def _read(self, answer: HTTPAnswer | str) -> _Outcome:
        """Return the members of an answer, or the outage that it is, which is logged."""
        try:
            return await self._members(answer)
        except KeysUnavailableError as outage:
            self._faults.tell_outage(outage)
            return outage

    async def _members(self, answer: HTTPAnswer | str) -> Mapping[str, Any]:
        if isinstance(answer, str):
            raise KeysUnavailableError(
                f"The authorization server does not answer ({answer})", reason="unreachable"
            )
        if answer.status not in self._settings.statuses:
            # RFC 7662 §2.3: 401 says that this server is not authorized, and nothing of the token.
            is_own_fault = answer.status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)
            raise KeysUnavailableError(
                f"The introspection endpoint answers HTTP {answer.status}"
                f"{_OWN_FAULT if is_own_fault else ''}",
                retry_after=parse_retry_after(answer.retry_after, self._clock()) or 5,
                reason="status",
            )
        check_not_encrypted(answer.body)
        members: Mapping[str, Any] | None = None
        if self._signed is not None:
            members = await self._signed.open(answer.body, answer.media_type)
        elif len(answer.body) <= MAX_ANSWER_BYTES:
            members = self._settings.read(answer.status, answer.body)
        if members is None or not isinstance(members.get("active"), bool):
            is_signed = self._signed is None and answer.media_type == MEDIA_TYPE
            raise KeysUnavailableError(
                f"The answer of the introspection endpoint {_SIGNED if is_signed else _UNREADABLE}",
                reason="unreadable",
            )
        return members

    async def warm_up(self) -> None:
        """Discover the endpoint, and the keys of signed answers.

        Raises:
            KeysUnavailableError: if that is not possible.
        """
        await self._endpoint.find()
        if self._signed is not None:
            await self._signed.warm_up()

    async def aclose(self) -> None:
        """Close the connections to the issuer that belong to the running event loop."""
        await close(self._post)

    def __repr__(self) -> str:
        return f"<IntrospectionVerifier: tokens of {self.issuer}>"


class _AskingVerifier(JWTVerifier):
    """Verifies JWTs of one issuer here, and asks it about some tokens.

    Args:
        issuer: the description of the issuer, with its ``introspection``.
        audience: the ``aud`` of this server, if the description has none.
        post: sends the requests, instead of httpx.
        clock: returns the time, in seconds since the epoch.
    """

    _introspection: IntrospectionVerifier

    @classmethod
    def asking(
        cls,
        issuer: Issuer,
        *,
        audience: str | Sequence[str] = (),
        post: Post | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Return the verifier of a described issuer's tokens."""
        made = cls.of(issuer, audience=audience, clock=clock)
        made._introspection = IntrospectionVerifier(
            issuer, audience=audience, post=post, clock=clock
        )
        return made

    async def warm_up(self) -> None:
        """Fetch the keys, and discover the endpoint that is asked.

        Raises:
            KeysUnavailableError: if that is not possible.
        """
        await super().warm_up()
        await self._introspection.warm_up()

    async def aclose(self) -> None:
        """Close the connections to the issuer that belong to the running event loop."""
        await self._introspection.aclose()


class ConfirmedVerifier(_AskingVerifier):
    """Verifies JWTs, and asks their issuer whether they are still active: for revocation."""

    async def verify(self, token: str, *, bound: bool = False) -> Principal:
        """Verify ``token``, have its issuer confirm it, and return its principal.

        Args:
            token: the access token.
            bound: whether the token has to be bound to a key; otherwise it must not be.

        Raises:
            InvalidTokenError: if the token is not valid, or not active any more.
            KeysUnavailableError: if its issuer does not answer, or its keys cannot be fetched.
        """
        try:
            principal = await super().verify(token, bound=bound)
            confirmed = await self._introspection.asked(HiddenToken(token))
        except BaseException as error:
            forget_variables(error)
            del token
            raise
        if not _is_about(confirmed, principal):
            raise InvalidTokenError("inactive", "The token is confirmed for another subject")
        return principal

    def verify_now(self, token: str) -> None:
        """Return None: the issuer has to be asked."""
        del token


class JWTOrOpaqueVerifier(_AskingVerifier):
    """Verifies the JWTs of one issuer here, and asks it about its opaque tokens."""

    #: Whether tokens that are not JWTs are its own.
    takes_opaque = True

    async def verify(self, token: str, *, bound: bool = False) -> Principal:
        """Verify ``token``, or ask about it, and return its principal.

        Args:
            token: the access token.
            bound: whether the token has to be bound to a key; otherwise it must not be.

        Raises:
            InvalidTokenError: if the token is not valid.
            KeysUnavailableError: if its issuer does not answer, or its keys cannot be fetched.
        """
        try:
            if has_jose_header(token):
                return await super().verify(token, bound=bound)
            return await self._introspection.verify(token, bound=bound)
        except BaseException as error:
            forget_variables(error)
            del token
            raise

    def verify_now(self, token: str) -> Principal | None:
        """Verify a JWT without I/O; return None if that is not possible.

        Raises:
            InvalidTokenError: if the token is not valid.
            KeysUnavailableError: if the issuer's keys cannot be fetched.
        """
        return super().verify_now(token) if has_jose_header(token) else None


class _NoKeys:
    """The keys of an issuer whose tokens are not signed for this server."""

    def find(self, kid: str | None, algorithm: str) -> tuple[Key, ...]:
        """Return no key."""
        del kid, algorithm
        return ()

    async def refresh(self) -> None:
        """Do nothing."""

    def report_bad_signature(self, kid: str | None) -> bool:
        """Return False."""
        del kid
        return False


def _is_about(confirmed: Principal, principal: Principal) -> bool:
    """Return whether an answer is about the token of a principal, as far as it says."""
    if (confirmed.user_id, confirmed.issuer) != (principal.user_id, principal.issuer):
        return False
    # A binding that only the answer names is not one that a proof was checked against.
    if confirmed.jkt not in (None, principal.jkt):
        return False
    both = (
        (confirmed.client_id, principal.client_id),
        (confirmed.claims.get("jti"), principal.claims.get("jti")),
    )
    return all(one == other for one, other in both if one is not None and other is not None)


def _location_of(issuer: Issuer, endpoint: str | None) -> EndpointLocation:
    """Return where to find the introspection endpoint, as the keys of the issuer are found."""
    admits = issuer.network.admits
    if endpoint is not None:
        return EndpointLocation(url=endpoint, issuer=None, well_known_url=None, admits=admits)
    return EndpointLocation(
        url=None,
        issuer=issuer.metadata_issuer or issuer.url,
        well_known_url=issuer.metadata_url,
        member="introspection_endpoint",
        admits=admits,
    )


def _signed_answers(
    issuer: Issuer,
    settings: Introspection | TokenInfo,
    rules: JWTVerifier,
    clock: Callable[[], float],
) -> SignedAnswers | None:
    if not settings.signed:
        return None
    client_id = getattr(settings.client, "client_id", None)
    names = (*([client_id] if client_id else []), *rules.audiences)
    # The answer was made while the request ran, in whole seconds.
    return SignedAnswers.to(names, issuer, max_age=settings.timeout + 1, clock=clock)
