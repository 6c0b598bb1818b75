"""Three minutes of what `make soak` does for an hour, and what it has found."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
import redis

from alertrec.embedded import Servers
from alertrec.task_names import CONTROL
from tests.integration.processes import broker, environment, process, wait_for, worker
from tests.soak.report import print_report
from tests.soak.soaking import soak

MINUTES = 3.0

_ASK = """
import sys
from celery import Celery
Celery("asks", broker=sys.argv[1]).control.ping(timeout=60)
"""


@pytest.mark.slow
def test_under_load_nothing_grows_and_afterwards_nothing_is_left_undone(tmp_path: Path):
    report = soak(tmp_path, minutes=MINUTES)
    print_report(report)
    assert list(report.broken) == []
    # Else it was no load: processes were replaced and killed, and there was work for all of them.
    assert all(report.children[name] >= 2 * 2 for name in ("interactive", "batch"))
    assert report.done["children killed"] > 0
    assert report.done["refresh_recommendations"] >= 2
    assert report.done["lists asked for"] >= 20


def test_an_answer_to_somebody_who_was_killed_does_not_stay_in_the_broker_for_ever(
    running_servers: Servers, database_url: str, tmp_path: Path
):
    with broker(running_servers) as url, redis.Redis.from_url(url) as client, client.pubsub() as heard:
        heard.psubscribe("*pidbox*")
        env = environment(DATABASE_URL=database_url, REDIS_URL=url, DATA_DIR=tmp_path)
        command = [sys.executable, "-c", _ASK, url]
        with worker(env, tmp_path, name="late", queues=[CONTROL]) as late:
            while heard.get_message():
                pass
            late.process.send_signal(signal.SIGSTOP)
            with process(command, env=env, cwd=tmp_path, log=tmp_path / "asks.log") as asks:
                wait_for(lambda: (heard.get_message() or {}).get("type") == "pmessage")
                asks.kill()
                asks.wait()
            late.process.send_signal(signal.SIGCONT)
            answer = wait_for(lambda: next(client.scan_iter("*.reply.celery.pidbox", _type="list"), None), seconds=20)
            wait_for(lambda: client.ttl(answer) != -1, seconds=5)
