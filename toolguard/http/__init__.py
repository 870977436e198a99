"""The ASGI side: what stands in the HTTP request and response. Private."""
