"""The settings of Celery as workers see them, and the invariants between them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alertrec.processes import worker_roles
from alertrec.task_names import QUEUE_OF, QUEUES, TICK, TRAIN_MODEL
from tests.integration.processes import ROOT, environment, run_script

PROMISED = {
    "alertrec.generate_recommendations": "interactive",
    "alertrec.log_alert_action": "actions",
    "alertrec.process_actions": "actions",
    "alertrec.train_model": "training",
    "alertrec.refresh_recommendations": "batch",
    "alertrec.refresh_chunk": "batch",
    "alertrec.tick": "control",
    "alertrec.cleanup_expired": "batch",
}
ENV = environment(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", REDIS_URL="redis://127.0.0.1:1/0")

DESCRIBE = """
import json
from tasks import app
app.finalize()
tasks = {
    name: {
        "queue": app.amqp.router.route({}, name)["queue"].name,
        "limit": task.time_limit or app.conf.task_time_limit,
        "soft_limit": task.soft_time_limit or app.conf.task_soft_time_limit,
        "acks_late": task.acks_late,
        "rejects_on_worker_lost": task.reject_on_worker_lost,
        "ignores_result": task.ignore_result,
        "retried_for": [error.__name__ for error in task.autoretry_for],
        "max_retries": task.max_retries,
    }
    for name, task in app.tasks.items() if not name.startswith("celery.")
}
names = ("accept_content", "task_serializer", "task_create_missing_queues", "broker_transport_options",
         "result_backend", "beat_schedule", "timezone", "worker_prefetch_multiplier",
         "worker_cancel_long_running_tasks_on_connection_loss", "beat_scheduler")
conf = {name: app.conf[name] for name in names}
described = {"tasks": tasks, "conf": conf, "queues": list(app.amqp.queues)}
print(json.dumps(described, default=lambda schedule: schedule.seconds))
"""


@pytest.fixture(scope="module")
def described() -> Any:
    """Tasks and settings as a process of ours has them once it has started."""
    return run_script(DESCRIBE, env=ENV)


@pytest.fixture(scope="module")
def tasks(described: Any) -> dict[str, Any]:
    return dict(described["tasks"])


@pytest.fixture(scope="module")
def conf(described: Any) -> dict[str, Any]:
    return dict(described["conf"])


def consumed() -> Iterator[tuple[str, str]]:
    """Yield worker and queue for each queue that a worker of `alertrec up` takes tasks from."""
    for role in worker_roles():
        arguments = list(role.arguments)
        yield from ((role.name, queue) for queue in arguments[arguments.index("--queues") + 1].split(","))


def test_tasks_have_the_names_and_queues_that_users_were_promised(tasks: dict[str, Any]):
    assert {name: task["queue"] for name, task in tasks.items()} == PROMISED
    assert QUEUE_OF == PROMISED


def test_every_queue_is_consumed_by_one_worker_of_up(described: Any):
    assert sorted(queue for _, queue in consumed()) == sorted(QUEUES) == sorted(described["queues"])


def test_training_has_a_worker_of_its_own_with_one_process():
    (worker,) = {name for name, queue in consumed() if queue == "training"}
    assert [queue for name, queue in consumed() if name == worker] == ["training"]
    (arguments,) = (list(role.arguments) for role in worker_roles() if role.name == worker)
    assert arguments[arguments.index("--concurrency") + 1] == "1"


def test_a_task_is_killed_before_the_broker_redelivers_it(tasks: dict[str, Any], conf: dict[str, Any]):
    late = {name: task["limit"] for name, task in tasks.items() if task["acks_late"]}
    assert set(late) == set(PROMISED) - {TRAIN_MODEL}
    assert max(late.values()) < conf["broker_transport_options"]["visibility_timeout"]


def test_training_which_may_take_longer_is_acknowledged_early(tasks: dict[str, Any], conf: dict[str, Any]):
    assert tasks[TRAIN_MODEL]["limit"] > conf["broker_transport_options"]["visibility_timeout"]
    assert not tasks[TRAIN_MODEL]["acks_late"]
    assert not tasks[TRAIN_MODEL]["rejects_on_worker_lost"]


def test_every_task_is_told_to_stop_before_it_is_killed(tasks: dict[str, Any]):
    assert [name for name, task in tasks.items() if not task["soft_limit"] < task["limit"]] == []


def test_a_chunk_is_killed_before_its_lease_runs_out(tasks: dict[str, Any]):
    from alertrec.service import CHUNK_LEASE_SECONDS

    assert tasks["alertrec.refresh_chunk"]["limit"] < CHUNK_LEASE_SECONDS


def test_only_what_passes_is_retried_and_events_for_most_of_a_day(tasks: dict[str, Any]):
    assert {tuple(task["retried_for"]) for task in tasks.values()} == {("TransientError",)}
    retries = {name: task["max_retries"] for name, task in tasks.items()}
    assert retries.pop("alertrec.log_alert_action") == 1000  # its message is all that there is of the event
    assert [name for name, limit in retries.items() if not 0 < limit <= 5] == []


def test_messages_are_json_and_results_are_not_kept(tasks: dict[str, Any], conf: dict[str, Any]):
    assert conf["accept_content"] == ["json"]
    assert conf["task_serializer"] == "json"
    assert conf["result_backend"] is None
    assert all(task["ignores_result"] for task in tasks.values())


def test_a_misspelt_queue_is_refused(conf: dict[str, Any]):
    assert conf["task_create_missing_queues"] is False
    script = (
        "import json; from tasks import tick\n"
        "try: tick.apply_async(queue='contrl')\n"
        "except Exception as error: print(json.dumps(type(error).__name__))"
    )
    assert run_script(script, env=ENV) == "QueueNotFound"


def test_a_reset_of_the_connection_does_not_kill_what_runs(conf: dict[str, Any]):
    assert conf["worker_cancel_long_running_tasks_on_connection_loss"] is False


def test_beat_only_ticks_and_what_waits_is_dropped_after_a_day(conf: dict[str, Any]):
    # Not earlier: a worker would drop all that a Beat sends whose clock is behind its own.
    assert list(conf["beat_schedule"].values()) == [{"task": TICK, "schedule": 60.0, "options": {"expires": 86_400}}]


def test_the_audit_of_celery_settings_finds_nothing():
    # Of the tasks' directory only: all tasks are there, and an environment within the checkout is not.
    audit = Path(sys.executable).with_name("celery-audit")
    command = [str(audit), "tasks", "--config", "celeryconfig.py", "--format", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["findings"]
    # What it cannot read statically, it calls unknown.
    assert [each for each in found if each["severity"] != "unknown"] == []
    assert "tasks/definitions.py" in {str(Path("tasks") / Path(each["file"]).name) for each in found}
