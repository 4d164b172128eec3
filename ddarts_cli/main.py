"""The command group and its manner with mistakes: one sentence on standard error, exit status 2, no traceback."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from ddarts_cli import completing  # with our completion for bash
from ddarts_cli.system import print_plainly, refusal
from ddarts_core import __version__
from ddarts_core.ground.errors import Advice, Diverged, ReaderDied, UserError
from ddarts_core.ground.redact import hide_secrets, one_line

#: Subcommand -> one line of help. Its module in `ddarts_cli.commands` is imported when the subcommand is used.
COMMANDS = {
    "init": "Write files to begin with: a search, sweeps, a truth.",
    "search": "Run one search, and write the genotype that it finds.",
    "sweep": "Run many searches: Ray Tune runs, Optuna proposes, MLflow records.",
    "truth": "Train every genotype of a small space, to judge searches by.",
    "resume": "Go on with a study after a crash or a stop.",
    "retrain": "Train a derived network from scratch.",
    "transfer": "Train a derived network as the backbone of a detector.",
    "rebuild": "Make the copies of a study's folder anew: Optuna's journal, MLflow's runs.",
    "export": "Write a study's best genotypes.",
    "predict": "Name what pictures show, with an exported network.",
    "report": "Write figures and tables of a study as one HTML page.",
    "figure": "Write one figure of a study as PNG, SVG or PDF.",
    "table": "Tabulate a metric by a setting, over seeds.",
    "collect": "Write a study's records as a Parquet dataset.",
    "ui": "Serve the MLflow UI on a study's store.",
    "settings": "Explain the settings of a file: defaults, allowed values, meaning.",
    "config": "Print the resolved configuration; run nothing.",
    "data": "Look at the images of a file: classes, counts, splits, and a contact sheet.",
    "estimate": "Print the memory, steps and time that a file will take; run nothing.",
    "cost": "Count parameters and multiply-adds of a genotype.",
    "draw": "Draw the cells of a genotype.",
    "regret": "Judge searches by a truth, in which every genotype is trained.",
    "compare": "Show the differences of two genotypes.",
    "distance": "Print how far apart two genotypes are, and each of their cells.",
    "op-weights": "Measure the weights of operations that distances are made of.",
    "space": "Print the size of a search space.",
    "zoo": "List the known genotypes, or print one.",
    "methods": "List the method presets.",
    "check-plugin": "Check what a plug-in adds against the laws of ddarts' own tables.",
    "studies": "List studies, oldest first.",
    "status": "Show the trials of a study.",
    "completion": "Print a completion script for bash, zsh or fish.",
}


#: Set by the scripts of `ddarts completion` when they ask for answers.
COMPLETE = "_DDARTS_COMPLETE"


def _load_plugins(ctx: click.Context, option: click.Parameter, references: tuple[str, ...]) -> None:
    if ctx.resilient_parsing:  # pressing Tab runs no code of the user's
        return
    if ctx.parent is not None:  # of a command, not of the program, whose help answers at once
        from ddarts_core.ground.plugins import load_installed

        load_installed()
    if references:
        from ddarts_core.ground.plugins import load

        for reference in references:
            load(reference)


#: Taken by the program and by every subcommand, before all other options: these may name what a plug-in registers.
PLUGIN = click.Option(
    ["--plugin"],
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_load_plugins,
    metavar="FILE|FOLDER|MODULE",
    shell_complete=completing.file,
    help="Load a Python file, a package's folder or an installed module that adds operations, methods, data sets, ...; "
    "an installed module counts before a folder of its name, which ./NAME means; repeatable.",
)


class LazyGroup(click.Group):
    """A group that knows its subcommands' names and imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of a user's day."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the subcommand's module and return its `command`."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ddarts_cli.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        if not any(parameter.name == PLUGIN.name for parameter in command.params):
            command.params.append(PLUGIN)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as click does, and keep all arguments in `ctx.obj`.

        The subcommand finds them there when it prints the command that goes on with its run.
        """
        ctx.obj = list(args)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand as click does; the error for an unknown name lists the choices."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise click.UsageError(f"unknown command {args[0]!r}: choose one of {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table of subcommands, written without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ddarts")
def cli() -> None:
    """Differentiable architecture search with individual cells (D-DARTS).

    \b
    First steps:
      ddarts init
      ddarts search experiments/quickstart.yaml
      ddarts sweep experiments/quickstart_sweep.yaml
      ddarts search FILE --plugin my_plugin.py      with operations or methods of your own (see check-plugin)
    """


cli.params.append(PLUGIN)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    The exit status is 0 after a success, 1 if the run diverged or lost a process, 2 after a mistake, and 130 after an
    interruption.
    """
    gc.set_threshold(50_000)  # imports alone make a million objects, none of them garbage
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin would take the cores from other trials
    signal.signal(signal.SIGTERM, _interrupt)  # a scheduler's polite stop ends as Ctrl-C does: checkpointed
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # a terminal that is closed; not where nohup has it ignored
        signal.signal(signal.SIGHUP, _interrupt)
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it says where its cache is if there is none in the home
    open_closed_outputs()
    print_plainly()
    warn_in_sentences()
    status = run(arguments)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)  # the work is done: nothing is left to be interrupted well
    gc.freeze()  # else the interpreter looks through all that was imported once more: a second or two after a sweep
    sys.exit(status)


def open_closed_outputs() -> None:
    """Give a process that was started without standard output or standard error (`>&-`) one that nobody reads."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115  # for as long as the process


def warn_in_sentences() -> None:
    """Print what ddarts itself warns of as one sentence on standard error; a warning of a library stays as it is."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if issubclass(category, Advice):
            click.echo(f"warning: {one_line(str(message))}", err=True)
        else:
            usual(message, category, *where, **more)

    warnings.showwarning = show


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status; errors of the program and of plug-ins keep their traceback."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    output = sys.stdout
    try:
        result = cli.main(args=words, prog_name="ddarts", standalone_mode=False)
    except UserError as error:
        return _mistake(str(error), words)
    except (Diverged, ReaderDied) as error:
        _mistake(str(error), words)
        return 1
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        hint = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        return _mistake(error.format_message() + hint, words)
    except click.ClickException as error:
        return _mistake(error.format_message(), words)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted: the files written so far are whole.", err=True)
        return 130
    except SystemExit as error:
        if sys.stdout is output:
            return _mistake(_told(error), words)
        return 0  # click found that nobody reads, and silenced the output
    except BrokenPipeError:
        from ddarts_cli.console import drop_output

        drop_output()  # nobody reads
        return 0
    except Exception as error:  # a plug-in's may be of any kind; what is nobody's mistake is raised again
        return _mistake(_told(error), words)
    return result if isinstance(result, int) else 0


def _told(error: BaseException) -> str:
    """What the system refused, or where a plug-in failed; any other error is raised again.

    The author of a plug-in needs the traceback too, so it is printed.
    """
    from ddarts_core.ground.plugins import blamed

    if isinstance(error, Exception) and (sentence := refusal(error)) is not None:
        return sentence
    sentence = blamed(error)
    if sentence is None:
        raise error
    traceback.print_exception(error)
    return sentence


def _mistake(message: str, words: Sequence[str]) -> int:
    """Print a mistake on standard error, and return the exit status 2.

    Args:
        message: what is wrong. Passwords in its URIs, and those of `words`, are not printed.
        words: the words that the user typed.
    """
    try:
        sys.stdout.flush()
    except OSError:  # full as well
        from ddarts_cli.console import drop_output

        drop_output()
    click.echo(f"Error: {one_line(hide_secrets(message, *words))}", err=True)
    return 2


if __name__ == "__main__":
    main()
