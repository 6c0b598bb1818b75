"""For load balancers, orchestrators and Prometheus: does the process live, can it serve, what does it do."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import text

from alertrec.runtime import require_schema
from alertrec.vitals import Vital, read_vitals, unknown_vitals
from alertrec.web.resources import Web
from alertrec.web.shapes import Readiness

logger = logging.getLogger(__name__)

# However many scrape, and from however many processes, the servers are asked rarely.
_GOOD_FOR_SECONDS = 5.0
# Below the ten seconds that Prometheus waits; a server that is frozen answers nobody, and then nobody knows.
_PATIENCE_SECONDS = 3.0


def health_router(web: Web, registry: CollectorRegistry) -> APIRouter:
    """Return the routes; they tell of no customer, and are open."""
    router = APIRouter(tags=["health"])
    registry.register(VitalFigures(lambda: read_vitals(web.workspace), unknown_vitals(web.settings)))

    @router.get("/health/live", summary="The process answers")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get(
        "/health/ready",
        response_model=Readiness,
        responses={503: {"model": Readiness, "description": "Lists cannot be read"}},
        summary="Lists can be read",
    )
    def ready() -> Response:
        """Answer 200 where lists can be read. Without the broker they can: what needs it says so by itself."""
        checks = {"database": _check(lambda: _database(web)), "broker": _check(lambda: _broker(web))}
        status = 200 if checks["database"] == "ok" else 503
        return JSONResponse({"status": "ok" if status == 200 else "unavailable", "checks": checks}, status)

    @router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
    def metrics() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


class VitalFigures(Collector):
    """The vitals as gauges `alertrec_<name>`, and `alertrec_in_danger` of each; what is not known has no gauge.

    They are read in a thread that nobody waits for longer than their patience lasts, one at a time.

    Parameters
    ----------
    unknown : sequence
        What is told while the reading takes longer.
    """

    def __init__(
        self,
        read: Callable[[], Sequence[Vital]],
        unknown: Sequence[Vital],
        *,
        good_for_seconds: float = _GOOD_FOR_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
    ) -> None:
        self._ask, self._unknown = read, unknown
        self._good_for_seconds, self._patience_seconds = good_for_seconds, patience_seconds
        self._lock = threading.Lock()
        self._found = unknown
        self._good_until = 0.0
        self._reader: threading.Thread | None = None

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return the figures, some seconds old at most."""
        in_danger = GaugeMetricFamily("alertrec_in_danger", "1 where a promise is in danger.", labels=["vital"])
        for name, each in groupby(self._current(), key=lambda vital: vital.name):
            vitals = list(each)
            yield _gauge(vitals)
            in_danger.add_metric([name], float(any(vital.is_in_danger for vital in vitals)))
        yield in_danger

    def _current(self) -> Sequence[Vital]:
        with self._lock:
            if time.monotonic() < self._good_until:
                return self._found
            if self._reader is None or not self._reader.is_alive():
                self._found = self._unknown
                self._reader = threading.Thread(target=self._read, name="vitals", daemon=True)
                self._reader.start()
            reader = self._reader
        reader.join(self._patience_seconds)
        return self._found

    def _read(self) -> None:
        found = self._ask()
        with self._lock:
            self._found, self._good_until = found, time.monotonic() + self._good_for_seconds


def _gauge(vitals: list[Vital]) -> GaugeMetricFamily:
    """Return the gauge of a vital, of each queue where it is about queues."""
    first = vitals[0]
    about = f"{first.unit} {first.meaning}".strip()
    gauge = GaugeMetricFamily(f"alertrec_{first.name}", about, labels=["queue"] if first.queue else [])
    for vital in vitals:
        if vital.value is not None:
            gauge.add_metric([vital.queue] if vital.queue else [], vital.value)
    return gauge


def _check(check: Callable[[], Any]) -> str:
    try:
        check()
    except Exception as error:  # whatever is wrong, the answer is no; its words may name hosts, and go to the log
        logger.warning("a check failed: %s", error, extra={"action": "check_failed"})
        return type(error).__name__
    return "ok"


def _database(web: Web) -> None:
    require_schema(web.workspace)
    with web.workspace.engine.connect() as connection:
        connection.execute(text("SELECT 1 FROM alertrec.recommendation_lists LIMIT 1"))


def _broker(web: Web) -> None:
    from alertrec.doctor import queue_lengths

    queue_lengths(web.settings)
