"""Arguments of tasks as they come from outside: what cannot be meant is refused before anything is done.

An error says which argument is wrong and what it may be, and not what it held, which may tell of a customer.
"""

from __future__ import annotations

from uuid import UUID

from alertrec.errors import DataError

# In place of a job's id: whatever training waits, and none where none does.
WHAT_WAITS = "what waits"

_MOST_CHARACTERS = 1000  # a key of more does not fit into the tables
_MOST_CHUNKS = 2**31


def user_of(value: object) -> str:
    """Return a user's id."""
    from alertrec.actions import can_be_stored

    if not (isinstance(value, str) and value.strip() and len(value) <= _MOST_CHARACTERS and can_be_stored(value)):
        raise _refused("user_id", f"a text of 1 to {_MOST_CHARACTERS} characters", value)
    return value


def job_of(value: object) -> UUID | None:
    """Return a job's id, if there is one."""
    if value is None:
        return None
    try:
        return UUID(value)  # type: ignore[arg-type]  # what is no text is no UUID
    except (ValueError, TypeError, AttributeError):
        raise _refused("job_id", "a UUID, or null", value) from None


def chunk_of(value: object) -> int:
    """Return the number of a chunk."""
    if type(value) is not int or not 0 <= value < _MOST_CHUNKS:
        raise _refused("chunk", "a whole number of at least 0", value)
    return value


def flag_of(name: str, value: object) -> bool:
    """Return true or false; a text such as "false" is neither."""
    if not isinstance(value, bool):
        raise _refused(name, "true or false", value)
    return value


def _refused(name: str, expected: str, value: object) -> DataError:
    came = f"another text of {len(value)} characters" if isinstance(value, str) else f"a value of type {_type(value)}"
    return DataError(f"{name} must be {expected}, not {came}")


def _type(value: object) -> str:
    return "int, out of range" if type(value) is int else type(value).__name__
