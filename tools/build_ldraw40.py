"""Rebuild the embedded LDraw-40 files from Debian's ldraw-parts, or check that a rebuild gives the same bits.

    python tools/build_ldraw40.py                 write ldraw40.points, ldraw40.parts and ldraw40-ATTRIBUTION.txt
    python tools/build_ldraw40.py --check         rebuild in memory and compare with the files in the package
    python tools/build_ldraw40.py --pool OUT.npz  all parts without labels, for pre-training

Which parts belong to the set, their classes and their split are the manifest's, embedded/ldraw40.csv.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

import numpy as np
from attribution import ldraw_text
from debian import Package, unpack
from ldraw import Library
from outputs import check, write
from sampling import sample

from contrast3d.data import compact, compact_labels
from contrast3d.data.ldraw40 import COLUMNS, FOLDER, mould_groups

PACKAGE = Package(
    "ldraw-parts", "2206+ds-1", "ca9a74665bd08ce09c225b01b0ccd87599783edb489b7a393300d4f28238b776"
)
NUM_POINTS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_mutually_exclusive_group()
    task.add_argument("--check", action="store_true", help="compare with the embedded files, write nothing")
    task.add_argument("--pool", type=Path, metavar="OUT.npz", help="write the unlabelled pool")
    parser.add_argument(
        "--with-test-moulds", action="store_true",
        help="leave the test shapes and their relatives (same mould number) in the pool",
    )
    parser.add_argument("--scratch", type=Path, default=Path("build/debian"), help="folder for the package")
    options = parser.parse_args()
    if options.with_test_moulds and not options.pool:
        parser.error("--with-test-moulds goes with --pool")

    library = Library(unpack(PACKAGE, options.scratch) / "usr/share/ldraw")
    manifest = compact.read_manifest(FOLDER / "ldraw40.csv", COLUMNS)
    if options.pool:
        write({options.pool: pool(library, manifest, options.with_test_moulds)})
    else:
        (check if options.check else write)(embedded_files(library, manifest))


def embedded_files(library: Library, manifest: dict[str, tuple[str, ...]]) -> dict[Path, bytes]:
    for name, author, description in zip(manifest["name"], manifest["author"], manifest["description"]):
        header = library.header(name)
        if (header.author, header.description) != (author, description):
            raise SystemExit(f"{name}: {header}, but the manifest says {author!r}, {description!r}")
    codes, families = sampled(library, manifest["name"])
    points = compact.encode(codes)
    files = library.read_files()
    text = ldraw_text(PACKAGE, NUM_POINTS, manifest["author"], [library.header(f).author for f in files])
    return {
        FOLDER / "ldraw40.points": points,
        FOLDER / "ldraw40.parts": compact_labels.encode(codes, families, points),
        FOLDER / "ldraw40-ATTRIBUTION.txt": text.encode(),
    }


def pool(library: Library, manifest: dict[str, tuple[str, ...]], with_test_moulds: bool) -> bytes:
    """points (S, 1024, 3) float16, names and descriptions of all parts that are shapes, as an .npz."""
    names = library.shapes()
    if not with_test_moulds:
        test = [name for name, split in zip(manifest["name"], manifest["split"]) if split == "test"]
        relatives = set(mould_groups(test).tolist())
        names = [name for name, mould in zip(names, mould_groups(names).tolist()) if mould not in relatives]
    print(f"{len(names):,} shapes")
    points = compact.coordinates(sampled(library, names)[0]).astype(np.float16)
    file = io.BytesIO()
    np.savez_compressed(
        file, points=points, names=np.array(names),
        descriptions=np.array([library.header(name).description for name in names]),
    )
    return file.getvalue()


def sampled(library: Library, names: list[str] | tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(S, 1024) Morton codes and families. Every file that a mesh is made of must be under the licence."""
    codes, families = [], []
    for name in names:
        own, rows = sample(library.triangles(name), name, NUM_POINTS)
        codes.append(own)
        families.append(library.families(name)[rows])
    unlicensed = [name for name in library.read_files() if not library.header(name).is_cc_by]
    if unlicensed:
        raise SystemExit(f"not under CC BY 2.0: {', '.join(unlicensed)}")
    return np.stack(codes), np.stack(families)


if __name__ == "__main__":
    main()
