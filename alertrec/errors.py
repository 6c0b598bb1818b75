"""The exceptions that alertrec raises on purpose.

    AlertrecError
    ├── ConfigError             a setting is missing, misspelt or contradicts another
    ├── DataError               the caller's data or arguments cannot be used
    │   ├── UnknownUserError        no such user
    │   ├── UnknownRecommendationError  never made to this user
    │   ├── ChangedMeanwhileError   what was shown is no longer so
    │   └── NotEnoughDataError      too few users or transactions to train on
    ├── NotFittedError          a model was asked before it was trained or loaded
    │   └── NoChampionError         nothing has been trained and promoted yet
    ├── ModelStoreError         a stored model is missing, altered or unreadable
    └── TransientError          the same call may succeed later: a server is away
        └── QueueUnavailableError   the broker did not take a message in time

Every message says what came, what was expected and what to do. `args` equals the arguments of `__init__`, so
that an exception survives the way from a worker to the caller.
"""

from __future__ import annotations


class AlertrecError(Exception):
    """The root of all errors that alertrec raises on purpose."""


class ConfigError(AlertrecError):
    """A setting is missing, misspelt or contradicts another."""


class DataError(AlertrecError):
    """The caller's data or arguments cannot be used."""


class UnknownUserError(DataError):
    """No such user in the source relation `users`."""

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id)
        self.user_id = user_id

    def __str__(self) -> str:
        return f"user {self.user_id!r} is not known; import the user first, or check the id"


class UnknownRecommendationError(DataError):
    """A recommendation was never made to this user, or so long ago that nothing is left of it."""

    def __init__(self, recommendation_id: str) -> None:
        super().__init__(recommendation_id)
        self.recommendation_id = recommendation_id

    def __str__(self) -> str:
        return f"recommendation {self.recommendation_id} was not made to this user; read the list again"


class ChangedMeanwhileError(DataError):
    """What a customer was shown is no longer so; it must be looked at again before it is acted on."""


class NotEnoughDataError(DataError):
    """Too few users with purchases, or too few purchases, to train on."""

    def __init__(self, n_users: int, n_transactions: int, min_users: int, min_transactions: int) -> None:
        super().__init__(n_users, n_transactions, min_users, min_transactions)
        self.n_users = n_users
        self.n_transactions = n_transactions
        self.min_users = min_users
        self.min_transactions = min_transactions

    def __str__(self) -> str:
        return (
            f"not enough data to train: {self.n_users} active users with purchases and "
            f"{self.n_transactions} purchases up to the moment asked for; at least {self.min_users} users and "
            f"{self.min_transactions} purchases are needed. Import more data, or pass a later --as-of"
        )


class NotFittedError(AlertrecError):
    """A model was asked before it was trained or loaded."""


class NoChampionError(NotFittedError):
    """Nothing has been trained and promoted yet."""

    def __str__(self) -> str:
        return "there is no champion model yet; run `alertrec train` first"


class ModelStoreError(AlertrecError):
    """A stored model is missing, altered or unreadable."""

    def __init__(self, version: str, problem: str) -> None:
        super().__init__(version, problem)
        self.version = version
        self.problem = problem

    def __str__(self) -> str:
        return f"model {self.version}: {self.problem}"


class TransientError(AlertrecError):
    """The same call may succeed later: a server is away or busy."""


class QueueUnavailableError(TransientError):
    """The broker did not take a message in time."""


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, or of what it wraps; its kind, where it says nothing."""
    cause = getattr(error, "orig", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def reason_of(error: Exception) -> str:
    """Return what may be stored of why work failed: what an unforeseen error says may tell of a customer."""
    return str(error) if isinstance(error, AlertrecError) else type(error).__name__
