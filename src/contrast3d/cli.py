"""The command line: reads arguments, calls the functions of `recipes`, prints what they return. Nothing else."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import make_dataclass
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from contrast3d.data_verbs import data
from contrast3d.errors import ConfigError, Contrast3dError, FailedElsewhere
from contrast3d.flags import help_of, parse, positional
from contrast3d.recipes.machine import Machine, is_first_process, told_once
from contrast3d.recipes.options import CompareOptions, DoctorOptions, EvaluateOptions, ReportOptions
from contrast3d.recipes.table import PROTOCOLS, check_protocol, suggestion
from contrast3d.verbs import VERBS as VERBS_OF_A_RUN

USAGE = """\
contrast3d: self-supervised learning on 3D shapes

usage: contrast3d VERB [arguments]        contrast3d VERB --help explains each verb

  demo                      the whole story on the embedded data, in minutes: pre-train, probe, report
  pretrain RECIPE           train an encoder without labels; Ctrl-C saves, the same command goes on
  evaluate PROTOCOL RUN     what the encoder knows, with baselines beside: linear, svm, knn, few-shot, finetune ...
  report RUN                one HTML page: curves, results, a map of the shapes, neighbours, confusions
  compare RUN RUN ...       runs side by side, paired over seeds; runs that differ by seed alone are one row
  embed RUN PATHS -o INDEX  meshes, point clouds, folders of them or a data set into an index that can be searched
  search INDEX QUERY        the nearest shapes to a file or to one of the index, with a picture
  dedupe INDEX              groups of near-duplicates
  gallery INDEX             one HTML page: clusters, neighbours and a map of the shapes
  export RUN -o FOLDER      the encoder as safetensors, ONNX and torch.export, checked
  data list | check NAME    the data sets there are; what is missing of one and how it must look
  data prepare pairs SOURCE -o FOLDER   RGB-D scans into views of scenes and all pairs of them that overlap
  data prepare rooms -o FOLDER          generated rooms as RGB-D scans, to try the line above with
  data prepare teachers DATASET         what image and text networks say of shapes, for training (recon-*)
  doctor [--model RECIPE]   this machine, and what is missing; or how large a network is

Begin with:  contrast3d demo
"""

# torchrun ends all processes as soon as one has failed. The silent ones outlive, until they are ended, the one that
# says why: it may still be importing.
_LAST_WORDS_S = 30


def program() -> NoReturn:
    """`main` as a process. One of several ends at once: torch's threads that outlive the interpreter may abort it."""
    code = main()
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    0: done. 1: data, files or runs are not as they should be. 2: the arguments cannot work. 130: Ctrl-C.
    141: nobody reads the output any more, as after `| head`.
    """
    try:
        with _warnings_as_lines():
            code = _answer(arguments)
        sys.stdout.flush()  # here, not at the end of the process, where a closed pipe is past catching
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return code


def _answer(arguments: list[str] | None) -> int:
    # Before torch is loaded: OpenMP threads that wait for work by spinning take the core our kernels need.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    arguments = [_at_home(a) for a in (sys.argv[1:] if arguments is None else arguments)]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb == "--version":
        from importlib.metadata import version

        print(f"contrast3d {version('contrast3d')}")
        return 0
    try:
        if verb not in VERBS:
            raise ConfigError(f"no verb {verb!r}{suggestion(verb, VERBS)}; there are: {', '.join(VERBS)}")
        return VERBS[verb](rest)
    except SystemExit as stop:  # after --help, or at a second Ctrl-C
        return int(stop.code or 0)
    except BrokenPipeError:
        raise
    except FailedElsewhere:
        time.sleep(_LAST_WORDS_S)
        return 1
    except ConfigError as error:
        return _fail(str(error), 2)
    except Contrast3dError as error:
        return _fail(str(error), 1)
    except OSError as error:
        return _fail(f"cannot use {error.filename or 'this file'}: {error.strerror or error}", 1)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "interrupted; the same command begins again or goes on", 130)


def _fail(message: str, code: int) -> int:
    print("contrast3d:", "; ".join(line.strip() for line in message.splitlines()), file=sys.stderr)
    return code


@contextlib.contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Inside, what this library warns of is a line on stderr, said by the first process; others' as Python shows it."""
    plain = warnings.formatwarning

    def line(message, category, filename, lineno, source=None) -> str:
        if not issubclass(category, UserWarning) or not Path(filename).is_relative_to(Path(__file__).parent):
            return plain(message, category, filename, lineno, source)
        return f"contrast3d: {message}\n" if is_first_process() else ""

    warnings.formatwarning = line
    try:
        yield
    finally:
        warnings.formatwarning = plain


def _at_home(argument: str) -> str:
    """`~/x` and `--flag=~/x` with the home folder in place; shells expand only the first."""
    flag, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    return flag + equals + (os.path.expanduser(value) if value.startswith("~") else value)


def _demo(arguments: list[str]) -> int:
    machine = parse(Machine, arguments, "demo", "The whole story on the embedded data: pre-train, probe, report.")
    from contrast3d.recipes.demo import demo

    outcome, table, page = demo(machine, _tell)
    if not is_first_process():
        return outcome.exit_code
    if table is None:
        return _interrupted(outcome, ["demo", *arguments])
    _print(table.render())
    print(f"report: {page}")
    return 0


def _pretrain(arguments: list[str]) -> int:
    from contrast3d.recipes import table

    listing = "\n".join(f"  {name:31s} {table.summary(name)}" for name in table.RECIPES)
    with told_once():
        name, rest = positional(
            arguments, "contrast3d pretrain RECIPE [--field value ...]", f"recipes:\n{listing}\n\n"
            "contrast3d pretrain RECIPE --help shows the fields of a recipe and what to expect of it.",
        )
        options = _pretrain_options(name, rest)
    from contrast3d.recipes.pretrain import next_commands, pretrain

    run, outcome = pretrain(name, options.recipe, options.machine)
    if not is_first_process():
        return outcome.exit_code
    if outcome.status != "finished":
        return _interrupted(outcome, ["pretrain", *arguments])
    numbers = ", ".join(f"{k} {v:.4g}" for k, v in outcome.metrics.items() if k != "lr")
    print(f"finished: {outcome.epochs} epochs in {outcome.seconds:.0f} s; {numbers}")
    print(f"run: {run.path}")
    if run.recipe.ends_in_report:
        from contrast3d.recipes.reporting import report

        print(f"report: {report(run, options.machine.data_root, device=options.machine.device)}")
    print(f"next: {'   '.join(next_commands(run, outcome, options.machine))}")
    return 0


def _pretrain_options(name: str, arguments: list[str]):
    """`recipe`, the one called `name` with the values of the flags, and `machine`."""
    from contrast3d.recipes import table
    recipe = table.find(name)
    both = make_dataclass("Options", [("recipe", type(recipe), recipe), ("machine", Machine, Machine())], frozen=True)
    return parse(both, arguments, f"pretrain {name}", table.documentation(name))


def _evaluate(arguments: list[str]) -> int:
    protocols = "protocols:\n" + "\n".join(f"  {name:21s} {what}" for name, what in PROTOCOLS.items())
    usage = "contrast3d evaluate PROTOCOL RUN [--field value ...]"
    explained = f"{protocols}\n\n{help_of(EvaluateOptions, 'evaluate PROTOCOL RUN')}"
    protocol, rest = positional(arguments, usage, explained)
    check_protocol(protocol)
    folder, rest = positional(rest, usage, explained)
    options = parse(EvaluateOptions, rest, "evaluate PROTOCOL RUN", "What the encoder of a run knows.")
    from contrast3d.recipes.evaluate import evaluate
    from contrast3d.recipes.runs import load_recipe_run

    Machine(threads=options.threads).set_threads()
    run = load_recipe_run(folder)
    labels = options.labels and [None if n in (0, "all") else n for n in options.labels]
    table = evaluate(
        protocol, run, data_root=options.data_root, labels_per_class=labels,
        draws=options.draws, seed=options.seed, supervised_seconds=options.supervised_seconds,
        ways=options.ways, shots=options.shots, trials=options.trials, epochs=options.epochs, dataset=options.dataset,
        up=options.up, scenes=options.scenes, consecutive=options.consecutive, min_overlap=options.min_overlap,
        pairs=options.pairs, steps=options.steps, published=options.published,
        mode=options.mode, voting=options.voting, augmentation=options.augmentation, readout=options.readout,
        device=options.device, on_progress=_tell,
    )
    for page in table.pages() if hasattr(table, "pages") else [table.render()]:
        _print(page)
    print(f"results: {run.path / 'results'}")
    return 0


def _report(arguments: list[str]) -> int:
    usage = "contrast3d report RUN [--field value ...]\n       contrast3d report RECIPE --views"
    folder, rest = positional(arguments, usage, help_of(ReportOptions, "report RUN"))
    options = parse(ReportOptions, rest, "report RUN", "One self-contained HTML page about a run.")
    from contrast3d.recipes import reporting, table
    from contrast3d.recipes.runs import load_recipe_run

    Machine(threads=options.threads).set_threads()
    if options.views:
        recipe = table.find(folder) if folder in table.RECIPES else load_recipe_run(folder).recipe
        place = Path() if folder in table.RECIPES else Path(folder)
        print(reporting.views_page(recipe, options.out or place / "views.html", options.data_root))
        return 0
    print(reporting.report(load_recipe_run(folder), options.data_root, options.out, options.device))
    return 0


def _compare(arguments: list[str]) -> int:
    usage = "contrast3d compare RUN RUN ... [--out compare.png]"
    first, rest = positional(arguments, usage, help_of(CompareOptions, "compare RUN RUN"))
    more = list(takewhile(lambda word: not word.startswith("-"), rest))
    options = parse(CompareOptions, rest[len(more) :], "compare RUN RUN", "Runs side by side, paired over seeds.")
    from contrast3d.recipes import compare

    entries = compare.compare([first, *more])
    for table in compare.tables(entries):
        _print(table)
    if options.out:
        print(f"picture: {compare.plot(entries, options.out)}")
    return 0


def _doctor(arguments: list[str]) -> int:
    options = parse(DoctorOptions, arguments, "doctor", "This machine: devices, versions, speed, what to mend.")
    from rich.table import Table

    from contrast3d.recipes.doctor import diagnose, weigh

    table = Table(box=None, show_header=False)
    colors = {"ok": "green", "warn": "yellow", "missing": "red"}
    checks = [weigh(options.model)] if options.model else diagnose()
    for check in checks:
        table.add_row(f"[{colors[check.status]}]{check.status}[/]", check.name, check.value, f"[dim]{check.advice}[/]")
    _print(table)
    return 0


VERBS = {
    "demo": _demo, "pretrain": _pretrain, "evaluate": _evaluate, "report": _report, "compare": _compare,
    **VERBS_OF_A_RUN, "data": data, "doctor": _doctor,
}


def _interrupted(outcome, arguments: list[str]) -> int:
    command = shlex.join(["contrast3d", *(a for a in arguments if a != "--restart")])
    print(f"interrupted after {outcome.steps} steps; everything is saved. To go on: {command}", file=sys.stderr)
    return outcome.exit_code


def _tell(message: str) -> None:
    print(f"... {message}", file=sys.stderr, flush=True)


def _print(renderable) -> None:
    from rich.console import Console

    Console().print(renderable)


if __name__ == "__main__":
    program()
