"""Alembic migrations. `python -m app.store.migrations URL [REVISION]` brings a database to a revision (head)."""
