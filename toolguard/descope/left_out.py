"""What of the SDK is left out, and what is written instead?

The SDK's server does not check its caller: each process that starts it can read the tokens of all
users. The SDK's client reads them.
"""

from __future__ import annotations

from typing import Any, NoReturn

__all__ = ["DescopeMCPClient", "DescopeMCPServer"]


class DescopeMCPServer:
    """Left out: the SDK's server that returns third-party tokens over stdio.

    The name can be imported. Write :func:`add_descope_tools` with ``expose_tokens=True``.

    Raises:
        NotImplementedError: always.
    """

    def __init__(self, *_args: Any, **_settings: Any) -> NoReturn:
        raise NotImplementedError(
            "DescopeMCPServer hands out tokens without a check of the caller, and is left out: "
            "write add_descope_tools(server, config, expose_tokens=True), or better "
            "@with_connection on a tool of your own"
        )


class DescopeMCPClient:
    """Left out: the SDK's client of that server.

    The name can be imported. Write ``await fetch_user_token(config, app_id, user_id)`` and the
    like: they need no server.

    Raises:
        NotImplementedError: always.
    """

    def __init__(self, *_args: Any, **_settings: Any) -> NoReturn:
        raise NotImplementedError(
            "DescopeMCPClient reads tokens from a server that is left out: write "
            "await fetch_user_token(config, app_id, user_id), which asks Descope itself"
        )
