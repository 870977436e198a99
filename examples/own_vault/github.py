"""An imitation of GitHub on this machine: its page of consent, its tokens, ``/user``, ``/issues``.

It has two accounts and one OAuth app, asks for no passwords, and forgets everything when it stops.
The shapes are those of https://docs.github.com/en/apps/oauth-apps/building-oauth-apps and
https://docs.github.com/en/rest/issues.
"""

from __future__ import annotations

import hmac
import html
import os
import secrets
from base64 import urlsafe_b64encode
from hashlib import sha256
from urllib.parse import parse_qsl, urlencode

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.responses import Response as Answer
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "imitation", "imitation-secret"
CALLBACK = os.environ.get(
    "GITHUB_CALLBACK", "http://127.0.0.1:8000/connections/callback/github"
)  # of the OAuth app
ISSUES = {
    "octo-alice": ["The kettle is too loud", "Write more examples"],
    "octo-bob": ["The fridge hums"],
}

asked: dict[str, dict[str, str]] = {}  # code -> what it was issued for
accounts: dict[str, str] = {}  # access token -> account


async def consent(request: Request) -> Answer:
    """Ask which account it is to be; the button sends the same request with the account."""
    query = dict(request.query_params)
    if query.get("client_id") != CLIENT_ID:
        return PlainTextResponse("There is no such OAuth app", 404)
    if query.get("redirect_uri") != CALLBACK:
        answer = {"error": "redirect_uri_mismatch", "state": query.get("state", "")}
        return RedirectResponse(f"{CALLBACK}?{urlencode(answer)}", 302)
    buttons = "".join(
        f'<p><button name="account" value="{account}">Authorize as {account}</button></p>'
        for account in ISSUES
    )
    scope = html.escape(query.get("scope", "") or "public information only")
    return HTMLResponse(
        "<!doctype html><title>Authorize</title><h1>An imitation of GitHub</h1>"
        f"<p>The application asks for: {scope}</p><form method=post>{buttons}</form>",
        headers={"content-security-policy": "default-src 'none'; frame-ancestors 'none'"},
    )


async def authorize(request: Request) -> Answer:
    """Send the browser back with a code for the account of the button."""
    query, form = dict(request.query_params), await read_form(request)
    if (query.get("client_id"), query.get("redirect_uri")) != (CLIENT_ID, CALLBACK):
        return PlainTextResponse("There is no such OAuth app", 404)
    if form.get("account") not in ISSUES:
        return PlainTextResponse("There is no such account", 400)
    code = secrets.token_hex(10)
    asked[code] = {**query, **form}
    answer = urlencode({"code": code, "state": query.get("state", "")})
    return RedirectResponse(f"{CALLBACK}?{answer}", 303)


async def token(request: Request) -> Answer:
    """Exchange a code for a token; GitHub answers refusals with status 200."""
    form = await read_form(request)
    if form.get("client_id") != CLIENT_ID or not hmac.compare_digest(
        form.get("client_secret", "").encode(), CLIENT_SECRET.encode()
    ):
        return JSONResponse({"error": "incorrect_client_credentials"})
    request_of_code = asked.pop(form.get("code", ""), None)
    if request_of_code is None:
        return JSONResponse({"error": "bad_verification_code"})
    verifier = sha256(form.get("code_verifier", "").encode()).digest()
    challenge = urlsafe_b64encode(verifier).rstrip(b"=").decode()
    if request_of_code.get("code_challenge") not in (None, challenge):
        return JSONResponse({"error": "bad_verification_code"})
    access_token = f"gho_{secrets.token_hex(18)}"
    accounts[access_token] = request_of_code["account"]
    scope = ",".join(request_of_code.get("scope", "").split())
    return JSONResponse({"access_token": access_token, "scope": scope, "token_type": "bearer"})


async def user(request: Request) -> Answer:
    """Return the account of the token."""
    account = account_of(request)
    if account is None:
        return bad_credentials()
    return JSONResponse({"login": account, "id": len(account), "type": "User"})


async def issues(request: Request) -> Answer:
    """Return the open issues that are assigned to the account of the token."""
    account = account_of(request)
    if account is None:
        return bad_credentials()
    repository = {"name": "kitchen", "full_name": "example/kitchen"}
    return JSONResponse(
        [
            {"number": number, "title": title, "state": "open", "repository": repository}
            for number, title in enumerate(ISSUES[account], 1)
        ]
    )


def account_of(request: Request) -> str | None:
    scheme, _, presented = request.headers.get("authorization", "").partition(" ")
    return accounts.get(presented) if scheme.lower() in ("bearer", "token") else None


def bad_credentials() -> Answer:
    return JSONResponse({"message": "Bad credentials", "status": "401"}, 401)


async def read_form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode()))


app = Starlette(
    routes=[
        Route("/login/oauth/authorize", consent, methods=["GET"]),
        Route("/login/oauth/authorize", authorize, methods=["POST"]),
        Route("/login/oauth/access_token", token, methods=["POST"]),
        Route("/user", user),
        Route("/issues", issues),
    ]
)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=8802)
