"""Fits that do not hang on each other, on all processors."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def each_alert(fit: Callable[[int], Result], n_alerts: int) -> list[Result]:
    """Return `fit(alert)` of each alert, fitted side by side.

    By threads: a Celery worker's processes may have no children, and the libraries that fit let go of the interpreter.
    """
    from joblib import Parallel, delayed

    found: list[Result] = Parallel(n_jobs=-1, prefer="threads")(delayed(fit)(alert) for alert in range(n_alerts))
    return found
