"""A question's id is taken only while it is open: an agent may use it again, and what was asked before stays listed."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0005", "0004"

NAME, ASKED = "approvals_request", ["session_id", "turn_id", "request"]


def upgrade() -> None:
    """From one row for ever to one open row."""
    with op.batch_alter_table("approvals") as table:
        table.drop_constraint(NAME, type_="unique")
    op.create_index(NAME, "approvals", ASKED, unique=True, sqlite_where=sa.text("state = 'open'"))


def downgrade() -> None:
    """As it was; of questions under one id the newest stays."""
    op.drop_index(NAME, "approvals")
    op.execute(
        "DELETE FROM approvals AS old WHERE EXISTS (SELECT 1 FROM approvals AS new"
        " WHERE new.session_id = old.session_id AND new.turn_id = old.turn_id AND new.request = old.request"
        " AND (new.asked_at_ms, new.id) > (old.asked_at_ms, old.id))"
    )
    with op.batch_alter_table("approvals") as table:
        table.create_unique_constraint(NAME, ASKED)
