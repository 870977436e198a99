"""Express what a caller must meet, and decide whether they do; no I/O. Private."""
