"""The answer of one check about one call: the developer's own, or a decision point's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from toolguard.parsing.scope_token import check_requestable

__all__ = ["Answer", "AnswerVerdict"]

AnswerVerdict: TypeAlias = Literal["permit", "deny", "try again", "needs scopes", "needs sign-in"]
"""What an answer says."""


@dataclass(frozen=True)
class Answer:
    """The answer of a check, for what True and False cannot say.

    ============================================ ===============================================
    ``Answer.permit()``                          the same as True
    ``Answer.deny("over the limit")``            the same as False, with a reason for the record
    ``Answer.try_again("no answer")``            it cannot be told now: never a permit, and an
                                                 error of its own instead of a denial
    ``Answer.needs_scopes("notes.write")``       the 403 challenge for these scopes
    ``Answer.needs_sign_in(max_age=300)``        the 401 challenge for a fresh sign-in
    ============================================ ===============================================

    Attributes:
        verdict: what it says.
        reason: why; it goes to the decision record only, never to the caller.
        scopes: the scopes that would permit the call.
        max_age: the maximum age of the sign-in in seconds; None for any.
        acr_values: the accepted authentication context class references; empty for any.

    Raises:
        ValueError: if a challenge cannot request what it names, or it names nothing.
    """

    verdict: AnswerVerdict
    reason: str = ""
    scopes: tuple[str, ...] = ()
    max_age: int | None = None
    acr_values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in get_args(AnswerVerdict):
            raise ValueError(f"{self.verdict!r} is not an answer: write Answer.permit() or deny()")
        if not isinstance(self.reason, str):
            raise TypeError("the reason of an answer is a string")
        if bool(self.scopes) != (self.verdict == "needs scopes"):
            raise ValueError('write Answer.needs_scopes("notes.write"): at least one scope')
        names_sign_in = self.max_age is not None or bool(self.acr_values)
        is_valid_age = self.max_age is None or (type(self.max_age) is int and self.max_age >= 1)
        if names_sign_in != (self.verdict == "needs sign-in") or not is_valid_age:
            raise ValueError("write Answer.needs_sign_in(max_age=300), in seconds, or acr_values=")
        check_requestable(self.scopes)
        check_requestable(self.acr_values, "class")

    @classmethod
    def permit(cls) -> Answer:
        """Return the answer that permits the call."""
        return _PERMIT

    @classmethod
    def deny(cls, reason: str = "") -> Answer:
        """Return the answer that denies the call.

        Args:
            reason: why, for the decision record only.
        """
        return cls("deny", reason)

    @classmethod
    def try_again(cls, reason: str = "") -> Answer:
        """Return the answer that it cannot be told now, such as in an outage.

        Args:
            reason: why, for the decision record only.
        """
        return cls("try again", reason)

    @classmethod
    def needs_scopes(cls, *scopes: str, reason: str = "") -> Answer:
        """Return the answer that the caller needs further scopes.

        If the caller has all of them, this is a denial: a challenge would repeat for ever.

        Args:
            scopes: the scopes to request.
            reason: why, for the decision record only.
        """
        return cls("needs scopes", reason, scopes=scopes)

    @classmethod
    def needs_sign_in(
        cls, *, max_age: int | None = None, acr_values: Iterable[str] = (), reason: str = ""
    ) -> Answer:
        """Return the answer that the user has to sign in again (RFC 9470).

        If the last sign-in satisfies it, this is a denial: a challenge would repeat for ever.

        Args:
            max_age: the maximum age of the sign-in in seconds, at least 1.
            acr_values: the accepted authentication context class references.
            reason: why, for the decision record only.

        Raises:
            TypeError: if ``acr_values`` is one text instead of several.
        """
        if isinstance(acr_values, str):
            raise TypeError(f"write acr_values=[{acr_values!r}]: a list")
        classes = tuple(acr_values)
        return cls("needs sign-in", reason, max_age=max_age, acr_values=classes)

    def __bool__(self) -> bool:
        raise TypeError('an Answer has no truth value: compare answer.verdict with "permit"')


_PERMIT = Answer("permit")
