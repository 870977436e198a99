"""Which server over stdio sends more than anyone may read? By hand: no SDK would."""

import json
import sys

__all__: list[str] = []

MEBIBYTE = "x" * 1024 * 1024


def answer(message: dict[str, object]) -> dict[str, object] | None:
    """Return the result of a request; None for a line that is not a request."""
    params = message.get("params") or {}
    assert isinstance(params, dict)
    if message["method"] == "initialize":
        return {
            "protocolVersion": params["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "flooding", "version": "1"},
        }
    if message["method"] == "tools/list":
        schema = {"type": "object", "properties": {"folder": {"type": "string"}}}
        return {"tools": [{"name": "hour", "inputSchema": schema}]}
    asked = params.get("arguments", {}).get("folder")
    while asked == "endless":
        sys.stdout.write(MEBIBYTE)
    if asked == "long":
        sys.stdout.write(MEBIBYTE * 17 + "\n")
        return None
    said = MEBIBYTE * 3 if asked == "large" else "served"
    return {"content": [{"type": "text", "text": said}]}


def serve() -> None:
    """Answer each request, until there are no more."""
    for line in sys.stdin:
        message = json.loads(line)
        if "id" not in message:
            continue
        result = answer(message)
        if result is not None:
            envelope = {"jsonrpc": "2.0", "id": message["id"], "result": result}
            sys.stdout.write(json.dumps(envelope) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    serve()
