"""The HTTP client of a policy decision point: discovery, authentication, limits, outages."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import anyio

from toolguard.connections.breaker import Breaker
from toolguard.connections.http import Transport, VaultAnswer, VaultClient, VaultRequest
from toolguard.connections.retries import Retries
from toolguard.errors import ConnectionTokenError
from toolguard.parsing.secure_urls import is_secure_url
from toolguard.tokens.introspection_client import IntrospectionClient
from toolguard.tokens.per_loop import PerLoop

__all__ = ["DecisionPoint", "EvaluationEndpoints", "UnavailableError", "well_known_url"]

_log = logging.getLogger("toolguard.engines")

_WELL_KNOWN = "/.well-known/authzen-configuration"
_FRESH_FOR = 3_600.0
_MAX_QUESTION_BYTES = 256 * 1024
_OK, _NOT_FOUND = 200, 404
_POOL = "authzen"


class UnavailableError(Exception):
    """There is no answer that can be used; the text says why, without anything of an answer."""


@dataclass(frozen=True)
class EvaluationEndpoints:
    """Where a decision point is asked.

    Attributes:
        evaluation: the URL for one decision.
        evaluations: the URL for several; None if the point has no such endpoint.
    """

    evaluation: str
    evaluations: str | None


def well_known_url(identifier: str) -> str:
    """Return the URL of a decision point's metadata (Authorization API 1.0 §9.2).

    >>> well_known_url("https://pdp.example.com/tenant1")
    'https://pdp.example.com/.well-known/authzen-configuration/tenant1'
    """
    parts = urlsplit(identifier)
    return f"{parts.scheme}://{parts.netloc}{_WELL_KNOWN}{parts.path.removesuffix('/')}"


class DecisionPoint:
    """One policy decision point, asked over HTTP.

    Args:
        identifier: its identifier, a URL.
        client: how this server proves itself to it; None for no authentication.
        timeout: seconds for one question with all attempts.
        transport: carries the requests instead of sockets.
        clock: returns the time, in seconds since the epoch.
        timer: a monotonic clock, in seconds.

    Raises:
        ValueError: if the identifier is not a secure URL, or ``client`` sends form parameters.
    """

    def __init__(
        self,
        identifier: str,
        *,
        client: IntrospectionClient | None = None,
        timeout: float = 2.0,
        transport: Transport | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        if not is_secure_url(identifier) or "?" in identifier:
            raise ValueError(
                f'{identifier!r}: write "https://pdp.example.com" (http only on this machine)'
            )
        self.identifier = identifier
        self._client, self._clock, self._timer = client, clock, timer
        if client is not None:
            made = client.credentials(identifier, clock())
            if made.authorization is None or made.parameters:
                raise ValueError(
                    "a decision point takes an Authorization header: write client=BearerClient(...)"
                )
        # An evaluation changes nothing, so it may be asked again.
        self._http = VaultClient(
            timeout=timeout, retries=Retries(max_retries=1), transport=transport, clock=clock
        )
        self._breaker = Breaker(timer)
        self._endpoints: EvaluationEndpoints | None = None
        self._known_until = -math.inf
        self._discovering: PerLoop[anyio.Lock] = PerLoop(anyio.Lock)

    async def endpoints(self, caller: Hashable) -> EvaluationEndpoints:
        """Return where to ask; discovered once an hour.

        Args:
            caller: the caller, for whom it is asked.

        Raises:
            UnavailableError: if that cannot be found out now.
        """
        async with self._discovering.get():
            if self._endpoints is None or self._timer() >= self._known_until:
                self._endpoints = await self._discover(caller)
                self._known_until = self._timer() + _FRESH_FOR
            return self._endpoints

    async def ask(self, url: str, question: Mapping[str, Any], caller: Hashable) -> dict[str, Any]:
        """Return the members of the answer to a question.

        Args:
            url: the endpoint.
            question: the body of the request.
            caller: the caller, for whom it is asked.

        Raises:
            UnavailableError: if there is no answer with status 200 and a JSON object.
            ValueError: if the question cannot be written as JSON, or is too long.
        """
        if len(json.dumps(question, allow_nan=False)) > _MAX_QUESTION_BYTES:
            raise ValueError("the question is too long")
        answer = await self._exchange(url, question, caller)
        if answer.status != _OK:
            if answer.status in (401, 403):
                _log.error("%s does not accept this server: HTTP %d", self, answer.status)
            raise UnavailableError(f"HTTP {answer.status}")
        return dict(answer.members)

    async def aclose(self) -> None:
        """Close the TCP connections of the running event loop; a later question opens new ones."""
        await self._http.aclose()

    async def _discover(self, caller: Hashable) -> EvaluationEndpoints:
        answer = await self._exchange(well_known_url(self.identifier), None, caller)
        base = self.identifier.removesuffix("/")
        if answer.status == _NOT_FOUND:  # metadata is optional; the paths are those of §10.1
            return EvaluationEndpoints(
                f"{base}/access/v1/evaluation", f"{base}/access/v1/evaluations"
            )
        named = answer.members.get("policy_decision_point")
        if answer.status != _OK or named != self.identifier:
            _log.error(
                "the metadata of %s is not usable: HTTP %d, policy_decision_point %.200a",
                *(self, answer.status, named),
            )
            raise UnavailableError("metadata that is not its own")
        one = answer.members.get("access_evaluation_endpoint")
        several = answer.members.get("access_evaluations_endpoint")
        if not self._may_ask(one) or not (several is None or self._may_ask(several)):
            raise UnavailableError("metadata without a secure endpoint")
        return EvaluationEndpoints(str(one), several)

    def _may_ask(self, url: object) -> bool:
        is_secure = isinstance(url, str) and is_secure_url(url)
        # A remote decision point must not send questions to this machine.
        is_downgraded = self.identifier.startswith("https:") and not str(url).startswith("https:")
        return is_secure and not is_downgraded

    async def _exchange(
        self, url: str, body: Mapping[str, Any] | None, caller: Hashable
    ) -> VaultAnswer:
        if not self._breaker.admit():
            raise UnavailableError("an outage")
        made = None if self._client is None else self._client.credentials(url, self._clock())
        request = VaultRequest(
            _POOL,
            url,
            body or {},
            None if made is None else made.authorization,
            method="GET" if body is None else "POST",
            is_idempotent=True,
        )
        fault = None
        try:
            answer = await self._http.post(request)
        except ConnectionTokenError as error:
            fault = type(error).__name__
        # Raised and recorded here, where no exception that holds the request is being handled.
        if fault is None:
            self._breaker.answered()
            return answer
        if self._breaker.failed(caller):
            _log.warning("%s does not answer (%s): it is asked less often now", self, fault)
        raise UnavailableError(_FAULTS.get(fault, fault))

    def __str__(self) -> str:
        return self.identifier


_FAULTS = {
    "ConnectionUnavailableError": "no answer",
    "ConnectionRateLimitedError": "asked too often",
    "ConnectionResponseError": "an answer that cannot be read",
}
