"""The tables: the source relations that an adopter has already, and alertrec's own."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

OWN_SCHEMA = "alertrec"
OPTIONAL = "optional"  # in the `info` of a source column: adopters may not have it, and it is NULL then

source_metadata = MetaData()
own_metadata = MetaData(schema=OWN_SCHEMA)

_Time = DateTime(timezone=True)
# Money as exact numbers at rest; features are computed in float64.
_Money = Numeric(18, 4)

# No foreign keys among the source relations: an adopter maps them with views, which cannot have any, and the
# import refuses rows of unknown users by itself.
users = Table(
    "users",
    source_metadata,
    Column("id", Text, primary_key=True),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("credit_limit", _Money),
    Column("credit_balance", _Money),
    Column("address_city", Text),
    Column("address_state", Text),
    Column("address_country", Text),
    Column("location_consent_given", Boolean),
    Column("created_at", _Time),
    Column("time_zone", Text, info={OPTIONAL: True}),
)

transactions = Table(
    "transactions",
    source_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("amount", _Money, nullable=False),
    Column("currency", Text),
    Column("merchant_name", Text),
    Column("merchant_category", Text),
    Column("merchant_city", Text),
    Column("merchant_state", Text),
    Column("merchant_country", Text),
    Column("transaction_date", _Time, nullable=False),
    Column("transaction_type", Text, nullable=False, server_default="PURCHASE"),
    Column("status", Text, nullable=False, server_default="SETTLED"),
    Index("ix_transactions_user_id_transaction_date", "user_id", "transaction_date"),
)

alert_rules = Table(
    "alert_rules",
    source_metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("alert_type", Text),
    Column("natural_language_query", Text),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("parameters", JSONB),
    Column("created_at", _Time, nullable=False, server_default=func.now()),
    Column("updated_at", _Time, nullable=False, server_default=func.now()),
    Index("ix_alert_rules_user_id", "user_id"),
)

recommendation_lists = Table(
    "recommendation_lists",
    own_metadata,
    Column("user_id", Text, primary_key=True),
    Column("recommendation_type", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("generated_at", _Time, nullable=False),
    Column("expires_at", _Time, nullable=False),
    Column("as_of", _Time, nullable=False),
    Column("n_items", Integer, nullable=False),
    Index("ix_recommendation_lists_expires_at", "expires_at"),
)

recommendations = Table(
    "recommendations",
    own_metadata,
    Column("user_id", Text, nullable=False),
    Column("alert_type", Text, nullable=False),
    Column("rank", Integer, nullable=False),
    Column("probability", Double),
    Column("confidence_level", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("would_have_fired", JSONB),
    Column("reasons", JSONB, nullable=False),
    Column("title", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("natural_language_query", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("priority", Text, nullable=False),
    Column("reasoning", Text, nullable=False),
    Column("recommendation_id", Uuid, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("experiment", Text),
    Column("variant", Text),
    Column("generated_at", _Time, nullable=False),
    Column("expires_at", _Time, nullable=False),
    Column("recommendation_type", Text, server_default="default"),
    Column("change", JSONB),
    PrimaryKeyConstraint("user_id", "alert_type"),
    UniqueConstraint("recommendation_id"),
    CheckConstraint("probability BETWEEN 0 AND 1", name="probability_is_a_probability"),
    CheckConstraint(
        "probability IS NOT NULL OR recommendation_type = 'change'", name="only_a_change_has_no_probability"
    ),
    # A check and not NOT NULL: workers of the last release stage their rows in a copy of this table, which has its NOT
    # NULLs, but neither its checks nor its defaults, and leave out this column.
    CheckConstraint("recommendation_type IS NOT NULL", name="recommendation_type_is_given"),
)

alert_actions = Table(
    "alert_actions",
    own_metadata,
    Column("event_id", Uuid, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("alert_rule_id", Text),
    Column("alert_type", Text),
    Column("action", Text, nullable=False),
    Column("recommendation_id", Uuid),
    Column("occurred_at", _Time, nullable=False),
    Column("recorded_at", _Time, nullable=False, server_default=func.now()),
    Column("processed_at", _Time),
    Column("due_at", _Time),
    Column("probability", Double),
    Column("model_version", Text),
    Index("ix_alert_actions_user_id_occurred_at", "user_id", "occurred_at"),
    Index("ix_alert_actions_recorded_at", "recorded_at"),
    Index("ix_alert_actions_unprocessed", "recorded_at", postgresql_where=text("processed_at IS NULL")),
    Index("ix_alert_actions_put_off", "occurred_at", postgresql_where=text("action IN ('snoozed', 'dismissed')")),
)

model_versions = Table(
    "model_versions",
    own_metadata,
    Column("version", Text, primary_key=True),
    Column("algorithm", Text, nullable=False),
    Column("parameters", JSONB, nullable=False),
    Column("training_window", JSONB, nullable=False),
    Column("data_counts", JSONB, nullable=False),
    Column("metrics", JSONB, nullable=False),
    Column("location", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("created_at", _Time, nullable=False),
    Column("alias", Text),
    Column("promoted_by", Text),
    Column("promoted_at", _Time),
    Index("ix_model_versions_alias", "alias", unique=True, postgresql_where=text("alias IS NOT NULL")),
)

job_runs = Table(
    "job_runs",
    own_metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("job", Text, nullable=False),
    Column("period", Text, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("created_at", _Time, nullable=False, server_default=func.now()),
    Column("published_at", _Time),
    Column("started_at", _Time),
    Column("heartbeat_at", _Time),
    Column("finished_at", _Time),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("n_lost", Integer, nullable=False, server_default="0"),
    Column("progress", JSONB),
    Column("result", JSONB),
    Column("error", Text),
    UniqueConstraint("job", "period"),
    Index("ix_job_runs_unfinished", "job", postgresql_where=text("finished_at IS NULL")),
)

job_chunks = Table(
    "job_chunks",
    own_metadata,
    Column("job_id", Uuid, nullable=False),
    Column("chunk", BigInteger, nullable=False),
    Column("first_user_id", Text, nullable=False),
    Column("last_user_id", Text, nullable=False),
    Column("n_users", Integer, nullable=False),
    Column("status", Text, nullable=False, server_default="pending"),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("n_lost", Integer, nullable=False, server_default="0"),
    Column("published_at", _Time),
    Column("claimed_by", Text),
    Column("started_at", _Time),
    Column("lease_until", _Time),
    Column("finished_at", _Time),
    Column("error", Text),
    PrimaryKeyConstraint("job_id", "chunk"),
    Index("ix_job_chunks_unfinished", "job_id", "chunk", postgresql_where=text("finished_at IS NULL")),
)

dead_letters = Table(
    "dead_letters",
    own_metadata,
    Column("id", Uuid, primary_key=True),
    Column("task", Text),
    Column("queue", Text),
    Column("message_id", Text),
    Column("reason", Text, nullable=False),
    Column("n_runs", Integer, nullable=False),
    Column("recorded_at", _Time, nullable=False, server_default=func.now()),
    UniqueConstraint("message_id"),
    Index("ix_dead_letters_recorded_at", "recorded_at"),
)

experiments = Table(
    "experiments",
    own_metadata,
    Column("key", Text, primary_key=True),
    Column("variants", JSONB, nullable=False),
    Column("created_at", _Time, nullable=False, server_default=func.now()),
)
