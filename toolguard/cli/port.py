"""Read the port of an option."""

from __future__ import annotations

import argparse
from collections.abc import Callable

__all__ = ["port_up_to"]


def port_up_to(last: int, *, example: int) -> Callable[[str], int]:
    """Return the reader of an option's port; 0 is a free one.

    Args:
        last: the last one that may be named.
        example: one that can be written.
    """

    def port(text: str) -> int:
        if not text.isdecimal() or int(text) > last:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a port from 0 to {last}: write --port {example}"
            )
        return int(text)

    return port
