"""Words for shapes: the prompts of ReCon around a class name, and descriptions that do not give the class away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_KINDS = (
    "model", "image", "3D model", "rendering model", "point cloud", "point cloud model", "3D rendering model",
    "rendering image", "3D rendering image",
)
PREFIXES = ("", "A ", *(f"A {kind} of {article}" for kind in _KINDS for article in ("", "a ")))
SUFFIXES = (".", " with white background.", " with black context.")


def prompts_of(name: str) -> list[str]:
    """The 60 prompts of a class or a thing: 20 prefixes times 3 suffixes, as ReCon's teacher reads them in training.

    Underscores become spaces. The first is the name alone.
    """
    words = name.replace("_", " ")
    return [f"{prefix}{words}{suffix}" for suffix in SUFFIXES for prefix in PREFIXES]


def some_prompts(name: str, count: int) -> list[str]:
    """`count` of the 60 prompts, evenly spaced, the name alone first."""
    prompts = prompts_of(name)
    return [prompts[i * len(prompts) // count] for i in range(min(count, len(prompts)))]


def masked(description: str, words: Iterable[str]) -> str:
    """The description without these words, their plurals and the compounds that begin or end with one of them.

    Case does not count. Words of two letters and fewer go only where they stand alone. What is left may be empty.

    >>> masked("Technic Brick 1 x 2 with Liftarm and Wheelbarrow", ["technic", "brick", "arm", "wheel"])
    '1 x 2 with and'
    """
    pattern = _pattern(tuple(words))
    left = pattern.sub(" ", description) if pattern else description
    left = re.sub(r"(?<![^\s(])[-/,]+|[-/,]+(?![^\s)])", " ", left)  # what joined a word to another one
    left = re.sub(r"\(\s*\)", " ", left)
    return " ".join(left.split())


def _pattern(words: Sequence[str]) -> re.Pattern | None:
    plain = sorted({word.lower() for word in words if word}, key=lambda word: (-len(word), word))
    if not plain:
        return None
    alone = rf"\b(?:{'|'.join(re.escape(w) for w in plain if len(w) <= 2) or '(?!)'})\b"
    long = "|".join(re.escape(w) for w in plain if len(w) > 2) or "(?!)"
    return re.compile(rf"{alone}|\b(?:{long})\w*|\w*(?:{long})(?:s|es)?\b", re.IGNORECASE)


def words_of(classes: Iterable[str]) -> list[str]:
    """The words that class names are made of."""
    return sorted({word for name in classes for word in re.split(r"[^a-z0-9]+", name.lower()) if word})
