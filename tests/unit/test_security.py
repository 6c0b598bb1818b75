"""What must never stand in the code, and what an operator's URLs must keep: rules that a reader would forget."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis

from alertrec.errors import ConfigError
from alertrec.settings import Settings
from alertrec.storage.database import create_engine

ROOT = Path(__file__).parents[2]
CODE = sorted([*(ROOT / "alertrec").rglob("*.py"), *(ROOT / "tasks").rglob("*.py"), ROOT / "celeryconfig.py"])
RUNS_CODE = {
    "eval", "exec", "compile", "__import__", "system", "popen", "pickle_load", "unsafe_load", "full_load",
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
EXECUTES = {"text", "execute", "exec_driver_sql", "scalar", "scalars", "executemany", "copy", "SQL"}
IS_SQL = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT INTO|UPDATE\b.*\bSET|DELETE FROM|CREATE (TABLE|DATABASE|INDEX)|ALTER \w+|DROP \w+"
    r"|LOCK TABLE|TRUNCATE|COPY\b.*\b(FROM|TO)|SET LOCAL)\b",
    re.DOTALL,
)
# SQL that is put together: only from constants and names of ours, never from what somebody sent.
PUT_TOGETHER = {
    "alertrec/web/reading.py": "columns of our own tables",
    "alertrec/storage/frames.py": "a query of SQLAlchemy's, whose values travel as parameters",
    "alertrec/storage/vitals.py": "a time limit, a constant",
    "alertrec/embedded/postgres.py": "a constant name; a password that we made, of letters, digits, - and _",
}

Found = list[tuple[str, int]]


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rsplit(".", 1)[-1], node


def what_runs_code(tree: ast.AST) -> Found:
    """Return calls and imports that run what they are given, or load what does."""
    found = []
    for name, call in calls(tree):
        keywords = {each.arg: ast.unparse(each.value) for each in call.keywords}
        full = ast.unparse(call.func)
        is_load = full in {"np.load", "numpy.load"} and keywords.get("allow_pickle") != "False"
        is_yaml = full == "yaml.load"
        is_shell = keywords.get("shell", "False") != "False"
        if (name in RUNS_CODE and (name != "compile" or full == name)) or is_load or is_yaml or is_shell:
            found.append((ast.unparse(call), call.lineno))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            found += [(name, node.lineno) for name in names if name.split(".")[0] in PICKLES]
    return found


def sql_put_together(tree: ast.AST) -> Found:
    """Return SQL with something put into it, and what is executed that is put together on the spot."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and any(isinstance(each, ast.FormattedValue) for each in node.values):
            constant = "…".join(str(each.value) for each in node.values if isinstance(each, ast.Constant))
            if IS_SQL.search(constant):
                found.append((constant[:60], node.lineno))
    for name, call in calls(tree):
        if name in EXECUTES and call.args:
            given = call.args[0]
            if isinstance(given, ast.BinOp) or _is_filled(given):
                found.append((ast.unparse(given)[:60], call.lineno))
    return found


def _is_filled(given: ast.expr) -> bool:
    """Return whether a text is filled in; psycopg's `SQL(...)`, and what is filled with its `Identifier`s, quotes."""
    if not (isinstance(given, ast.Call) and isinstance(given.func, ast.Attribute)):
        return False
    is_quoted = all(ast.unparse(each).startswith("Identifier(") for each in given.args)
    is_text = not isinstance(given.func.value, ast.Call | ast.Attribute)
    return given.func.attr in {"format", "join", "replace"} and is_text and not is_quoted


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_runs_what_it_is_given_and_sql_takes_values_as_parameters(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert what_runs_code(tree) == []
    if str(path.relative_to(ROOT)) not in PUT_TOGETHER:
        assert sql_put_together(tree) == []


def test_every_exception_is_still_needed() -> None:
    for name in PUT_TOGETHER:
        assert sql_put_together(ast.parse((ROOT / name).read_text(encoding="utf-8"))), f"{name} needs no exception"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from marshal import loads", "eval(x)", "builtins.exec(x)", "os.system(x)", "yaml.load(x)",
        "np.load(x)", "np.load(x, allow_pickle=True)", "subprocess.run(x, shell=True)",
    ],
)  # fmt: skip
def test_the_check_sees_what_runs_code(code: str) -> None:
    assert what_runs_code(ast.parse(code))


@pytest.mark.parametrize(
    "code",
    [
        "text(f'SELECT * FROM users WHERE id = {x}')",
        "query = f'DELETE FROM {table}'",
        "c.execute('SELECT * FROM users WHERE id = ' + x)",
        "c.execute('SELECT %s' % x)",
        "text('SELECT {}'.format(x))",
    ],
)
def test_the_check_sees_sql_that_is_put_together(code: str) -> None:
    assert sql_put_together(ast.parse(code))


@pytest.mark.parametrize("schema", ["public; DROP TABLE users", 'a"b', "a.b", "1a", "ä", ""])
def test_the_adopters_schema_is_a_plain_identifier(schema: str) -> None:
    with pytest.raises(ConfigError, match="ALERTREC_SOURCE_SCHEMA must be a plain SQL identifier"):
        Settings.from_env({"ALERTREC_SOURCE_SCHEMA": schema})


def test_tls_and_passwords_of_urls_reach_the_clients() -> None:
    database = "postgresql://bank:s%2F3cret@db:5433/bank?sslmode=verify-full&sslrootcert=/ca.pem"
    broker = "rediss://worker:s%2F3cret@queue:6380/2?ssl_ca_certs=/ca.pem"
    settings = Settings.from_env({"ALERTREC_DATABASE_URL": database, "ALERTREC_REDIS_URL": broker})
    assert settings.database_url is not None
    assert settings.redis_url is not None
    engine = create_engine(settings.database_url)
    _, given = engine.dialect.create_connect_args(engine.url)
    assert dict(given) | {
        "sslmode": "verify-full",
        "sslrootcert": "/ca.pem",
        "password": "s/3cret",
        "port": 5433,
    } == dict(given)
    pool = redis.Redis.from_url(settings.redis_url).connection_pool
    assert pool.connection_class is redis.SSLConnection
    assert (pool.connection_kwargs["password"], pool.connection_kwargs["username"]) == ("s/3cret", "worker")
    for secret in ("s%2F3cret", "s/3cret"):
        assert secret not in repr(settings) + str(settings)
        assert secret not in repr(engine) + repr(engine.url)
    assert urlsplit(settings.redis_url).scheme == "rediss"
