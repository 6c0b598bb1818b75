"""Logs of JSON lines: every fact that was given, and nothing of a customer that slipped in."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from celery.worker.consumer import consumer as celery_consumer

from alertrec.logs import PROCESS_LINES, JsonFormatter, TextFormatter, without_message_bodies

SECRET = "Merchant of Ann"


def record(message: str, *args: Any, name: str = "alertrec.service", **facts: Any) -> logging.LogRecord:
    made = logging.LogRecord(name, logging.INFO, "service.py", 1, message, args, None)
    made.created = datetime(2025, 10, 1, 12, tzinfo=UTC).timestamp()
    vars(made).update(facts)
    return made


def told(made: logging.LogRecord, **bound: Any) -> dict[str, Any]:
    line = JsonFormatter(lambda: bound).format(made)
    assert "\n" not in line
    found: dict[str, Any] = json.loads(line, parse_constant=lambda name: f"{name} is no JSON")
    return found


def test_a_record_is_one_object_with_its_facts():
    facts = {"action": "model_trained", "job_id": UUID(int=1), "model_version": "m1", "log_loss": float("nan")}
    found = told(record("model\n%s", "trained", **facts), task_id="t1", task="alertrec.train_model")
    found.pop("process")
    assert found == {
        "ts": "2025-10-01T12:00:00.000+00:00",
        "level": "INFO",
        "logger": "alertrec.service",
        "message": "model\ntrained",
        "task_id": "t1",
        "task": "alertrec.train_model",
        "action": "model_trained",
        "job_id": "00000000-0000-0000-0000-000000000001",
        "model_version": "m1",
        "log_loss": "nan",
    }


def test_a_fact_of_the_record_is_nearer_than_one_of_the_moment():
    assert told(record("model refused", model_version="m2"), model_version="m1")["model_version"] == "m2"


def test_celerys_own_records_name_the_task_and_not_its_arguments():
    data = {"id": "t1", "name": "alertrec.log_alert_action", "args": SECRET, "kwargs": SECRET}
    found = told(record("Task %(name)s[%(id)s] received", data, data=data))
    assert (found["task_id"], found["task"]) == ("t1", "alertrec.log_alert_action")
    assert SECRET not in str(found)


def test_an_error_is_told_by_its_kind_and_places_and_not_by_its_text():
    made = record("a task failed")
    try:
        _fail()
    except RuntimeError as error:
        made.exc_info = (type(error), error, error.__traceback__)
    found = told(made)
    assert found["error_kind"] == "RuntimeError"
    places = [place.rsplit(" in ")[-1] for place in found["traceback"]]
    assert places == [
        "_fail",
        "ValueError, which led to",
        "test_an_error_is_told_by_its_kind_and_places_and_not_by_its_text",
        "_fail",
    ]
    assert SECRET not in json.dumps(found)


def test_text_does_not_tell_what_errors_say_either():
    try:
        try:
            {}[SECRET]
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError as error:
        failed = record("it failed", exc_info=(ValueError, error, error.__traceback__))
    text = TextFormatter(PROCESS_LINES).format(failed)
    assert SECRET not in text
    assert "it failed" in text
    assert "KeyError, which led to" in text
    assert f"{__file__}:" in text
    assert text.endswith("ValueError")


def test_what_has_no_form_in_json_is_told_by_its_kind():
    class Customer:
        def __repr__(self) -> str:
            return SECRET

    assert told(record("seen", whom=[Customer(), {"n": 1}]))["whom"] == ["Customer", {"n": 1}]


def test_what_a_refused_message_holds_is_cut_off():
    refused = {
        celery_consumer.UNKNOWN_FORMAT: (SECRET,),
        celery_consumer.UNKNOWN_TASK_ERROR: ("fish", SECRET, SECRET, SECRET),
        celery_consumer.INVALID_TASK_ERROR: ("no call", SECRET),
        celery_consumer.MESSAGE_DECODE_ERROR: ("ContentDisallowed", "pickle", "binary", "{}", SECRET),
    }
    for template, args in refused.items():
        made = record(template, *args, name=celery_consumer.__name__)
        assert without_message_bodies(made)
        assert SECRET not in made.getMessage()
        assert made.getMessage().split()[0] in {"Received", "Can't"}


def _fail() -> None:
    try:
        int(SECRET)
    except ValueError as error:
        raise RuntimeError(SECRET) from error
