"""The index of what waits in a lane has the order in which it is asked for."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0004", "0003"

COLUMNS = ("session_id", "lane", "state")


def upgrade() -> None:
    """Make it anew; it is gone already if an earlier try was cut off in between."""
    op.drop_index("inputs_lane", "inputs", if_exists=True)
    op.create_index("inputs_lane", "inputs", [*COLUMNS, sa.text("ahead DESC"), "seq"])


def downgrade() -> None:
    """As it was."""
    op.drop_index("inputs_lane", "inputs", if_exists=True)
    op.create_index("inputs_lane", "inputs", [*COLUMNS, "ahead", "seq"])
