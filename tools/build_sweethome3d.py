"""Rebuild the embedded Sweet Home 3D files from Debian's sweethome3d-furniture, or check a rebuild.

    python tools/build_sweethome3d.py          write sweethome3d.points and sweethome3d-ATTRIBUTION.txt
    python tools/build_sweethome3d.py --check  rebuild in memory and compare with the files in the package

Which models belong to the set, and their classes, are the manifest's, embedded/sweethome3d.csv.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from attribution import sweet_home_text
from debian import Package, unpack
from outputs import check, write
from sampling import sample_codes
from sweethome import FurnitureLibrary

from contrast3d.data import compact
from contrast3d.data.sweethome3d import COLUMNS, FOLDER

PACKAGE = Package(
    "sweethome3d-furniture", "1.8-1", "3ccb90c63f9525e887a767b9cd5c8b6933b8b6b2973a615a5359ee68a2118668"
)
NUM_POINTS = 1024


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the embedded files, write nothing")
    parser.add_argument("--scratch", type=Path, default=Path("build/debian"), help="folder for the package")
    options = parser.parse_args()
    folder = unpack(PACKAGE, options.scratch) / "usr/share/sweethome3d/furniture"
    (check if options.check else write)(embedded_files(folder))


def embedded_files(folder: Path) -> dict[Path, bytes]:
    manifest = compact.read_manifest(FOLDER / "sweethome3d.csv", COLUMNS)
    libraries = {name: FurnitureLibrary(folder / f"{name}.sh3f") for name in sorted(set(manifest["library"]))}
    catalogues = {name: library.items() for name, library in libraries.items()}
    codes = []
    for name, _, library, creator, category, description in zip(*manifest.values()):
        item = catalogues[library][name]
        expected = (creator, category, description)
        if (item.creator, item.category, item.name) != expected:
            raise SystemExit(f"{name}: {item}, but the manifest says {expected}")
        codes.append(sample_codes(libraries[library].triangles(item), name, NUM_POINTS))
    text = sweet_home_text(PACKAGE, NUM_POINTS, manifest["library"], manifest["creator"])
    return {
        FOLDER / "sweethome3d.points": compact.encode(np.stack(codes)),
        FOLDER / "sweethome3d-ATTRIBUTION.txt": text.encode(),
    }


if __name__ == "__main__":
    main()
