"""Every command against real servers: what it does, prints and returns, and one line for what goes wrong."""

from __future__ import annotations

import html
import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sqlalchemy import Engine, text

from alertrec import fitting
from alertrec.embedded import Servers
from alertrec.errors import TransientError
from alertrec.settings import Settings
from alertrec.task_names import QUEUES
from alertrec.watching import watch
from alertrec.workspace import open_workspace
from tests.integration.forking import Commands, commands
from tests.integration.processes import (
    Environment,
    broker,
    connected,
    database,
    environment,
    load_bank,
    run_script,
    wait_for,
    web_app,
    worker,
    write_bank,
)
from tests.integration.worlds import offers_of

Done = subprocess.CompletedProcess[str]

USER = "user-0003"
N_USERS = 60
REFUSED_DATABASE = "postgresql://nobody:secret-of-mine@127.0.0.1:1/none"
REFUSED_BROKER = "redis://:secret-of-mine@127.0.0.1:1/0"

HELP = """
import contextlib, io, json, sys
from alertrec.cli import main

def shown(*command):
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return output.getvalue()

commands = [["demo"], ["up"], ["worker"], ["beat"], ["flower"], ["import"], ["export"], ["migrate"], ["train"],
            ["evaluate"], ["refresh"], ["recommend"], ["status"], ["doctor"], ["models"], ["models", "list"],
            ["models", "show"], ["models", "report"], ["models", "promote"], ["models", "rollback"]]
texts = {" ".join(command): shown(*command) for command in commands} | {"": shown()}
heavy = [name for name in ("pandas", "sklearn", "polars", "sqlalchemy", "scipy") if name in sys.modules]
print(json.dumps({"texts": texts, "heavy": heavy}))
"""


_running: list[Commands] = []


@pytest.fixture(scope="module", autouse=True)
def _commands() -> Iterator[None]:
    with commands() as started:
        _running[:] = [started]
        yield


def run(*arguments: str, env: Environment, cwd: Path, module: str = "alertrec") -> Done:
    """Run a command to its end."""
    return _running[0].run(*arguments, env=env, cwd=cwd, module=module)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def database_url(running_servers: Servers, _template: None, scratch: Path) -> Iterator[str]:
    """A small bank, shared by the tests of this module."""
    with database(running_servers) as url:
        load_bank(url, scratch, n_users=N_USERS)
        yield url


@pytest.fixture(scope="module")
def env(running_servers: Servers, database_url: str, scratch: Path) -> Iterator[Environment]:
    with broker(running_servers) as redis_url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=scratch / "data")


@pytest.fixture(scope="module")
def version(env: Environment, scratch: Path) -> str:
    """A version, trained by the command."""
    return str(output_of(run("train", "--local", "--json", env=env, cwd=scratch))["version"])


@pytest.fixture
def empty_env(running_servers: Servers, _template: None, tmp_path: Path) -> Iterator[Environment]:
    """A migrated database without a single row, and a broker without a worker."""
    with database(running_servers) as database_url, broker(running_servers) as redis_url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=tmp_path / "data")


@pytest.fixture
def new_env(running_servers: Servers, tmp_path: Path) -> Iterator[Environment]:
    """A database without alertrec's tables."""
    with database(running_servers, template=None) as database_url, broker(running_servers) as redis_url:
        yield environment(DATABASE_URL=database_url, REDIS_URL=redis_url, DATA_DIR=tmp_path / "data")


def output_of(done: Done) -> Any:
    """What a command that succeeded printed as JSON."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def error_of(done: Done, *, status: int = 1) -> str:
    """The one line that a command that failed said, after what it may have said of its progress."""
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    *progress, line = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert not [each for each in progress if "rror" in each]
    assert done.stdout == ""
    return line


# --- data


def test_migrate_and_import_make_a_new_database_ready(new_env: Environment, tmp_path: Path):
    first = run("migrate", env=new_env, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "none →" in first.stdout
    files = write_bank(tmp_path, n_users=N_USERS)
    options = [text for name, path in files.items() for text in (f"--{name.replace('_', '-')}", str(path))]
    report = output_of(run("import", *options, "--json", env=new_env, cwd=tmp_path))
    assert report["n_rejected"] == 0
    read = {name: relation["n_inserted"] for name, relation in report["relations"].items()}
    assert read == {name: pl.read_parquet(path).height for name, path in files.items()}
    again = run("import", *options, env=new_env, cwd=tmp_path)
    assert again.returncode == 0
    assert "unchanged" in again.stdout


def test_import_with_refused_rows_loads_the_others_and_ends_with_3(empty_env: Environment, tmp_path: Path):
    (tmp_path / "users.csv").write_text("id,credit_limit\nu1,100\nu2,200\n")
    (tmp_path / "transactions.csv").write_text(
        "id,user_id,amount,transaction_date\nt1,u1,12.50,2026-01-02\nt2,u1,a lot,2026-01-02\nt3,stranger,1,2026-01-02\n"
    )
    options = ["--users", "users.csv", "--transactions", "transactions.csv", "--rejects", "refused.jsonl"]
    done = run("import", *options, env=empty_env, cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    assert "refused.jsonl" in done.stderr
    refused = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert [each["row"] for each in refused] == [2, 3]
    with connected(empty_env["ALERTREC_DATABASE_URL"]) as engine, engine.connect() as connection:
        assert connection.scalars(text("SELECT id FROM transactions")).all() == ["t1"]


def test_export_writes_the_current_lists(env: Environment, version: str, engine: Engine, tmp_path: Path):
    output_of(run("recommend", USER, "--json", env=env, cwd=tmp_path))
    done = output_of(run("export", "--out", "lists.csv", "--json", env=env, cwd=tmp_path))
    with engine.connect() as connection:
        n_rows = connection.scalar(text("SELECT count(*) FROM alertrec.recommendations WHERE expires_at > now()"))
    assert done == {"n_rows": n_rows, "out": "lists.csv"}
    assert pl.read_csv(tmp_path / "lists.csv").height == n_rows > 0


# --- work


def test_refresh_gives_every_active_user_a_list(env: Environment, version: str, engine: Engine, scratch: Path):
    done = run("refresh", "--local", env=env, cwd=scratch)
    with engine.connect() as connection:
        n_active = connection.scalar(text("SELECT count(*) FROM users WHERE is_active"))
        n_lists = connection.scalar(text("SELECT count(*) FROM alertrec.recommendation_lists"))
    assert done.returncode == 0, done.stderr
    assert f"{n_active} users refreshed in 1 chunks" in done.stdout
    assert n_lists == n_active


def test_workers_train_and_refresh_and_the_commands_show_progress(
    env: Environment, version: str, scratch: Path, tmp_path: Path
):
    with worker(env, tmp_path, name="test-cli"), web_app(env) as send:
        trained = run("train", "--force", env=env, cwd=scratch)
        refreshed = run("refresh", "--json", env=env, cwd=scratch)
        send("tick")
        well = wait_for(lambda: (done := run("doctor", "--json", env=env, cwd=scratch)).returncode == 0 and done)
        status = output_of(run("status", "--json", env=env, cwd=scratch))
    assert trained.returncode == 0, trained.stderr
    assert "is champion" in trained.stdout
    assert "storing: 1 of 1" in trained.stderr
    n_users = output_of(refreshed)["n_users"]
    assert f"refreshing: {n_users} of {n_users}" in refreshed.stderr
    assert [finding["ok"] for finding in json.loads(well.stdout)] == [True] * 7
    assert [name.partition("@")[0] for name in status["workers"]] == ["test-cli"]
    assert status["last_tick"] is not None
    assert set(status["queues"]) == set(QUEUES)


def test_recommend_shows_a_list_with_its_reasons(env: Environment, version: str, scratch: Path):
    shown = run("recommend", USER, env=env, cwd=scratch)
    parsed = output_of(run("recommend", USER, "--json", env=env, cwd=scratch))
    assert shown.returncode == 0, shown.stderr
    assert parsed["user_id"] == USER
    assert parsed["n_items"] == len(parsed["recommendations"]) > 0
    for item in parsed["recommendations"]:
        assert item["reasoning"] in shown.stdout
        assert item["natural_language_query"] in shown.stdout


def test_recommend_judges_as_of_the_moment_asked_for(env: Environment, version: str, scratch: Path):
    day = date.today() - timedelta(days=20)  # noqa: DTZ011 - any day of the history will do
    parsed = output_of(run("recommend", USER, "--as-of", str(day), "--json", env=env, cwd=scratch))
    assert parsed["as_of"] == f"{day}T23:59:59.999999+00:00"


def test_models_are_listed_shown_promoted_and_rolled_back(
    env: Environment, version: str, engine: Engine, scratch: Path
):
    newer = output_of(run("train", "--local", "--force", "--json", env=env, cwd=scratch))["version"]

    def champion() -> Any:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT version FROM alertrec.model_versions WHERE alias = 'champion'"))

    listed = output_of(run("models", "list", "--json", env=env, cwd=scratch))
    assert {each["version"]: each["alias"] for each in listed} | {version: None, newer: "champion"} == {
        each["version"]: each["alias"] for each in listed
    }
    assert output_of(run("models", "show", version, env=env, cwd=scratch))["version"] == version
    assert f"{version} is champion" in run("models", "promote", version, env=env, cwd=scratch).stdout
    assert champion() == version
    assert f"{newer} is champion again" in run("models", "rollback", env=env, cwd=scratch).stdout
    assert champion() == newer
    assert version in run("models", "list", env=env, cwd=scratch).stdout


def test_a_model_that_is_no_better_is_refused_with_the_reason_and_overruled(
    env: Environment, version: str, engine: Engine, scratch: Path
):
    def champion() -> Any:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT version FROM alertrec.model_versions WHERE alias = 'champion'"))

    present = champion()
    with engine.begin() as connection:
        connection.execute(text("UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'"))
    done = run("train", "--local", env=env, cwd=scratch)
    assert done.returncode == 0, done.stderr
    refused, *_ = re.findall(r"model (\S+) is stored, and does not serve:", done.stdout)
    assert "0 users enabled an alert since champion was trained, too few to tell the two apart by 10" in done.stdout
    assert f"`alertrec models report {refused}`" in done.stdout
    assert "`alertrec models promote` overrules" in done.stdout
    assert champion() == present
    report = output_of(run("models", "report", refused, "--json", env=env, cwd=scratch))
    assert "beats_champion" in [gate["name"] for gate in report["gates"] if not gate["passed"]]
    assert f"{refused} is champion" in run("models", "promote", refused, env=env, cwd=scratch).stdout
    assert champion() == refused
    assert f"{present} is champion again" in run("models", "rollback", env=env, cwd=scratch).stdout
    assert champion() == present


def test_a_refusal_is_told_as_json(env: Environment, version: str, engine: Engine, scratch: Path):
    with engine.begin() as connection:
        connection.execute(text("UPDATE alertrec.model_versions SET created_at = created_at - interval '7 days'"))
    result = output_of(run("train", "--local", "--json", env=env, cwd=scratch))
    assert set(result) == {"job_id", "version", "refused"}
    assert "too few to tell the two apart" in result["refused"][-1]


def test_evaluate_shows_tables_json_and_a_page(env: Environment, version: str, engine: Engine, tmp_path: Path):
    def n_versions() -> Any:
        with engine.connect() as connection:
            return connection.scalar(text("SELECT count(*) FROM alertrec.model_versions"))

    before = n_versions()
    shown = run("evaluate", env=env, cwd=tmp_path)
    written = run("evaluate", "--html", "report.html", "--json", env=env, cwd=tmp_path)
    report = output_of(written)
    assert "judging" in written.stderr
    assert "written to report.html" in written.stderr
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page)
    assert shown.returncode == 0, shown.stderr
    assert not list(tmp_path.glob("*.json"))
    models = report["protocols"]["leave_one_out"]["models"]
    assert set(models) >= {"popularity", "knn", "linear", "cooccurrence"}
    for model in models.values():
        assert f"{model['metrics']['log_loss']['value']:.3f}"[:4] in shown.stdout
    for gate in report["gates"]:
        assert gate["message"] in html.unescape(page)
    assert n_versions() == before


def test_the_report_of_a_model_is_that_on_its_card(env: Environment, version: str, scratch: Path, tmp_path: Path):
    card = output_of(run("models", "show", version, env=env, cwd=scratch))
    assert output_of(run("models", "report", version, "--json", env=env, cwd=scratch)) == card["report"]
    shown = run("models", "report", version, env=env, cwd=scratch)
    assert shown.returncode == 0, shown.stderr
    assert "log-loss" in shown.stdout.lower()
    written = run("models", "report", version, "--html", str(tmp_path / "page.html"), env=env, cwd=scratch)
    assert (written.returncode, written.stdout) == (0, "")
    assert version in (tmp_path / "page.html").read_text(encoding="utf-8")
    champion = output_of(run("models", "report", "--json", env=env, cwd=scratch))
    assert champion["gates"]


def test_an_explanation_is_shown_and_its_numbers_recompute(env: Environment, version: str, scratch: Path):
    parsed = output_of(run("recommend", USER, "--explain", "--json", env=env, cwd=scratch))
    shown = run("recommend", USER, "--explain", env=env, cwd=scratch)
    assert shown.returncode == 0, shown.stderr
    assert parsed["recommendations"]
    for item in offers_of(parsed["recommendations"]):
        explanation = item["explanation"]
        assert explanation["alert"] == item["alert_type"]
        assert explanation["probability"] == pytest.approx(item["probability"], abs=1e-9)
        assert explanation["changes"]
        if explanation["log_odds"] is not None:
            total = explanation["base"] + sum(each["value"] for each in explanation["contributions"])
            assert total == pytest.approx(explanation["log_odds"], abs=1e-6)
            assert f"log-odds {explanation['log_odds']:+.3f} = {explanation['base']:+.3f}" in shown.stdout
    assert "explanation" not in run("recommend", USER, "--json", env=env, cwd=scratch).stdout


def test_training_as_a_module_always_trains(env: Environment, version: str, scratch: Path):
    done = run(module="alertrec.training", env=env, cwd=scratch)
    assert done.returncode == 0, done.stderr
    assert "is champion" in done.stdout


def test_scheduled_retraining_trains_when_due_or_forced(env: Environment, version: str, scratch: Path):
    young = run(module="alertrec.scheduled_retraining", env=env, cwd=scratch)
    forced = run("--force", module="alertrec.scheduled_retraining", env=env, cwd=scratch)
    assert (young.returncode, forced.returncode) == (0, 0)
    assert "nothing trained" in young.stdout
    assert "--force" in young.stdout
    assert "is champion" in forced.stdout


@pytest.mark.parametrize("module", ["alertrec.training", "alertrec.scheduled_retraining"])
def test_too_little_data_is_one_line(module: str, empty_env: Environment, tmp_path: Path):
    assert "not enough data to train" in error_of(run(module=module, env=empty_env, cwd=tmp_path))


# --- health


def test_status_says_what_there_is(env: Environment, version: str, scratch: Path):
    done = run("status", env=env, cwd=scratch)
    assert "champion: 2" in done.stdout
    assert "workers: none answers" in done.stdout
    assert "training" in done.stdout
    assert re.search(r"ok +│ champion_missing +│ 0 +│ 0 ", done.stdout)


def test_status_says_what_to_do_where_a_promise_is_in_danger(empty_env: Environment, tmp_path: Path):
    done = run("status", env=empty_env, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "")
    assert re.search(r"DANGER +│ champion_missing +│ 1 +│ 0 ", done.stdout)
    assert re.search(r"DANGER +│ last_tick_seconds +│ not known +│ 180 ", done.stdout)
    assert re.findall(r"^→ .+$", done.stdout, re.MULTILINE) == [
        f"→ {name}: what to do is in docs/operations.md#{name}" for name in ("champion_missing", "last_tick_seconds")
    ]
    parsed = run("status", "--json", env=empty_env, cwd=tmp_path)
    assert parsed.returncode == 1
    vitals = json.loads(parsed.stdout)["vitals"]
    assert [vital["name"] for vital in vitals if vital["is_in_danger"]] == ["champion_missing", "last_tick_seconds"]
    assert [vital["queue"] for vital in vitals if vital["name"] == "queue_length"] == list(QUEUES)


def test_doctor_says_what_to_do_for_each_failure(new_env: Environment, tmp_path: Path):
    done = run("doctor", env=new_env, cwd=tmp_path)
    findings = re.findall(r"^(ok|FAIL) +([a-z ]+): .+(?:\n +→ (.+))?$", done.stdout, re.MULTILINE)
    marks, remedies = {check: mark for mark, check, _ in findings}, {check: remedy for _, check, remedy in findings}
    assert done.returncode == 1
    assert marks == dict.fromkeys(marks, "FAIL") | {"database": "ok", "broker": "ok"}
    assert "`alertrec migrate`" in remedies["migrations"]
    assert "ALERTREC_SOURCE_SCHEMA" in remedies["source relations"]
    assert remedies["model"]
    assert "`alertrec up`" in remedies["worker"]
    assert "`alertrec beat`" in remedies["beat"]


def test_doctor_names_the_queues_that_no_worker_takes_from(env: Environment, version: str, tmp_path: Path):
    with worker(env, tmp_path, name="test-some", queues=["interactive", "actions", "control"]):
        done = run("doctor", "--json", env=env, cwd=tmp_path)
    (found,) = (finding for finding in json.loads(done.stdout) if finding["check"] == "worker")
    assert not found["ok"]
    assert "no worker takes from batch, training" in found["found"]
    assert "--queues batch,training" in found["remedy"]


def test_status_tells_what_is_known_while_the_database_is_away(env: Environment, version: str, tmp_path: Path):
    away = {**env, "ALERTREC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    done = run("status", "--json", env=away, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the database failed")
    assert "check ALERTREC_DATABASE_URL" in done.stderr
    vitals = {vital["name"]: vital for vital in json.loads(done.stdout)["vitals"] if vital["queue"] is None}
    assert vitals["unacked_messages"]["value"] == 0
    assert vitals["expired_leases"]["is_in_danger"]
    assert "DANGER" in run("status", env=away, cwd=tmp_path).stdout


def test_doctor_examines_servers_that_are_down(tmp_path: Path):
    env = environment(DATABASE_URL=REFUSED_DATABASE, REDIS_URL=REFUSED_BROKER, DATA_DIR=tmp_path)
    done = run("doctor", "--json", env=env, cwd=tmp_path)
    found = {finding["check"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 1
    assert [finding["ok"] for finding in found.values()] == [False] * 7
    assert "ALERTREC_DATABASE_URL" in found["database"]["remedy"]
    assert "ALERTREC_REDIS_URL" in found["broker"]["remedy"]
    assert "secret-of-mine" not in done.stdout + done.stderr


# --- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["recommend", "nobody"], "user 'nobody' is not known"),
        (["recommend", USER, "--as-of", "yesterday"], "--as-of takes a date or time"),
        (["export", "--out", "lists.xlsx"], ".parquet, .csv, .jsonl"),
        (["import", "--users", "no-such-file.csv"], "no-such-file.csv"),
        (["models", "promote", "no-such-model"], "`alertrec models list`"),
        (["worker", "--queues", "interactiv"], "there are no queues interactiv"),
        (["models", "report", "no-such-model"], "`alertrec models list`"),
        (["evaluate", "--as-of", "2001-01-01"], "not enough data to train"),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], said: str, env: Environment, version: str, tmp_path: Path):
    assert said in error_of(run(*arguments, env=env, cwd=tmp_path))


@pytest.mark.parametrize("command", [["evaluate"], ["models", "report"]])
def test_a_page_that_cannot_be_written_is_one_line(command: list[str], env: Environment, version: str, tmp_path: Path):
    line = error_of(run(*command, "--html", "no/such/directory/page.html", env=env, cwd=tmp_path))
    assert "no/such/directory/page.html" in line
    assert "unexpected" not in line


@pytest.mark.parametrize("options", [[], ["--explain"]])
def test_a_user_who_is_not_active_is_said_to_be_served_no_list(
    options: list[str], env: Environment, version: str, engine: Engine, tmp_path: Path
):
    with engine.connect() as connection:
        inactive = str(connection.scalar(text("SELECT id FROM users WHERE NOT is_active ORDER BY id")))
    assert "is not active, and is served no list" in error_of(
        run("recommend", inactive, *options, env=env, cwd=tmp_path)
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["recommend"],
        ["recommend", USER, "--explian"],
        ["evaluate", "--html"],
        ["train", "surplus"],
        ["models", "nonsense"],
        ["models", "promote"],
        ["nonsense"],
    ],
)
def test_a_command_that_is_misspelt_ends_with_2_and_one_line(arguments: list[str], tmp_path: Path):
    done = run(*arguments, env=environment(DATA_DIR=tmp_path), cwd=tmp_path)
    assert done.returncode == 2
    assert re.findall("^Error: .+$", done.stderr, re.MULTILINE) == done.stderr.splitlines()[-1:]
    assert "error: unexpected" not in done.stderr
    assert (done.stdout, list(tmp_path.iterdir())) == ("", [])


def test_without_a_champion_command_and_doctor_say_to_train(empty_env: Environment, tmp_path: Path):
    (tmp_path / "users.csv").write_text("id\nu1\n")
    run("import", "--users", "users.csv", env=empty_env, cwd=tmp_path)
    assert "`alertrec train`" in error_of(run("recommend", "u1", env=empty_env, cwd=tmp_path))
    assert "`alertrec train`" in error_of(run("models", "report", env=empty_env, cwd=tmp_path))
    assert "→ run `alertrec train`" in run("doctor", env=empty_env, cwd=tmp_path).stdout


@pytest.mark.parametrize(
    ("command", "settings", "said"),
    [
        ("status", {"DATABSE_URL": "x"}, "did you mean ALERTREC_DATABASE_URL?"),
        ("worker", {"THRESHOLD": "2"}, "ALERTREC_THRESHOLD must be a number between 0 and 1"),
        ("up", {"DATABASE_URL": REFUSED_DATABASE}, "ALERTREC_REDIS_URL is not"),
        ("beat", {"DATABASE_URL": "mysql://secret-of-mine@h/d", "REDIS_URL": REFUSED_BROKER}, "ALERTREC_DATABASE_URL"),
        ("refresh", {"DATABASE_URL": REFUSED_DATABASE, "REDIS_URL": REFUSED_BROKER}, "check ALERTREC_DATABASE_URL"),
        ("up", {"DATABASE_URL": REFUSED_DATABASE, "REDIS_URL": REFUSED_BROKER}, "check ALERTREC_DATABASE_URL"),
    ],
)
def test_a_wrong_setting_is_one_line(command: str, settings: dict[str, str], said: str, tmp_path: Path):
    line = error_of(run(command, env=environment(DATA_DIR=tmp_path, **settings), cwd=tmp_path))
    assert said in line
    assert "secret-of-mine" not in line


def test_a_database_without_our_tables_is_one_line(new_env: Environment, tmp_path: Path):
    assert "run `alertrec migrate`" in error_of(run("status", env=new_env, cwd=tmp_path))


def test_a_broker_that_is_down_is_one_line(env: Environment, version: str, tmp_path: Path):
    without = {**env, "ALERTREC_REDIS_URL": REFUSED_BROKER}
    assert "the broker did not take" in error_of(run("refresh", env=without, cwd=tmp_path))
    done = run("status", "--json", env=without, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "error: the broker cannot be reached; check ALERTREC_REDIS_URL\n")
    found = json.loads(done.stdout)
    assert (found["queues"], found["workers"], found["last_tick"]) == (None, [], None)
    assert found["champion"] is not None


def test_debug_shows_the_traceback(env: Environment, version: str, tmp_path: Path):
    done = run("--debug", "recommend", "nobody", env=env, cwd=tmp_path)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "UnknownUserError" in done.stderr


def test_a_job_that_nobody_takes_is_given_up_with_a_remedy(database_url: str, tmp_path: Path):
    settings = replace(Settings(), database_url=database_url, data_dir=tmp_path)
    workspace = open_workspace(settings)
    job_id = fitting.request_training(workspace)
    with pytest.raises(TransientError, match="start workers with `alertrec up`"):
        list(watch(workspace, job_id, patience=0.0))
    fitting.run_training(workspace)
    workspace.engine.dispose()


# --- help


@pytest.fixture(scope="module")
def helped(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return run_script(HELP, env=environment(), cwd=tmp_path_factory.mktemp("help"))


def test_help_is_there_for_every_command(helped: Any):
    assert [command for command, shown in helped["texts"].items() if f"{command} [OPTIONS]" not in shown] == []
    assert [command for command, shown in helped["texts"].items() if len(shown.splitlines()) < 5] == []


def test_help_loads_no_heavy_library(helped: Any):
    assert helped["heavy"] == []
