"""The verbs about what a run is good for: embed, search, dedupe, gallery, export. They parse, call and print."""

from __future__ import annotations

import shlex
import sys
from itertools import takewhile
from pathlib import Path

from contrast3d.flags import help_of, parse, positional
from contrast3d.recipes.machine import Machine, is_first_process, told_once
from contrast3d.recipes.options import DedupeOptions, EmbedOptions, ExportOptions, GalleryOptions, SearchOptions


def embed(arguments: list[str]) -> int:
    """contrast3d embed RUN PATHS... -o INDEX"""
    usage = "contrast3d embed RUN PATHS... -o INDEX [--field value ...]"
    more = ("PATHS are files and folders of meshes or point clouds, .npz, .npy and .h5 files of many shapes, and names "
            f"of\n`contrast3d data list`.\n\n{help_of(EmbedOptions, 'embed RUN PATHS...')}")
    with told_once():
        run, rest = positional(arguments, usage, more)
        first, rest = positional(rest, usage, more)
        paths = [first, *takewhile(lambda word: not word.startswith("-"), rest)]
        options = parse(EmbedOptions, rest[len(paths) - 1 :], "embed RUN PATHS...", "Shapes into an index.")
        machine = Machine(threads=options.threads)
    from contrast3d.recipes.embed import embed_paths

    machine.set_threads()
    done = embed_paths(
        run, paths, options.out, up=options.up, data_root=options.data_root, batch_size=options.batch_size,
        device=options.device, quiet=options.quiet,
    )
    if not is_first_process():
        return done.exit_code
    if done.signal is not None:
        command = shlex.join(["contrast3d", "embed", *arguments])
        print(f"interrupted; {done.total:,} shapes are in {options.out}. To go on: {command}", file=sys.stderr)
        return done.exit_code
    print(f"embedded {done.written:,} shapes in {done.seconds:.0f} s; {done.known:,} were there already; "
          f"{done.total:,} in {options.out}")
    if done.skipped or done.still:
        before = f", {done.still:,} of them known from before and not read again" if done.still else ""
        print(f"skipped {len(done.skipped) + done.still:,} that cannot be used{before}; why: "
              f"{options.out / 'skipped.csv'}")
    if done.total:
        print(f"next: {shlex.join(['contrast3d', 'search', str(options.out), 'QUERY'])}")
    return 0 if done.total else 1


def search(arguments: list[str]) -> int:
    """contrast3d search INDEX QUERY"""
    usage = "contrast3d search INDEX QUERY [-k 10] [--out strip.png] [--field value ...]"
    more = f"QUERY is a file of a mesh or point cloud, or a name in the index.\n\n{help_of(SearchOptions, 'search')}"
    folder, rest = positional(arguments, usage, more)
    words, rest = positional(rest, usage, more)
    options = parse(SearchOptions, rest, "search INDEX QUERY", "The shapes nearest to a query.")
    from contrast3d.recipes import looking
    from contrast3d.recipes.shape_index import open_index

    Machine(threads=options.threads).set_threads()
    if options.out:
        looking.check_picture(options.out)
    found = open_index(folder, options.run, options.device)
    query = found.query(words)
    hits = found.search(query, options.k, options.engine)
    for hit in hits:
        print(f"{hit.rank:3d}  {hit.distance:.4f}  {hit.name}")
    if options.out:
        print(f"picture: {looking.strip(found.index, query, hits, options.out)}", file=sys.stderr)
    return 0


def dedupe(arguments: list[str]) -> int:
    """contrast3d dedupe INDEX"""
    usage = "contrast3d dedupe INDEX [--threshold 0.01] [--field value ...]"
    folder, rest = positional(arguments, usage, help_of(DedupeOptions, "dedupe INDEX"))
    options = parse(DedupeOptions, rest, "dedupe INDEX", "Groups of shapes that are nearly the same.")
    from contrast3d.index.duplicates import groups
    from contrast3d.index.vectors import Index
    from contrast3d.recipes import looking

    Machine(threads=options.threads).set_threads()
    index = Index.open(folder)
    found = groups(index, options.threshold, options.engine)
    print(looking.duplicates_text(index, found))
    print(f"list: {looking.duplicates_csv(index, found, options.out or Path(folder) / 'duplicates.csv')}")
    return 0


def gallery(arguments: list[str]) -> int:
    """contrast3d gallery INDEX"""
    usage = "contrast3d gallery INDEX [--out gallery.html] [--field value ...]"
    folder, rest = positional(arguments, usage, help_of(GalleryOptions, "gallery INDEX"))
    options = parse(GalleryOptions, rest, "gallery INDEX", "One HTML page about the shapes in an index.")
    from contrast3d.index.vectors import Index
    from contrast3d.recipes import looking

    Machine(threads=options.threads).set_threads()
    print(looking.gallery(Index.open(folder), options.out or Path(folder) / "gallery.html", options.most))
    return 0


def export(arguments: list[str]) -> int:
    """contrast3d export RUN -o FOLDER"""
    usage = "contrast3d export RUN -o FOLDER [--format safetensors|onnx|torch|all]"
    run, rest = positional(arguments, usage, help_of(ExportOptions, "export RUN"))
    options = parse(ExportOptions, rest, "export RUN", "The encoder as files that run without this package.")
    from contrast3d.recipes.export import export_run

    Machine(threads=options.threads).set_threads()
    for line in export_run(run, options.out, options.format, lambda words: print(f"... {words}", file=sys.stderr)):
        print(line)
    return 0


VERBS = {"embed": embed, "search": search, "dedupe": dedupe, "gallery": gallery, "export": export}
