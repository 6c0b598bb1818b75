"""Models that are damaged, out of reach, or cannot be saved: refused by name, and nobody is worse off."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from alertrec import fitting
from alertrec.embedded import Servers
from alertrec.workspace import Workspace
from tests.integration.processes import (
    Environment,
    Send,
    Worker,
    broker,
    database,
    environment,
    load_bank,
    wait_for,
    web_app,
    worker,
)
from tests.integration.remote_store import SCHEME
from tests.integration.worlds import train, workspace_on

N_USERS = 60
USER = "user-0003"
ARRAY = "known.npy"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        yield url


@dataclass(frozen=True)
class Place:
    """A model store with a worker on it, and two versions that were champion one after the other."""

    workspace: Workspace
    worker: Worker
    send: Send
    files: Path  # of the versions, a directory each

    def trained(self) -> str:
        """Make a champion from rules of thumb, which takes no judging."""
        return train(self.workspace, as_of=datetime.now(UTC), use_real_alerts=False)

    def renewed_by(self) -> str:
        """Have the worker renew a list, and return the version that made it."""
        before = self._list()
        self.send("generate_recommendations", USER)
        wait_for(lambda: self._list() != before)
        return str(self._list()[0])

    def forget(self) -> None:
        """Kill the process of the worker's pool: the next one holds no model in memory."""
        (child,) = self.worker.children()
        child.kill()
        wait_for(lambda: self.worker.children() not in ([], [child]))

    def train_on_worker(self) -> Any:
        """Have the worker train, and return the job when it has ended."""
        job_id = fitting.request_training(self.workspace, force=True, as_of=datetime.now(UTC), use_real_alerts=False)
        self.send("train_model", False, str(job_id))
        query = "SELECT * FROM alertrec.job_runs WHERE job_id = :job_id AND finished_at IS NOT NULL"
        return wait_for(lambda: self._rows(query, job_id=job_id))[0]

    def versions(self) -> list[str]:
        """Return the versions in the table."""
        return [row["version"] for row in self._rows("SELECT version FROM alertrec.model_versions ORDER BY 1")]

    def stored(self) -> list[str]:
        """Return what lies in the store, hidden or not."""
        return sorted(path.name for path in self.files.iterdir())

    def _list(self) -> Any:
        query = "SELECT model_version, generated_at FROM alertrec.recommendation_lists WHERE user_id = :user"
        found = self._rows(query, user=USER)
        return tuple(found[0].values()) if found else None

    def _rows(self, query: str, **values: Any) -> list[Any]:
        with self.workspace.engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(query), values).mappings()]


@pytest.fixture(scope="module")
def env(running_servers: Servers, database_url: str, scratch: Path) -> Iterator[Environment]:
    with broker(running_servers) as url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=url, DATA_DIR=scratch / "data")


@pytest.fixture(scope="module")
def local(env: Environment, database_url: str, scratch: Path) -> Iterator[Place]:
    """Where the store is a directory."""
    with (
        workspace_on(database_url, scratch / "data") as workspace,
        worker(env, scratch, name="local") as started,
        web_app(env) as send,
    ):
        yield Place(workspace, started, send, scratch / "data" / "models")


@pytest.fixture(scope="module")
def remote(running_servers: Servers, env: Environment, database_url: str, scratch: Path) -> Iterator[Place]:
    """Where the store is another machine; the test itself writes to its directory."""
    files = scratch / "remote" / "models"
    files.mkdir(parents=True)
    with (
        broker(running_servers) as url,
        workspace_on(database_url, scratch / "elsewhere", model_store=str(files)) as workspace,
    ):
        mine = {
            **env,
            "ALERTREC_REDIS_URL": url,
            "ALERTREC_DATA_DIR": str(scratch / "far"),
            "ALERTREC_MODEL_STORE": f"{SCHEME}://{files}",
        }
        with (
            worker(mine, scratch, name="remote", module="tests.integration.remote_store") as started,
            web_app(mine) as send,
        ):
            yield Place(workspace, started, send, files)


def half(path: Path) -> None:
    """Leave half of a file, in another one's place."""
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])


def flip_a_bit(path: Path) -> None:
    """Change one bit of a file, in another one's place."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.unlink()
    path.write_bytes(content)


def truncate_in_place(path: Path) -> None:
    """Take all bytes from a file that processes have mapped into their memory."""
    with path.open("r+b") as file:
        file.truncate(0)


@pytest.mark.parametrize("name", [ARRAY, "card.json"])
@pytest.mark.parametrize("damage", [half, flip_a_bit, Path.unlink], ids=["truncated", "one bit", "missing"])
def test_a_damaged_champion_is_refused_by_name_and_the_version_before_serves(
    local: Place, damage: Callable[[Path], None], name: str
):
    good, damaged = local.trained(), local.trained()
    assert local.renewed_by() == damaged
    damage(local.files / damaged / name)
    local.forget()
    assert local.renewed_by() == good
    assert local.worker.logged("model refused", damaged, name) == 1


def test_a_champion_truncated_under_a_process_that_uses_it_costs_that_process_and_no_list(local: Place):
    good, damaged = local.trained(), local.trained()
    assert local.renewed_by() == damaged
    (before,) = local.worker.children()
    for path in (local.files / damaged).glob("*.npy"):
        truncate_in_place(path)
    assert local.renewed_by() == good
    assert local.worker.children() != [before]
    assert local.worker.logged("model refused", damaged, ".npy") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of another process can be set on Linux alone")
def test_a_training_for_which_the_disk_is_full_leaves_nothing_behind_and_the_next_one_succeeds(local: Place):
    champion = local.trained()
    before = local.versions(), local.stored()
    (child,) = local.worker.children()
    limits = resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    failed = local.train_on_worker()
    assert failed["status"] == "failed"
    assert "cannot be saved" in failed["error"]
    assert f"-{failed['job_id'].hex[:4]}{failed['attempts']}" in failed["error"]  # the version's name ends so
    print(failed["error"])
    assert (local.versions(), local.stored()) == before
    assert local.renewed_by() == champion
    resource.prlimit(child.pid, resource.RLIMIT_FSIZE, limits)
    done = local.train_on_worker()
    assert done["status"] == "done"
    assert local.renewed_by() == done["result"]["version"] != champion
    assert local.worker.children() == [child]


@pytest.fixture
def away(remote: Place) -> Iterator[Callable[..., None]]:
    """Put the store out of reach, at once or after so many files; it is back after the test."""
    sign = remote.files.parent / "away"
    yield lambda after=0: sign.write_text(str(after)) and None
    sign.unlink(missing_ok=True)


def test_while_the_store_is_out_of_reach_the_version_in_memory_serves_and_the_new_one_when_it_is_back(
    remote: Place, away: Callable[..., None]
):
    first = remote.trained()
    assert remote.renewed_by() == first
    away()
    second = remote.trained()
    assert remote.renewed_by() == first
    assert remote.worker.logged("model refused", second, "could not connect to the endpoint") == 1
    (remote.files.parent / "away").unlink()
    assert remote.renewed_by() == second


def test_a_process_that_starts_while_the_store_is_out_of_reach_serves_from_its_copies(
    remote: Place, away: Callable[..., None]
):
    first = remote.trained()
    assert remote.renewed_by() == first
    away()
    second = remote.trained()
    remote.forget()
    assert remote.renewed_by() == first
    assert remote.worker.logged("model refused", second, "could not connect to the endpoint") == 1


@pytest.mark.parametrize("n_files", [0, 1, 3])
def test_a_training_that_cannot_upload_its_model_publishes_nothing_and_the_next_one_succeeds(
    remote: Place, away: Callable[..., None], n_files: int
):
    champion = remote.trained()
    assert remote.renewed_by() == champion  # so it is in memory
    before = remote.versions(), complete(remote.files)
    away(n_files)
    failed = remote.train_on_worker()
    assert failed["status"] == "failed"
    assert "cannot be saved: could not connect to the endpoint" in failed["error"]
    assert (remote.versions(), complete(remote.files)) == before
    assert remote.renewed_by() == champion
    (remote.files.parent / "away").unlink()
    done = remote.train_on_worker()
    assert done["status"] == "done"
    assert remote.renewed_by() == done["result"]["version"] != champion


def complete(files: Path) -> list[str]:
    """Return the versions that can be seen: a version without a card is not there."""
    return sorted(path.parent.name for path in files.glob("*/card.json"))
