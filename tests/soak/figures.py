"""What a system holds, looked at again and again, and whether that has grown."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from statistics import median

import psutil
from scipy.stats import theilslopes
from sqlalchemy import text

from alertrec.task_names import QUEUES
from tests.soak.system import System

MB = 1024 * 1024

# What the median of the last third may be above that of the second: figure, absolute, or relative where that is more.
ALLOWED: Sequence[tuple[str, float, float]] = (
    # With the first message that it gives up, a worker loads what writes to the database.
    (r"MB of (interactive|batch|training)", 20.0, 0.0),
    (r"MB of \w+", 8.0, 0.05),
    # What those of a pool do not share with their parent: few when new. Those for training are large while at it.
    (r"MB of the children of (interactive|batch)", 120.0, 0.0),
    (r"(files|threads) of \w+", 6.0, 0.0),
    # A process that has just been replaced has none yet.
    (r"connections: .*", 5.0, 0.0),
    (r"broker: clients", 4.0, 0.0),
    (r"broker: MB", 2.0, 0.1),
    (r"broker: keys for ever", 2.0, 0.0),
    (r"broker: unacked", 8.0, 0.0),
    (r"queue: .*", 40.0, 0.0),
)


@dataclass(frozen=True)
class Figure:
    """One figure over time: medians of the second and the last third, and the slope through all of both."""

    name: str
    middle: float
    last: float
    most: float
    an_hour: float
    allowed: float | None

    @property
    def is_flat(self) -> bool:
        """Whether it has not grown by more than it may."""
        return self.allowed is None or self.last - self.middle <= self.allowed


class Watch:
    """Samples a system while it is under load."""

    def __init__(self, system: System, seconds: float) -> None:
        self._system, self._seconds = system, seconds
        self._samples: list[tuple[float, Mapping[str, float]]] = []
        self._over = threading.Event()
        self.children: Counter[str] = Counter()
        self._seen: set[tuple[int, float]] = set()
        self.errors: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Sample in a thread."""
        thread = threading.Thread(target=self._run, name="watch")
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def figures(self) -> list[Figure]:
        """Return all figures; the first third is not looked at: it is the warm-up."""
        if not self._samples:
            return []
        names = sorted({name for _, sample in self._samples for name in sample})
        start, end = self._samples[0][0], self._samples[-1][0]
        first, second = start + (end - start) / 3, start + 2 * (end - start) / 3
        warm = [each for each in self._samples if each[0] >= first]
        if not any(at < second for at, _ in warm):
            return []  # it ended before there was anything to compare
        return [_figure(name, warm, second) for name in names]

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._samples.append((time.monotonic(), self._sample()))
            except Exception as error:  # told at the end; the load goes on
                self.errors.append(f"{type(error).__name__}: {error}")
            self._over.wait(self._seconds)

    def _sample(self) -> dict[str, float]:
        return {**self._of_processes(), **self._of_database(), **self._of_broker()}

    def _of_processes(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, started in self._system.processes.items():
            main = psutil.Process(started.pid)
            found[f"MB of {name}"] = main.memory_info().rss / MB
            found[f"files of {name}"] = main.num_fds()
            found[f"threads of {name}"] = main.num_threads()
            if children := main.children():
                found[f"MB of the children of {name}"] = sum(map(self._meet, [name] * len(children), children)) / MB
        return found

    def _meet(self, name: str, child: psutil.Process) -> float:
        """Return what a child has for itself, and remember that it was there."""
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            key = child.pid, child.create_time()
            if key not in self._seen:
                self._seen.add(key)
                self.children[name] += 1
            return float(child.memory_full_info().uss)
        return 0.0

    def _of_database(self) -> dict[str, float]:
        query = text("""
            SELECT application_name, count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name LIKE 'alertrec w%'
            GROUP BY 1
        """)
        with self._system.engine.connect() as connection:
            return {f"connections: {name}": float(n) for name, n in connection.execute(query)}

    def _of_broker(self) -> dict[str, float]:
        broker = self._system.broker
        lengths = {f"queue: {queue}": float(broker.llen(queue)) for queue in QUEUES}
        for_ever = sum(pattern_seconds[1] is None for pattern_seconds in keys_of(self._system))
        return {
            **lengths,
            "broker: unacked": float(broker.hlen("unacked")),
            "broker: keys": float(broker.dbsize()),
            "broker: keys for ever": float(for_ever),
            "broker: clients": float(broker.info("clients")["connected_clients"]),
            "broker: MB": broker.info("memory")["used_memory"] / MB,
        }


def keys_of(system: System) -> list[tuple[str, int | None]]:
    """Return the broker's keys, less what is different in each of a kind, with their seconds to live, if bounded."""
    keys = [key.decode() for key in system.broker.scan_iter(count=1000)]
    with system.broker.pipeline(transaction=False) as pipeline:
        for key in keys:
            pipeline.ttl(key)
        seconds = pipeline.execute()
    alive = [(key, left) for key, left in zip(keys, seconds, strict=True) if left != -2 and key not in QUEUES]
    return [(_kind_of(key), None if left == -1 else left) for key, left in alive]


def _kind_of(key: str) -> str:
    key = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "…", key)
    return re.sub(r"(usage:|waiting:).*", r"\1…", key)


def _figure(name: str, warm: Sequence[tuple[float, Mapping[str, float]]], second: float) -> Figure:
    values = [(at, sample.get(name, 0.0)) for at, sample in warm]
    middle = median(value for at, value in values if at < second)
    last = median(value for at, value in values if at >= second)
    slope = theilslopes([value for _, value in values], [at for at, _ in values])[0]
    bounds = [max(absolute, share * middle) for pattern, absolute, share in ALLOWED if re.fullmatch(pattern, name)]
    most = max(value for _, value in values)
    return Figure(name, middle, last, most, float(slope) * 3600, bounds[0] if bounds else None)
