"""Alembic's entry: one online run over the URL of its configuration, in one transaction: all of
it, or nothing."""

from alembic import context
from sqlalchemy import create_engine, event

from app.store.schema import metadata

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))


@event.listens_for(engine, "connect")
def _leave_transactions_to_us(connection, record):
    connection.isolation_level = None  # the driver would not begin one for a change of tables


@event.listens_for(engine, "begin")
def _begin(connection):
    connection.exec_driver_sql("BEGIN IMMEDIATE")


with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
