"""Subjects as an authorization server may name them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["subjects"]


def subjects(max_size: int) -> SearchStrategy[str]:
    """Generate ``sub`` claims: texts of up to ``max_size`` characters, none of them a control.

    None is an issuer: a JWT whose ``sub`` is its ``iss`` is not an access token (RFC 7523 §3), and
    hypothesis also tries the texts that it finds in the code.
    """
    allowed = st.characters(exclude_categories=("Cc", "Cs"))
    texts = st.text(allowed, min_size=1, max_size=max_size)
    return texts.filter(lambda text: not text.startswith("https://"))
