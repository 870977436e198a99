"""The part of the Google Calendar API that the demo uses.

Requests and answers follow the public reference (Calendar API v3). This provider accepts its own
access tokens and does not know MCP: tools send the same requests as to Google.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from toolguard.dev.google.accounts import CALENDAR, CALENDAR_READONLY, AccountAccess, Accounts
from toolguard.parsing.strict_json import lenient_object

__all__ = ["calendar_routes"]

_EVENTS = "/calendar/v3/calendars/primary/events"
_REALM = 'Bearer realm="https://accounts.google.com/"'
_MAX_BODY = 64 * 1024
_FIRST = datetime.min.replace(tzinfo=timezone.utc)
_LAST = datetime.max.replace(tzinfo=timezone.utc)

APIMethod: TypeAlias = Callable[[Request, AccountAccess], Awaitable[Response]]


class _GoogleError(Exception):
    """The request is answered with an error."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


def calendar_routes(accounts: Accounts) -> list[Route]:
    """Return the calendar API over the ``primary`` calendars of ``accounts``."""
    api = _Calendar(accounts)
    reading = (CALENDAR_READONLY, CALENDAR)
    return [
        Route(_EVENTS, _guarded(accounts, api.list_events, reading), methods=["GET"]),
        Route(_EVENTS, _guarded(accounts, api.insert_event, (CALENDAR,)), methods=["POST"]),
        Route(
            _EVENTS + "/{event_id}",
            _guarded(accounts, api.delete_event, (CALENDAR,)),
            methods=["DELETE"],
        ),
        Route(
            "/calendar/v3/freeBusy", _guarded(accounts, api.free_busy, reading), methods=["POST"]
        ),
    ]


class _Calendar:
    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    async def list_events(self, request: Request, access: AccountAccess) -> Response:
        """Answer ``events.list``: those that overlap the asked time, in their order."""
        since = _bound(request.query_params, "timeMin", _FIRST)
        until = _bound(request.query_params, "timeMax", _LAST)
        found = [
            event
            for event in self._accounts.events(access.account)
            if _end(event) > since and _start(event) < until
        ]
        return JSONResponse({"kind": "calendar#events", "items": sorted(found, key=_start)})

    async def insert_event(self, request: Request, access: AccountAccess) -> Response:
        """Answer ``events.insert``."""
        body = await _object(request)
        if _end(body) <= _start(body):
            raise _GoogleError(400, "timeRangeEmpty", "The specified time range is empty.")
        kept = ("summary", "description", "location", "start", "end", "extendedProperties")
        resource = {
            "kind": "calendar#event",
            "id": secrets.token_hex(13),
            "status": "confirmed",
            **{name: body[name] for name in kept if name in body},
        }
        self._accounts.add_event(access.account, resource)
        return JSONResponse(resource)

    async def delete_event(self, request: Request, access: AccountAccess) -> Response:
        """Answer ``events.delete``."""
        if not self._accounts.remove_event(access.account, request.path_params["event_id"]):
            raise _GoogleError(404, "notFound", "Not Found")
        return Response(status_code=204)

    async def free_busy(self, request: Request, access: AccountAccess) -> Response:
        """Answer ``freebusy.query`` for the account's own calendar."""
        body = await _object(request)
        since, until = _moment(body.get("timeMin")), _moment(body.get("timeMax"))
        taken = [
            (max(_start(event), since), min(_end(event), until))
            for event in self._accounts.events(access.account)
            if _end(event) > since and _start(event) < until
        ]
        busy = [{"start": _text(start), "end": _text(end)} for start, end in _merged(taken)]
        return JSONResponse(
            {
                "kind": "calendar#freeBusy",
                "timeMin": _text(since),
                "timeMax": _text(until),
                "calendars": {"primary": {"busy": busy}},
            }
        )


def _guarded(
    accounts: Accounts, operation: APIMethod, any_of: Sequence[str]
) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        access = accounts.access(token) if scheme.lower() == "bearer" else None
        if access is None:
            challenge = {"www-authenticate": f'{_REALM}, error="invalid_token"'}
            message = "Request had invalid authentication credentials."
            return _error(401, "authError", message, challenge, status="UNAUTHENTICATED")
        if not set(any_of) & set(access.scopes):
            return _insufficient(any_of)
        try:
            return await operation(request, access)
        except _GoogleError as refused:
            return _error(refused.code, refused.reason, str(refused))

    return endpoint


def _error(
    code: int, reason: str, message: str, headers: Mapping[str, str] | None = None, **more: str
) -> Response:
    detail = {"message": message, "domain": "global", "reason": reason}
    error = {"code": code, "message": message, "errors": [detail], **more}
    return JSONResponse({"error": error}, code, headers)


def _insufficient(scopes: Sequence[str]) -> Response:
    named = " ".join(scopes)
    challenge = {"www-authenticate": f'{_REALM}, error="insufficient_scope", scope="{named}"'}
    message = "Request had insufficient authentication scopes."
    return _error(403, "insufficientPermissions", message, challenge, status="PERMISSION_DENIED")


async def _object(request: Request) -> dict[str, Any]:
    content = await request.body()
    value = lenient_object(content) if len(content) <= _MAX_BODY else None
    if value is None:
        raise _GoogleError(400, "parseError", "Parse Error")
    return value


def _bound(query: Mapping[str, str], name: str, default: datetime) -> datetime:
    return _moment(query[name]) if name in query else default


def _start(event: Mapping[str, Any]) -> datetime:
    return _edge(event, "start")


def _end(event: Mapping[str, Any]) -> datetime:
    return _edge(event, "end")


def _edge(event: Mapping[str, Any], name: str) -> datetime:
    edge = event.get(name)
    if not isinstance(edge, dict):
        raise _GoogleError(400, "required", f"Missing {name} time.")
    return _moment(edge.get("dateTime"))


def _moment(value: object) -> datetime:
    """Read an RFC 3339 time with an offset."""
    try:
        # Python 3.10 does not read the Z.
        moment = datetime.fromisoformat(str(value).replace("Z", "+00:00"))
        if moment.tzinfo is not None:
            return moment.astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise _GoogleError(400, "invalid", "Invalid value for a time: write RFC 3339.") from None
    raise _GoogleError(400, "invalid", "Missing time zone definition for a time.")


def _text(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _merged(spans: list[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
    merged: list[tuple[datetime, datetime]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged
