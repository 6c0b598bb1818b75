"""A process of ours whose clock goes wrong by the seconds that stand in a file.

It is run as `python -m tests.integration.moved_clock`, like `alertrec`. What it measures time with goes on as ever;
what tells it the date is moved, in the processes that it forks as well.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import mmap
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CLOCK, TICK_SECONDS = "TEST_CLOCK", "TEST_TICK_SECONDS"
_OFFSET = struct.Struct("d")


def set_clock(path: Path, seconds: float) -> None:
    """Move the clock of all processes that were given this file by so many seconds from the right time."""
    if not path.exists():
        path.write_bytes(bytes(_OFFSET.size))
    with path.open("r+b") as file, mmap.mmap(file.fileno(), _OFFSET.size) as shared:
        shared[:] = _OFFSET.pack(seconds)


def _move(path: str) -> None:
    with open(path, "r+b") as file:
        shared = mmap.mmap(file.fileno(), _OFFSET.size)

    def moved(clock: Callable[[], float]) -> Callable[[], float]:
        return lambda: clock() + _OFFSET.unpack(shared)[0]

    time.time = moved(time.time)
    # Of a type in C, whose methods no assignment can replace; whoever has imported it already gets the new one.
    methods = gc.get_referents(datetime.datetime.__dict__)[0]
    right = methods["now"]

    def now(cls: Any, tz: Any = None) -> Any:
        return right.__get__(None, cls)(tz) + datetime.timedelta(seconds=_OFFSET.unpack(shared)[0])

    methods["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))


if __name__ == "__main__":
    _move(os.environ[CLOCK])
    import celeryconfig

    if TICK_SECONDS in os.environ:
        often = datetime.timedelta(seconds=float(os.environ[TICK_SECONDS]))
        celeryconfig.beat_schedule["tick"]["schedule"].run_every = often
    from alertrec.cli import main

    main()
