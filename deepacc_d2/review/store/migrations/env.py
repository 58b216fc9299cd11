"""Called by Alembic with the connection that database.migrate gives."""

from __future__ import annotations

from alembic import context

from deepacc_d2.review.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
