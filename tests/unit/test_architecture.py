"""Arithmetic at the bottom, wires at the top; and what a web process imports stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "alertrec"

LAYERS = (
    "errors catalog settings task_names action_types transactions schedule merchants wording",
    "ledger feature_engineering labels models ranking calibration feedback evaluation explanation drift gates "
    "recurring detectors sample_bank artifacts reporting user_frames",
    "recommender scoring selection rules lists model_store storage llm",
    "workspace announcing live importing exporting training_data judging fitting promotion service actions "
    "adopting dead_letters starters upkeep experiments monitoring user_story watching vitals",
    "embedded runtime flower_access generated_secrets logs tracing",
    "__init__ __main__ cli web simulation training scheduled_retraining background demo processes doctor sending",
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
PURE = 2  # up to this layer, nothing knows the time of day
FORBIDDEN_BELOW = {
    # A library or module, and the lowest layer that may know it.
    "celery": 5, "kombu": 5, "redis": 3, "sqlalchemy": 2, "psycopg": 2, "alembic": 2, "fsspec": 2,
    "subprocess": 4, "socket": 4, "tempfile": 1, "time": 2,
}  # fmt: skip

FILES = sorted(PACKAGE.rglob("*.py"))


def rank_of(path: Path) -> int:
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert name in RANK, f"alertrec/{name} stands in no layer; add it to the table of layers in {Path(__file__).name}"
    return RANK[name]


def rank_of_import(name: str) -> int:
    top, *below = name.split(".")
    if top != "alertrec":
        return RANK["__init__"] if top in {"tasks", "celeryconfig"} else FORBIDDEN_BELOW.get(top, 0)
    if not below:
        return 0  # the bare package, which loads nothing
    if (PACKAGE / below[0]).is_dir() or (PACKAGE / f"{below[0]}.py").is_file():
        return rank_of(PACKAGE / below[0])
    return RANK["__init__"]  # a name that the package gives to its users; inside, modules are imported


def imported(source: str, package: tuple[str, ...]) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each import, wherever in the source of a module of `package`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join((*above, *filter(None, [node.module])))
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    return imported(path.read_text(encoding="utf-8"), path.relative_to(ROOT).parent.parts)


def test_every_module_stands_in_a_layer():
    assert {rank_of(path) for path in FILES} == set(range(len(LAYERS)))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_downwards(path: Path):
    mine, wrong = rank_of(path), []
    for line, name in imports_of(path):
        theirs = rank_of_import(name)
        if theirs > mine:
            wrong.append(f"line {line} imports {name}, of layer {theirs}, into layer {mine}")
    assert wrong == []


def test_the_check_sees_imports_of_every_form():
    source = "import alertrec.cli, os\ndef f():\n    from alertrec.web import app\n    from . import service\n"
    found = [name for _, name in imported(source + "    from ..cli import main\n", ("alertrec", "storage"))]
    assert sorted(found) == ["alertrec.cli", "alertrec.cli.main", "alertrec.storage.service", "alertrec.web.app", "os"]


def test_names_that_the_package_gives_to_its_users_are_no_way_round():
    assert rank_of_import("alertrec.train_model") == rank_of_import("alertrec.cli.main") == len(LAYERS) - 1
    assert rank_of_import("alertrec.errors.DataError") == rank_of_import("alertrec") == rank_of_import("math") == 0


@pytest.mark.parametrize(
    "path", [path for path in FILES if rank_of(path) <= PURE], ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_lower_layers_know_no_clock_and_no_environment(path: Path):
    reads = [
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in {"now", "utcnow", "today", "environ", "getenv"}
        and ast.unparse(node.value).split(".")[-1] in {"datetime", "date", "os"}
    ]
    assert reads == []


@pytest.mark.parametrize("path", FILES + sorted((ROOT / "tasks").rglob("*.py")), ids=lambda path: path.stem)
def test_nothing_that_runs_code_on_loading_is_imported(path: Path):
    unsafe = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"}
    harmless = {"joblib.Parallel", "joblib.delayed"}  # what else joblib has pickles, and loads pickles
    imports = [name for _, name in imports_of(path) if name not in harmless]
    assert [name for name in imports if name.split(".")[0] in unsafe | {"joblib"}] == []
    assert "allow_pickle=True" not in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "environment",
    [{}, {"ALERTREC_REDIS_URL": "redis://h/0", "ALERTREC_DATABASE_URL": "postgresql://h/d"}],
    ids=["unconfigured", "configured"],
)
@pytest.mark.parametrize("module", ["alertrec", "tasks"])
def test_importing_stays_light_and_needs_no_settings(module: str, environment: dict[str, str], tmp_path: Path):
    heavy = ("pandas", "polars", "sklearn", "scipy", "numpy", "sqlalchemy", "psycopg", "pyarrow", "fsspec")
    code = f"import sys, {module}; print(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env={"PYTHONPATH": str(ROOT)} | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == []
    assert list(tmp_path.iterdir()) == []
