"""What a worker looks at before it takes a message: is this one that tasks of ours are sent in?

Whoever can write to the broker can put anything into a queue. kombu parses what it finds there whatever its size, and
ends the worker where it is not what kombu wrote itself; Celery reckons with headers of any type.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kombu.utils.json import loads

# Of the arguments of a task. The largest that we send, an action with a few fields, has a thousand bytes.
MAX_BODY_BYTES = 256 * 1024
# Of the whole, with its headers and its body as base64.
MAX_MESSAGE_BYTES = 1024 * 1024

# What Celery and kombu run into when they work with a message that nobody foresaw. Not the errors of a connection.
ERRORS_OF_MESSAGES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,100}")
_MOST_RETRIES = 1000
_OF_CELERY = "celery."  # such as `celery.map`, which runs others inside and logs what they were given
# The headers that Celery works with before a task runs; each may be absent or null.
_HEADERS: Mapping[str, type | tuple[type, ...]] = {
    "eta": str,
    "expires": str,
    "argsrepr": str,
    "kwargsrepr": str,
    "timelimit": list,
    "root_id": str,
    "parent_id": str,
    "group": str,
    "origin": str,
    "ignore_result": bool,
    "replaced_task_nesting": int,
}
# What Celery would do besides running the task; nothing of ours is sent so.
_UNUSED_HEADERS = ("compression", "shadow", "stamps", "stamped_headers")


@dataclass(frozen=True)
class Refused:
    """A message that is no call of a task: why, and what of its names can be read."""

    reason: str
    task: str | None = None
    message_id: str | None = None


def refusal(raw: bytes) -> Refused | None:
    """Return why these bytes from a queue are no message for a worker; None where they are."""
    if len(raw) > MAX_MESSAGE_BYTES:
        return Refused(f"a message of {len(raw)} bytes; at most {MAX_MESSAGE_BYTES} are taken")
    try:
        message = loads(raw.decode())
    except Exception as error:  # a parser on bytes of anybody: nests too deep, numbers too long, …
        return Refused(f"a message that is no JSON ({type(error).__name__})")
    if not isinstance(message, dict):
        return Refused(f"a message that is no envelope but {type(message).__name__}")
    headers = message.get("headers")
    if not isinstance(headers, dict):
        return Refused("an envelope without headers")
    wrong = _wrong_header(headers) or _wrong_delivery(message) or _wrong_body(message)
    return Refused(wrong, readable(headers.get("task")), readable(headers.get("id"))) if wrong else None


def readable(name: object) -> str | None:
    """Return a name that came from outside if it looks like one of a task or a message, else None."""
    return name if isinstance(name, str) and _NAME.fullmatch(name) else None


def _wrong_header(headers: Mapping[str, Any]) -> str | None:
    for name in ("task", "id"):
        if readable(headers.get(name)) is None:
            return f"an envelope whose header {name} is no name"
    if headers["task"].startswith(_OF_CELERY):
        return "a task of Celery's own, none of which is used here"
    for name, kind in _HEADERS.items():
        if headers.get(name) is not None and not isinstance(headers[name], kind):
            return f"an envelope whose header {name} is of type {type(headers[name]).__name__}"
    for name in _UNUSED_HEADERS:
        if headers.get(name):
            return f"an envelope with the header {name}, which is not used here"
    retries = headers.get("retries") or 0
    if type(retries) is not int or not 0 <= retries <= _MOST_RETRIES:
        return "an envelope whose header retries is no count"
    return None


def _wrong_delivery(message: Mapping[str, Any]) -> str | None:
    properties = message.get("properties")
    if not isinstance(properties, dict):
        return "an envelope without properties"
    info = properties.get("delivery_info")
    if readable(properties.get("delivery_tag")) is None or not isinstance(info, dict):
        return "an envelope that does not say how it was delivered"
    if (info.get("exchange") != "" and readable(info.get("exchange")) is None) or readable(
        info.get("routing_key")
    ) is None:
        return "an envelope that does not say whereto it was sent"
    if type(properties.get("priority", 0)) is not int:
        return "an envelope whose priority is no number"
    return None


def _wrong_body(message: Mapping[str, Any]) -> str | None:
    body = message.get("body")
    if not all(isinstance(message.get(name), str) for name in ("body", "content-type", "content-encoding")):
        return "an envelope without a body, or that does not say of which type it is"
    encoding = message["properties"].get("body_encoding")
    if encoding is not None and encoding != "base64":
        return "an envelope whose body is of an unknown encoding"
    if encoding == "base64":
        try:
            base64.b64decode(str(body))
        except ValueError:
            return "an envelope whose body is no base64"
    return None
