"""Guard ASGI applications: read HTTP requests, write HTTP responses. Private."""
