"""An imitation of a policy decision point, in the shapes of the AuthZEN Authorization API 1.0.

It decides by a set of permitted (subject, resource id), keeps what it was asked, and may be told to
answer in any other way: late, never, with garbage, with contradictions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

__all__ = ["FAULTS", "PERMIT_ALL", "DecisionPointImitation", "Fault", "hang", "raw"]

Fault = Callable[[Any], Response]
"""What is answered instead of a decision, to the body of the request."""

PERMIT_ALL = "*"


class _Never(Response):
    """A response that never begins."""

    async def __call__(self, *_: Any) -> None:
        await anyio.sleep_forever()


class _Dropped(Response):
    """A connection that ends within the response."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"100")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"decision": true', "more_body": True})
        raise ConnectionResetError


def raw(body: bytes | str, status: int = 200, **headers: str) -> Fault:
    """Return exactly this body."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: Response(body, status, named, "application/json")


def hang(_: Any) -> Response:
    """Never answer."""
    return _Never()


_YES = '{"decision": true}'
FAULTS: Mapping[str, Fault] = {
    # outages
    "a server error": raw(_YES, 500),
    "a gateway's error": raw(_YES, 503),
    "a limit of its rate": raw(_YES, 429, retry_after="60"),
    "a request timeout": raw(_YES, 408),
    # not a decision, whatever the body says
    "a bad request": raw(_YES, 400),
    "a server that it does not know": raw(_YES, 401),
    "a server that it does not like": raw(_YES, 403),
    "an endpoint that is not there": raw(_YES, 404),
    "a redirect": raw(_YES, 307, location="/access/v1/permit"),
    "another success": raw(_YES, 202),
    "no content": raw("", 204),
    # garbage
    "an empty body": raw(""),
    "a page": raw("<html>decision: true</html>"),
    "half an answer": raw(_YES[:-1]),
    "two answers": raw(_YES + _YES),
    "a list": raw(f"[{_YES}]"),
    "a value": raw("true"),
    "an empty object": raw("{}"),
    "a decision that is text": raw('{"decision": "true"}'),
    "a decision that is a number": raw('{"decision": 1}'),
    "a decision that is null": raw('{"decision": null}'),
    "a decision that is an object": raw('{"decision": {"decision": true}}'),
    "a decision by another name": raw('{"Decision": true, "allow": true, "result": true}'),
    "another encoding": raw(_YES.encode("utf-16")),
    "a byte order mark": raw(b"\xef\xbb\xbf" + _YES.encode()),
    "a compressed answer": raw(_YES, content_encoding="gzip"),
    "an answer without an end": raw(_YES[:-1] + ', "context": {"x": "' + "x" * 300_000 + '"}}'),
    "a deep answer": raw('{"decision": true, "context": ' + '{"x":' * 99 + "1" + "}" * 100),
    # contradictions
    "both decisions": raw('{"decision": false, "decision": true}'),
    "both decisions, the other way": raw('{"decision": true, "decision": false}'),
    "a permit with an error": raw('{"decision": true, "context": {"error": {"status": 500}}}'),
    "a denial for a fault": raw('{"decision": false, "context": {"error": {"status": 503}}}'),
    "a context that is text": raw('{"decision": true, "context": "false"}'),
    "a context that is false": raw('{"decision": true, "context": false}'),
}


class DecisionPointImitation:
    """A decision point.

    Args:
        url: its identifier.
        permitted: who may do what: (subject, resource id), either of which may be ``"*"``.
        authorization: the ``Authorization`` header that it expects; None for any.
        metadata: whether it publishes metadata.
        batches: whether it takes several questions at once.
    """

    def __init__(
        self,
        url: str = "https://pdp.test",
        *,
        permitted: set[tuple[str, str]] | None = None,
        authorization: str | None = None,
        metadata: bool = True,
        batches: bool = True,
    ) -> None:
        self.url = url
        self.permitted = permitted or set()
        self.authorization = authorization
        self.document: dict[str, Any] | None = {
            "policy_decision_point": url,
            "access_evaluation_endpoint": f"{url}/access/v1/evaluation",
        }
        if batches:
            self.document["access_evaluations_endpoint"] = f"{url}/access/v1/evaluations"
        if not metadata:
            self.document = None
        #: Path and body of every request, without those for metadata.
        self.asked: list[tuple[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.discoveries: list[str] = []
        #: What to answer instead, always, until it is None.
        self.fault: Fault | None = None
        #: The context of a denial.
        self.context: Any = None
        self.app = Starlette(
            routes=[
                Route("/.well-known/authzen-configuration{path:path}", self.serve_metadata),
                Route("/access/v1/evaluation", self.serve, methods=["POST"]),
                Route("/access/v1/evaluations", self.serve, methods=["POST"]),
                Route("/access/v1/permit", lambda _: JSONResponse({"decision": True})),
            ]
        )

    async def serve_metadata(self, request: Request) -> Response:
        """Answer with the metadata."""
        self.discoveries.append(request.url.path)
        if self.document is None:
            return Response(status_code=404)
        return JSONResponse(self.document)

    async def serve(self, request: Request) -> Response:
        """Answer one question, or several."""
        body = json.loads(await request.body())
        self.asked.append((request.url.path, body))
        self.headers.append(dict(request.headers))
        if self.fault is not None:
            return self.fault(body)
        if self.authorization not in (None, request.headers.get("authorization")):
            return JSONResponse("who are you?", 401)
        if "evaluations" in body:
            entries = [{**body, **entry} for entry in body["evaluations"]]
            return JSONResponse({"evaluations": [self.decide(each) for each in entries]})
        return JSONResponse(self.decide(body))

    def decide(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the decision about one question."""
        who, what = asked["subject"]["id"], asked["resource"]["id"]
        wanted = {(who, what), (PERMIT_ALL, what), (who, PERMIT_ALL), (PERMIT_ALL, PERMIT_ALL)}
        if self.permitted & wanted:
            return {"decision": True}
        return {"decision": False, **({} if self.context is None else {"context": self.context})}


FAULTS = {**FAULTS, "a connection that breaks": lambda _: _Dropped()}
