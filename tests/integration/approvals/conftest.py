"""What the tests of approvals share: databases, as those of the vault."""

from __future__ import annotations

from integration.vault.conftest import database_url, postgres, tmp_path_url

__all__ = ["database_url", "postgres", "tmp_path_url"]
