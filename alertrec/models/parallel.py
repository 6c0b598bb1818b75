"""Fits that do not hang on each other, on all processors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, TypeVar

Result = TypeVar("Result")


def one_thread_each() -> AbstractContextManager[Any]:
    """Keep products of matrices to one thread: they are small, and several of them run side by side.

    Threads of the linear algebra library on top of ours take four times the processor time for nothing.
    """
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, user_api="blas")
    return limits


def each_alert(fit: Callable[[int], Result], n_alerts: int) -> list[Result]:
    """Return `fit(alert)` of each alert, fitted side by side.

    By threads: a Celery worker's processes may have no children, and the libraries that fit let go of the interpreter.
    """
    from joblib import Parallel, delayed

    with one_thread_each():
        found: list[Result] = Parallel(n_jobs=-1, prefer="threads")(delayed(fit)(alert) for alert in range(n_alerts))
    return found
