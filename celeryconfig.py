"""Settings of Celery, and the Beat schedule, as constants. docs/operations.md has the reasons at length.

The queue may lose any message: what is to be done stands in PostgreSQL, and a tick each minute sends again what got
lost. These settings keep such losses rare, and keep workers and web processes from hanging when the broker does.
"""

from __future__ import annotations

import os
import ssl
import time
from datetime import UTC, datetime, timedelta

from celery.schedules import schedule
from kombu import Exchange, Queue

from alertrec.embedded import remembered
from alertrec.errors import ConfigError
from alertrec.settings import Settings
from alertrec.task_names import INTERACTIVE, QUEUE_OF, QUEUES, TICK, TRAIN_MODEL


def _broker_url() -> str:
    settings = Settings.from_env(os.environ)
    if settings.redis_url is not None:
        return settings.redis_url
    servers = remembered(settings.data_dir)
    if servers is None:
        raise ConfigError(
            "no broker is configured: set ALERTREC_REDIS_URL and ALERTREC_DATABASE_URL, "
            "or start the embedded servers with `alertrec up`"
        )
    return servers.redis_url


broker_url = _broker_url()
if broker_url.startswith("rediss:"):
    # Without, kombu takes any certificate, and gives the password to whoever shows one.
    broker_use_ssl = {"ssl_cert_reqs": ssl.CERT_REQUIRED}

# JSON only: a message is data and never runs code.
task_serializer = "json"
accept_content = ["json"]
enable_utc = True
timezone = "UTC"

# Results live in the tables, where they outlast the broker; nobody waits on a result.
task_ignore_result = True
task_store_errors_even_if_ignored = False

task_queues = [Queue(name, Exchange(name), routing_key=name) for name in QUEUES]
task_default_queue = INTERACTIVE
task_create_missing_queues = False
task_routes = {task: {"queue": queue} for task, queue in QUEUE_OF.items()}

# A message is acknowledged when its work is done, and comes back when its worker dies.
task_acks_late = True
task_reject_on_worker_lost = True
task_retry_on_worker_lost = True  # counted and bounded, where redelivery alone would go on for ever
task_acks_on_timeout = True
worker_prefetch_multiplier = 1
# On a reset of one second, True would kill the running task and acknowledge it.
worker_cancel_long_running_tasks_on_connection_loss = False
task_time_limit = 600
task_soft_time_limit = 540
task_annotations = {TRAIN_MODEL: {"acks_late": False, "reject_on_worker_lost": False}}

broker_connection_retry_on_startup = True
broker_connection_max_retries = None
broker_transport_options = {
    # Longer than any late-acknowledged task may run, or the broker would hand it to a second worker.
    "visibility_timeout": 1800,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "unacked_mutex_expire": 30,
    # For who publishes: a web request must not wait for a broker that is frozen. Workers, which wait for messages,
    # get `WORKER_SOCKET_TIMEOUT` when they start.
    "socket_timeout": 0.75,
    "socket_connect_timeout": 0.75,
    "max_retries": 0,  # of connecting; kombu tries for minutes by itself
    "socket_keepalive": True,
    "health_check_interval": 10,
}
task_publish_retry = False
broker_pool_acquire_timeout = 0.5  # for a web server whose many threads publish at once

worker_proc_alive_timeout = 60  # a child imports its libraries before it reports; on a busy machine that takes a while
worker_max_tasks_per_child = 1000
worker_max_memory_per_child = 2_000_000  # kB: a child that has grown beyond is replaced after its task
worker_hijack_root_logger = False
worker_redirect_stdouts = False
worker_send_task_events = True  # for Flower
task_send_sent_event = True
task_track_started = False

_steady_since, _started_at = datetime.now(UTC), time.monotonic()


def steady_now() -> datetime:
    """Return the time by a clock that nobody sets: by the machine's, Beat would fall silent when it is set back."""
    return _steady_since + timedelta(seconds=time.monotonic() - _started_at)


# Beat only ticks. What is due is read from the tables at each tick, so a missed tick, two Beats or an outage are
# harmless. A tick expires, so that not too many wait where no worker is up (those of a day are worked off in a minute
# or two), but late: by `expires` of a minute, a worker would drop all ticks of a Beat whose clock is a minute behind.
beat_schedule = {
    "tick": {"task": TICK, "schedule": schedule(60.0, nowfun=steady_now), "options": {"expires": 86_400}},
}
beat_max_loop_interval = 10
beat_scheduler = "celery.beat:Scheduler"  # in memory: there is nothing to remember, and the default one pickles
