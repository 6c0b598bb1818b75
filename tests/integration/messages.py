"""Messages as they lie in their queues, put there by hand; and what became of them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import redis
from sqlalchemy import Engine, RowMapping, text

from tests.integration.processes import Environment

CALL = b"[[], {}, {}]"


def envelope(task: object, arguments: Sequence[Any] = (), *, id: object = None, **headers: object) -> str:
    """Return a call of a task."""
    body = json.dumps([list(arguments), {}, {}]).encode()
    return json.dumps(sealed(body, task=task, id=id or str(uuid4()), **headers))


def sealed(body: bytes, content_type: str = "application/json", **headers: object) -> dict[str, Any]:
    """Return a body of any kind in an envelope of the right one."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8" if content_type == "application/json" else "binary",
        "content-type": content_type,
        "headers": {"lang": "py", **headers},
        "properties": {
            "correlation_id": str(uuid4()),
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "actions"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": str(uuid4()),
        },
    }


def put(env: Environment, queue: str, message: str | bytes) -> None:
    """Put it at the end of a queue."""
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        client.lpush(queue, message)


def deliver_again(redis_url: str) -> int:
    """Have the broker deliver again what nobody acknowledged, as it does after half an hour, and return how many."""
    with redis.Redis.from_url(redis_url) as client:
        unacknowledged = client.zrange("unacked_index", 0, -1)
        if unacknowledged:
            client.zadd("unacked_index", dict.fromkeys(unacknowledged, 0.0))
        return len(unacknowledged)


def n_runs_of(env: Environment, name: str) -> int:
    """Return how often one of the deadly tasks was begun."""
    with redis.Redis.from_url(env["ALERTREC_REDIS_URL"]) as client:
        return int(client.get(f"runs:{name}") or 0)


def letters_of(engine: Engine) -> list[RowMapping]:
    """Return all dead letters, the oldest first."""
    with engine.connect() as connection:
        query = "SELECT task, queue, message_id, reason, n_runs FROM alertrec.dead_letters ORDER BY recorded_at"
        return list(connection.execute(text(query)).mappings())
