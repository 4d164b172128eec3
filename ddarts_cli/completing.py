"""What the shell offers for an argument when Tab is pressed; see `ddarts completion`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

#: Bash's script of click loses the names where files are offered beside them, and knows no word with `:` or `=` in it.
#: Here the whole line goes to the program, and what bash holds for an earlier word (up to the last `:` or `=`) is
#: taken off the answers.
BASH_SCRIPT = """\
%(complete_func)s() {
    local type value typed="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n'
    local word="${typed##*[[:space:]]}" cut=""
    case "$word" in *[:=]*) [[ $COMP_WORDBREAKS == *[:=]* ]] && cut="${word%%"${word##*[:=]}"}" ;; esac
    COMPREPLY=()
    for value in $(COMP_LINE="$typed" %(complete_var)s=bash_complete "$1"); do
        type="${value%%%%,*}" value="${value#*,}"
        case "$type" in
            plain) COMPREPLY+=("${value#"$cut"}") ;;
            dir) compopt -o dirnames 2>/dev/null ;;
            file) compopt -o default 2>/dev/null ;;
        esac
    done
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]] && compopt -o nospace 2>/dev/null
    return 0
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class Bash(BashComplete):
    """click's completion for bash with `BASH_SCRIPT`."""

    source_template = BASH_SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """The arguments before the one that the cursor is at, and the beginning of that one up to the cursor."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)[1:]
        return (words, "") if not line or line[-1].isspace() else (words[:-1], "".join(words[-1:]))


def setting(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Dotted paths of settings; after `=` the values of the setting, if it has only a few."""
    from ddarts_tuning.settings.config import SweepConfig

    from ddarts_cli.commands.settings import tables
    from ddarts_cli.settings import groups

    settings = {found.path: found for group in groups(SweepConfig, tables()) for found in group.settings}
    path, equals, _ = incomplete.partition("=")
    if equals:
        return _beginning(
            incomplete, [f"{path}={value}" for value in settings[path].choices] if path in settings else []
        )
    return _beginning(incomplete, settings)


def study(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the studies in the storage folder, and folders of the file system."""
    names = sorted(file.parent.name for file in _storage(ctx).glob("*/study.json"))
    return [*_beginning(incomplete, names), CompletionItem(incomplete, type="dir")]


def trial(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Numbers of the trials of the study that was named before."""
    return _beginning(incomplete, [str(int(folder.name)) for folder in _trials(ctx)])


def metric(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Metrics of the study that was named before: those that its first epoch recorded."""
    return _beginning(incomplete, _metrics(ctx))


def order(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """`pareto`, or metrics with commas between them and a minus for largest first."""
    from ddarts_analysis.ranking import PARETO, names

    before, comma, _ = incomplete.rpartition(",")
    signed = [sign + name for name in names() for sign in ("", "-")]
    return _beginning(incomplete, [PARETO, *(f"{before}{comma}{name}" for name in signed)])


def figure(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the figures."""
    from ddarts_analysis.gallery import FIGURES

    return _beginning(incomplete, FIGURES)


def genotype(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Known genotypes, and files."""
    from ddarts_core.genotypes.zoo import EVERY

    return [*_beginning(incomplete, [f"zoo:{name}" for name in EVERY]), CompletionItem(incomplete, type="file")]


def zoo(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the known genotypes."""
    from ddarts_core.genotypes.zoo import EVERY

    return _beginning(incomplete, EVERY)


def recipe(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the recipes."""
    from ddarts_core.settings.recipes import RECIPES

    return _beginning(incomplete, RECIPES)


def transfer_recipe(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the recipes for other tasks."""
    from ddarts_core.transfer.settings import RECIPES

    return _beginning(incomplete, RECIPES)


def data(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the data sets."""
    from ddarts_core.settings.data_settings import DATA_SETS

    return _beginning(incomplete, DATA_SETS)


def method(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the methods."""
    from ddarts_core.methods import METHODS

    return _beginning(incomplete, METHODS)


def space(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Names of the spaces of operations."""
    from ddarts_core.genotypes.spaces import SPACES

    return _beginning(incomplete, SPACES)


def file(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Files, for an argument that may also be the name of a module."""
    return [CompletionItem(incomplete, type="file")]


def _storage(ctx: Any) -> Path:
    return Path(ctx.params.get("storage") or "runs")


def _trials(ctx: Any) -> list[Path]:
    """Folders of the trials of the study that a word of the line names.

    All words of the line are looked at, since click has not read a line that is unfinished.
    """
    folders = (folder for word in ctx.obj or () for folder in (Path(word), _storage(ctx) / word))
    study = next((folder for folder in folders if (folder / "study.json").is_file()), None)
    return [] if study is None else sorted(found for found in study.glob("trials/*") if found.name.isdecimal())


def _metrics(ctx: Any) -> list[str]:
    for folder in _trials(ctx):
        try:
            with open(folder / "records.jsonl") as lines:
                return sorted(json.loads(next(lines))["metrics"])
        except (OSError, StopIteration, ValueError, KeyError):
            continue
    return []


def _beginning(incomplete: str, names: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]
