"""Is a record readable and bounded, whatever a client or a user calls itself?"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from toolguard import Principal, ToolGuard
from toolguard.calls.message import MessageContext
from toolguard.calls.recording import message_records, request_record
from toolguard.errors import InsufficientScopeError

URL = "https://mcp.test/mcp"


class Nobody:
    """A verifier that is not asked."""

    issuer = "https://issuer.test"

    async def verify(self, token: str) -> Principal:
        raise AssertionError(token)


GUARD = ToolGuard(verifier=Nobody(), audience=URL)
texts = st.text() | st.text(min_size=300).map(lambda text: text * 100)


@given(sub=texts, client=texts, tenant=texts, actor=texts, method=texts, scope=texts)
def test_what_others_named_is_one_bounded_line(
    sub: str, client: str, tenant: str, actor: str, method: str, scope: str
) -> None:
    caller = Principal(
        sub,
        "https://issuer.test",
        client_id=client,
        tenant_id=tenant,
        claims={"act": {"sub": actor}},
    )
    refusal = InsufficientScopeError(["pay"], token_scopes=[scope] * 100)

    line = str(request_record(GUARD, refusal, caller, method=method))

    assert line.isprintable()
    assert len(line) < 100_000


@given(st.integers() | st.integers(min_value=0).map(lambda number: 10**5_000 + number))
def test_the_id_of_a_message_is_bounded(sent: int) -> None:
    message = MessageContext(None, None, lambda: True)
    message.method, message.request_id = "ping", sent

    (record,) = message_records(GUARD, message, InsufficientScopeError(["pay"]))

    assert len(record.to_json()) < 1_000
