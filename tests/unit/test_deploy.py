"""The files of `deploy/` are what their readers take, start what there is, and keep secrets out and rights low."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml  # type: ignore[import-untyped]  # it ships no types

from alertrec.cli import app
from alertrec.settings import Settings
from alertrec.task_names import QUEUES

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
OBJECTS = [each for path in (DEPLOY / "kubernetes").glob("*.yaml") for each in yaml.safe_load_all(path.read_text())]
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()

Command = tuple[str, Sequence[str]]  # where it stands, and the arguments of `alertrec`


def pods() -> list[tuple[str, Mapping[str, Any]]]:
    """Return what runs in Kubernetes: name, and specification of the pod."""
    return [
        (each["metadata"]["name"], each["spec"]["template"]["spec"])
        for each in OBJECTS
        if "template" in each.get("spec", {})
    ]


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)  # strict: no section and no key twice
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their capitals
    parser.read_string(re.sub(r"^Environment=", "Environment_=", path.read_text(), flags=re.MULTILINE))
    return parser


def composed() -> list[Command]:
    return [(name, each["command"]) for name, each in COMPOSE["services"].items() if each["image"] == "alertrec"]


def orchestrated() -> list[Command]:
    return [(name, each["containers"][0]["args"]) for name, each in pods()]


def managed() -> list[Command]:
    lines = [(path.stem, unit(path)["Service"]["ExecStart"].replace("%i", "8000").split()) for path in UNITS]
    assert {line[0] for _, line in lines} == {"/opt/alertrec/bin/alertrec"}
    return [(name, line[1:]) for name, line in lines]


def every_command() -> Iterator[Any]:
    for place, commands in (("compose", composed()), ("kubernetes", orchestrated()), ("systemd", managed())):
        yield from (pytest.param(arguments, id=f"{place}-{name}") for name, arguments in commands)


@pytest.mark.parametrize("arguments", list(every_command()))
def test_what_is_started_is_a_command_with_these_options(arguments: Sequence[str]) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has commands
    assert arguments[0] in commands
    commands[arguments[0]].make_context(arguments[0], list(arguments[1:]))  # raises on what it does not know


@pytest.mark.parametrize("commands", [composed(), orchestrated(), managed()], ids=["compose", "kubernetes", "systemd"])
def test_everything_that_runs_is_started_and_every_queue_is_served(commands: list[Command]) -> None:
    assert {arguments[0] for _, arguments in commands} == {"migrate", "worker", "beat", "serve"}
    served = [each[each.index("--queues") + 1] for _, each in commands if each[0] == "worker"]
    assert sorted(",".join(served).split(",")) == sorted(QUEUES)


def test_variables_of_all_files_are_settings() -> None:
    config = next(each["data"] for each in OBJECTS if each["kind"] == "ConfigMap")
    composed = {
        name: re.sub(r"\$\{.*?\}", "s" * 32, value) for name, value in COMPOSE["x-alertrec"]["environment"].items()
    }
    lines = (DEPLOY / "systemd" / "alertrec.env.example").read_text().replace("AT-LEAST-32-CHARACTERS", "s" * 32)
    example = dict(line.split("=", 1) for line in lines.splitlines() if not line.startswith("#"))
    for environment in (composed, example, config):
        Settings.from_env(environment)
    assert "sslmode=verify-full" in example["ALERTREC_DATABASE_URL"]
    assert example["ALERTREC_REDIS_URL"].startswith("rediss://")


def test_no_file_has_a_secret() -> None:
    secret = re.compile(r"PASSWORD|SECRET|_URL$|_AUTH$")
    for name, service in COMPOSE["services"].items():
        values = [value for key, value in service["environment"].items() if secret.search(key)]
        assert all(":?" in value for value in values), f"{name} starts without a secret, or has one"
    assert not [each for each in OBJECTS if each["kind"] == "Secret"]
    config = next(each["data"] for each in OBJECTS if each["kind"] == "ConfigMap")
    assert not [key for key in config if secret.search(key)]
    assert ".env" in (DEPLOY / ".gitignore").read_text().split()


def test_compose_opens_one_port_and_that_to_the_machine_itself() -> None:
    ports = [port for each in COMPOSE["services"].values() for port in each.get("ports", ())]
    assert ports == ["127.0.0.1:8000:8000"]
    assert COMPOSE["networks"]["inside"]["internal"] is True
    for name, service in COMPOSE["services"].items():
        assert set(service["networks"]) <= {"inside", *(["outside"] if name == "web" else [])}
        if service["image"] == "alertrec":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
        waits_for = service.get("depends_on", {})
        assert set(waits_for) <= set(COMPOSE["services"])
        for other, how in waits_for.items():
            assert how["condition"] != "service_healthy" or "healthcheck" in COMPOSE["services"][other]
    used = {each.partition(":")[0] for service in COMPOSE["services"].values() for each in service.get("volumes", ())}
    assert used == set(COMPOSE["volumes"])


@pytest.mark.parametrize(("name", "pod"), pods(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_pod_has_probes_limits_and_few_rights(name: str, pod: Mapping[str, Any]) -> None:
    (container,) = pod["containers"]
    probes = {key for key in container if key.endswith("Probe")}
    workers = {"readinessProbe"} if name.startswith("worker") else set()
    assert probes == ({"startupProbe", "livenessProbe", "readinessProbe"} if name == "web" else workers)
    assert container["resources"]["limits"]["memory"]
    assert set(container["resources"]["requests"]) == {"cpu", "memory"}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is pod["enableServiceLinks"] is False
    rights = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert container["securityContext"] == rights
    assert "env" not in container  # what is secret is a reference, and the rest is in one place
    assert container["envFrom"] == [{"configMapRef": {"name": "alertrec"}}, {"secretRef": {"name": "alertrec"}}]
    assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}


def test_probes_and_services_of_kubernetes_ask_what_there_is() -> None:
    web = next(pod["containers"][0] for name, pod in pods() if name == "web")
    port = int(web["args"][web["args"].index("--port") + 1])
    asked = {web[key]["httpGet"]["path"]: web[key]["httpGet"]["port"] for key in web if key.endswith("Probe")}
    assert asked == {"/health/live": port, "/health/ready": port}
    service = next(each["spec"] for each in OBJECTS if each["kind"] == "Service")
    assert service["ports"][0]["targetPort"] == port
    for each in OBJECTS:
        if each["kind"] == "Deployment":
            labels = each["spec"]["template"]["metadata"]["labels"]
            assert each["spec"]["selector"]["matchLabels"] == labels
            assert labels == {"app": "alertrec", "process": each["metadata"]["name"]}
    assert service["selector"] == {"app": "alertrec", "process": "web"}
    for name, pod in pods():
        if name.startswith("worker"):
            (container,) = pod["containers"]
            own = container["args"][container["args"].index("--name") + 1]
            assert f'"{own}@$HOSTNAME"' in container["readinessProbe"]["exec"]["command"][-1]


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_has_few_rights_and_reads_its_secrets_from_a_file(path: Path) -> None:
    service = unit(path)["Service"]
    assert service["User"] == "alertrec"
    assert service["EnvironmentFile"] == "/etc/alertrec/alertrec.env"
    assert service["Environment_"] == "ALERTREC_DATA_DIR=/var/lib/alertrec"
    assert (service["StateDirectory"], service["StateDirectoryMode"], service["UMask"]) == ("alertrec", "0700", "0077")
    assert (service["ProtectSystem"], service["CapabilityBoundingSet"]) == ("strict", "")
    assert all(service[key] == "yes" for key in ("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome"))


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and "CI" not in os.environ, reason="this machine has no systemd-analyze"
)
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for path in UNITS:
        # Of this environment, since a program that is not there is an error as well.
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/alertrec/bin/alertrec", sys.executable))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.iterdir())],  # noqa: S607
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_image_is_made_from_what_is_here_and_only_from_what_is_pinned() -> None:
    lines = [line for line in DOCKERFILE.replace("\\\n", " ").splitlines() if not line.startswith("#")]
    sources = [
        each for line in lines if line.startswith("COPY ") and "--from" not in line for each in line.split()[1:-1]
    ]
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().split() if line.startswith("!")}
    assert set(sources) == allowed
    assert all((ROOT / each).exists() for each in sources)
    installs = [part for line in lines for part in line.split("&&") if re.search(r"pip install", part)]
    assert len(installs) == 3
    assert all(
        "--require-hashes" in each or ("--no-deps" in each and "--build-constraints" in each) for each in installs
    )
    extras = set(re.findall(r"--extra (\w+)", DOCKERFILE))
    assert extras <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER 10001"]
