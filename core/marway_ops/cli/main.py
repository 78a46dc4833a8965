"""The `marway` command: gathers the verbs of all rooms, and turns every failure into one clear line.

Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from importlib.metadata import entry_points
from typing import NoReturn

import typer

from marway import __version__
from marway.errors import MarwayError
from marway.text import printable
from marway_ops.cli.batch import batch
from marway_ops.cli.changes import delete, rollback, serving
from marway_ops.cli.contracts import contract
from marway_ops.cli.doctor import doctor
from marway_ops.cli.gc import gc
from marway_ops.cli.listings import history, models, show
from marway_ops.cli.logs import logs
from marway_ops.cli.pods import drain, load, pin, pods, unload
from marway_ops.cli.predict import predict
from marway_ops.cli.protect import approve, protect
from marway_ops.cli.rollouts import rollout
from marway_ops.cli.shadow import shadow
from marway_ops.cli.storage import copy, df, export, import_file
from marway_ops.cli.up import up
from marway_ops.shell.environment import unknown_variables
from marway_ops.shell.options import DEBUG_ENV
from marway_ops.shell.output import warn

__all__ = ["build_app", "main"]

_VERBS = (
    up,
    predict,
    batch,
    models,
    show,
    history,
    rollback,
    protect,
    approve,
    serving,
    pods,
    drain,
    load,
    unload,
    pin,
    delete,
    copy,
    export,
    df,
    gc,
    logs,
    doctor,
)
"""The bare install's own, in the order of the help."""
_EXTRAS = ("gateway", "sidecar", "runtime")
"""Verbs that are also the names of the extras they need; any other verb needs several."""


def build_app() -> typer.Typer:
    """Return the command with the verbs of core and of every room that is installed."""
    app = typer.Typer(
        name="marway",
        help="Serve PyTorch models behind one front door; pack, publish and release them.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode=None,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", is_eager=True, callback=_show_version, help="Print the version and exit."
        ),
    ) -> None:
        pass  # the callback has shown it

    for verb in _VERBS:
        app.command()(verb)
    app.command("import")(import_file)
    app.add_typer(shadow, name="shadow")
    app.add_typer(rollout)
    app.add_typer(contract)
    for entry in sorted(entry_points(group="marway.verbs"), key=lambda found: found.name):
        entry.load()(app)
    return app


def _show_version(wanted: bool) -> None:
    # From a callback: where no verb is given, that is found missing before the function above would run.
    if wanted:
        typer.echo(f"marway {__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Run the command line."""
    logging.basicConfig(handlers=[_Warnings()], level=logging.WARNING)
    for warning in unknown_variables(os.environ):
        warn(warning)
    try:
        build_app()(prog_name="marway")
    except MarwayError as exc:
        _fail(exc.message)
    except ModuleNotFoundError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing.startswith("marway"):
            raise
        extra = next((word for word in sys.argv[1:2] if word in _EXTRAS), "all")
        _fail(f"this needs the package {missing!r}, which is not installed: pip install 'marway[{extra}]'")
    except KeyboardInterrupt:
        _fail("interrupted", code=130)
    except BrokenPipeError:
        # The reader of our output has gone (`marway models | head`): nothing is left to say, and to nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as exc:
        if os.environ.get(DEBUG_ENV):
            traceback.print_exc()
        _fail(f"{exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else ""))
    sys.exit(0)


class _Warnings(logging.Handler):
    """Shows what a verb's own code logs as the command shows warnings; servers configure logging of their own."""

    def emit(self, record: logging.LogRecord) -> None:
        warn(getattr(record, "warning", None) or record.getMessage())


def _fail(message: str, *, code: int = 1) -> NoReturn:
    one_line = " ".join(message.split())
    print(f"marway: {printable(one_line)}", file=sys.stderr)
    sys.exit(code)
