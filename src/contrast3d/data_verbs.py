"""The verb `data`: what sets there are, what is missing of one, and what is computed of it beforehand."""

from __future__ import annotations

import shlex
import sys

from contrast3d.errors import ConfigError
from contrast3d.flags import help_of, parse, positional
from contrast3d.recipes.machine import Machine
from contrast3d.recipes.options import DataOptions, NoOptions
from contrast3d.recipes.prepare_options import PairsOptions, RoomsOptions
from contrast3d.recipes.table import suggestion
from contrast3d.recipes.teacher_options import TeachersOptions


def data(arguments: list[str]) -> int:
    """contrast3d data list | check NAME | prepare pairs|rooms|teachers"""
    usage = ("contrast3d data list\n       contrast3d data check NAME [--data-root FOLDER]\n"
             "       contrast3d data prepare pairs SOURCE -o FOLDER [--field value ...]\n"
             "       contrast3d data prepare rooms -o FOLDER [--field value ...]\n"
             "       contrast3d data prepare teachers DATASET [-o FOLDER] [--field value ...]")
    more = ("list prints the data sets; check says what is missing of one; prepare pairs finds the views of RGB-D\n"
            "scans that overlap, prepare rooms films generated rooms as such scans, prepare teachers writes what\n"
            "networks say of shapes; each explains itself by --help.")
    action, rest = positional(arguments, usage, more)
    if action == "prepare":
        return _prepare(rest)
    from contrast3d.data import catalog
    from contrast3d.recipes import datasets

    if action == "list":
        parse(NoOptions, rest, "data list", "The data sets there are.")
        print(catalog.table())
        return 0
    if action != "check":
        near = suggestion(action, ("list", "check", "prepare"))
        raise ConfigError(f"no action {action!r}{near}; there are: list, check, prepare")
    name, rest = positional(rest, usage, "NAME is one of `contrast3d data list`.")
    options = parse(DataOptions, rest, "data check NAME", "What is missing of a data set, and how it must look.")
    problems = datasets.find(name).problems(options.data_root)
    print(catalog.describe(name))
    for problem in problems:
        print(f"- {problem}")
    print("nothing is missing" if not problems else f"{len(problems)} problem{'s' if len(problems) > 1 else ''}")
    return 1 if problems else 0


def _prepare(arguments: list[str]) -> int:
    """contrast3d data prepare pairs|rooms|teachers"""
    known = {"pairs": _prepare_pairs, "rooms": _prepare_rooms, "teachers": _prepare_teachers}
    usage = ("contrast3d data prepare pairs SOURCE -o FOLDER | rooms -o FOLDER | teachers DATASET [-o FOLDER] "
             "[--field value ...]")
    more = "Each explains itself with --help."
    what, rest = positional(arguments, usage, more)
    if what not in known:
        raise ConfigError(f"data prepare: nothing called {what!r}{suggestion(what, known)}; there is: "
                          f"{', '.join(known)}")
    return known[what](rest)


def _prepare_teachers(arguments: list[str]) -> int:
    verb, about = "data prepare teachers DATASET", "What image and text networks say of the shapes of a set."
    usage = "contrast3d data prepare teachers DATASET [-o FOLDER] [--split train] [--field value ...]"
    more = ("DATASET is a name of `contrast3d data list`, or your own file or folder of shapes. It needs\npip install "
            f"'contrast3d[teachers]'.\n\n{help_of(TeachersOptions, verb)}")
    dataset, rest = positional(arguments, usage, more)
    options = parse(TeachersOptions, rest, verb, about)
    Machine(threads=options.threads).set_threads()
    from contrast3d.recipes.prepare_teachers import prepare_dataset

    for line in prepare_dataset(dataset, options):
        print(line)
    return 0


def _prepare_rooms(arguments: list[str]) -> int:
    options = parse(RoomsOptions, arguments, "data prepare rooms", "RGB-D recordings of generated rooms, for `data "
                    "prepare pairs` to read where no data are at hand.")
    Machine(threads=options.threads).set_threads()
    from contrast3d.recipes.prepare_rooms import prepare_rooms

    done = prepare_rooms(options)
    rooms = "1 room" if options.count == 1 else f"{options.count:,} rooms"
    print(f"{rooms} of {options.frames:,} frames, {options.width} x {options.height}, in {options.out}, "
          f"{done.seconds:.0f} s; {done.known:,} were there already")
    print(f"next: contrast3d data prepare pairs {shlex.quote(str(options.out))} -o pairs")
    return 0


def _prepare_pairs(arguments: list[str]) -> int:
    usage = "contrast3d data prepare pairs SOURCE -o FOLDER [--every 25] [--min-overlap 0.3] [--field value ...]"
    more = ("SOURCE is a scan or a folder of scans: ScanNet (.sens or exported frames), 7-Scenes, TUM RGB-D, or "
            f"fragments\nof 3DMatch (.npz or cloud_bin_N.pth).\n\n{help_of(PairsOptions, 'data prepare pairs SOURCE')}")
    source, rest = positional(arguments, usage, more)
    options = parse(PairsOptions, rest, "data prepare pairs SOURCE", "Views of scenes, and which of them overlap.")
    Machine(threads=options.threads).set_threads()
    from contrast3d.recipes.prepare import prepare_pairs
    from contrast3d.recipes.scene_sources import some_of

    def tell(name: str, scene: dict) -> None:
        print(f"{name}: {scene['views']:,} views, {scene['pairs']:,} pairs, {scene['layout']}", flush=True)

    done = prepare_pairs(source, options, tell)
    views, pairs = (sum(scene[what] for scene in done.scenes.values()) for what in ("views", "pairs"))
    scenes = "1 scene" if len(done.scenes) == 1 else f"{len(done.scenes):,} scenes"
    print(f"{scenes} of {views:,} views and {pairs:,} pairs in {done.out}, {done.seconds:.0f} s; "
          f"{done.known:,} were there already")
    if done.skipped or done.broken:
        print(f"skipped {done.skipped:,} frames and {len(done.broken):,} scenes that cannot be used; why: "
              f"{done.out / 'skipped.csv'}")
    for name, why in done.removed.items():
        print(f"removed {name}.npz: {why}")
    if done.gone:
        print(f"kept {some_of(done.gone)}, whose recordings are gone")
    if not pairs:
        print("no views overlap so much; try a smaller --every or --min-overlap", file=sys.stderr)
    return 0
