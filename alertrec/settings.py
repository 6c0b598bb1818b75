"""Everything that an operator can set, read once from the environment."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

from alertrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from alertrec.wording import Words

PREFIX = "ALERTREC_"


def _text(value: str) -> str:
    if not value.strip():
        raise ValueError("a non-empty text")
    return value.strip()


def _password(value: str) -> str:
    if "," in value or not value.strip():
        raise ValueError("a non-empty text without commas, which part one user from the next for Flower")
    return value.strip()


def _key(value: str) -> str:
    if len(value) < 32:
        raise ValueError("a secret of at least 32 characters")
    return value


def _split(value: str, expected: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        has_port = parts.port is None or parts.port > 0
    except ValueError:
        raise ValueError(expected) from None  # the reason given there quotes the value, password and all
    if value.partition("?")[0].count("@") > 1 or not has_port:
        # What stands behind the first @ would be told as the name of a host.
        raise ValueError(f"{expected}; in user and password, @ is written %40, : %3A and / %2F")
    return parts


def _database_url(value: str) -> str:
    expected = "a URL like postgresql://user:password@host:5432/database"
    parts = _split(value, expected)
    scheme, _, rest = value.partition("://")
    if scheme not in {"postgresql", "postgres", "postgresql+psycopg"} or not parts.path.strip("/"):
        raise ValueError(expected)
    return f"postgresql://{rest}"


def _redis_url(value: str) -> str:
    expected = "a URL like redis://:password@host:6379/0, or rediss:// with TLS"
    parts = _split(value, expected)
    if parts.scheme not in {"redis", "rediss"} or not parts.hostname:
        raise ValueError(expected)
    return value


def _identifier(value: str) -> str:
    if not value.isidentifier() or not value.isascii():
        raise ValueError("a plain SQL identifier of letters, digits and underscores")
    return value


def _positive_int(value: str) -> int:
    if not value.isascii() or not value.isdecimal() or int(value) < 1:
        raise ValueError("a whole number of at least 1")
    return int(value)


def _share(value: str) -> float:
    share = _number(value)
    if not 0 <= share <= 1:
        raise ValueError("a number between 0 and 1")
    return share


def _not_negative(value: str) -> float:
    number = _number(value)
    if not 0 <= number < math.inf:
        raise ValueError("a number of at least 0")
    return number


def _number(value: str) -> float:
    """Return a number, NaN for what is none."""
    try:
        return float(value)
    except ValueError:
        return math.nan


def _log_format(value: str) -> str:
    if value not in {"text", "json"}:
        raise ValueError("`text` or `json`")
    return value


def _locale(value: str) -> str:
    return _known_words(locale=_text(value)).locale


def _currency(value: str) -> str:
    return _known_words(currency=_text(value)).currency


def _known_words(**given: str) -> Words:
    from alertrec.wording import Words  # loads Babel, which a web process need not

    try:
        return Words(**given)
    except DataError as error:
        raise ValueError(str(error).partition("expected ")[2]) from None


def _setting(default: Any, parse: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The settings of one process; `from_env` is the only reader of the environment."""

    database_url: str | None = _setting(
        None,
        _database_url,
        "PostgreSQL 14 or newer; with `ALERTREC_REDIS_URL` set as well, nothing embedded starts",
        secret=True,
    )
    redis_url: str | None = _setting(
        None,
        _redis_url,
        "Redis 6.2 or newer, or Valkey; set it together with `ALERTREC_DATABASE_URL`",
        secret=True,
    )
    data_dir: Path = _setting(
        Path(".alertrec"),
        lambda v: Path(_text(v)),
        "where the embedded servers' data, the models and the remembered ports live",
    )
    model_store: str | None = _setting(
        None,
        _text,
        "path or URL (any that fsspec reads) of the model store; `models` in the data directory if unset",
    )
    source_schema: str = _setting(
        "public", _identifier, "schema of the relations `users`, `transactions`, `alert_rules`"
    )
    threshold: float = _setting(0.4, _share, "an alert is offered from this probability on")
    max_items: int = _setting(5, _positive_int, "most recommendations in one list")
    list_ttl_hours: int = _setting(48, _positive_int, "hours for which a list is current: one nightly refresh may fail")
    retrain_days: int = _setting(7, _positive_int, "days after which a training is due again")
    dismissed_days: int = _setting(30, _positive_int, "days for which a dismissed recommendation stays away")
    snoozed_days: int = _setting(7, _positive_int, "days after which a snoozed recommendation comes back")
    rule_budget: float = _setting(2.0, _not_negative, "how often in 30 days one offered rule may fire")
    user_budget: float = _setting(
        6.0, _not_negative, "how often all rules of a user may, those that they have included"
    )
    locale: str = _setting("en_US", _locale, "how numbers and dates are written in texts for customers")
    currency: str = _setting("USD", _currency, "the currency of all amounts")
    chunk_size: int = _setting(2000, _positive_int, "users in one chunk of a batch refresh")
    flower_password: str | None = _setting(
        None,
        _password,
        "password of the user `alertrec` in Flower; generated and remembered if unset",
        secret=True,
    )
    flower_port: int = _setting(
        5555, _positive_int, "port of Flower on the loopback interface; a free one is taken if it is in use"
    )
    web_secret: str | None = _setting(
        None,
        _key,
        "signs sign-in tokens and forms of `alertrec serve`, at least 32 characters; generated and remembered if unset",
        secret=True,
    )
    web_port: int = _setting(
        8000, _positive_int, "port of `alertrec serve` on the loopback interface; a free one is taken if it is in use"
    )
    rate_limits: float = _setting(
        1.0, _not_negative, "times the rates that the web app takes from a customer or an address; 0: any rate"
    )
    log_format: str = _setting(
        "text", _log_format, "`text`, or `json`: one object a line, with task id, job id and model version"
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> Settings:
        """Read the settings from a mapping such as `os.environ`.

        Raises
        ------
        ConfigError
            Naming the variable that is unknown, malformed or missing beside another.
        """
        known = {variable_name(each): each for each in fields(cls)}
        given = {key: value for key, value in environ.items() if key.startswith(PREFIX)}
        for key in given:
            if key not in known:
                raise ConfigError(_unknown(key, list(known)))
        settings = cls(**{known[key].name: _parse(key, value, known[key]) for key, value in given.items()})
        settings._check_servers()
        return settings

    def _check_servers(self) -> None:
        if (self.database_url is None) != (self.redis_url is None):
            given, missing = ("DATABASE", "REDIS") if self.redis_url is None else ("REDIS", "DATABASE")
            raise ConfigError(
                f"{PREFIX}{given}_URL is set but {PREFIX}{missing}_URL is not; "
                f"set both to use your own servers, or neither to use the embedded ones"
            )

    @property
    def model_location(self) -> str:
        """Path or URL of the model store."""
        return self.model_store or str(self.data_dir.absolute() / "models")


def variable_name(setting: Field[Any]) -> str:
    """Return the environment variable of a field of `Settings`."""
    return PREFIX + setting.name.upper()


def _parse(key: str, value: str, setting: Field[Any]) -> Any:
    try:
        return setting.metadata["parse"](value)
    except ValueError as error:
        shown = "the value given" if not setting.repr else repr(value)
        # `from None`: the value of a secret must not appear in a chained message.
        raise ConfigError(f"{key} must be {error}; {shown} is not") from None


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(known))}"
    return f"{key} is not a setting of alertrec; {hint}"
