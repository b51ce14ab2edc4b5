"""The tables. What is added here needs a migration."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)

HEAD = "0005"  # the newest migration; a test holds it to the scripts

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
    Column("options", Text),  # JSON {"mounts", "env", "approvals"}: what it has besides the settings
)

threads = Table(
    "threads",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("thread_id", String, primary_key=True),
    Column("owner", String),  # key of the client whose turn ran last
    Column("seen_at_ms", BigInteger, nullable=False),
    Column("main", Boolean, nullable=False, server_default=false()),  # the session's own conversation
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

inputs = Table(
    "inputs",
    metadata,
    Column("seq", Integer, primary_key=True),  # the order in which they were accepted, whatever the clock does
    Column("id", String, nullable=False, unique=True),
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("lane", String, nullable=False),  # `main`, or a thread's id
    Column("thread_id", String),  # known once the turn is asked for
    Column("kind", String, nullable=False),  # user
    Column("owner", String, nullable=False),  # who said it: the principal's name
    Column("text", Text, nullable=False),
    Column("source", Text),  # JSON {"channel", "chatKey", …}
    Column("route", Text),  # JSON: where the answer is to go
    Column("attachments", Text),  # JSON list
    Column("mode", String, nullable=False),  # queue, steer, interrupt
    Column("ahead", Integer, nullable=False, server_default="0"),  # 1: before what waits already
    Column("dedupe", String),  # the sender's idempotency key
    Column("depth", Integer, nullable=False, server_default="0"),  # how many were before it when it was accepted
    Column("state", String, nullable=False),  # queued, started, answered, interrupted, failed, removed
    Column("message_id", String, nullable=False),  # its clientUserMessageId; a merged one has its leader's
    Column("turn_id", String),
    Column("error", Text, nullable=False, server_default=""),  # why it was not answered, in words
    Column("answer", Text),  # all agent messages of the turn
    Column("retry_of", String),
    Column("accepted_at_ms", BigInteger, nullable=False),
    Column("started_at_ms", BigInteger),
    Column("ended_at_ms", BigInteger),
    UniqueConstraint("session_id", "dedupe", name="inputs_dedupe"),
    sqlite_autoincrement=True,
)
_NEXT = (inputs.c.session_id, inputs.c.lane, inputs.c.state, inputs.c.ahead.desc(), inputs.c.seq)
Index("inputs_lane", *_NEXT)  # as they are asked for: the next of 10,000 is found without sorting them
Index("inputs_open", inputs.c.state, inputs.c.session_id)

deliveries = Table(
    "deliveries",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("input_id", String, ForeignKey("inputs.id", ondelete="CASCADE"), nullable=False),
    Column("session_id", String, nullable=False),
    Column("key", String, nullable=False, unique=True),  # the receiver's Idempotency-Key
    Column("route", Text, nullable=False),  # JSON {"type", …}
    Column("payload", Text, nullable=False),  # JSON, as it is sent
    Column("state", String, nullable=False),  # pending, sent, uncertain, failed, dead
    Column("sending", Boolean, nullable=False, server_default=false()),  # begun, and its end is not stored yet
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("uncertain", Integer, nullable=False, server_default="0"),  # attempts whose outcome is not known
    Column("next_at_ms", BigInteger, nullable=False),
    Column("provider_id", String),
    Column("error", Text, nullable=False, server_default=""),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("sent_at_ms", BigInteger),
    sqlite_autoincrement=True,
)
Index("deliveries_due", deliveries.c.state, deliveries.c.next_at_ms)
Index("deliveries_input", deliveries.c.input_id)
Index("deliveries_route", deliveries.c.route, deliveries.c.state, deliveries.c.seq)

approvals = Table(
    "approvals",
    metadata,
    Column("id", String, primary_key=True),
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("thread_id", String, nullable=False),
    Column("turn_id", String, nullable=False),
    Column("request", String, nullable=False),  # its id as the app-server wrote it
    Column("input_id", String),
    Column("method", String, nullable=False),
    Column("params", Text, nullable=False),  # JSON
    Column("state", String, nullable=False),  # open, answered, expired, settled
    Column("decision", Text, nullable=False, server_default=""),
    Column("answered_by", String, nullable=False, server_default=""),
    Column("asked_at_ms", BigInteger, nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("ended_at_ms", BigInteger),
)
# An agent may use an id again once its question is over. `postgresql_where` would load that dialect with every start.
_ASKED = (approvals.c.session_id, approvals.c.turn_id, approvals.c.request)
Index("approvals_request", *_ASKED, unique=True, sqlite_where=approvals.c.state == "open")

usage = Table(
    "usage",
    metadata,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("turn_id", String, primary_key=True),
    Column("thread_id", String, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
)
Index("usage_at", usage.c.at_ms)

gateway = Table(
    "gateway",
    metadata,
    Column("id", Integer, primary_key=True),  # always 1
    Column("term", BigInteger, nullable=False),  # grows by one at each start
)

alembic_version = Table("alembic_version", metadata, Column("version_num", String(32), primary_key=True))
