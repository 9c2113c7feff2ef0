"""The attribution files that ship beside the embedded data."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable

LDRAW = """\
LDraw-40: attribution
=====================

The points in ldraw40.points were sampled from {shapes:,} parts of the LDraw Parts Library (https://www.ldraw.org),
as packaged by Debian in {package} {version}. They are licensed under the Creative Commons
Attribution License 2.0 (https://creativecommons.org/licenses/by/2.0/), like the parts themselves
("Redistributable under CCAL version 2.0").

Changes: the surface of each part was sampled at {points:,} random points; these were centred, scaled to the
unit sphere and rounded to a grid. Class names were given by this project, from the library's descriptions.

Which author made which part stands in ldraw40.csv, with the part's file name and description.

"LDraw" is a trademark of the Estate of James Jessiman. LEGO is a trademark of the LEGO Group, which does not
sponsor, authorise or endorse this set.

Authors of the parts ({num_authors}; number of parts)
{authors}

Further authors of the sub-parts and primitives that these parts are made of ({num_others})
{others}
"""

SWEET_HOME = """\
Sweet Home 3D furniture: attribution
====================================

The points in sweethome3d.points were sampled from {shapes:,} models of the furniture libraries of Sweet
Home 3D (https://www.sweethome3d.com), as packaged by Debian in {package} {version}.

Changes: the surface of each model was sampled at {points:,} random points; these were centred, scaled to the
unit sphere and rounded to a grid. Class names were given by this project. Which creator made which model
stands in sweethome3d.csv.
{libraries}"""

LIBRARIES = {
    "BlendSwap-CC-0": (
        "CC0 1.0 (https://creativecommons.org/publicdomain/zero/1.0/)",
        "Models of Blend Swap (https://www.blendswap.com), converted by Emmanuel Puybaret / eTeks.",
    ),
    "BlendSwap-CC-BY": (
        "CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/)",
        "Models of Blend Swap (https://www.blendswap.com), converted by Emmanuel Puybaret / eTeks.",
    ),
    "KatorLegaz": (
        "CC BY 3.0 US (https://creativecommons.org/licenses/by/3.0/us/)",
        "Copyright 2003-2008 Andrew Kator & Jennifer Legaz.",
    ),
    "Reallusion": (
        "CC BY 3.0 US (https://creativecommons.org/licenses/by/3.0/us/)",
        "Copyright 2008-2016 Reallusion (https://www.reallusion.com).",
    ),
    "Scopia": (
        "CC BY 3.0 (https://creativecommons.org/licenses/by/3.0/)",
        "Copyright 2006-2020 Scopia Visual Interfaces Systems, s.l. (http://www.scopia.es), and for 265 of "
        "its models 2014-2020 Emmanuel Puybaret / eTeks <info@eteks.com>.",
    ),
}


def ldraw_text(package, points: int, part_authors: Iterable[str], file_authors: Iterable[str]) -> str:
    """part_authors: one per part of the set; file_authors: one per file read, sub-parts included."""
    parts = Counter(part_authors)
    others = set(file_authors) - set(parts)
    return LDRAW.format(
        package=package.name, version=package.version, points=points, shapes=parts.total(),
        num_authors=len(parts), authors=_counted(parts),
        num_others=len(others), others=_listed(sorted(others, key=str.casefold)),
    )


def sweet_home_text(package, points: int, libraries: Iterable[str], creators: Iterable[str]) -> str:
    """One library and one creator per shape."""
    pairs = list(zip(libraries, creators))
    sections = []
    for library, (licence, credit) in LIBRARIES.items():
        own = Counter(creator for name, creator in pairs if name == library)
        title = f"{library}: {own.total()} models, {licence}"
        sections.append(f"\n{title}\n{_filled(credit)}\nCreators (number of models)\n{_counted(own)}\n")
    return SWEET_HOME.format(
        package=package.name, version=package.version, points=points, shapes=len(pairs),
        libraries="".join(sections),
    )


def _counted(names: Counter[str]) -> str:
    return _listed(f"{name} ({names[name]})" for name in sorted(names, key=str.casefold))


def _listed(names: Iterable[str]) -> str:
    return "\n".join(f"    {name}" for name in names)


def _filled(text: str) -> str:
    return textwrap.fill(text, 105)
