"""Arguments of the command line into dataclasses of options; every mistake is one line that names the nearest flag."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import re
from itertools import dropwhile, takewhile

from contrast3d.errors import ConfigError
from contrast3d.recipes.table import suggestion

SHORT = {"-o": "--out", "-k": "--k"}


def positional(arguments: list[str], usage: str, more: str) -> tuple[str, list[str]]:
    """The first argument and the rest; prints usage and help where it is missing or asks for them."""
    if arguments and arguments[0] in ("-h", "--help"):
        print(f"usage: {usage}\n\n{more}")
        raise SystemExit(0)
    if not arguments or arguments[0].startswith("-"):
        ways = " or ".join(" ".join(line.split()) for line in usage.splitlines())
        raise ConfigError(f"an argument is missing. usage: {ways}")
    return arguments[0], arguments[1:]


def parse(options: type, arguments: list[str], verb: str, description: str):
    """Parse flags into the dataclass `options`; any mistake is one line, with the nearest flag named.

    -o and -k stand for --out and --k where there are such fields.
    """
    import tyro

    arguments = _written_out(options, arguments, verb)
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            parsed, unknown = tyro.cli(
                options, args=arguments, prog=f"contrast3d {verb}", description=description, return_unknown_args=True,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ConfigError(f"{verb}: {_in_one_line(said.getvalue())}; {_see(verb)}") from None
    if unknown:
        word = unknown[0].partition("=")[0]
        if word == "--resume" and verb.split()[0] in ("pretrain", "demo"):
            raise ConfigError(f"{verb}: no option --resume: runs resume by themselves; leave it out")
        near = suggestion(word, re.findall(r"(?<![\w-])--[a-z][\w-]*", help_of(options, verb)))
        raise ConfigError(f"{verb}: no option {word}{near}; {_see(verb)}")
    return parsed


def _written_out(options: type, arguments: list[str], verb: str) -> list[str]:
    """Short flags made long; a ConfigError where --out is not there and has no default."""
    fields = _fields(options)
    words = [SHORT[word] if word in SHORT and SHORT[word].strip("-") in fields else word for word in arguments]
    given = {word.partition("=")[0] for word in words}
    needed = "out" in fields and fields["out"].default is dataclasses.MISSING
    if needed and not given & {"--out", "-h", "--help"}:
        raise ConfigError(f"{verb}: -o FOLDER is missing; {_see(verb)}")
    return ["--help"] if given & {"-h", "--help"} else words


def _fields(options: type) -> dict[str, dataclasses.Field]:
    """Fields by name, also those of fields that are dataclasses themselves."""
    found = {}
    for field in dataclasses.fields(options):
        found |= _fields(field.type) if dataclasses.is_dataclass(field.type) else {field.name: field}
    return found


def _see(verb: str) -> str:
    """Where the flags of `verb` are explained; what is written in capitals stands for something else."""
    return f"see contrast3d {' '.join(takewhile(lambda word: not word.isupper(), verb.split()))} --help"


def _in_one_line(box: str) -> str:
    """The message in tyro's box and how the flag is written; without title, rules and border."""
    lines = [re.sub(r"[^\x20-\x7e]|^[|+ -]*$", "", line.strip(" |│")).strip() for line in box.splitlines()][1:]
    message = " ".join(takewhile(bool, dropwhile(lambda line: not line, lines))).rstrip(".")
    usage = next((line for line in lines if line.startswith("--")), "")
    return re.sub(r"^Error parsing (?!--)[\w.]+: |^Error parsing ", "", message) + (usage and f"; expected {usage}")


def help_of(options: type, verb: str) -> str:
    """What --help prints for a dataclass of options."""
    import tyro

    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        tyro.cli(options, args=["--help"], prog=f"contrast3d {verb}", config=(tyro.conf.OmitArgPrefixes,))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
