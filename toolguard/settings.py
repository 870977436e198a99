"""Check the settings of a guard."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

from typing_extensions import TypedDict

from toolguard.calls.recorder import OnDecision, Records
from toolguard.calls.stdio import TrustedUser
from toolguard.connections.functions import takes
from toolguard.connections.protocol import ConnectionFunction, ConnectionProvider
from toolguard.http.door import Refusals
from toolguard.http.metadata import canonical_resource
from toolguard.parsing.audience import check_audience
from toolguard.parsing.kinds import of_kind, text_list
from toolguard.parts.environment import MANAGEMENT_KEY, RECORDS, check_variables, taken
from toolguard.policies.policy import DefaultPolicy
from toolguard.policies.scopes import ScopeHierarchy
from toolguard.telemetry.json_lines import JSONLines
from toolguard.tokens.issuers.issuer import Issuer
from toolguard.tokens.network import DEFAULT_NETWORK, Network
from toolguard.tokens.proofs import DPoP, Mode
from toolguard.tokens.proofs.presented import BoundVerifier
from toolguard.tokens.verifier import Verifier, dpop_of

__all__ = [
    "GuardSettings",
    "check_kinds",
    "dpop_modes",
    "framework_verifier",
    "from_environment",
    "parse_audiences",
    "parse_open_routes",
    "resolve_resource",
    "sent_arguments",
    "trusted_user",
    "verifier_of",
]


class GuardSettings(TypedDict, total=False):
    """The keywords of :class:`~toolguard.ToolGuard`, for functions that pass them on."""

    issuer: str | Issuer | None
    issuers: Sequence[Issuer] | None
    well_known_url: str | None
    verifier: Verifier | Literal["framework"] | None
    audience: str | Sequence[str] | None
    resource: str | None
    connections: ConnectionProvider | ConnectionFunction | None
    scope_hierarchy: ScopeHierarchy | Mapping[str, Iterable[str]] | None
    default: DefaultPolicy
    refusals: Refusals
    stdio: Literal["token"] | TrustedUser
    on_decision: Records | OnDecision | None
    secret: str | bytes | None
    dpop: Mode | DPoP
    clock: Callable[[], float]


_OF_ISSUERS = frozenset({"issuer", "issuers", "well_known_url", "verifier"})
_NO_ISSUER = "set TOOLGUARD_ISSUER (or DESCOPE_MCP_WELL_KNOWN_URL for Descope)"


def from_environment(environ: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``settings``, completed by the environment.

    Raises:
        ValueError: naming the variable that is missing.
    """
    check_variables(environ)
    server_url = environ.get("MCP_SERVER_URL") or None
    named = environ.get("TOOLGUARD_AUDIENCE", "").split()
    audience = (named if len(named) > 1 else named[0]) if named else server_url
    urls = [each for each in named if each.lower().startswith(("https://", "http://"))]
    if not (server_url or urls or settings.get("resource") or settings.get("audience")):
        issuer = environ.get("TOOLGUARD_ISSUER") or environ.get("DESCOPE_MCP_WELL_KNOWN_URL")
        has_issuer = issuer or not settings.keys().isdisjoint(_OF_ISSUERS)
        also = "" if has_issuer else f"; {_NO_ISSUER}"
        raise ValueError(f"set MCP_SERVER_URL to the address that clients connect to{also}")
    if server_url is not None and "resource" not in settings:
        _checked("MCP_SERVER_URL", server_url, canonical_resource)
    for each in named:
        _checked("TOOLGUARD_AUDIENCE", each, check_audience)
    found = {"audience": audience, "resource": server_url, **settings}
    if environ.get("TOOLGUARD_VAULT") and "connections" not in settings:
        from toolguard.vault.from_file import vault_from_file  # noqa: PLC0415 - imports SQLAlchemy

        found["connections"] = vault_from_file(environ["TOOLGUARD_VAULT"], environ)
    if environ.get(RECORDS):
        found["on_decision"] = _recorded(environ[RECORDS], settings.get("on_decision"))
    if settings.keys().isdisjoint(_OF_ISSUERS):
        found.update(_issuer_from(environ, found))
    return found


def _recorded(file: str, on_decision: Records | OnDecision | None) -> Records:
    """Return what happens with records, and that they are appended to a file as well.

    Raises:
        ValueError: if the file cannot be written.
    """
    given = Records.of(on_decision)
    try:
        lines = JSONLines(file)
    except OSError as error:
        raise ValueError(
            f"{RECORDS} is {file!r}: {error.strerror}: write the path of a file that this "
            "process may append to"
        ) from None
    return Records(lines, *given.consumers, subjects=given.subjects, queue=given.queue)


def _checked(variable: str, value: str, check: Callable[[str], object]) -> None:
    try:
        check(value)
    except ValueError as error:
        shown = repr(value) if "@" not in value else "a URL"
        raise ValueError(f"{variable} is {shown}: {error}") from None


def _issuer_from(environ: Mapping[str, str], found: Mapping[str, Any]) -> dict[str, Any]:
    well_known_url = environ.get("DESCOPE_MCP_WELL_KNOWN_URL")
    issuer = environ.get("TOOLGUARD_ISSUER", "").strip()
    if well_known_url and issuer:
        raise ValueError("set one of TOOLGUARD_ISSUER and DESCOPE_MCP_WELL_KNOWN_URL, not both")
    if not (well_known_url or issuer):
        raise ValueError(_NO_ISSUER)
    from toolguard.tokens.issuers.environment import (  # noqa: PLC0415 - its only use
        issuers_from,
        settings_from,
    )

    if not well_known_url:
        return {"issuers": issuers_from(environ)}
    more = settings_from(environ)
    given: dict[str, Any] = {"well_known_url": well_known_url}
    if more:
        audiences, clock = parse_audiences(found["audience"]), found.get("clock", time.time)
        named, verifier = _discovering(well_known_url, audiences, clock, **more)
        given = {"issuer": named, "verifier": verifier}
    if "connections" in found:
        return given
    from toolguard.connections.descope.provider import DescopeConnections  # noqa: PLC0415 - imports httpx

    management_key = taken(MANAGEMENT_KEY, environ)
    vault = DescopeConnections(well_known_url, management_key=management_key)
    return {**given, "connections": vault}


def check_kinds(refusals: object, clock: object) -> None:
    """Check the settings that nothing reads before the first call.

    Raises:
        TypeError: if one is of another kind.
    """
    of_kind("refusals", refusals, Refusals, 'refusals=Refusals(outages="tool-error")')
    if not callable(clock) or not takes(clock):
        raise TypeError(f"clock={clock!r}: write a function without arguments, such as time.time")


def parse_audiences(audience: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the audiences as a tuple.

    Raises:
        ValueError: if one is empty.
    """
    given = (audience,) if isinstance(audience, str) else audience or ()
    audiences = text_list("audience", given, 'audience="https://mcp.example.com/mcp"')
    if not all(audiences):
        raise ValueError(
            'an audience is empty: write audience="https://mcp.example.com/mcp" (is a variable '
            "unset?)"
        )
    return audiences


def resolve_resource(resource: str | None, audiences: tuple[str, ...]) -> str:
    """Return the URL of this server (RFC 9728 ``resource``).

    Raises:
        ValueError: if neither is a URL of a resource.
    """
    urls = [a for a in audiences if a.lower().startswith(("https://", "http://"))]
    if resource is not None:
        of_kind("resource", resource, str, 'resource="https://mcp.example.com/mcp"')
    if (resource is None and not urls) or resource == "":
        found = _shown("resource", ("",)) if resource == "" else _shown("audience", audiences[:1])
        raise ValueError(
            'say which server this is: audience="https://mcp.example.com/mcp", or resource=... '
            f"if tokens name their audience in another way{found}"
        )
    return canonical_resource(resource or urls[0])


def _shown(name: str, values: tuple[str, ...]) -> str:
    """Return a setting that is not an address, for a message; it may hold a password."""
    return "".join(f"; found {name}={text!r}" for text in values if "@" not in text)


def framework_verifier(audiences: tuple[str, ...], clock: Callable[[], float]) -> Verifier:
    """Return the verifier that accepts the verification of the framework."""
    from toolguard.frameworks.framework_verifier import (  # noqa: PLC0415 - imports a framework
        FrameworkVerifier,
    )

    return FrameworkVerifier(audiences, clock=clock)


def verifier_of(
    issuer: str | Issuer | None,
    well_known_url: str | None,
    verifier: Verifier | None,
    audiences: tuple[str, ...],
    clock: Callable[[], float],
    *,
    issuers: Sequence[Issuer] | None = None,
) -> tuple[str | None, Verifier]:
    """Return the name of the issuer, and the verifier of its tokens.

    Raises:
        ValueError: if not exactly one of the settings determines the accepted tokens.
        TypeError: if ``verifier`` is not a verifier, or an issuer is not an ``Issuer``.
    """
    if verifier is not None and issuers is None:
        return _own_verifier(issuer, well_known_url, verifier)
    if sum(given is not None for given in (issuer, issuers, well_known_url, verifier)) != 1:
        raise ValueError("give exactly one of issuer=, issuers=, well_known_url= and verifier=")
    if well_known_url is None:
        return _trusted(_described(issuer, issuers), audiences, clock)
    write = 'well_known_url="https://auth.example.com/.well-known/openid-configuration"'
    of_kind("well_known_url", well_known_url, str, write)
    return _discovering(well_known_url, audiences, clock)


def _discovering(
    well_known_url: str,
    audiences: tuple[str, ...],
    clock: Callable[[], float],
    *,
    network: Network = DEFAULT_NETWORK,
    **settings: Any,
) -> tuple[str, Verifier]:
    """Return the issuer that a URL of metadata determines, and the verifier of its tokens."""
    if not audiences:
        raise ValueError('give audience=: what tokens for this server name in their "aud"')
    from toolguard.tokens.discovery import issuer_of  # noqa: PLC0415 - imports cryptography
    from toolguard.tokens.jwks import JWKS  # noqa: PLC0415 - imports httpx
    from toolguard.tokens.jwt import JWTVerifier  # noqa: PLC0415 - imports cryptography

    keys = JWKS(well_known_url=well_known_url, network=network)
    # The metadata is authoritative for the issuer; until it is fetched, the URL determines it.
    named = issuer_of(well_known_url)
    return named, JWTVerifier(issuer=None, audience=audiences, keys=keys, clock=clock, **settings)


def _own_verifier(
    issuer: str | Issuer | None, well_known_url: str | None, verifier: Verifier
) -> tuple[str | None, Verifier]:
    if well_known_url is not None:
        raise ValueError("give verifier= or well_known_url=, not both")
    if isinstance(issuer, Issuer):
        raise TypeError(
            "beside verifier=, issuer= is only published, and must be a URL: give the verifier "
            "the settings of Issuer(...)"
        )
    if isinstance(verifier, type) or not callable(getattr(verifier, "verify", None)):
        raise TypeError(
            'verifier= takes an object with an async verify(token), or "framework": write '
            f"verifier=JWTVerifier(...), not {type(verifier).__name__}"
        )
    return issuer, verifier


def _described(issuer: str | Issuer | None, issuers: Sequence[Issuer] | None) -> Sequence[Issuer]:
    if issuer is not None:
        return [issuer if isinstance(issuer, Issuer) else Issuer(issuer)]
    if not issuers or isinstance(issuers, (str, Issuer)):
        raise ValueError('write issuers=[Issuer("https://auth.example.com")]: a list')
    return issuers


def _trusted(
    issuers: Sequence[Issuer], audiences: tuple[str, ...], clock: Callable[[], float]
) -> tuple[str | None, Verifier]:
    from toolguard.tokens.trust import trusted  # noqa: PLC0415 - imports cryptography

    verifier = trusted(issuers, audiences, clock)
    return verifier.issuer, verifier


def dpop_modes(settings: DPoP, verifier: Verifier) -> frozenset[Mode]:
    """Return the modes of all issuers.

    Raises:
        ValueError: if bound tokens are to be accepted, and ``verifier`` cannot verify them.
    """
    modes = frozenset(
        dpop_of(each, "") or settings.mode for each in getattr(verifier, "verifiers", (verifier,))
    )
    if modes != {"off"} and not isinstance(verifier, BoundVerifier):
        raise ValueError(
            "dpop= needs a verifier with an async verify_bound(token), for tokens that are bound "
            "to a key: write issuer=, or verifier=JWTVerifier(...)"
        )
    return modes


def trusted_user(stdio: object) -> TrustedUser | None:
    """Return the trusted caller over stdio; None if a token names the caller.

    Raises:
        ValueError: if ``stdio`` is neither ``"token"`` nor a trusted user.
    """
    if isinstance(stdio, TrustedUser):
        return stdio
    if stdio != "token":
        raise ValueError(f'stdio={stdio!r}: write "token" or TrustedUser("ada")')
    return None


def sent_arguments(declared: Mapping[str, Collection[str]]) -> dict[str, frozenset[str]]:
    """Return, for each operation, the declared arguments of clients.

    Raises:
        TypeError: if they are a string.
    """
    example = 'sent_by_client={"whoami": ["user_id"]}'
    of_kind("sent_by_client", declared, Mapping, example)
    for operation, names in declared.items():
        if isinstance(names, str):
            raise TypeError(f"write sent_by_client={{{operation!r}: [{names!r}]}}: a list")
        text_list("sent_by_client", names, example)
    return {operation: frozenset(names) for operation, names in declared.items()}


def parse_open_routes(paths: Collection[str]) -> tuple[str, ...]:
    """Return the paths of the custom routes that are open on purpose.

    Raises:
        TypeError: if they are a string.
        ValueError: if one is not an absolute path.
    """
    if isinstance(paths, str):
        raise TypeError(f"write open_routes=[{paths!r}]: a list")
    for path in text_list("open_routes", paths, 'open_routes=["/health"]'):
        if not path.startswith("/"):
            raise ValueError(f"open_routes names {path!r}: write the whole path, {'/' + path!r}")
    return tuple(paths)
