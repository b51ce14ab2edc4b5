"""Sessions, threads, tokens, the gateway's term."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None


def upgrade() -> None:
    """Make the first tables."""
    op.create_table(
        "sessions",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("agent", sa.String, nullable=False),
        sa.Column("title", sa.String, nullable=False, server_default=""),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("provisioner", sa.String, nullable=False),
        sa.Column("upstream", sa.String, nullable=False, server_default=""),
        sa.Column("handle", sa.Text),
        sa.Column("secret", sa.String, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False, server_default=""),
        sa.Column("initialize", sa.Text),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("active_at_ms", sa.BigInteger, nullable=False),
    )
    session = sa.ForeignKey("sessions.id", ondelete="CASCADE")
    op.create_table(
        "threads",
        sa.Column("session_id", sa.String, session, primary_key=True),
        sa.Column("thread_id", sa.String, primary_key=True),
        sa.Column("owner", sa.String),
        sa.Column("seen_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("hash", sa.String, nullable=False, unique=True),
        sa.Column("scope", sa.String, nullable=False),
        sa.Column("session_id", sa.String),
        sa.Column("label", sa.String, nullable=False, server_default=""),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("tokens_expires", "tokens", ["expires_at_ms"])
    op.create_table(
        "gateway",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("term", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drop them."""
    for name in ("gateway", "tokens", "threads", "sessions"):
        op.drop_table(name)
