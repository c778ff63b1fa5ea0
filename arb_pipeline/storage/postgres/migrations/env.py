"""What Alembic runs: on the connection that :mod:`arb_pipeline.storage.postgres.migrating` hands over."""

from alembic import context

from arb_pipeline.storage.postgres.migrating import compare_options
from arb_pipeline.storage.postgres.schema import metadata

connection = context.config.attributes["connection"]
options = compare_options(connection)
connection.rollback()
context.configure(connection=connection, target_metadata=metadata(), **options)
with context.begin_transaction():
    context.run_migrations()
connection.commit()
