"""Look whether a server is set up right: as its clients see it, and as configured. Private."""
