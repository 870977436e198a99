"""The keys that clients bind their tokens to at the token endpoint (DPoP, RFC 9449 §5)."""

from __future__ import annotations

from starlette.requests import Request

from toolguard.dev.oauth.context import ServerContext
from toolguard.dev.oauth.grants import use_assertion
from toolguard.dev.oauth.refusals import Refusal
from toolguard.errors import InvalidProofError
from toolguard.tokens.proofs import DPoP
from toolguard.tokens.proofs.proof import Request as ProvedRequest
from toolguard.tokens.proofs.proof import check_proof, read_proof
from toolguard.tokens.proofs.target import canonical_target

__all__ = ["PROOF_ALGORITHMS", "proof_key"]

_SETTINGS = DPoP()

PROOF_ALGORITHMS = tuple(_SETTINGS.algorithms)
"""The algorithms of proofs to accept."""


def proof_key(context: ServerContext, request: Request) -> str | None:
    """Return the thumbprint of the key that a token request proves; None without a proof.

    Raises:
        Refusal: ``invalid_dpop_proof`` if the proof is not valid, or was used before.
    """
    if "dpop" not in request.headers:
        return None
    target = canonical_target(context.url("token")) or ""
    try:
        proof = check_proof(
            read_proof(request.scope["headers"]),
            ProvedRequest(request.method, target),
            now=context.clock(),
            window=_SETTINGS.window,
            algorithms=PROOF_ALGORITHMS,
        )
    except InvalidProofError as error:
        raise Refusal(error.error, str(error)) from None
    # In the table of assertions, under a name that no issuer has.
    is_first = use_assertion(
        context, f"proof {proof.key}", proof.id, proof.issued_at + _SETTINGS.window + 1
    )
    if not is_first:
        raise Refusal("invalid_dpop_proof", "The DPoP proof has been used before")
    return proof.key
