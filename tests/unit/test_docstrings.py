"""Does the description of a guarded tool still mention what is injected?"""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from toolguard.decorators.injection import Injection
from toolguard.policies.policy import ConnectionNeed, Policy

POLICY = Policy(connections=(ConnectionNeed("google-calendar", (), "connection_token"),))

GOOGLE = """Create an event.

    A second paragraph about user_id, which stays.

    Args:
        title: what it is called.
        user_id: the caller, who is taken
            from the token.

            Further paragraphs of an entry belong to it.

        start (str): when it starts.
        connection_token (str): the token for the
            calendar service: a secret.
        alarm: whether it rings.

    Returns:
        The event.
    """
GOOGLE_SHOWN = """Create an event.

A second paragraph about user_id, which stays.

Args:
    title: what it is called.

    start (str): when it starts.
    alarm: whether it rings.

Returns:
    The event."""

NUMPY = """Create an event.

    Parameters
    ----------
    title : str
        What it is called.
    user_id : str
        The caller, who is taken
        from the token.
    connection_token : str, optional
        The token for the calendar service.
    start : str
        When it starts.

    Returns
    -------
    dict
        The event.
    """
NUMPY_SHOWN = """Create an event.

Parameters
----------
title : str
    What it is called.
start : str
    When it starts.

Returns
-------
dict
    The event."""

SPHINX = """Create an event.

    :param title: what it is called.
    :param user_id: the caller, who is taken
        from the token.
    :type user_id: str
    :param str connection_token: the token for the calendar service.
    :param start: when it starts.
    :type start: str
    :returns: the event.
    """
SPHINX_SHOWN = """Create an event.

:param title: what it is called.
:param start: when it starts.
:type start: str
:returns: the event."""

PLAIN = """Create an event for user_id with connection_token."""


async def tool(title: str, start: str, *, user_id: str, connection_token: str) -> None: ...


def described(doc: str | None, policy: Policy = POLICY) -> str | None:
    async def wrapper(*args: Any, **kwargs: Any) -> None: ...

    tool.__doc__ = doc
    Injection.from_policy(tool, policy).apply_to(wrapper, tool)
    return wrapper.__doc__


@pytest.mark.parametrize(
    ("doc", "shown"),
    [(GOOGLE, GOOGLE_SHOWN), (NUMPY, NUMPY_SHOWN), (SPHINX, SPHINX_SHOWN), (PLAIN, PLAIN)],
    ids=["Google", "NumPy", "Sphinx", "prose"],
)
def test_the_entries_of_injected_parameters_are_left_out(doc: str, shown: str) -> None:
    assert described(doc) == shown


@pytest.mark.parametrize("doc", [None, ""])
def test_a_function_without_a_description_has_none(doc: str | None) -> None:
    assert not described(doc)


def test_only_whole_names_are_left_out() -> None:
    doc = "Do.\n\nArgs:\n    user_id_list: those.\n    my_user_id: this.\n    user_id: the caller."

    assert described(doc) == "Do.\n\nArgs:\n    user_id_list: those.\n    my_user_id: this."


def test_what_is_not_injected_stays_in_the_description() -> None:
    doc = "Do.\n\nArgs:\n    connection_token: any text."

    async def wrapper(*args: Any, **kwargs: Any) -> None: ...
    async def search(connection_token: str) -> None: ...

    search.__doc__ = doc
    Injection.from_policy(search, Policy()).apply_to(wrapper, search)

    assert wrapper.__doc__ == doc


def test_the_description_of_the_function_itself_is_not_changed() -> None:
    described(GOOGLE)

    assert "user_id: the caller" in str(inspect.getdoc(tool))
