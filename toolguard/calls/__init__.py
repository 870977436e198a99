"""Hold what is known and decided about the message being served. Private."""
