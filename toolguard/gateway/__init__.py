"""Somebody else's MCP server behind a guard: its configuration and its upstream. Private.

``toolguard proxy --rules rules.toml -- COMMAND`` serves a server that speaks over stdio, and
``--upstream URL`` one that is served elsewhere, at an endpoint of its own with your rules.
"""
