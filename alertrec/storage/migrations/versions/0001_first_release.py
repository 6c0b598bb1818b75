"""The tables of the first release."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "alert_actions",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("alert_rule_id", sa.Text(), nullable=True),
        sa.Column("alert_type", sa.Text(), nullable=True),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("recommendation_id", sa.Uuid(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("processed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("event_id"),
        schema="alertrec",
    )
    op.create_index(
        "ix_alert_actions_unprocessed",
        "alert_actions",
        ["recorded_at"],
        unique=False,
        schema="alertrec",
        postgresql_where=sa.text("processed_at IS NULL"),
    )
    op.create_index(
        "ix_alert_actions_user_id_occurred_at",
        "alert_actions",
        ["user_id", "occurred_at"],
        unique=False,
        schema="alertrec",
    )
    op.create_table(
        "experiments",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("variants", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("key"),
        schema="alertrec",
    )
    op.create_table(
        "job_chunks",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("chunk", sa.BigInteger(), nullable=False),
        sa.Column("first_user_id", sa.Text(), nullable=False),
        sa.Column("last_user_id", sa.Text(), nullable=False),
        sa.Column("n_users", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claimed_by", sa.Text(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "chunk"),
        schema="alertrec",
    )
    op.create_index(
        "ix_job_chunks_unfinished",
        "job_chunks",
        ["job_id", "chunk"],
        unique=False,
        schema="alertrec",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "job_runs",
        sa.Column("job_id", sa.Uuid(), nullable=False),
        sa.Column("job", sa.Text(), nullable=False),
        sa.Column("period", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), server_default="pending", nullable=False),
        sa.Column(
            "arguments", postgresql.JSONB(astext_type=sa.Text()), server_default=sa.text("'{}'::jsonb"), nullable=False
        ),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("n_lost", sa.Integer(), server_default="0", nullable=False),
        sa.Column("progress", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id"),
        sa.UniqueConstraint("job", "period"),
        schema="alertrec",
    )
    op.create_index(
        "ix_job_runs_unfinished",
        "job_runs",
        ["job"],
        unique=False,
        schema="alertrec",
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_table(
        "model_versions",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("algorithm", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("training_window", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("data_counts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("metrics", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("location", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("alias", sa.Text(), nullable=True),
        sa.Column("promoted_by", sa.Text(), nullable=True),
        sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("version"),
        schema="alertrec",
    )
    op.create_index(
        "ix_model_versions_alias",
        "model_versions",
        ["alias"],
        unique=True,
        schema="alertrec",
        postgresql_where=sa.text("alias IS NOT NULL"),
    )
    op.create_table(
        "recommendation_lists",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("recommendation_type", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("generated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("as_of", sa.DateTime(timezone=True), nullable=False),
        sa.Column("n_items", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("user_id"),
        schema="alertrec",
    )
    op.create_index(
        "ix_recommendation_lists_expires_at", "recommendation_lists", ["expires_at"], unique=False, schema="alertrec"
    )
    op.create_table(
        "recommendations",
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("alert_type", sa.Text(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("confidence_level", sa.Text(), nullable=False),
        sa.Column("parameters", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("would_have_fired", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("reasons", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("natural_language_query", sa.Text(), nullable=False),
        sa.Column("category", sa.Text(), nullable=False),
        sa.Column("priority", sa.Text(), nullable=False),
        sa.Column("reasoning", sa.Text(), nullable=False),
        sa.Column("recommendation_id", sa.Uuid(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("experiment", sa.Text(), nullable=True),
        sa.Column("variant", sa.Text(), nullable=True),
        sa.Column("generated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("probability BETWEEN 0 AND 1", name="probability_is_a_probability"),
        sa.PrimaryKeyConstraint("user_id", "alert_type"),
        sa.UniqueConstraint("recommendation_id"),
        schema="alertrec",
    )


def downgrade() -> None:
    op.drop_table("recommendations", schema="alertrec")
    op.drop_table("recommendation_lists", schema="alertrec")
    op.drop_table("model_versions", schema="alertrec")
    op.drop_table("job_runs", schema="alertrec")
    op.drop_table("job_chunks", schema="alertrec")
    op.drop_table("experiments", schema="alertrec")
    op.drop_table("alert_actions", schema="alertrec")
