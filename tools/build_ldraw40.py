"""Rebuild the embedded LDraw-40 files from Debian's ldraw-parts, or check that a rebuild gives the same bits.

    python tools/build_ldraw40.py            write ldraw40.points and ldraw40-ATTRIBUTION.txt
    python tools/build_ldraw40.py --check    rebuild in memory and compare with the files in the package

Which parts belong to the set, their classes and their split are the manifest's, embedded/ldraw40.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from debian import Package, unpack
from ldraw import Library
from outputs import check_or_write
from sampling import sample_codes

from contrast3d.data import compact
from contrast3d.data.ldraw40 import COLUMNS, FOLDER

PACKAGE = Package(
    "ldraw-parts", "2206+ds-1", "ca9a74665bd08ce09c225b01b0ccd87599783edb489b7a393300d4f28238b776"
)
NUM_POINTS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scratch", type=Path, default=Path("build/debian"), help="where packages are unpacked")
    parser.add_argument("--check", action="store_true", help="compare with the embedded files, write nothing")
    options = parser.parse_args()
    options.scratch.mkdir(parents=True, exist_ok=True)
    library = Library(unpack(PACKAGE, options.scratch.resolve()) / "usr/share/ldraw")
    manifest = compact.read_manifest(FOLDER / "ldraw40.csv", COLUMNS)
    check_headers(library, manifest)
    codes = [sample_codes(library.triangles(name), name, NUM_POINTS) for name in manifest["name"]]
    check_or_write({FOLDER / "ldraw40.points": compact.encode(np.stack(codes))}, options.check)


def check_headers(library: Library, manifest: dict[str, tuple[str, ...]]) -> None:
    """The manifest's author and description are those in the part's file."""
    for name, author, description in zip(manifest["name"], manifest["author"], manifest["description"]):
        header = library.header(name)
        if (header.author, header.description) != (author, description):
            raise SystemExit(f"{name}: the part is {header}, the manifest says {author!r}, {description!r}")


if __name__ == "__main__":
    main()
