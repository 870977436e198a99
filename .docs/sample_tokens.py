"""Show a token of each preset: made by the test kit, whose forms follow the vendors' pages."""

from __future__ import annotations

import base64
import json
import re
import sys
from pathlib import Path
from typing import Any

from toolguard.testing import LocalIssuer

__all__ = ["sample", "with_sample"]

_TIME = 1_800_000_000
_SHOWN = re.compile(r"(<!-- token: ([\w-]+) -->\n).*?(<!-- end of token -->)", re.DOTALL)


def sample(vendor: str) -> dict[str, Any]:
    """Return the header and the claims of an access token of a vendor."""
    issuer = LocalIssuer.like(vendor, clock=lambda: _TIME)  # type: ignore[arg-type]
    one, other = (_read(issuer.mint("alice", scopes=["notes.read"])) for _ in range(2))
    for name, value in one["claims"].items():
        if other["claims"][name] != value:
            one["claims"][name] = "(random)"
    one["header"]["kid"] = "(the id of the key)"
    return one


def _read(token: str) -> dict[str, Any]:
    header, claims = (
        json.loads(base64.urlsafe_b64decode(f"{part}==")) for part in token.split(".")[:2]
    )
    return {"header": header, "claims": claims}


def with_sample(page: str) -> str:
    """Return a page with a token where it asks for one."""

    def shown(found: re.Match[str]) -> str:
        token = json.dumps(sample(found[2]), indent=2)
        return f"{found[1]}\n```json\n{token}\n```\n\n{found[3]}"

    return _SHOWN.sub(shown, page)


if __name__ == "__main__":  # writes the tokens into the pages
    for each in sorted((Path(__file__).parent / "issuers").glob("*.md")):
        each.write_text(with_sample(each.read_text("utf-8")), "utf-8")
    sys.exit()
