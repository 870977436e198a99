"""The OAuth client of the demo's MCP clients.

The OAuth code of the installed ``mcp`` package does discovery, registration, PKCE, refresh and
step-up. This module adds the parts of an application: a token store, a callback address, and a
person with a browser.
"""

from __future__ import annotations

import importlib
import queue
from typing import Any, Protocol

import anyio
import anyio.to_thread
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from toolguard.pages.layout import page, stylesheet
from toolguard.testing.loopback import Loopback

__all__ = ["BrowserUser", "Callback", "SignedInClient"]

_shared_auth: Any = importlib.import_module("mcp.shared.auth")


class BrowserUser(Protocol):
    """A person with a browser."""

    async def visit(self, url: str) -> None:
        """Open ``url``, where a client sends its user, and see it through."""
        ...


class Callback(Loopback):
    """The address on this machine where the browser brings the answer for a client.

    Args:
        patience: for how many seconds an answer is awaited.
    """

    def __init__(self, *, patience: float = 300.0) -> None:
        routes = [
            Route("/callback", self._receive, methods=["GET"]),
            Route("/style.css", stylesheet, methods=["GET"]),
        ]
        super().__init__(Starlette(routes=routes))
        self._patience = patience
        self._answers: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()

    @property
    def redirect_uri(self) -> str:
        """What the client registers."""
        return f"{self.url}/callback"

    async def answer(self) -> dict[str, str]:
        """Return the parameters of the next answer.

        Raises:
            OAuthFlowError: if no answer comes, or it is an error (RFC 6749 §4.1.2.1).
        """
        with anyio.move_on_after(self._patience):
            # In short waits, so that an interrupt need not wait for the user.
            while (answer := await anyio.to_thread.run_sync(self._next_answer)) is None:
                pass
            if "code" in answer:
                return answer
            raise OAuthFlowError(f"{answer.get('error')}: {answer.get('error_description')}")
        raise OAuthFlowError("The user did not come back from the browser")

    def _next_answer(self) -> dict[str, str] | None:
        try:
            return self._answers.get(timeout=0.5)
        except queue.Empty:
            return None

    async def _receive(self, request: Request) -> Response:
        self._answers.put(dict(request.query_params))
        return page("closing.html", issuer=self.url, text="The application goes on by itself.")


class SignedInClient:
    """What one MCP client application knows of one server and one user.

    Args:
        mcp_url: the server.
        person: who signs in.
        callback: where the answer comes.
        name: what the application calls itself.
        redirect_uri: what it registers instead of the callback's, to see that refused.
    """

    def __init__(
        self,
        mcp_url: str,
        person: BrowserUser,
        callback: Callback,
        *,
        name: str = "Calendar Assistant",
        redirect_uri: str | None = None,
    ) -> None:
        self._person = person
        self._callback = callback
        self.storage = _Memory()
        metadata = {
            "client_name": name,
            "redirect_uris": [redirect_uri or callback.redirect_uri],
            "grant_types": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_method": "none",
        }
        self.auth = OAuthClientProvider(
            server_url=mcp_url,
            client_metadata=OAuthClientMetadata.model_validate(metadata),
            storage=self.storage,
            redirect_handler=person.visit,
            callback_handler=self._answered,
        )

    @property
    def access_token(self) -> str:
        """The token it would send now."""
        return self.storage.tokens.access_token if self.storage.tokens is not None else ""

    @property
    def scopes(self) -> list[str]:
        """What it was granted, as the authorization server said."""
        granted = self.storage.tokens.scope if self.storage.tokens is not None else None
        return (granted or "").split()

    def let_pass(self, seconds: float) -> None:
        """Put the client's clock forward: it counts the lifetime of its token itself."""
        context = self.auth.context
        if context.token_expiry_time is not None:
            context.token_expiry_time -= seconds

    async def _answered(self) -> Any:
        answer = await self._callback.answer()
        if hasattr(_shared_auth, "AuthorizationCodeResult"):  # mcp 2
            return _shared_auth.AuthorizationCodeResult.model_validate(answer)
        return answer["code"], answer.get("state")


class _Memory:
    """Keeps tokens for as long as the process lives (``TokenStorage`` of mcp)."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.client: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.client = client_info
