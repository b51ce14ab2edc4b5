"""Inputs, deliveries, approvals, usage; which thread is a session's main one."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0003", "0002"


def upgrade() -> None:
    """Make the tables of the durable way in."""
    op.add_column("threads", sa.Column("main", sa.Boolean, nullable=False, server_default=sa.false()))
    _inputs()
    _deliveries()
    _approvals()
    _usage()


def _inputs() -> None:
    op.create_table(
        "inputs",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("session_id", sa.String, sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("lane", sa.String, nullable=False),
        sa.Column("thread_id", sa.String),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("route", sa.Text),
        sa.Column("attachments", sa.Text),
        sa.Column("mode", sa.String, nullable=False),
        sa.Column("ahead", sa.Integer, nullable=False, server_default="0"),
        sa.Column("dedupe", sa.String),
        sa.Column("depth", sa.Integer, nullable=False, server_default="0"),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("message_id", sa.String, nullable=False),
        sa.Column("turn_id", sa.String),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("answer", sa.Text),
        sa.Column("retry_of", sa.String),
        sa.Column("accepted_at_ms", sa.BigInteger, nullable=False),
        sa.Column("started_at_ms", sa.BigInteger),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.UniqueConstraint("session_id", "dedupe", name="inputs_dedupe"),
        sqlite_autoincrement=True,
    )
    op.create_index("inputs_lane", "inputs", ["session_id", "lane", "state", "ahead", "seq"])
    op.create_index("inputs_open", "inputs", ["state", "session_id"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("seq", sa.Integer, primary_key=True),
        sa.Column("id", sa.String, nullable=False, unique=True),
        sa.Column("input_id", sa.String, sa.ForeignKey("inputs.id", ondelete="CASCADE"), nullable=False),
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("key", sa.String, nullable=False, unique=True),
        sa.Column("route", sa.Text, nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("sending", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("uncertain", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_at_ms", sa.BigInteger, nullable=False),
        sa.Column("provider_id", sa.String),
        sa.Column("error", sa.Text, nullable=False, server_default=""),
        sa.Column("created_at_ms", sa.BigInteger, nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    op.create_index("deliveries_due", "deliveries", ["state", "next_at_ms"])
    op.create_index("deliveries_input", "deliveries", ["input_id"])
    op.create_index("deliveries_route", "deliveries", ["route", "state", "seq"])


def _approvals() -> None:
    op.create_table(
        "approvals",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("session_id", sa.String, sa.ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("thread_id", sa.String, nullable=False),
        sa.Column("turn_id", sa.String, nullable=False),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("input_id", sa.String),
        sa.Column("method", sa.String, nullable=False),
        sa.Column("params", sa.Text, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("decision", sa.Text, nullable=False, server_default=""),
        sa.Column("answered_by", sa.String, nullable=False, server_default=""),
        sa.Column("asked_at_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_at_ms", sa.BigInteger),
        sa.UniqueConstraint("session_id", "turn_id", "request", name="approvals_request"),
    )


def _usage() -> None:
    op.create_table(
        "usage",
        sa.Column("session_id", sa.String, sa.ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("turn_id", sa.String, primary_key=True),
        sa.Column("thread_id", sa.String, nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("total_tokens", sa.BigInteger, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("usage_at", "usage", ["at_ms"])


def downgrade() -> None:
    """Drop them."""
    for name in ("usage", "approvals", "deliveries", "inputs"):
        op.drop_table(name)
    with op.batch_alter_table("threads") as threads:
        threads.drop_column("main")
