"""How much one caller may ask for: rates for what is dear or open to everybody, and the size of a body.

Counted in each process, in bounded memory, so that a limit costs no round trip and holds while the broker is away.
With one process a core, a caller may therefore have as many times the rate as there are processes. What is cheap and
asked for by every page, the list without a query, has no limit.
"""

# No `from __future__ import annotations`: FastAPI evaluates the annotations, and a dependency is a local name here.

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from http import HTTPStatus
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any

from fastapi import Depends
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

MOST_BODY_BYTES = 64 * 1024
_MOST_CALLERS = 50_000  # remembered for one limit, about 10 MB; beyond, those are forgotten first who asked longest ago
_NOBODY = "nowhere"  # a server that listens on a socket file names no address


@dataclass(frozen=True)
class Limits:
    """How often a minute one customer, or one address, may ask one process; generous to people and to their pages.

    As many may come at once. 0 stands for no limit.
    """

    renewals: float = 30  # of a list, by `trigger-generation` or `force_refresh`: work for the workers
    explanations: float = 30  # the model is asked, in this process
    previews: float = 120  # a page asks for one a card, and while a slider moves
    rules: float = 60
    feedback: float = 600  # each is a row that is kept for two years; a page tells of every card that it shows
    streams: float = 60  # opened; each is held for up to five minutes
    sign_ins: float = 60  # an address
    # An address, which may be that of a proxy, and then stands for all customers: only a flood is meant.
    anonymous: float = 6_000

    def times(self, factor: float) -> "Limits":
        """Return limits that are so many times as high."""
        return Limits(**{each.name: factor * getattr(self, each.name) for each in fields(self)})


@dataclass
class Meter:
    """Counts what callers take of one rate; a bucket of tokens each. For one thread, that of the event loop.

    Parameters
    ----------
    a_minute : float
        Tokens that come back in a minute, and that a bucket holds; less than 1 at least that one; 0: no limit.
    """

    a_minute: float
    clock: Callable[[], float] = time.monotonic
    most_callers: int = _MOST_CALLERS
    # When a caller's bucket will be full again; those who took last stand last.
    _full_at: dict[str, float] = field(default_factory=dict)

    def take(self, caller: str) -> None:
        """Take one of a caller's tokens.

        Raises
        ------
        HTTPException
            429 where there is none left, with `Retry-After` in whole seconds.
        """
        if self.a_minute == 0:
            return
        now, seconds_each = self.clock(), 60 / self.a_minute
        full_at = max(self._full_at.pop(caller, now), now)
        wait = full_at + seconds_each - now - max(60.0, seconds_each)
        if wait > 1e-6:  # of rounding
            self._full_at[caller] = full_at
            raise _too_many(wait)
        self._full_at[caller] = full_at + seconds_each
        if len(self._full_at) > self.most_callers:
            del self._full_at[next(iter(self._full_at))]


class Gates:
    """What customers' calls pass: dependencies that take one of the caller's tokens.

    Parameters
    ----------
    current_user : FastAPI dependency
        Returns the customer's id.
    """

    def __init__(self, limits: Limits, current_user: Any) -> None:
        self.renewals = Meter(limits.renewals)
        self.explanations = Meter(limits.explanations)
        self.renewal = _each_customer(self.renewals, current_user)
        self.preview = _each_customer(Meter(limits.previews), current_user)
        self.rule = _each_customer(Meter(limits.rules), current_user)
        self.feedback = _each_customer(Meter(limits.feedback), current_user)
        self.stream = _each_customer(Meter(limits.streams), current_user)
        self.anybody = each_address(limits.anonymous)


def _each_customer(meter: Meter, current_user: Any) -> Any:
    # async: in the event loop's thread, where no two take at once.
    async def take(user_id: Annotated[str, Depends(current_user)]) -> None:
        meter.take(user_id)

    return Depends(take)


def each_address(a_minute: float) -> Any:
    """Return a dependency that takes one of the tokens of the address that a request comes from."""
    meter = Meter(a_minute)

    async def take(connection: HTTPConnection) -> None:
        meter.take(address_of(connection))

    return Depends(take)


def address_of(connection: HTTPConnection) -> str:
    """Return whom an address counts as: of IPv6, where everybody has many, the network."""
    if connection.client is None:
        return _NOBODY
    try:
        address = ip_address(connection.client.host)
    except ValueError:
        return _NOBODY
    if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
        return f"{int(address) >> 64:x}/64"
    return str(address)


def too_large() -> HTTPException:
    """Return the error of a body beyond the limit."""
    detail = f"the body has more than {MOST_BODY_BYTES:,} bytes, the most that is taken; send less"
    return HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, detail, {"Connection": "close"})


def _too_many(wait_seconds: float) -> HTTPException:
    seconds = max(1, math.ceil(wait_seconds))
    detail = f"too many requests of this kind in the last minute; try again in {seconds} s"
    return HTTPException(HTTPStatus.TOO_MANY_REQUESTS, detail, {"Retry-After": str(seconds)})
