"""The tables of the vault, their version, and the steps from one version to the next.

Subjects and names of connections are in clear text, so that a person can be found and forgotten.
Tokens, scopes, account names and everything about a person who is connecting are sealed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
    update,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "APPROVALS",
    "GRANTS",
    "SCHEMA_VERSION",
    "SLIPS",
    "SchemaError",
    "found_version",
    "upgrade",
]

_METADATA = MetaData()

_VERSION = Table("vault_schema", _METADATA, Column("version", Integer, nullable=False))

GRANTS = Table(
    "vault_grant",
    _METADATA,
    Column("kind", String, nullable=False),
    Column("issuer", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("connection", String, nullable=False),
    # Grows with every write: a write-back says which state it comes from.
    Column("version", BigInteger, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("connected_at", Float, nullable=False),
    Column("used_at", Float, nullable=False),
    # The process that refreshes the grant, and until when the others wait for it.
    Column("claimed_by", String),
    Column("claimed_until", Float, nullable=False),
    PrimaryKeyConstraint("kind", "issuer", "owner", "connection"),
    Index("vault_grant_key_id", "key_id"),
)
"""The grants, by owner and connection."""

SLIPS = Table(
    "vault_slip",
    _METADATA,
    Column("digest", String, primary_key=True),
    Column("purpose", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("issuer", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("vault_slip_expires_at", "expires_at"),
    Index("vault_slip_owner", "kind", "issuer", "owner"),
)
"""What is kept for minutes: tickets, consents and exchanges that have begun, sessions."""

APPROVALS = Table(
    "vault_approval",
    _METADATA,
    # The digest of what the approval is for: the caller, the tool and the arguments.
    Column("binding", String, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("issuer", String, nullable=False),
    Column("owner", String, nullable=False),
    Column("state", String, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("key_id", String, nullable=False),
    Column("expires_at", Float, nullable=False),
    Index("vault_approval_expires_at", "expires_at"),
    Index("vault_approval_owner", "issuer", "owner"),
)
"""The approvals of single calls: one row for each call that is asked about, for minutes."""

# Any number that no other program on the same Postgres uses for a lock.
_UPGRADING = 8_315_160_013


class SchemaError(RuntimeError):
    """The tables of the database are of another version than this toolguard's."""


def _create_tables(db: Connection) -> None:
    _METADATA.create_all(db, [_VERSION, GRANTS, SLIPS])


def _add_approvals(db: Connection) -> None:
    APPROVALS.create(db)


_STEPS: Sequence[Callable[[Connection], None]] = (_create_tables, _add_approvals)
"""The step at index n leads from version n to n + 1; version 0 is an empty database."""

SCHEMA_VERSION = len(_STEPS)
"""The version of the tables that this toolguard works with."""


def found_version(db: Connection) -> int:
    """Return the version of the tables in the database; 0 if there are none."""
    if not inspect(db).has_table(_VERSION.name):
        return 0
    return db.execute(select(_VERSION.c.version)).scalar_one_or_none() or 0


def upgrade(db: Connection) -> tuple[int, int]:
    """Move the tables forward to the version of this toolguard, in one transaction.

    Args:
        db: a connection in autocommit mode, as those of the store are.

    Returns:
        The version that was found, and the one that is there now.

    Raises:
        SchemaError: if the tables are of a later version.
    """
    db.execute(text("BEGIN IMMEDIATE" if db.dialect.name == "sqlite" else "BEGIN"))
    end = "ROLLBACK"
    try:
        if db.dialect.name == "postgresql":
            db.execute(text(f"SELECT pg_advisory_xact_lock({_UPGRADING})"))
        found = _move(db)
        end = "COMMIT"
    finally:
        if not db.invalidated:  # as it is when the call is cancelled
            db.execute(text(end))
    return found, SCHEMA_VERSION


def _move(db: Connection) -> int:
    found = found_version(db)
    if found > SCHEMA_VERSION:
        raise SchemaError(
            f"the vault's tables have version {found} and this toolguard works with "
            f"{SCHEMA_VERSION}: install the newer toolguard"
        )
    for step in _STEPS[found:]:
        step(db)
    if found == 0:
        db.execute(insert(_VERSION).values(version=SCHEMA_VERSION))
    else:
        db.execute(update(_VERSION).values(version=SCHEMA_VERSION))
    return found
