"""What does a guard cost beside decoding the token?"""

from __future__ import annotations

import jwt
from ratios import Ratio, compare

from toolguard import Principal, ToolGuard, requires_scopes
from toolguard.calls.message import Frame, Message, standing
from toolguard.calls.request import RequestAuth
from toolguard.testing import LocalIssuer

_SIZE = 200


async def guard_against_decode() -> Ratio:
    """Verify, decide, inject and call, against ``jwt.decode`` with a prepared key (RS256)."""
    issuer = LocalIssuer()
    token = issuer.mint("alice", scopes=["calendar.read", "calendar.write"])
    guard = ToolGuard(verifier=issuer.verifier(), audience=issuer.audience)
    key = jwt.PyJWK(issuer.jwks()["keys"][0]).key

    @requires_scopes("calendar.write")
    async def tool(title: str, *, user_id: str, principal: Principal) -> str:
        return user_id + principal.issuer + title

    async def guarded() -> None:
        for _ in range(_SIZE):
            principal = await guard.verifier.verify(token)
            with standing(Frame(guard, Message(RequestAuth(token, principal, guard)))):
                await tool(title="x")

    async def decoded() -> None:
        for _ in range(_SIZE):
            jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=issuer.audience,
                issuer=issuer.issuer,
                options={"require": ["exp", "iss", "aud"]},
            )

    return await compare(
        "verify + decide + inject / jwt.decode", "<= 1.2", guarded, decoded, size=_SIZE
    )
