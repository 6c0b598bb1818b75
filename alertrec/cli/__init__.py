"""The command line: parse, call one use case, format. Heavy libraries are loaded by the commands that need them."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer
from typer.exceptions import TyperException

from alertrec.cli import data, health, models, reports, system, work
from alertrec.cli.common import settings
from alertrec.errors import AlertrecError, ConfigError, first_line
from alertrec.logs import COMMAND_LINES, TEXT, configure_logging

app = typer.Typer(
    help="Recommends to each bank customer the few alert rules worth switching on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
system.register(app)
data.register(app)
work.register(app)
reports.register(app)
health.register(app)
app.add_typer(models.app, name="models")


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and the log.")] = False,
) -> None:
    try:
        log_format = settings().log_format
    except ConfigError:
        log_format = TEXT  # the command, where it needs settings, says what is wrong with them
    level = logging.INFO if debug else logging.ERROR
    configure_logging(log_format, level=level, lines=COMMAND_LINES, force=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; errors are one line with the remedy, and a status that is not zero.

    Parameters
    ----------
    arguments : sequence of str, optional
        In place of those that this process was started with.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        status = app(given, standalone_mode=False)
    except typer.Abort:
        status = 130
    except TyperException as error:
        error.show()  # type: ignore[attr-defined]  # of the usage errors below it, which typer does not export
        status = error.exit_code
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what read our output has gone; so do we
        status = 141
    except Exception as error:
        if debug:
            raise
        _print_error(error)
        status = 1
    sys.exit(status or 0)


def _print_error(error: Exception) -> None:
    if isinstance(error, AlertrecError):
        text = str(error)
    elif type(error).__module__.startswith(("sqlalchemy", "psycopg")) and "OperationalError" in type(error).__name__:
        text = f"the database cannot be reached: {first_line(error)}; check ALERTREC_DATABASE_URL"
    elif type(error).__module__.startswith("redis"):
        text = f"the broker cannot be reached: {first_line(error)}; check ALERTREC_REDIS_URL"
    else:
        text = f"unexpected {type(error).__name__}: {first_line(error)}; run `alertrec --debug …` to see where"
    print(f"error: {text}", file=sys.stderr)
