from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from alertrec.errors import ConfigError
from alertrec.settings import Settings, variable_name

DATABASE = "postgresql://bank:s3cret@db:5432/bank"
REDIS = "redis://:s3cret@queue:6379/0"
SERVERS = {"ALERTREC_DATABASE_URL": DATABASE, "ALERTREC_REDIS_URL": REDIS}
SECRET = "s3cret"


def message_of(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(environ)
    return str(caught.value)


def test_an_empty_environment_gives_the_defaults_that_were_promised():
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.threshold, settings.retrain_days) == (0.4, 7)
    assert settings.list_ttl_hours >= 24  # lists are renewed daily
    assert (settings.database_url, settings.redis_url, settings.source_schema) == (None, None, "public")
    assert settings.data_dir == Path(".alertrec")


def test_each_variable_reaches_its_field():
    values = {
        "database_url": (DATABASE, DATABASE),
        "redis_url": (REDIS, REDIS),
        "data_dir": ("/data", Path("/data")),
        "model_store": ("s3://bucket/models", "s3://bucket/models"),
        "source_schema": ("bank_1", "bank_1"),
        "threshold": ("0.55", 0.55),
        "max_items": ("4", 4),
        "list_ttl_hours": ("12", 12),
        "retrain_days": ("3", 3),
        "dismissed_days": ("90", 90),
        "rule_budget": ("1.5", 1.5),
        "user_budget": ("0", 0.0),
        "locale": ("de_DE", "de_DE"),
        "currency": ("EUR", "EUR"),
        "chunk_size": ("500", 500),
        "flower_password": ("pw", "pw"),
        "flower_port": ("5600", 5600),
        "snoozed_days": ("3", 3),
        "web_secret": ("s" * 32, "s" * 32),
        "web_port": ("8001", 8001),
        "rate_limits": ("0", 0.0),
        "log_format": ("json", "json"),
    }
    assert set(values) == {each.name for each in fields(Settings)}
    settings = Settings.from_env({f"ALERTREC_{name.upper()}": given for name, (given, _) in values.items()})
    assert {name: getattr(settings, name) for name in values} == {name: want for name, (_, want) in values.items()}


@pytest.mark.parametrize("scheme", ["postgres", "postgresql+psycopg"])
def test_other_names_of_postgresql_are_taken(scheme: str):
    environ = SERVERS | {"ALERTREC_DATABASE_URL": DATABASE.replace("postgresql", scheme)}
    assert Settings.from_env(environ).database_url == DATABASE


def test_variables_of_others_are_left_alone():
    assert Settings.from_env({"PATH": "/bin", "ALERT": "1", "XALERTREC_THRESHOLD": "x"}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALERTREC_DATABASE_URL", "mysql://bank:s3cret@db/bank"),
        ("ALERTREC_DATABASE_URL", "postgresql://bank:s3cret@db"),
        ("ALERTREC_DATABASE_URL", ""),
        ("ALERTREC_DATABASE_URL", "postgresql://bank:abc@s3cret/x@127.0.0.1:5432/bank"),
        ("ALERTREC_DATABASE_URL", "postgresql://bank:x@127.0.0.1:s3cret/bank"),
        ("ALERTREC_REDIS_URL", "redis://:abc@s3cret@queue/0"),
        ("ALERTREC_REDIS_URL", "http://:s3cret@queue"),
        ("ALERTREC_REDIS_URL", "redis://"),
        ("ALERTREC_REDIS_URL", "redis://:s3cret@[::1"),
        ("ALERTREC_DATA_DIR", "  "),
        ("ALERTREC_MODEL_STORE", ""),
        ("ALERTREC_SOURCE_SCHEMA", "public; drop"),
        ("ALERTREC_SOURCE_SCHEMA", "größe"),
        ("ALERTREC_THRESHOLD", "1.1"),
        ("ALERTREC_THRESHOLD", "-0.1"),
        ("ALERTREC_THRESHOLD", "nan"),
        ("ALERTREC_THRESHOLD", "high"),
        ("ALERTREC_MAX_ITEMS", "0"),
        ("ALERTREC_MAX_ITEMS", "-1"),
        ("ALERTREC_MAX_ITEMS", "²"),
        ("ALERTREC_MAX_ITEMS", "2.0"),
        ("ALERTREC_MAX_ITEMS", " "),
        ("ALERTREC_LIST_TTL_HOURS", "a day"),
        ("ALERTREC_RETRAIN_DAYS", "0"),
        ("ALERTREC_DISMISSED_DAYS", ""),
        ("ALERTREC_CHUNK_SIZE", "1e3"),
        ("ALERTREC_RULE_BUDGET", "-1"),
        ("ALERTREC_RULE_BUDGET", "nan"),
        ("ALERTREC_USER_BUDGET", "inf"),
        ("ALERTREC_USER_BUDGET", "few"),
        ("ALERTREC_LOCALE", "English"),
        ("ALERTREC_CURRENCY", "dollars"),
        ("ALERTREC_FLOWER_PASSWORD", ""),
        ("ALERTREC_FLOWER_PASSWORD", "s3cret,too"),
        ("ALERTREC_FLOWER_PORT", "http"),
        ("ALERTREC_LOG_FORMAT", "xml"),
        ("ALERTREC_RATE_LIMITS", "-1"),
    ],
)
def test_a_malformed_value_stops_the_start_by_name(variable: str, value: str):
    message = message_of(SERVERS | {variable: value})
    assert message.startswith(f"{variable} must be ")
    assert SECRET not in message


@pytest.mark.parametrize("each", fields(Settings), ids=lambda each: each.name)
def test_every_setting_refuses_what_it_cannot_use(each: object):
    variable = variable_name(each)
    assert variable in message_of(SERVERS | {variable: " "})


@pytest.mark.parametrize(
    ("given", "near"),
    [("ALERTREC_TRESHOLD", "ALERTREC_THRESHOLD"), ("ALERTREC_REDIS", "ALERTREC_REDIS_URL")],
)
def test_a_misspelt_variable_is_refused_and_the_near_one_suggested(given: str, near: str):
    message = message_of({given: SECRET})
    assert given in message
    assert f"did you mean {near}?" in message
    assert SECRET not in message


def test_a_variable_that_resembles_none_is_refused_with_all_that_are_known():
    message = message_of({"ALERTREC_XYZZY_QUUX_PLUGH": "1"})
    assert "ALERTREC_XYZZY_QUUX_PLUGH" in message
    assert all(variable_name(each) in message for each in fields(Settings))


@pytest.mark.parametrize("given", sorted(SERVERS))
def test_one_server_without_the_other_is_refused_by_the_name_of_both(given: str):
    message = message_of({given: SERVERS[given]})
    (missing,) = set(SERVERS) - {given}
    assert f"{given} is set but {missing} is not" in message
    assert SECRET not in message


def test_secrets_are_not_shown():
    shown = repr(Settings.from_env(SERVERS | {"ALERTREC_FLOWER_PASSWORD": SECRET}))
    assert SECRET not in shown
    assert "threshold=0.4" in shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("ALERTREC_REDIS_URL", "redis://:s3cret℀@queue:6379"),  # ℀ normalises to a/c, which `urlsplit` complains of
        ("ALERTREC_DATABASE_URL", "postgresql://bank:s3cret℀@db/bank"),
        ("ALERTREC_DATABASE_URL", "postgresql://bank:s3cret@[db/bank"),
        ("ALERTREC_REDIS_URL", "redis:/s3cret"),
    ],
)
def test_the_refusal_of_a_secret_does_not_tell_it(variable: str, value: str):
    with pytest.raises(ConfigError) as caught:
        Settings.from_env(SERVERS | {variable: value})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_a_plain_value_is_shown_in_its_refusal():
    assert "'1.1' is not" in message_of({"ALERTREC_THRESHOLD": "1.1"})


def test_models_lie_in_the_data_directory_unless_said_otherwise(tmp_path: Path):
    assert Settings(data_dir=tmp_path).model_location == str(tmp_path / "models")
    assert Path(Settings().model_location).is_absolute()
    assert Settings(data_dir=tmp_path, model_store="memory://m").model_location == "memory://m"


def test_settings_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Settings().threshold = 0.1  # type: ignore[misc]  # the refusal is what is tested


def test_every_setting_says_what_it_means():
    assert all(each.metadata["meaning"] for each in fields(Settings))
