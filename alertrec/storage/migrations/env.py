"""Runs the migrations on the connection that `alertrec.storage.schema` hands over."""

from __future__ import annotations

from alembic import context

from alertrec.storage.tables import OWN_SCHEMA, own_metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=own_metadata,
    version_table_schema=OWN_SCHEMA,
    include_schemas=True,
    include_name=lambda name, kind, _: kind != "schema" or name == OWN_SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
