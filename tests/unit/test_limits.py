"""Rates in the time of a clock of ours; nothing of it needs a server."""

from __future__ import annotations

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from alertrec.web.limits import Meter, address_of


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


def refusal(meter: Meter, caller: str) -> str | None:
    """Take one, and return after how many seconds to come back; None where it was given."""
    try:
        meter.take(caller)
    except HTTPException as error:
        return dict(error.headers or {})["Retry-After"]
    return None


def test_as_many_as_the_rate_at_once_and_then_one_each_time_that_one_has_come_back() -> None:
    clock = Clock()
    meter = Meter(4, clock)  # one comes back every 15 s
    assert [refusal(meter, "ann") for _ in range(6)] == [None, None, None, None, "15", "15"]
    clock.now += 14.5
    assert refusal(meter, "ann") == "1"
    clock.now += 0.5
    assert [refusal(meter, "ann") for _ in range(2)] == [None, "15"]
    assert refusal(meter, "bob") is None
    clock.now += 3_600
    assert [refusal(meter, "ann") for _ in range(5)] == [None, None, None, None, "15"]


def test_many_callers_take_no_more_memory_and_do_not_free_one_who_goes_on_asking() -> None:
    meter = Meter(1, Clock(), most_callers=10)
    meter.take("ann")
    for number in range(100):
        meter.take(f"another {number}")
        assert refusal(meter, "ann") == "60"
    assert len(meter._full_at) <= 11


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8::ffff:1", True),  # one household has them all
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.2", False),
        ("", "no address", True),
    ],
)
def test_an_address_is_one_caller_and_so_is_a_network_of_ipv6(one: str, other: str, is_same: bool) -> None:
    counted = [address_of(HTTPConnection({"type": "http", "client": (each, 1)})) for each in (one, other)]
    assert (counted[0] == counted[1]) is is_same
