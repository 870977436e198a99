"""Pass permitted messages on to the upstream, for the caller that the guard has verified."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from toolguard.calls.message import Frame, here
from toolguard.connections.protocol import Connection
from toolguard.decorators.annotations import injected
from toolguard.errors import ConnectionRequiredError, InvalidInputError
from toolguard.gateway.configuration import Upstream
from toolguard.gateway.session import Credential, Log, Progress, UpstreamError
from toolguard.gateway.sessions import Sessions, key_of
from toolguard.gateway.survey import Survey
from toolguard.http.proxy import check_spellings
from toolguard.policies.published import LISTS

__all__ = ["Forwarding"]

# What a client says about itself and its own connection to the gateway (MCP 2026-07-28).
_OF_CLIENT = "io.modelcontextprotocol/"
# What only the guard may tell clients: where to sign in.
_OF_GUARD = "mcp/www_authenticate"
_MAX_PAGES = 100
# The members that a server behind gets, by the path of the object that holds them. Another one
# could be read as one of these by a lenient server, after the guard has decided without it.
_MEMBERS: Mapping[str, frozenset[str]] = {
    "tools/call": frozenset({"name", "arguments"}),
    "prompts/get": frozenset({"name", "arguments"}),
    "resources/read": frozenset({"uri"}),
    "completion/complete": frozenset({"ref", "argument", "context"}),
    "completion/complete.ref": frozenset({"type", "name", "uri"}),
    "completion/complete.argument": frozenset({"name", "value"}),
    "completion/complete.context": frozenset({"arguments"}),
    "logging/setLevel": frozenset({"level"}),
    **{method: frozenset({"cursor"}) for method in LISTS},
}
# Method -> the list with its operation, and what takes the names of the arguments from an entry.
_ARGUMENTS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Collection[str]]]] = {
    "tools/call": ("tools/list", lambda tool: tool["inputSchema"].get("properties", {})),
    "prompts/get": (
        "prompts/list",
        lambda prompt: {each["name"] for each in prompt.get("arguments") or ()},
    ),
}


class Forwarding:
    """Answers the messages of callers with what the upstream answers.

    Nothing of a caller's request goes to the upstream but the parameters of the message: no header,
    no token.

    Args:
        upstream: the server behind the gateway.
        surveyed: what it offers.
    """

    def __init__(self, upstream: Upstream, surveyed: Survey) -> None:
        self.sessions = Sessions(upstream)
        self.surveyed = surveyed
        self._upstream = upstream
        self._connect: Callable[[], Awaitable[Connection]] | None = None
        if upstream.connection is not None:
            self._connect = upstream.connection(_connection)

    async def answer(
        self,
        method: str,
        params: Mapping[str, Any],
        progress: Progress | None = None,
        log: Log | None = None,
    ) -> dict[str, Any]:
        """Return the answer to a message.

        Args:
            method: its JSON-RPC method.
            params: its parameters.
            progress: passes on how far the upstream is; None if the caller does not ask for that.
            log: passes on what the upstream logs meanwhile.

        Raises:
            ToolGuardError: if the caller has not connected their account.
            UpstreamError: if the upstream does not answer.
            Exception: the SDK's error, if the upstream answers with an error.
        """
        frame = here()
        if frame is None:  # the guard or an audit asks, and no caller
            return self._known(method)
        credential = None
        try:
            credential = await self._credential()
        except ConnectionRequiredError:
            # A call of what is not known yet says where to connect: the guard asks for the list
            # then, and no client. So does the list of tools where rules name nothing.
            lists = self.surveyed.lists
            is_empty = method == "tools/list" and not any(lists.values())
            if method not in LISTS or frame.message.method != method or is_empty:
                raise
            return {LISTS[method][0]: lists[method]}
        principal = await frame.message.principal(frame.guard)
        key = key_of(principal, shared=self._upstream.shared)

        async def ask(method: str, params: dict[str, Any] | None) -> dict[str, Any]:
            return await self.sessions.request(
                key, method, params, credential=credential, progress=progress, log=log
            )

        if method in _ARGUMENTS:
            await _check_arguments(frame, method, params, ask)
        return _told(await ask(method, _passed_on(method, params)))

    def _known(self, method: str) -> dict[str, Any]:
        if not self.surveyed.is_complete:
            name = self._upstream.connection_name
            raise UpstreamError(
                f"{self._upstream} tells what it offers only to a caller's own {name} account"
            )
        return {LISTS[method][0]: self.surveyed.lists.get(method, [])}

    async def _credential(self) -> Credential | None:
        """Return what the upstream is shown for the caller of this message; None for all alike.

        Raises:
            ToolGuardError: if the caller has no connection.
        """
        upstream = self._upstream
        if self._connect is None:
            return None
        connection = await self._connect()
        if upstream.url is None:
            return Credential(connection.token)
        scheme = connection.token_type
        return Credential(
            f"{'Bearer' if scheme.lower() == 'bearer' else scheme} {connection.token}"
        )


async def _connection(*, connection: Connection = injected) -> Connection:
    """Return the caller's connection, which the guard injects."""
    return connection


async def _check_arguments(frame: Frame, method: str, params: Mapping[str, Any], ask: Any) -> None:
    """Check that the upstream reads the same arguments as the rule.

    Raises:
        InvalidInputError: if it could take one for another, or lists no argument of this name.
    """
    policy = None if frame.row is None else frame.row.policy
    arguments = params.get("arguments")
    if policy is None or not policy.reads_arguments:
        return
    check_spellings(arguments, policy.arguments)
    listed = await _listed_arguments(method, params.get("name"), ask)
    unlisted = sorted(set(arguments or ()) - listed)
    if unlisted:
        raise InvalidInputError(f"This operation has no argument {unlisted[0]!r}")


async def _listed_arguments(method: str, name: object, ask: Any) -> set[str]:
    """Return the arguments that the upstream lists for a tool or a prompt."""
    list_method, arguments_of = _ARGUMENTS[method]
    member, cursor = LISTS[list_method][0], None
    for _ in range(_MAX_PAGES):
        page = await ask(list_method, None if cursor is None else {"cursor": cursor})
        try:
            found = [set(arguments_of(each)) for each in page[member] if each["name"] == name]
        except (AttributeError, KeyError, TypeError):
            raise UpstreamError("the upstream sent a list that is not MCP") from None
        if found:
            # Of two with one name, the server may run either.
            return set.intersection(*found)
        cursor = page.get("nextCursor")
        if not cursor:
            break
    return set()


def _known_members(value: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {key: each for key, each in value.items() if key in known}


def _passed_on(method: str, params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the parameters that MCP has, without what is between the client and the gateway."""
    sent = _known_members(params, _MEMBERS[method])
    for member, value in sent.items():
        known = _MEMBERS.get(f"{method}.{member}")
        if known is not None and isinstance(value, Mapping):
            sent[member] = _known_members(value, known)
    meta = params.get("_meta")
    if isinstance(meta, Mapping):
        kept = {
            key: value
            for key, value in meta.items()
            if key != "progressToken" and not key.startswith(_OF_CLIENT)
        }
        if kept:
            sent["_meta"] = kept
    return sent or None


def _told(result: dict[str, Any]) -> dict[str, Any]:
    """Return a result without a challenge: the upstream does not say where callers sign in."""
    meta = result.get("_meta")
    if isinstance(meta, dict) and _OF_GUARD in meta:
        result["_meta"] = {key: value for key, value in meta.items() if key != _OF_GUARD}
    return result
