"""A development server, a clock, and browsers and clients that visit it in process."""

from __future__ import annotations

import asyncio
import html
import re
import weakref
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from toolguard.dev.console import Console
from toolguard.dev.decisions import Decisions
from toolguard.dev.oauth.config import World, builtin_world
from toolguard.dev.oauth.metadata_documents import MetadataDocuments
from toolguard.dev.oauth.server import ConnectURL, DevServer
from toolguard.dev.store import Store
from toolguard.testing import FrozenClock

ORIGIN = "http://127.0.0.1:8800"
ISSUER = "http://127.0.0.1:8800/P2dev"
MCP = "http://127.0.0.1:8000/mcp"
CALLBACK = "http://127.0.0.1:3000/callback"
READ = "mcp:calendar.readonly"
WRITE = "mcp:calendar.write"
FETCH = "outbound.token.fetch"
# The pair of RFC 7636, appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


class Visitor:
    """A browser or a client: keeps cookies, and follows nothing by itself."""

    def __init__(self, server: DevServer) -> None:
        self.cookies = httpx.Cookies()
        #: The DPoP headers of the requests.
        self.proofs: tuple[str, ...] = ()
        self._server = server

    def get(self, url: str, **settings: Any) -> httpx.Response:
        return self.send("GET", url, **settings)

    def post(self, url: str, data: Any = None, **settings: Any) -> httpx.Response:
        """Post a form; a list of pairs may repeat a name."""
        if data is not None:
            settings["content"] = urlencode(data)
            settings.setdefault("headers", {})["content-type"] = "application/x-www-form-urlencoded"
        return self.send("POST", url, **settings)

    def send(self, method: str, url: str, **settings: Any) -> httpx.Response:
        return asyncio.run(self._send(method, url, settings))

    async def _send(self, method: str, url: str, settings: dict[str, Any]) -> httpx.Response:
        headers = httpx.Headers(settings.pop("headers", {})).multi_items()
        settings["headers"] = [*headers, *(("dpop", proof) for proof in self.proofs)]
        transport = httpx.ASGITransport(self._server.app)
        async with httpx.AsyncClient(
            transport=transport, base_url=ORIGIN, cookies=self.cookies
        ) as client:
            response = await client.request(method, url, **settings)
            self.cookies = client.cookies
            return response

    def follow(self, response: httpx.Response) -> httpx.Response:
        """Return what a redirect leads to, as long as it stays on the server."""
        while response.is_redirect and response.headers["location"].startswith(ORIGIN):
            response = self.get(response.headers["location"])
        return response


class Room:
    """One server of the built-in world, and what is done with it again and again."""

    def __init__(
        self,
        world: World | None = None,
        *,
        connect_url: ConnectURL | None = None,
        documents: MetadataDocuments | None = None,
        store: Store | None = None,
    ) -> None:
        self.clock = FrozenClock(1_800_000_000)
        self.server = DevServer(
            world or builtin_world(),
            store or Store(),
            origin=ORIGIN,
            clock=self.clock,
            documents=documents,
        )
        self.decisions = Decisions()
        console = Console(
            self.server.context,
            connections={"google-calendar": ("calendar",)},
            connected=self._connected,
            operations=lambda: ("notes", ()),
            decisions=self.decisions,
        )
        self.server.extend(connect_url=connect_url, extra_routes=console.routes())
        weakref.finalize(self.server, self.server.store.close)
        self.client = Visitor(self.server)

    async def _connected(self, user_id: str) -> list[str]:
        return ["google-calendar"] if user_id == "alice" else []

    def visitor(self) -> Visitor:
        return Visitor(self.server)

    def register(self, **metadata: Any) -> dict[str, Any]:
        asked = {
            "client_name": "Test client",
            "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
            **metadata,
        }
        response = self.client.send("POST", f"{ISSUER}/register", json=asked)
        assert response.status_code == 201, response.text
        registered: dict[str, Any] = response.json()
        return registered

    def consent_at(
        self,
        browser: Visitor,
        client_id: str,
        email: str = "alice@tenant-a.example",
        **changed: Any,
    ) -> httpx.Response:
        """Go from the client's request to the consent page, signing in on the way."""
        page = browser.follow(browser.get(authorize_url(client_id, **changed)))
        if "/sign-in?" in str(page.url):
            page = submit(browser, page, email=email)
            page = submit(browser, page)
        return page

    def code(self, client_id: str, email: str = "alice@tenant-a.example", **changed: Any) -> str:
        browser = self.visitor()
        page = self.consent_at(browser, client_id, email, **changed)
        answer = answer_of(submit(browser, page, decision="allow"))
        return answer["code"]

    def redeem(self, client_id: str, code: str, **changed: Any) -> httpx.Response:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": CALLBACK,
            "client_id": client_id,
            "code_verifier": VERIFIER,
            **changed,
        }
        return self.client.post(
            f"{ISSUER}/token", {name: value for name, value in form.items() if value is not None}
        )

    def tokens(self, client_id: str, email: str = "alice@tenant-a.example") -> dict[str, Any]:
        response = self.redeem(client_id, self.code(client_id, email, scope=f"{READ} {WRITE}"))
        assert response.status_code == 200, response.text
        tokens: dict[str, Any] = response.json()
        return tokens

    def refresh(self, client_id: str, token: str, **more: Any) -> httpx.Response:
        form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": client_id}
        return self.client.post(f"{ISSUER}/token", {**form, **more})

    def introspect(self, token: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.post(
            f"{ISSUER}/introspect", {"token": token}, auth=self.server.credentials(MCP)
        ).json()
        return answer


def authorize_url(client_id: Any, **changed: Any) -> str:
    """Return an authorization request; None leaves a parameter out, a list repeats it."""
    parameters = {
        "response_type": "code",
        "client_id": client_id,
        "redirect_uri": CALLBACK,
        "scope": f"{READ} {WRITE}",
        "state": "st4te",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "resource": MCP,
        **changed,
    }
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{ISSUER}/authorize?{urlencode(given, doseq=True)}"


def fields_of(page: httpx.Response, form: int = 0) -> tuple[str, list[tuple[str, str]]]:
    """Return the action and the unpressed fields of a form as a browser would send them."""
    markup = re.findall(r"<form.*?</form>", page.text, re.DOTALL)[form]
    action = re.search(r'action="([^"]*)"', markup)
    assert action is not None
    inputs = [
        dict(re.findall(r'([a-z-]+)="([^"]*)"', tag)) for tag in re.findall(r"<input[^>]*>", markup)
    ]
    pairs = [
        (item["name"], html.unescape(item.get("value", "")))
        for item in inputs
        if item.get("type") != "email"
    ]
    return html.unescape(action[1]), pairs


def submit(browser: Visitor, page: httpx.Response, form: int = 0, **filled: str) -> httpx.Response:
    """Submit a form of ``page``; return what comes, followed as long as it stays on the server."""
    action, pairs = fields_of(page, form)
    kept = [(name, value) for name, value in pairs if name not in filled]
    return browser.follow(browser.post(action, [*kept, *filled.items()]))


def answer_of(response: httpx.Response) -> dict[str, str]:
    """Return the parameters of an authorization response."""
    query = urlsplit(response.headers["location"]).query
    return {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
