"""What a caller must meet, and the decision. No I/O and no framework. Private."""
