"""Folders and variables that a session's runtime is given."""

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0002", "0001"


def upgrade() -> None:
    """Add the column."""
    op.add_column("sessions", sa.Column("options", sa.Text))


def downgrade() -> None:
    """Drop it."""
    op.drop_column("sessions", "options")
