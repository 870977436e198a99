"""A development authorization server, third-party services and the demo, on one machine. Private.

It is a development tool, without passwords, for laptops, tests and demos. It answers on loopback
only, and nothing in the guard depends on it.
"""
