"""The tables. A row of DESIGN.md section 8 is added here by the part that fills it, with a migration."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

HEAD = "0002"  # the newest migration; a test holds it to the scripts

metadata = MetaData()

sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("title", String, nullable=False, server_default=""),
    Column("owner", String, nullable=False),  # who made it: the principal's name
    Column("provisioner", String, nullable=False),
    Column("upstream", String, nullable=False, server_default=""),  # static: its name
    Column("handle", Text),  # JSON, the provisioner's own
    Column("secret", String, nullable=False),
    Column("state", String, nullable=False),  # created, running, failed, stopped
    Column("reason", String, nullable=False, server_default=""),
    Column("initialize", Text),  # JSON {"epoch", "life", "result"}
    Column("created_at_ms", BigInteger, nullable=False),
    Column("active_at_ms", BigInteger, nullable=False),
    Column("options", Text),  # JSON {"mounts", "env"}: what its runtime is given besides
)

threads = Table(
    "threads",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("thread_id", String, primary_key=True),
    Column("owner", String),  # key of the client whose turn ran last
    Column("seen_at_ms", BigInteger, nullable=False),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", String, primary_key=True),
    Column("hash", String, nullable=False, unique=True),  # SHA-256, hex
    Column("scope", String, nullable=False),  # ticket, page
    Column("session_id", String),
    Column("label", String, nullable=False, server_default=""),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
)
Index("tokens_expires", tokens.c.expires_at_ms)

gateway = Table(
    "gateway",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("term", BigInteger, nullable=False),  # grows by one at each start
)

alembic_version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))
