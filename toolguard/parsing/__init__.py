"""Read untrusted text that has exactly one meaning, and refuse the rest. Private."""
