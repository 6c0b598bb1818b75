"""`demo`, `up`, `serve`, `token`, `worker`, `beat`, `flower`."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alertrec import tracing
from alertrec.cli.common import console, settings
from alertrec.errors import ConfigError
from alertrec.logs import JSON, configure_logging
from alertrec.processes import (
    beat_role,
    flower_role,
    give_way,
    running,
    stop_with_parent,
    wait_for_stop,
    web_role,
    worker_roles,
)
from alertrec.runtime import child_environment, connected, opened
from alertrec.settings import Settings
from alertrec.task_names import QUEUES

if TYPE_CHECKING:
    from celery import Celery

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(up)
    app.command()(serve)
    app.command()(token)
    app.command(hidden=True)(simulate)
    app.command()(worker)
    app.command()(beat)
    app.command()(flower)


def demo(
    once: Annotated[bool, typer.Option("--once", help="Do the main job, then stop everything and exit.")] = False,
    users: Annotated[int, typer.Option(min=50, help="Users of the sample bank.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the sample bank.")] = 0,
) -> None:
    """Show the whole system at work on a sample bank."""
    from alertrec.demo import run_demo

    run_demo(settings(), n_users=users, seed=seed, once=once)


def up() -> None:
    """Run workers, Beat, the web app and Flower until Ctrl-C."""
    from alertrec.flower_access import flower_access, free_port

    given = settings()
    with opened(given) as workspace:
        access, port = flower_access(workspace.settings), free_port(workspace.settings.web_port)
        roles = [*worker_roles(), beat_role(), web_role(port, flower_url=access.url), flower_role(access.port)]
        with running(workspace.settings, roles) as started:
            console.print(f"everything is starting; the logs are in {given.data_dir / 'logs'}")
            console.print(f"web app: http://127.0.0.1:{port}  (`alertrec token` makes tokens to sign in with)")
            console.print(
                f"Flower: {access.url}  (user {access.user}, password {access.password})",
                highlight=False,
                soft_wrap=True,
            )
            console.print("Ctrl-C stops all of it.")
            wait_for_stop(started, given.data_dir / "logs")


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="Port; 0: as set, or a free one.")] = 0,
    flower_url: Annotated[str | None, typer.Option(help="Where Flower is, for the link on the dashboard.")] = None,
    sample_users: Annotated[str, typer.Option(hidden=True, help="Of a demo: as whom everybody may sign in.")] = "",
) -> None:
    """Run the web app: the API under /api/alerts, the customer's page, the dashboard."""
    import uvicorn

    from alertrec.flower_access import free_port
    from alertrec.web.app import SampleUser, create_app

    if sample_users and host not in _LOOPBACK:
        raise ConfigError("whoever reaches a demo may sign in; it listens on the loopback interface only")
    samples = [SampleUser(user_id, f"Customer {user_id}") for user_id in filter(None, sample_users.split(","))]
    with opened(settings()) as workspace:
        chosen = port or free_port(workspace.settings.web_port)
        tracing.start("alertrec web", os.environ)
        app = create_app(workspace.settings, sample_users=samples, flower_url=flower_url)
        console.print(f"web app: http://{host}:{chosen}", highlight=False, soft_wrap=True)
        configure_logging(workspace.settings.log_format)
        tracing.say_obstacle(os.environ)
        stop_with_parent()
        # Without uvicorn's log of requests, and of sockets, which is another: paths may name customers.
        logging.getLogger("uvicorn.error").addFilter(lambda record: "WebSocket " not in record.getMessage())
        uvicorn.run(app, host=host, port=chosen, access_log=False, log_config=None, timeout_graceful_shutdown=3)


def simulate(
    url: Annotated[str, typer.Argument(help="Of the web app.")],
    without: Annotated[str, typer.Option(help="Users to leave to visitors, with commas.")] = "",
) -> None:
    """Have the customers of a sample bank visit the web app until Ctrl-C."""
    from alertrec.demo import served_users
    from alertrec.simulation import simulate as run
    from alertrec.web.access import web_secret

    with opened(settings()) as workspace:
        user_ids = [each for each in served_users(workspace) if each not in without.split(",")]
        stop_with_parent()
        run(url, web_secret(workspace.settings), user_ids)


def token(
    user_id: Annotated[str, typer.Argument(help="The customer, or a name of the member of staff.")],
    admin: Annotated[bool, typer.Option("--admin", help="For the bank's staff: may see everything.")] = False,
    hours: Annotated[float, typer.Option(min=0.001, help="For how long it is valid.")] = 8.0,
) -> None:
    """Print a token to sign in to `alertrec serve` with."""
    from alertrec.web.access import Viewer, sign_token, web_secret

    print(sign_token(web_secret(settings()), Viewer(user_id, is_admin=admin), seconds=hours * 3600))


def worker(
    queues: Annotated[str, typer.Option(help="Queues to take tasks from, with commas.")] = ",".join(QUEUES),
    concurrency: Annotated[int, typer.Option(min=0, help="Processes; 0: one a core.")] = 0,
    name: Annotated[str, typer.Option(help="Name of the worker, unique on this machine.")] = "worker",
) -> None:
    """Run one worker until it is told to stop; it finishes what it is at."""
    unknown = sorted(set(queues.split(",")) - set(QUEUES))
    if unknown:
        raise ConfigError(f"there are no queues {', '.join(unknown)}; known are {', '.join(QUEUES)}")
    with connected(settings()) as complete:
        give_way(queues.split(","))  # not before: embedded servers, if any were started, give way to nobody
        app = _celery_of(complete)
        from celery.utils.nodenames import host_format

        started = app.Worker(
            hostname=host_format(f"{name}@%h"),
            queues=queues,
            concurrency=concurrency or os.cpu_count() or 1,
            without_mingle=True,
            without_gossip=True,
            loglevel="INFO",
            quiet=_is_quiet(complete),
        )
        started.start()
        # A process manager must see that a worker broke down.
        raise typer.Exit(started.exitcode or 0)


def beat() -> None:
    """Run Beat, which makes the system look each minute at what is due; several do no harm."""
    with connected(settings()) as complete:
        _celery_of(complete).Beat(loglevel="INFO", quiet=_is_quiet(complete)).run()


def flower(
    port: Annotated[int, typer.Option(min=0, help="Port on the loopback interface; 0: as set, or a free one.")] = 0,
) -> None:
    """Run Flower, which shows workers and tasks, behind a password."""
    from alertrec.flower_access import flower_access

    with connected(settings()) as complete:
        access = flower_access(complete, port=port)
        console.print(f"Flower: {access.url}  (user {access.user}; the password is in {access.password_source})")
        # In the environment, not among the arguments: those can be seen by every account of the machine.
        os.environ["FLOWER_BASIC_AUTH"] = f"{access.user}:{access.password}"
        app = _celery_of(complete)
        from celery.bin.celery import celery

        celery.params[0].default = app
        quiet = ["--quiet"] if _is_quiet(complete) else []
        options = ["--address=127.0.0.1", f"--port={access.port}", "--loglevel=WARNING"]
        raise typer.Exit(celery.main(args=[*quiet, "flower", *options], standalone_mode=False) or 0)


def _celery_of(complete: Settings) -> Celery:
    """Return the app, for a command of Celery to be run in this process on the servers of these settings.

    Celery's own command line would be loaded with everything that has a command in it, Flower with its web server too.
    """
    os.environ.update(child_environment(complete, {}))
    configure_logging(complete.log_format, bound=_running_task)
    stop_with_parent()
    from tasks import app

    if complete.log_format == JSON:
        _keep_log_format()
    return app


def _is_quiet(complete: Settings) -> bool:
    """Return whether a banner has no place among the lines of the log."""
    return complete.log_format == JSON


def _running_task() -> dict[str, Any]:
    """Return which task this process is at, for its log, and with which model."""
    from celery import current_task

    from tasks.process import model_version

    task = {"task_id": current_task.request.id, "task": current_task.name} if current_task else {}
    version = model_version()
    return task | ({"model_version": version} if version else {})


def _keep_log_format() -> None:
    """Have Celery, which would write some of its log as text, leave all of it to the format that is configured."""
    from billiard.util import get_logger
    from celery import signals

    @signals.setup_logging.connect(weak=False)
    def keep(**_: Any) -> None:
        pool = get_logger()
        pool.propagate = True  # it would have a handler of its own
        pool.setLevel(logging.ERROR)  # as Celery has it
