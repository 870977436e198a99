"""Subjects as an authorization server may name them."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["subjects"]


def subjects(max_size: int) -> SearchStrategy[str]:
    """Generate ``sub`` claims: texts of up to ``max_size`` characters, none of them a control."""
    allowed = st.characters(exclude_categories=("Cc", "Cs"))
    return st.text(allowed, min_size=1, max_size=max_size)
