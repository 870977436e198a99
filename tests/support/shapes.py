"""Which shapes can a guarded tool have?

Executed for each line with that line's context class as ``Context``, once as it is here and once
with postponed annotations.
"""

import functools
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BaseModel, Field

from toolguard import Connection, Principal, requires_auth, requires_scopes, with_connection

if TYPE_CHECKING:
    Context: TypeAlias = Any


class Place(BaseModel):
    city: str
    floor: int = 0


@requires_auth
async def takes_user_id(day: str, *, user_id: str) -> str:
    """List the events of a day.

    Args:
        day: the day to list.
        user_id: the caller, who is
            injected.
    """
    return f"{day} {user_id}"


@requires_scopes("calendar.read")
def takes_principal(day: str, *, caller: Principal) -> str:
    """List the events of a day.

    :param day: the day to list.
    :param caller: who calls.
    """
    return f"{day} {caller.user_id}"


@requires_auth
@with_connection("google-calendar")
async def takes_connection_token(day: str, *, connection_token: str) -> str:
    """List the events of a day.

    Parameters
    ----------
    day : str
        The day to list.
    connection_token : str
        The token of Google.
    """
    return f"{day} {connection_token}"


@with_connection("google-calendar", as_="google")
async def takes_connection(day: str, *, google: Connection) -> str:
    return f"{day} {google.token_type} {google.token}"


@requires_auth
async def takes_context(day: str, ctx: Context, *, user_id: str) -> str:
    return f"{day} {user_id} {ctx is not None}"


@requires_auth
async def takes_defaults(day: str = "today", limit: int = 10, *, user_id: str = "nobody") -> str:
    return f"{day} {limit} {user_id}"


@requires_auth
async def takes_model(place: Place, *, user_id: str) -> str:
    return f"{place.city} {place.floor} {user_id}"


@requires_auth
async def takes_annotated(
    day: Annotated[str, Field(description="such as monday")],
    limit: Annotated[int, Field(ge=1, le=50)] = 10,
    *,
    user_id: Annotated[str, Field(description="the caller")],
) -> str:
    return f"{day} {limit} {user_id}"


class Diary:
    def __init__(self, owner: str) -> None:
        self.owner = owner

    @requires_auth
    def takes_self(self, day: str, *, user_id: str) -> str:
        return f"{self.owner} {day} {user_id}"


takes_self = Diary("shared").takes_self


async def _zoned(zone: str, day: str, *, user_id: str) -> str:
    return f"{zone} {day} {user_id}"


takes_partial = requires_auth(functools.partial(_zoned, "utc"))
