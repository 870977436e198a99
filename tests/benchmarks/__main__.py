"""What does a guard cost? Run with ``python tests/benchmarks``; prints ratios, asserts nothing."""

from __future__ import annotations

import logging

import calls
import connections
import ratios
import verification

if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    ratios.run(
        verification.guard_against_decode,
        calls.guarded_against_unguarded,
        calls.refused_against_served,
        calls.guard_against_fastmcp_auth,
        calls.many_tools_against_few,
        *connections.comparisons,
    )
