"""Real servers for all tests: one PostgreSQL and one Valkey a session, a database of its own for each test."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import pytest
from sqlalchemy import Engine, text

from alertrec.embedded import Servers, servers
from alertrec.storage.database import create_engine
from alertrec.storage.schema import create_source_relations, migrate
from alertrec.storage.source import Source

hypothesis.settings.register_profile("alertrec", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("alertrec")

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"
_TEMPLATE = "alertrec_template"
_numbers = count()


@pytest.fixture(scope="session")
def running_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """Servers that live as long as the test session."""
    data_dir = tmp_path_factory.mktemp("servers")
    with servers(data_dir) as running:
        yield running
        # Run by root, the database's files lie elsewhere; they go once the directory that they belong to has gone.
        shutil.rmtree(data_dir)


@pytest.fixture(scope="session")
def _template(running_servers: Servers) -> None:
    _administer(running_servers, f"CREATE DATABASE {_TEMPLATE}")
    engine = create_engine(_url_of(running_servers, _TEMPLATE))
    with engine.begin() as connection:
        migrate(connection)
        create_source_relations(connection, Source("public"))
    engine.dispose()


@pytest.fixture
def database_url(running_servers: Servers, _template: None) -> Iterator[str]:
    """URL of a database with all tables, empty, for this test alone."""
    name = f"alertrec_test_{next(_numbers)}"
    _administer(running_servers, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield _url_of(running_servers, name)
    _administer(running_servers, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def redis_url(running_servers: Servers) -> str:
    """URL of an empty database of the broker."""
    import redis

    client = redis.Redis.from_url(running_servers.redis_url)
    client.flushdb()
    client.close()
    return running_servers.redis_url


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine on `database_url`."""
    engine = create_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def sparkov() -> Path:
    """The directory of the export `sparkov/`, which is not part of this repository."""
    if not (SHARED_DATA / "sparkov").is_dir():
        pytest.skip("the export `sparkov/` is not beside the checkout")
    return SHARED_DATA / "sparkov"


def _url_of(running: Servers, database: str) -> str:
    return urlsplit(running.database_url)._replace(path=f"/{database}").geturl()


def _administer(running: Servers, statement: str) -> None:
    engine = create_engine(running.database_url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(statement))
    engine.dispose()
