"""Bad input by the ten thousand, each wrong in one way that is known: rows of files, requests, settings, arguments.

All is drawn from seeds, so that what fails once fails again.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from alertrec.catalog import ALERT_KEYS

Row = dict[str, str]
Spoil = Callable[[Random], str]
NO_BYTE = "\udcff"  # written as the byte 0xFF, which no UTF-8 has

# --- rows of files


@dataclass(frozen=True)
class Fault:
    """What is wrong with a row: in which column, for what reason it is refused, and what stands there instead."""

    column: str
    reason: str
    spoil: Spoil


@dataclass
class File:
    """A file of good and bad rows in a known order.

    Attributes
    ----------
    refused : dict
        Row number → column and reason.
    good : list
        The rows that are to be stored.
    """

    header: list[str]
    content: bytes = b""
    refused: dict[int, tuple[str | None, str]] = field(default_factory=dict)
    values: set[tuple[str | None, str]] = field(default_factory=set)
    good: list[Row] = field(default_factory=list)


def one_of(*values: str) -> Spoil:
    return lambda draw: draw.choice(values)


def word(draw: Random) -> str:
    return f"{draw.getrandbits(64):016x}"


def _wrapped(*patterns: str) -> Spoil:
    """Return what puts a drawn word into one of some patterns."""
    return lambda draw: draw.choice(patterns).replace("*", word(draw))


def _digits(draw: Random, least: int, most: int) -> str:
    return str(draw.randint(1, 9)) + "".join(str(draw.randint(0, 9)) for _ in range(draw.randint(least, most) - 1))


def _no_number(draw: Random) -> str:
    digits = _digits(draw, 1, 9)
    patterns = ("${}", "{} EUR", "1,{}.50", "{}.1.2", "0x{}", "--{}", "{}e", "{}-", "1_{}", "¤{}", "{}%", "ten {}")
    return draw.choice(patterns).format(digits)


def _large_number(draw: Random) -> str:
    return draw.choice(["", "-"]) + draw.choice(
        [_digits(draw, 15, 60), f"{_digits(draw, 1, 6)}e{draw.randint(14, 999)}"]
    )


_SPECIAL = one_of("nan", "NaN", "inf", "-inf", "Infinity", "-Infinity", "1e400", "NULL", "None", "null")


def _no_time(draw: Random) -> str:
    year, month, day = draw.randint(1900, 2200), draw.randint(1, 12), draw.randint(1, 28)
    return draw.choice(
        [
            f"{year}-{draw.randint(13, 99)}-{day:02}",
            f"{year}-02-{draw.randint(30, 99)}",
            f"{year}-00-{day:02}",
            f"{draw.randint(2201, 9999)}-{month:02}-{day:02}",
            f"{draw.randint(1, 1899):04}-{month:02}-{day:02}",
            f"{month:02}/{day:02}/{year}",
            f"{year}-{month:02}-{day:02}T{draw.randint(25, 99)}:00:00",
            f"{year}-{month:02}-{day:02}T10:{draw.randint(60, 99)}:00Z",
            f"{year}-{month:02}-{day:02}T10:00:00+{draw.randint(30, 99)}:00",
            f"{year}-{month:02}-{day:02} {word(draw)}",
            word(draw) + "?",
            f"{draw.randint(10**9, 10**13)} s",
        ]
    )


def _no_object(draw: Random) -> str:
    text = word(draw)
    return draw.choice(
        [
            f'["{text}"]',
            f'"{text}"',
            str(draw.getrandbits(40)),
            f'{{"{text}"',
            f'{{"{text}": NaN}}',
            f'{{"{text}": -Infinity}}',
            f'{{"{text}": 1e999}}',
            f'{{"{text}": "\\u0000"}}',
            f'{{"{text}": "\\ud800"}}',
            f"{{'{text}': 1}}",
            f'{{"{text}": 1}} {{}}',
            "[" * draw.randint(2, 5000) + text,
        ]
    )


def _broken_text(*columns: str) -> list[Fault]:
    patterns = ("*\0", "\0*", "*" + NO_BYTE, NO_BYTE + "*", "caf\udce9 *", "*\udced\udca0\udc80")
    return [Fault(column, "invalid_text", _wrapped(*patterns)) for column in columns]


def _times(*columns: str) -> list[Fault]:
    return [Fault(column, "unparsable_date", _no_time) for column in columns]


def _flags(*columns: str) -> list[Fault]:
    return [
        Fault(column, "unparsable_boolean", _wrapped("maybe *", "2*", "-1*", "ja *", "truefalse *"))
        for column in columns
    ]


def _numbers(reason: str, *columns: str) -> list[Fault]:
    return [Fault(column, reason, spoil) for column in columns for spoil in (_no_number, _large_number, _SPECIAL)]


_IDS = [
    Fault("id", "missing_id", one_of("", " ", "\t", "  ", "\u3000")),
    Fault("id", "invalid_text", lambda draw: word(draw) * draw.randint(63, 100)),
    Fault("id", "duplicate_id", one_of("*")),
    *_broken_text("id"),
]
_OWNERS = [
    Fault("user_id", "unknown_user", _wrapped("nobody-*", "*", " * ", "'; DROP TABLE users; -- *")),
    Fault("user_id", "unknown_user", one_of("", " ", "\t")),
    *_broken_text("user_id"),
]
_ALL_FIELDS = Fault("*", "malformed_row", one_of("more", "fewer"))
FAULTS: Mapping[str, Sequence[Fault]] = {
    "users": [
        *_IDS,
        _ALL_FIELDS,
        *_flags("is_active", "location_consent_given"),
        *_numbers("unparsable_number", "credit_limit", "credit_balance"),
        Fault("credit_limit", "negative_limit", lambda draw: f"-{_digits(draw, 1, 13)}.{draw.randint(1, 99):02}"),
        *_broken_text("address_city", "address_state", "address_country"),
        *_times("created_at"),
        Fault("time_zone", "unknown_time_zone", _wrapped("Mars/*", "Europe/*", "../*", "/etc/*", "UTC+*")),
    ],
    "transactions": [
        *_IDS,
        _ALL_FIELDS,
        *_OWNERS,
        *_numbers("unparsable_amount", "amount"),
        Fault("amount", "unparsable_amount", one_of("", " ", "\t")),
        *_broken_text("currency", "merchant_name", "merchant_category", "merchant_city"),
        *_times("transaction_date"),
        Fault("transaction_date", "unparsable_date", one_of("", " ")),
        Fault("transaction_type", "unknown_type", _wrapped("GIFT *", "PURCHASE*", "*")),
        Fault("status", "unknown_status", _wrapped("LOST *", "SETTLED*", "*")),
    ],
    "alert_rules": [
        *_IDS,
        _ALL_FIELDS,
        *_OWNERS,
        Fault("alert_type", "unknown_alert_type", _wrapped("alert_*", "alert_high_spender*", "*")),
        *_broken_text("natural_language_query"),
        *_flags("is_active"),
        Fault("parameters", "unparsable_parameters", _no_object),
        *_times("created_at", "updated_at"),
    ],
}
N_USERS = 200


def _time(draw: Random) -> str:
    return (datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=draw.randint(0, 10**7))).isoformat()


def _good_row(relation: str, draw: Random, number: int) -> Row:
    """Return a row that nothing is wrong with; the first users are those that the other files name."""
    owner = {"user_id": f"users-{draw.randrange(N_USERS)}"}
    amount = f"{draw.randint(1, 10**6)}.{draw.randint(0, 99):02}"
    rows: dict[str, Callable[[], Row]] = {
        "users": lambda: {
            "is_active": "true", "location_consent_given": "no", "credit_limit": amount, "credit_balance": "-1.5",
            "address_city": word(draw), "address_state": "CA", "address_country": "US", "created_at": _time(draw),
            "time_zone": "Europe/Prague",
        },
        "transactions": lambda: {
            **owner, "amount": amount, "currency": "USD", "merchant_name": word(draw), "merchant_category": "food",
            "merchant_city": "", "transaction_date": _time(draw), "transaction_type": "PURCHASE", "status": "SETTLED",
        },
        "alert_rules": lambda: {
            **owner, "alert_type": draw.choice(ALERT_KEYS), "natural_language_query": word(draw), "is_active": "y",
            "parameters": json.dumps({"amount": draw.randint(1, 500)}), "created_at": _time(draw), "updated_at": "",
        },
    }  # fmt: skip
    return {"id": f"{relation}-{number}", **rows[relation]()}


def bad_file(relation: str, *, n_bad: int, n_good: int, seed: int) -> File:
    """Return a CSV file with so many rows of each kind, mixed, each bad one wrong in one way."""
    draw = Random(seed)  # noqa: S311  # of no secret
    kinds = [True] * n_bad + [False] * n_good
    draw.shuffle(kinds)
    made = File(list(_good_row(relation, draw, 0)))
    lines: list[list[str]] = [made.header]
    for number, is_bad in enumerate([False] * N_USERS + kinds, start=1):
        row = _good_row(relation, draw, number - 1)
        if is_bad:
            fault = FAULTS[relation][number % len(FAULTS[relation])]
            lines.append(_spoilt(row, fault, made, draw, number))
        else:
            made.good.append(row)
            lines.append(list(row.values()))
    written = io.StringIO(newline="")
    csv.writer(written, lineterminator="\n").writerows(lines)
    made.content = written.getvalue().encode(errors="surrogateescape")
    return made


def _spoilt(row: Row, fault: Fault, made: File, draw: Random, number: int) -> list[str]:
    value = fault.spoil(draw)
    if fault.reason == "malformed_row":
        made.refused[number] = (None, fault.reason)
        fields = list(row.values())
        return [*fields, word(draw)] if value == "more" else fields[: draw.randint(2, len(fields) - 1)]
    if fault.reason == "duplicate_id":
        value = draw.choice(made.good)["id"]
    made.refused[number] = (fault.column, fault.reason)
    made.values.add((fault.column, value))
    return list({**row, fault.column: value}.values())


# --- settings

_WORDS = ("high", "", " ", "true", "None", "1,5", "١٢x", "0x10", "1 2", "²", "-", "NaN?", "1e", "\n", "half")


def _below_one(draw: Random) -> str:
    whole = [
        f"-{draw.getrandbits(30)}",
        f"{draw.getrandbits(20)}.5",
        f"+{draw.getrandbits(20)}",
        f"{draw.getrandbits(9)}e3",
    ]
    return draw.choice(["0", "00", *whole, word(draw) + "x", *_WORDS])


def _no_share(draw: Random) -> str:
    return draw.choice(
        [f"{1 + draw.random() * 1e6 + 1e-9}", f"-{draw.random() + 1e-9}", "nan", "inf", word(draw) + "x"]
    )


def _negative(draw: Random) -> str:
    return draw.choice([f"-{draw.random() + 1e-9}", "nan", "inf", "-inf", "1e999", word(draw) + "x"])


def _no_database(draw: Random) -> str:
    secret = f"s3cret-{word(draw)}"
    return draw.choice(
        [
            f"mysql://bank:{secret}@db/bank", f"postgresql://bank:{secret}@db", f"postgresql://bank:{secret}@[db/bank",
            f"bank:{secret}@db/bank", f"postgresql//bank:{secret}@db/bank", f"http://bank:{secret}@db/bank", secret,
            f"postgresql://bank:{secret}℀@db/bank", f"postgres:/{secret}", f" postgresql+asyncpg://b:{secret}@db/b",
        ]
    )  # fmt: skip


def _no_broker(draw: Random) -> str:
    secret = f"s3cret-{word(draw)}"
    return draw.choice(
        [
            f"http://:{secret}@queue", f"redis:///{secret}", f"redis://:{secret}@[::1", f"amqp://a:{secret}@queue//",
            f"redis:/{secret}", secret, f"redis://:{secret}℀@queue:6379", f"unix://:{secret}@/socket",
        ]
    )  # fmt: skip


_SERVERS = {
    "ALERTREC_DATABASE_URL": "postgresql://bank:s3cret@db:5432/bank",
    "ALERTREC_REDIS_URL": "redis://:s3cret@queue:6379/0",
}
_WHOLE = ("MAX_ITEMS", "LIST_TTL_HOURS", "RETRAIN_DAYS", "DISMISSED_DAYS", "SNOOZED_DAYS", "CHUNK_SIZE")
_PORTS = ("FLOWER_PORT", "WEB_PORT")
_SETTINGS: Mapping[str, Spoil] = {
    "DATABASE_URL": _no_database,
    "REDIS_URL": _no_broker,
    "THRESHOLD": _no_share,
    **dict.fromkeys((*_WHOLE, *_PORTS), _below_one),
    **dict.fromkeys(("RULE_BUDGET", "USER_BUDGET", "RATE_LIMITS"), _negative),
    "SOURCE_SCHEMA": _wrapped("public; drop *", "a-*", "1*", "größe*", '"*"', "a.*"),
    "LOCALE": _wrapped("English *", "xx_*", "en-*", "*"),
    "CURRENCY": _wrapped("dollars *", "$*", "US*", "*"),
    "LOG_FORMAT": _wrapped("xml*", "JSON*", "text *"),
    "WEB_SECRET": lambda draw: f"s3cret-{word(draw)}",
    "FLOWER_PASSWORD": one_of("", " ", "\t", "\n", "   "),
    "DATA_DIR": one_of("", " ", "\t"),
    "MODEL_STORE": one_of("", " ", "\t"),
}
_UNKNOWN = ("TRESHOLD", "DATABASE", "REDIS", "PASSWORD", "WEB_SECRETS", "threshold", "Max_Items", "", "WEB-SECRET")


def bad_settings(n: int, *, seed: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield so many environments, each with the variable that is wrong in it."""
    draw = Random(seed)  # noqa: S311  # of no secret
    variables, seen = list(_SETTINGS.items()), set[tuple[str, str]]()
    while len(seen) < n:
        if draw.random() < 0.2:
            name, value = draw.choice(_UNKNOWN) + draw.choice(["_", "X", ""]) + word(draw)[:4], f"s3cret-{word(draw)}"
        else:
            name, spoil = draw.choice(variables)
            value = spoil(draw)
        if (name, value) not in seen:
            seen.add((name, value))
            yield f"ALERTREC_{name}", {**_SERVERS, f"ALERTREC_{name}": value}


# --- arguments of tasks


def _no_text(draw: Random) -> Any:
    """Return what is no name of anything."""
    number = draw.getrandbits(40)
    return draw.choice(
        [
            number, -number, number / 7, True, False, [word(draw)], {"id": word(draw)}, [], {}, "", " ", "\t\n",
            word(draw) * draw.randint(16, 99), f"{word(draw)}\0", f"\0{word(draw)}", f"{word(draw)}\ud800",
            f"\udfff{word(draw)}", 1e300, 10**draw.randint(19, 300),
        ]
    )  # fmt: skip


def _no_uuid(draw: Random) -> Any:
    return draw.choice([_no_text(draw), word(draw), f"{word(draw)}-{word(draw)[1:]}", str(UUID(int=1))[:-1], "null"])


def _no_choice(draw: Random) -> Any:
    return draw.choice([_no_text(draw), word(draw), "exploded", "CREATED", " created", "created ", "alert_of_mine"])


def _no_moment(draw: Random) -> Any:
    some = draw.choice([_no_time(draw), "yesterday", "2026-01-01T00:00:00+25:00", word(draw)])
    if "2200" < some[:4] <= "9999" and some[4:5] == "-":  # of a file it would be one
        some = some.replace("-", "/")
    return draw.choice([_no_text(draw), some, some, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])


_EVENT: Mapping[str, Callable[[Random], Any]] = {
    "event_id": _no_uuid,
    "user_id": _no_text,
    "action": _no_choice,
    "occurred_at": _no_moment,
    "alert_rule_id": _no_text,
    "alert_type": _no_choice,
    "recommendation_id": _no_uuid,
    "due_at": _no_moment,
}


def good_event(draw: Random) -> dict[str, Any]:
    return {"event_id": str(UUID(int=draw.getrandbits(128), version=4)), "user_id": word(draw), "action": "dismissed"}


def bad_events(n: int, *, seed: int) -> Iterator[tuple[str, Any]]:
    """Yield so many events that are none, each with a word of what is wrong with it: a field's name, mostly."""
    draw, seen = Random(seed), set[str]()  # noqa: S311  # of no secret
    while len(seen) < n:
        kind = draw.choice([*_EVENT, *_EVENT, "unknown", "missing", "object"])
        event: Any = good_event(draw)
        if kind in _EVENT:
            event[kind] = _EVENT[kind](draw)
        elif kind == "unknown":
            event[f"x{word(draw)}"] = draw.getrandbits(20)
        elif kind == "missing":
            kind = draw.choice(["user_id", "action"])
            event[kind] = None
        else:
            event = draw.choice([None, word(draw), [event], draw.getrandbits(50), draw.random(), [word(draw)]])
        if (key := repr(event)) not in seen:
            seen.add(key)
            yield kind, event


def bad_calls(n: int, *, seed: int) -> Iterator[tuple[str, list[Any]]]:
    """Yield so many tasks with positional arguments that none of them can be called with."""
    draw, seen = Random(seed), set[str]()  # noqa: S311  # of no secret
    job = str(UUID(int=0))

    def no_number() -> Any:
        return draw.choice([_no_text(draw), word(draw), None, "0", -draw.randint(1, 10**9), draw.random() + 1])

    def no_job() -> Any:
        return draw.choice([each for each in (_no_uuid(draw), word(draw)) if each not in ("", False)] or [[]])

    calls: list[Callable[[], tuple[str, list[Any]]]] = [
        lambda: ("generate_recommendations", [draw.choice([_no_text(draw), None, f"nobody-{word(draw)}"])]),
        lambda: ("refresh_recommendations", [draw.choice([_no_text(draw), word(draw), None, "ALL"])]),
        lambda: ("refresh_recommendations", ["all", no_job()]),
        lambda: ("refresh_chunk", [no_job(), draw.randint(0, 9)]),
        lambda: ("refresh_chunk", [job, no_number()]),
        lambda: ("train_model", [draw.choice([_no_text(draw), word(draw), "false", "no", None, 0, 1]), None]),
        lambda: ("train_model", [False, no_job()]),
        lambda: ("cleanup_expired", [no_job()]),
        lambda: ("log_alert_action", [next(bad_events(1, seed=draw.getrandbits(60)))[1]]),
    ]
    while len(seen) < n:
        name, arguments = draw.choice(calls)()
        if isinstance(arguments[0], bool) and name == "train_model" and len(arguments) == 2 and arguments[1] is None:
            continue  # that is a good one
        if (key := repr((name, arguments))) not in seen:
            seen.add(key)
            yield name, arguments


def bad_arguments(n: int, *, seed: int) -> Iterator[tuple[str, Any]]:
    """Yield so many values that are none of what they are to be: `user`, `job`, `chunk` or `flag`."""
    draw, seen = Random(seed), set[str]()  # noqa: S311  # of no secret
    kinds: Mapping[str, Callable[[], Any]] = {
        "user": lambda: draw.choice([_no_text(draw), None, word(draw) * 63]),
        "job": lambda: _no_uuid(draw),
        "chunk": lambda: draw.choice([_no_text(draw), word(draw), None, -draw.randint(1, 10**9), draw.random(), 2**31]),
        "flag": lambda: draw.choice(
            [word(draw), "true", "false", None, 0, 1, [], {}, draw.random(), draw.getrandbits(9)]
        ),
    }
    while len(seen) < n:
        kind = draw.choice(list(kinds))
        value = kinds[kind]()
        is_one = (kind == "flag" and isinstance(value, bool)) or (kind == "chunk" and _is_chunk(value))
        is_long = kind == "user" and isinstance(value, str) and 255 < len(value) <= 1000  # not too long for this
        if not is_one and not is_long and (key := repr((kind, value))) not in seen:
            seen.add(key)
            yield kind, value


def _is_chunk(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


# --- requests


@dataclass(frozen=True)
class Call:
    """A request; `role` is who asks: a customer, a member of staff, or nobody whom a token names."""

    kind: str
    method: str
    path: str
    content: bytes = b""
    content_type: str = "application/json"
    role: str = "customer"
    token: str = ""


API = "/api/alerts/recommendations"
_FEEDBACK = f"{API}/{UUID(int=7)}/feedback"
_WISH = {"title": "x", "natural_language_query": "Alert me about any purchase over $5", "parameters": {"amount": 5.0}}
_BODIES: Mapping[str, dict[str, Any]] = {
    f"{API}/create-rule": _WISH,
    f"{API}/preview": {"alert_type": ALERT_KEYS[0], "parameters": {"amount": 5.0}},
    _FEEDBACK: {"event_id": str(UUID(int=8)), "action": "dismissed"},
}


def _no_words(draw: Random) -> Any:
    text = word(draw)
    return draw.choice(
        [f"{text}\0", f"{text}\ud800", draw.getrandbits(60), draw.random(), True, [text], {text: 1}, text * 700]
    )


def _no_parameters(draw: Random) -> Any:
    text = word(draw)
    wrong = draw.choice([[draw.random()], {text: 1}, True, None, text * 4, {}, []])
    return draw.choice([{"amount": wrong}, {text * 4: 1.0}, [text], text, draw.getrandbits(20), {f"{text}": wrong}])


def _no_instant(draw: Random) -> Any:
    text = word(draw)
    year = draw.randint(1, 1999)
    return draw.choice([f"soon {text}", f"{year:04}-01-01T00:00:00Z", "2026-01-01T00:00:00", [text], {text: 1}, text])


_WISHED: Mapping[str, Callable[[Random], Any]] = {
    **dict.fromkeys(("title", "natural_language_query"), _no_words),
    **dict.fromkeys(("description", "category", "priority", "reasoning"), _no_words),
    **dict.fromkeys(("recommendation_id", "event_id"), _no_uuid),
    "alert_type": lambda draw: _no_text(draw) or word(draw),
    "parameters": _no_parameters,
}
_WRONG: Mapping[str, Mapping[str, Callable[[Random], Any]]] = {
    f"{API}/create-rule": _WISHED,
    f"{API}/preview": {name: _WISHED[name] for name in ("alert_type", "parameters")},
    _FEEDBACK: {
        "event_id": _no_uuid,
        "action": lambda draw: draw.choice([_no_text(draw) or 0, word(draw), "created", "SHOWN"]),
        "occurred_at": _no_instant,
        "due_at": _no_instant,
    },
}
_CUSTOMERS = [("GET", API), ("POST", f"{API}/trigger-generation"), *(("POST", path) for path in _BODIES)]
_STAFF = [
    ("POST", f"{API}/generate-all"), ("POST", f"{API}/cleanup"), ("GET", f"{API}/metrics"), ("GET", f"{API}/models"),
    ("POST", f"{API}/models/rollback"), ("POST", f"{API}/test-websocket?user_id=x"),
    ("GET", f"{API}/jobs/{UUID(int=3)}"),
]  # fmt: skip


def _wrong_field(draw: Random) -> Call:
    path = draw.choice(list(_WRONG))
    name, spoil = draw.choice(list(_WRONG[path].items()))
    body = {**_BODIES[path], name: spoil(draw)}
    return Call("a wrong field", "POST", path, json.dumps(body).encode())


def _broken_json(draw: Random) -> Call:
    path = draw.choice(list(_BODIES))
    body = json.dumps({**_BODIES[path], word(draw): draw.random()}).encode()
    place = draw.randrange(1, len(body) - 1)
    broken = draw.choice(
        [
            body[:place], body[:place] + b"\xff" + body[place:], body + word(draw).encode(), b"{" + body,
            b"\xff\xfe" + body, body.replace(b'"', b"'"), body[:-1] + b",}", body[:-1] + b', "n": "caf\xe9"}',
            body.replace(b"}", b"]"), word(draw).encode(),
        ]
    )  # fmt: skip
    return Call("broken JSON", "POST", path, broken)


def _no_body(draw: Random) -> Call:
    path = draw.choice(list(_BODIES))
    deep = draw.randint(1_000, 30_000)
    wrong = [
        b"[" * deep, b'{"a":' * deep + b"1" + b"}" * deep, json.dumps([_BODIES[path], word(draw)]).encode(),
        json.dumps(word(draw)).encode(), str(draw.getrandbits(200)).encode(), b"9" * deep, b"null", b"", b"{}",
        json.dumps({word(draw): 1}).encode(), b'{"title": "' + b"x" * 3 * deep + b'"}',
    ]  # fmt: skip
    return Call("no such body", "POST", path, draw.choice(wrong))


def _wrong_type(draw: Random) -> Call:
    path = draw.choice(list(_BODIES))
    types = ("text/plain", "application/xml", "image/png", "application/x-www-form-urlencoded", "text/json", "x", "*/*")
    body = json.dumps({**_BODIES[path], word(draw): 1}).encode()
    return Call("another content type", "POST", path, body, f"{draw.choice(types)}; q={word(draw)}")


def _wrong_token(draw: Random) -> Call:
    method, path = draw.choice(_CUSTOMERS + _STAFF)
    words = [word(draw) for _ in range(3)]
    tokens = (
        f"Bearer {'.'.join(words)}", f"Bearer {words[0]}", f"Basic {words[0]}", words[0], "Bearer",
        f"Bearer {' '.join(words)}",
        f"Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJ{words[0]}.", f"Bearer {words[0] * 500}", f"bearer\t{words[0]}",
        f"Bearer {words[0]}\xff",
    )  # fmt: skip
    body = json.dumps(_BODIES.get(path, {})).encode() if method == "POST" else b""
    return Call("a wrong token", method, path, body, role="nobody", token=draw.choice(tokens))


def _wrong_method(draw: Random) -> Call:
    _, path = draw.choice(_CUSTOMERS + _STAFF)
    method = draw.choice(["PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", word(draw)[:9].upper()])
    return Call("another method", method, path.partition("?")[0], role="staff")


def _wrong_path(draw: Random) -> Call:
    text = word(draw)
    paths = [
        f"{API}/../../../etc/{text}", f"{API}/%2e%2e/%2e%2e/etc/{text}", f"/static/../{text}",
        f"/static/%2e%2e/%2e%2e/{text}",
        f"/static/..%2f..%2f{text}", f"{API}/{text}", f"/{text}", f"{API}/{text}/feedback/{text}",
        f"/api/{text}", f"{API}//{text}",
        f"/api/alerts/%00{text}", f"{API}/%ff{text}", f"{API}/..;/{text}", f"/{text}.php", f"{API}/{text * 200}",
    ]  # fmt: skip
    return Call("another path", draw.choice(["GET", "POST"]), draw.choice(paths), role="staff")


def _wrong_id(draw: Random) -> Call:
    text = word(draw)
    wrong = draw.choice(
        [text, f"%00{text}", f"%ff{text}", text * 99, f"-{draw.getrandbits(40)}", f"{text}%0a", f"'{text}"]
    )
    method, path, body = draw.choice(
        [
            ("POST", f"{API}/{wrong}/feedback", _BODIES[_FEEDBACK]),
            ("GET", f"{API}/jobs/{wrong}", None),
            ("POST", f"{API}/models/{wrong}/promote", None),
            ("GET", f"{API}/metrics?last_n_minutes={wrong}", None),
            ("GET", f"{API}?force_refresh={wrong}", None),
            ("GET", f"{API}?explain={wrong}", None),
        ]
    )
    return Call("a wrong id or number", method, path, json.dumps(body).encode() if body else b"", role="staff")


def _not_theirs(draw: Random) -> Call:
    method, path = draw.choice(_STAFF)
    return Call("not theirs", method, f"{path}{'&' if '?' in path else '?'}{word(draw)}={word(draw)}")


def _never_made(draw: Random) -> Call:
    body = {"event_id": str(UUID(int=draw.getrandbits(128), version=4)), "action": draw.choice(["shown", "dismissed"])}
    path = f"{API}/{UUID(int=draw.getrandbits(128), version=4)}/feedback"
    return Call("never made", "POST", path, json.dumps(body).encode())


_CALLS: Sequence[tuple[Callable[[Random], Call], int]] = (
    (_wrong_field, 36), (_broken_json, 16), (_no_body, 4), (_wrong_type, 6), (_wrong_token, 14), (_wrong_method, 6),
    (_wrong_path, 8), (_wrong_id, 6), (_not_theirs, 2), (_never_made, 2),
)  # fmt: skip


def bad_requests(n: int, *, seed: int) -> Iterator[Call]:
    """Yield so many requests that are to be refused."""
    draw, seen = Random(seed), set[Call]()  # noqa: S311  # of no secret
    makers, weights = zip(*_CALLS, strict=True)
    while len(seen) < n:
        call = draw.choices(makers, weights)[0](draw)
        if call not in seen:
            seen.add(call)
            yield call
