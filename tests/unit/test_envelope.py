"""What a worker takes from a queue, and what it refuses before anything is done with it."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu.transport.virtual import Message

from alertrec.errors import DataError
from tasks import generate_recommendations, log_alert_action, process_actions
from tasks.envelope import MAX_BODY_BYTES, MAX_MESSAGE_BYTES, refusal
from tests.integration.messages import CALL, envelope, sealed


def changed(path: str, value: object) -> bytes:
    """A good message with one thing put elsewhere than it belongs; None takes it away."""
    message: dict[str, Any] = sealed(CALL, task="alertrec.tick", id="m1")
    *way, last = path.split("/")
    inside = message
    for step in way:
        inside = inside[step]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    return json.dumps(message).encode()


def test_a_call_of_a_task_is_taken():
    assert refusal(envelope("alertrec.tick", ["an argument"]).encode()) is None


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "no JSON"),
        (b"no JSON", "no JSON"),
        (b"\xff\xfe", "no JSON (UnicodeDecodeError)"),
        (b"[" * 100_000, "no JSON (RecursionError)"),
        (b"1" * 5_000, "no JSON"),
        (b'{"__type__": "uuid", "__value__": "none"}', "no JSON"),
        (b"[]", "no envelope but list"),
        (b"null", "no envelope but NoneType"),
        (b"{}", "without headers"),
        (b" " * (MAX_MESSAGE_BYTES + 1), f"a message of {MAX_MESSAGE_BYTES + 1} bytes"),
        (changed("properties", None), "without properties"),
        (changed("properties", []), "without properties"),
        (changed("properties/delivery_tag", 5), "how it was delivered"),
        (changed("properties/delivery_info", None), "how it was delivered"),
        (changed("properties/delivery_info/exchange", None), "whereto"),
        (changed("properties/delivery_info/routing_key", []), "whereto"),
        (changed("properties/priority", "high"), "priority"),
        (changed("properties/body_encoding", "rot13"), "unknown encoding"),
        (changed("properties/body_encoding", []), "unknown encoding"),
        (changed("body", "x"), "no base64"),
        (changed("body", "ä"), "no base64"),
        (changed("body", {}), "without a body"),
        (changed("content-type", None), "without a body"),
        (changed("headers", "none"), "without headers"),
        (changed("headers/task", None), "header task"),
        (changed("headers/task", {}), "header task"),
        (changed("headers/id", None), "header id"),
        (changed("headers/id", "Jane Doe"), "header id"),
        (changed("headers/retries", "many"), "header retries"),
        (changed("headers/eta", 5), "header eta"),
        (changed("headers/timelimit", "long"), "header timelimit"),
        (changed("headers/retries", -1), "header retries"),
        (changed("headers/retries", 1001), "header retries"),
        (changed("properties/delivery_tag", "\ud800"), "how it was delivered"),
        (changed("headers/compression", "application/x-gzip"), "compression"),
        (changed("headers/stamped_headers", ["a"]), "stamped_headers"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(raw: bytes, reason: str):
    refused = refusal(raw)
    assert refused is not None
    assert reason in refused.reason
    assert "Jane" not in str(refused)


def test_its_names_are_kept_where_they_are_names():
    refused = refusal(changed("headers/retries", "many"))
    assert refused is not None
    assert (refused.task, refused.message_id) == ("alertrec.tick", "m1")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=10,
)
PATHS = [
    *("body", "content-type", "content-encoding", "headers", "properties"),
    *(f"headers/{name}" for name in ("task", "id", "retries", "eta", "expires", "timelimit", "root_id", "stamps")),
    *(f"properties/{name}" for name in ("delivery_info", "delivery_tag", "priority", "body_encoding")),
    *(f"properties/delivery_info/{name}" for name in ("exchange", "routing_key")),
]


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()))
def test_no_bytes_break_the_check(raw: bytes):
    refused = refusal(raw)
    assert refused is not None
    assert refused.reason


class NoChannel:
    """Decodes bodies as a channel does."""

    no_ack_consumers = None

    def decode_body(self, body: Any, encoding: str | None) -> Any:
        from kombu.transport.virtual import Channel

        return (
            Channel.decode_body(Channel, body, encoding) if encoding is None else Channel.codecs[encoding].decode(body)
        )


@given(st.sampled_from(PATHS), json_values.filter(lambda value: value is not None))
def test_what_passes_the_check_is_a_message_to_kombu(path: str, value: Any):
    raw = changed(path, value)
    if refusal(raw) is None:
        message = Message(json.loads(raw), channel=NoChannel())
        assert not message.errors
        assert isinstance(message.body, bytes)
        assert isinstance(message.headers["task"], str)


def test_what_is_too_large_is_not_parsed():
    raw = b"[" + b"1," * 10_000_000 + b"1]"
    tracemalloc.start()
    try:
        assert refusal(raw) is not None
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# No broker is configured here: what is refused is refused before one is asked for.
@pytest.mark.parametrize(
    ("send", "message"),
    [
        (lambda: process_actions.delay("x" * MAX_BODY_BYTES), "bytes; at most"),
        (lambda: log_alert_action.delay({"user_id": "x" * MAX_BODY_BYTES}), "bytes; at most"),
        (lambda: generate_recommendations.delay("x" * MAX_BODY_BYTES), "bytes; at most"),
        (lambda: process_actions.delay(object()), "no JSON"),
    ],
)
def test_arguments_too_large_for_a_message_are_refused_where_they_are_sent(send: Any, message: str):
    with pytest.raises(DataError, match=message):
        send()
