"""What does the outside see of a guarded function, and what is injected into it?"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, NewType, Optional

import pytest

from support.callers import person
from toolguard.connections import Connection
from toolguard.decorators.annotations import sent_by_client, unwrapped
from toolguard.decorators.injection import Injection, sent_by_clients
from toolguard.errors import AccessDeniedError
from toolguard.policies.policy import ConnectionNeed, Policy
from toolguard.principal import Principal

if TYPE_CHECKING:
    from decimal import Decimal

    import toolguard.connections as vault
    import toolguard.principal as who

CALENDAR = ConnectionNeed("google-calendar", (), "connection_token")
ANYBODY = Policy(public=True)
CONNECTED = Policy(connections=(CALENDAR,))
FETCHED = {"connection_token": Connection("ya29.token")}


def visible(function: Callable[..., Any], policy: Policy = CONNECTED) -> str:
    return str(Injection.from_policy(function, policy).visible)


def injected(
    function: Callable[..., Any],
    policy: Policy = CONNECTED,
    principal: Principal | None = person(),  # noqa: B008 - a frozen value
) -> dict[str, object]:
    return Injection.from_policy(function, policy).values(principal, FETCHED)


def dressed(function: Callable[..., Any], policy: Policy = CONNECTED) -> Callable[..., Any]:
    async def wrapper(*args: Any, **kwargs: Any) -> None: ...

    Injection.from_policy(function, policy).apply_to(wrapper, function)
    return wrapper


# --- what is injected


def test_a_user_id_and_a_connection_token_are_injected_by_name() -> None:
    async def tool(title: str, *, user_id: str, connection_token: str) -> None: ...

    assert injected(tool) == {"user_id": "alice", "connection_token": "ya29.token"}


def test_a_principal_and_a_connection_are_injected_by_annotation() -> None:
    async def tool(caller: Principal, *, connection_token: Connection) -> None: ...

    assert injected(tool) == {"caller": person(), "connection_token": Connection("ya29.token")}


def test_a_function_need_not_take_the_caller() -> None:
    async def tool(title: str) -> None: ...

    assert injected(tool, Policy()) == {}


def test_without_annotations_names_decide() -> None:
    def tool(title, *, user_id, connection_token):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    assert injected(tool) == {"user_id": "alice", "connection_token": "ya29.token"}
    assert visible(tool) == "(title)"


def test_a_connection_token_that_no_connection_was_declared_for_is_an_ordinary_parameter() -> None:
    async def tool(connection_token: str) -> str:
        return connection_token

    assert visible(tool, Policy()) == "(connection_token: str) -> str"


def test_annotations_may_be_spelled_in_every_usual_way() -> None:
    async def optional(a: Optional[Principal], *, user_id: Optional[str]) -> None: ...  # noqa: UP045
    async def union(a: Principal | None, *, user_id: str | None) -> None: ...
    async def annotated(
        a: Annotated[Principal, "who"], *, user_id: Annotated[str, "id"]
    ) -> None: ...
    async def quoted(a: "Principal", *, user_id: "str") -> None: ...  # noqa: UP037
    async def anything(a: Principal, *, user_id: Any) -> None: ...
    async def both(
        a: Annotated[Principal | None, "who"], *, user_id: Annotated[str | None, 1]
    ) -> None: ...

    for tool in (optional, union, annotated, quoted, anything, both):
        assert injected(tool, Policy()) == {"a": person(), "user_id": "alice"}
    for tool in (optional, union, both):
        assert injected(tool, ANYBODY, None) == {"a": None, "user_id": None}


def test_type_checking_annotations_are_read_by_name() -> None:
    async def tool(caller: who.Principal, *, connection_token: vault.Connection) -> None: ...
    async def maybe(caller: who.Principal | None) -> None: ...

    assert injected(tool) == {"caller": person(), "connection_token": Connection("ya29.token")}
    assert injected(maybe, Policy()) == {"caller": person()}
    assert injected(maybe, ANYBODY, None) == {"caller": None}


def test_annotations_that_are_not_postponed_are_read_as_well() -> None:
    async def tool(caller: Any, title: Any, connection_token: Any) -> None: ...

    tool.__annotations__ = {"caller": Principal, "title": str, "connection_token": Connection}

    assert injected(tool) == {"caller": person(), "connection_token": Connection("ya29.token")}
    assert visible(tool) == "(title: str)"


class Manager(Principal):
    """A kind of principal."""


Anybody = NewType("Anybody", Principal)


@pytest.mark.parametrize(
    "annotation",
    [
        list[Principal],
        Principal | str,
        Annotated[Principal | str, "x"],
        Optional[Annotated[list[Principal], "x"]],  # noqa: UP045 - one of the ways to write it
        "Principal | str",
        "list[toolguard.Principal]",
        Manager,
        Anybody,
    ],
)
def test_who_calls_cannot_be_among_what_a_client_sends(annotation: Any) -> None:
    async def tool(who: Any) -> None: ...

    tool.__annotations__["who"] = annotation

    with pytest.raises(TypeError, match="which a client could send: write `who: Principal`"):
        injected(tool, Policy())


@pytest.mark.parametrize(
    "annotation",
    [
        Annotated[Principal, "x"],
        Optional[Annotated[Principal, "x"]],  # noqa: UP045 - one of the ways to write it
    ],
)
def test_a_principal_is_known_behind_its_annotations(annotation: Any) -> None:
    async def tool(who: Any) -> None: ...

    tool.__annotations__["who"] = annotation

    assert injected(tool, Policy()) == {"who": person()}


def test_a_caller_without_a_user_is_refused_where_one_is_needed() -> None:
    async def tool(*, user_id: str) -> None: ...

    with pytest.raises(AccessDeniedError, match=r"^This operation needs a user, and the token"):
        injected(tool, Policy(), person(None))


def test_a_caller_without_a_user_is_nobody_where_nobody_is_welcome() -> None:
    async def tool(*, user_id: str | None, caller: Principal | None) -> None: ...

    assert injected(tool, Policy(), person(None)) == {"user_id": None, "caller": person(None)}
    assert injected(tool, ANYBODY, None) == {"user_id": None, "caller": None}


# --- what cannot be injected is refused when the module is imported


def test_a_missing_parameter_for_a_connection_is_refused_with_what_to_write() -> None:
    async def create_event(title: str) -> None: ...

    message = (
        r"^create_event\(\) does not take the token of connection 'google-calendar': add "
        r"`\*, connection_token: str` to its parameters, or name the one it has with "
        r"with_connection\('google-calendar', ..., as_=...\)$"
    )
    with pytest.raises(TypeError, match=message):
        Injection.from_policy(create_event, CONNECTED)


def takes_user_first(user_id: str, /, title: str) -> None: ...
def takes_user_before_args(user_id: str, *titles: str) -> None: ...
def takes_users(*user_id: str) -> None: ...
def takes_anything(**user_id: str) -> None: ...
def takes_user(title: str, user_id: str) -> None: ...


@functools.wraps(takes_user)
def passes_on(*args: str, **kwargs: str) -> None: ...


AMBIGUOUS = r"""\(\) takes user_id by position: write `\*, user_id: str` for the \
caller, or `user_id: Annotated\[str, sent_by_client\]` for what the client sends$""".replace(
    "\\\n", ""
)


@pytest.mark.parametrize(
    "function",
    [
        takes_user_first,
        takes_user_before_args,
        takes_users,
        takes_anything,
        takes_user,
        passes_on,
        functools.partial(takes_user, title="a"),
        functools.partial(takes_user, user_id="a"),
        functools.partial(functools.partial(passes_on, title="a")),
    ],
)
def test_a_user_id_that_is_not_keyword_only_is_refused(function: Callable[..., None]) -> None:
    with pytest.raises(TypeError, match=AMBIGUOUS):
        Injection.from_policy(function, Policy())


def test_a_user_id_marked_as_sent_by_the_client_stays_an_argument() -> None:
    def ban(user_id: Annotated[str, sent_by_client]) -> None: ...
    def by_keyword(*, user_id: Annotated[str, sent_by_client]) -> None: ...
    def maybe(user_id: Annotated[str, sent_by_client] | None = None) -> None: ...
    def quoted(user_id: "Annotated[Decimal, sent_by_client]") -> None: ...  # noqa: UP037

    for function in (ban, by_keyword, maybe, quoted):
        assert injected(function, Policy()) == {}
        assert "user_id" in visible(function, Policy())
        assert sent_by_clients(function) is None


def test_a_connection_that_clients_could_send_is_a_fault() -> None:
    def tool(calendar: Connection | None) -> None: ...

    assert "takes a Connection as calendar" in str(sent_by_clients(tool))


def test_no_one_but_the_guard_gives_a_principal_or_a_connection() -> None:
    def by_principal(caller: Annotated[Principal, sent_by_client]) -> None: ...
    def by_token(connection_token: Annotated[str, sent_by_client]) -> None: ...

    with pytest.raises(TypeError, match="which a client could send: write `caller: Principal`"):
        injected(by_principal, Policy())
    with pytest.raises(TypeError, match=r"from the client and from with_connection\(\): remove"):
        injected(by_token)


def test_a_principal_that_no_keyword_reaches_is_refused() -> None:
    def tool(caller: Principal, /) -> None: ...

    with pytest.raises(TypeError, match=r"^tool\(\) cannot be given caller as a keyword: "):
        Injection.from_policy(tool, Policy())


@pytest.mark.parametrize("annotation", [int, bytes, list[str], "int", "UserId", Principal])
def test_a_user_id_of_another_type_is_refused(annotation: object) -> None:
    def tool(*, user_id: str) -> None: ...

    tool.__annotations__ = {"user_id": annotation}

    with pytest.raises(TypeError, match=r"^tool\(\) must take the caller as `user_id: str`$"):
        Injection.from_policy(tool, Policy())


@pytest.mark.parametrize("annotation", [int, dict, "bytes", Principal])
def test_a_connection_of_another_type_is_refused(annotation: object) -> None:
    def tool(connection_token: str) -> None: ...

    tool.__annotations__ = {"connection_token": annotation}

    message = (
        r"^tool\(\) takes connection_token as .+: write `connection_token: str` for the token, or "
        r"`connection_token: Connection` for the object$"
    )
    with pytest.raises(TypeError, match=message):
        Injection.from_policy(tool, CONNECTED)


def test_a_connection_that_may_be_missing_must_be_allowed_to_be_none() -> None:
    def by_token(connection_token: str) -> None: ...
    def by_object(connection_token: Connection) -> None: ...
    def either(connection_token: Connection | None) -> None: ...

    optional = Policy(connections=(replace(CALENDAR, optional=True),))
    message = r"\(\) also runs without connection 'google-calendar': write `connection_token: "
    with pytest.raises(TypeError, match=rf"^by_token{message}str \| None`$"):
        Injection.from_policy(by_token, optional)
    with pytest.raises(TypeError, match=rf"^by_object{message}Connection \| None`$"):
        Injection.from_policy(by_object, optional)
    assert Injection.from_policy(either, optional).values(person(), {"connection_token": None}) == {
        "connection_token": None
    }


def test_a_public_function_whose_caller_must_be_somebody_is_refused() -> None:
    def by_id(*, user_id: str) -> None: ...
    def unannotated(*, user_id) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
    def by_principal(*, caller: Principal) -> None: ...

    message = r"is public, so it may have no caller: write `user_id: str \| None`$"
    with pytest.raises(TypeError, match=rf"^by_id\(\) {message}"):
        Injection.from_policy(by_id, ANYBODY)
    with pytest.raises(TypeError, match=rf"^unannotated\(\) {message}"):
        Injection.from_policy(unannotated, ANYBODY)
    with pytest.raises(TypeError, match=r"no caller: write `caller: Principal \| None`$"):
        Injection.from_policy(by_principal, ANYBODY)


# --- what remains visible


async def create_event(
    title: str, start: str = "now", *, user_id: str, connection_token: str, alarm: bool = False
) -> dict[str, int]:
    """Create an event."""
    return {}


class Calendar:
    """A calendar that can be called."""

    async def add(self, title: str, *, user_id: str) -> str:
        """Add an event."""
        return f"{title} of {user_id}"

    def __call__(self, title: str, *, user_id: str) -> str:
        """Add an event by calling."""
        return f"{title} of {user_id}"


def test_signature_annotations_and_name_lose_only_what_is_injected() -> None:
    wrapper = dressed(create_event)

    assert str(inspect.signature(wrapper)) == (
        "(title: str, start: str = 'now', *, alarm: bool = False) -> dict[str, int]"
    )
    assert wrapper.__annotations__ == {
        "title": str,
        "start": str,
        "alarm": bool,
        "return": dict[str, int],
    }
    assert (wrapper.__name__, wrapper.__qualname__) == ("create_event", "create_event")
    assert wrapper.__module__ == create_event.__module__
    assert wrapper.__doc__ == "Create an event."
    assert wrapper.__dict__["__wrapped__"] is create_event


def test_a_sync_function_looks_the_same() -> None:
    def tool(title: str, *, user_id: str) -> int:
        return 1

    assert str(inspect.signature(dressed(tool, Policy()))) == "(title: str) -> int"


def test_a_bound_method_shows_neither_self_nor_what_is_injected() -> None:
    wrapper = dressed(Calendar().add, Policy())

    assert str(inspect.signature(wrapper)) == "(title: str) -> str"
    assert (wrapper.__name__, wrapper.__doc__) == ("add", "Add an event.")


def test_an_object_that_can_be_called_is_seen_as_its_call() -> None:
    wrapper = dressed(Calendar(), Policy())

    assert str(inspect.signature(wrapper)) == "(title: str) -> str"
    assert wrapper.__name__ == "Calendar"


def test_a_partial_shows_what_is_left_to_give() -> None:
    wrapper = dressed(functools.partial(create_event, "Standup", alarm=True))

    assert str(inspect.signature(wrapper)) == (
        "(start: str = 'now', *, alarm: bool = True) -> dict[str, int]"
    )
    assert (wrapper.__name__, wrapper.__doc__) == ("create_event", "Create an event.")


def test_a_value_that_a_partial_gives_to_an_injected_parameter_is_replaced() -> None:
    plan = Injection.from_policy(functools.partial(Calendar(), user_id="mallory"), Policy())

    assert plan.arguments((), {"title": "a"}, {"user_id": "alice"}) == (
        (),
        {"title": "a", "user_id": "alice"},
    )


def test_annotated_metadata_and_defaults_of_the_visible_parameters_are_kept() -> None:
    def tool(
        count: Annotated[int, "how many"] = 3, *, user_id: str = "nobody"
    ) -> Annotated[str, "text"]:
        return ""

    plan = Injection.from_policy(tool, Policy())

    assert plan.visible.parameters["count"].annotation == Annotated[int, "how many"]
    assert plan.visible.parameters["count"].default == 3
    assert plan.visible.return_annotation == Annotated[str, "text"]
    assert list(plan.visible.parameters) == ["count"]


def test_names_imported_for_type_checking_stay_as_written() -> None:
    def tool(amount: Decimal, note: str, *, user_id: str) -> Decimal:
        return amount

    wrapper = dressed(tool, Policy())

    assert wrapper.__annotations__ == {"amount": "Decimal", "note": str, "return": "Decimal"}


def test_a_function_without_annotations_gets_none() -> None:
    def tool(title, *, user_id):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        ...

    wrapper = dressed(tool, Policy())

    assert wrapper.__annotations__ == {}
    assert str(inspect.signature(wrapper)) == "(title)"


def test_behind_partials_and_methods_is_the_function() -> None:
    calendar = Calendar()

    assert unwrapped(functools.partial(functools.partial(create_event, "a"), "b")) is create_event
    assert unwrapped(calendar.add) is Calendar.add
    assert unwrapped(functools.partial(calendar.add, "a")) is Calendar.add
    assert unwrapped(calendar) is calendar
