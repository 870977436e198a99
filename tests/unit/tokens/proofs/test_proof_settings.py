"""Which settings for bound tokens can a guard have?"""

from __future__ import annotations

from typing import Any

import pytest

from toolguard.tokens.proofs import DPoP, MemoryReplays


def test_a_mode_stands_for_settings_with_the_window_of_the_extension() -> None:
    settings = DPoP.of("required")

    assert (settings.mode, settings.window, settings.nonces) == ("required", 300, False)
    assert DPoP.of(settings) is settings
    assert repr(settings) == "DPoP('required')"


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ({"mode": "on"}, "dpop='on': write one of 'off', 'optional', 'required'"),
        ({"algorithms": ()}, 'write algorithms=["ES256"]: a list'),
        ({"algorithms": "ES256"}, 'write algorithms=["ES256"]: a list'),
        ({"algorithms": ["none"]}, "'none' is not accepted for proofs: choose among ES256"),
        ({"algorithms": ["HS256"]}, "'HS256' is not accepted for proofs"),
        ({"window": 0}, "window is a number of seconds from 1 to 3600, not 0"),
        ({"window": float("nan")}, "window is a number of seconds"),
        ({"nonce_period": 86_400}, "nonce_period is a number of seconds from 1 to 3600"),
    ],
)
def test_a_wrong_setting_is_refused_with_advice(wrong: dict[str, Any], advice: str) -> None:
    with pytest.raises(ValueError, match="^" + advice.replace("[", r"\[")):
        DPoP(**wrong)


def test_a_store_without_a_question_is_refused() -> None:
    with pytest.raises(TypeError, match=r"replays= takes a MemoryReplays"):
        DPoP(replays=object())  # type: ignore[arg-type]

    assert DPoP(replays=MemoryReplays()).replays is not None
