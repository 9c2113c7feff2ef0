"""Zero-shot classification: shapes named by what a text teacher says of the class names, without any label.

A shape's predicted feature and the vectors of the classes meet in one space, by cosine. Where image and text teacher
share theirs (CLIP), queries can be added, as ReCon (Qi et al., ICML 2023) does; an image teacher without text has a
classifier of its own, whose likeliest classes' names lead there (ConSE, Norouzi et al., ICLR 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from contrast3d.downstream.probes import Prediction
from contrast3d.errors import ConfigError, DataError
from contrast3d.metrics.classification import confusion_matrix

RATIO = 0.25  # of the text query in ReCon's sum on ModelNet40; the paper chose others for other test sets
TOP = 10  # classes that ConSE mixes, as its paper does
_NAMES = Path(__file__).parent / "imagenet.txt"


@dataclass(frozen=True)
class ZeroShot:
    """Predicted classes, their accuracies, and how often each class was taken for which.

    confusion: (L, L) counts; row = label, column = prediction. top5: share of shapes whose class is among the five
    nearest, 1 where there are no more classes.
    """

    prediction: Prediction
    confusion: Int[Tensor, "l l"]
    top5: float
    classes: tuple[str, ...]

    @property
    def accuracy(self) -> float:
        return self.prediction.accuracy

    @property
    def class_mean(self) -> float:
        """Mean over the classes of the accuracy on their shapes."""
        return self.prediction.balanced_accuracy

    def confused(self, most: int = 5) -> list[tuple[str, str, int]]:
        """The most frequent mistakes: (class, taken for, shapes)."""
        wrong = self.confusion.clone().fill_diagonal_(0)
        counts, cells = wrong.flatten().sort(descending=True, stable=True)
        rows = [divmod(cell, len(self.classes)) for cell in cells[:most].tolist()]
        return [(self.classes[i], self.classes[j], n) for (i, j), n in zip(rows, counts.tolist()) if n]


def zero_shot(
    features: Float[Tensor, "s _"], vectors: Float[Tensor, "l _"], labels: Int[Tensor, "s"], classes: Sequence[str]
) -> ZeroShot:
    """Each shape is of the class whose vector has the largest cosine with its feature, the first of equals.

    Raises DataError for spaces of different width, a label that is no class, and features that are not finite.
    """
    if features.shape[1] != vectors.shape[1] or len(vectors) != len(classes):
        found = f"features {tuple(features.shape)}, class vectors {tuple(vectors.shape)}, {len(classes)} classes"
        raise DataError("zero-shot", found, "features and one vector for each class in a common space")
    if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise DataError("zero-shot", "labels that are no class, or none", f"labels from 0 to {len(classes) - 1}")
    if not bool(torch.isfinite(features).all() and torch.isfinite(vectors).all()):
        raise DataError("zero-shot", "NaN or infinity among features or class vectors", "finite numbers")
    cosines = F.normalize(features.float(), dim=1) @ F.normalize(vectors.float(), dim=1).T
    nearest = cosines.topk(min(5, len(classes)), dim=1).indices
    predicted = cosines.argmax(1)
    return ZeroShot(
        Prediction.score(predicted, labels), confusion_matrix(predicted, labels, len(classes)),
        (nearest == labels[:, None]).any(1).double().mean().item(), tuple(classes),
    )


def class_vectors(
    encode: Callable[[list[str]], Tensor], classes: Sequence[str], prompts: Callable[[str], Sequence[str]],
    phrases: Mapping[str, Sequence[str]] | None = None,
) -> Float[Tensor, "l d"]:
    """(L, D) of each class the sum of the features of its prompts, not normalised, as released by ReCon.

    encode: sentences -> (n, D). prompts: a phrase -> sentences. phrases: of a class other than its name, underscores
    being spaces; several are summed too.
    """
    words = {name: (phrases or {}).get(name, (plain_words(name),)) for name in classes}
    texts = [[text for phrase in words[name] for text in prompts(phrase)] for name in classes]
    if not texts or not all(texts):
        raise ConfigError("zero-shot: needs classes, and at least one prompt for each")
    features = encode([text for own in texts for text in own]).float().cpu()
    return torch.stack([own.sum(0) for own in features.split([len(own) for own in texts])])


def plain_words(name: str) -> str:
    """"technic_brick" -> "technic brick"."""
    return " ".join(name.replace("_", " ").split())


def joined_queries(
    image: Float[Tensor, "s d"], text: Float[Tensor, "s _"], ratio: float = RATIO
) -> Float[Tensor, "s d"]:
    """image + ratio * text, as released: what the two queries were taught, in the common space of their teachers."""
    if image.shape[1] != text.shape[1]:
        raise ConfigError(
            f"the image teacher's space has {image.shape[1]} dimensions and the text teacher's {text.shape[1]}: not "
            "one space, as CLIP's. Try: one query, image or text"
        )
    return image + ratio * text


def conse(
    probabilities: Float[Tensor, "s _"], names: Float[Tensor, "k d"], top: int = TOP
) -> Float[Tensor, "s d"]:
    """Convex combination of semantic embeddings (Norouzi et al. 2014, eq. 2): a picture's place in the space of text.

    probabilities: of a classifier's K classes. names: their vectors, taken at length one. Of each shape the `top`
    likeliest, weighted by their probabilities, which are made to add up to one.
    """
    if probabilities.shape[1] != len(names) or top < 1:
        raise ConfigError(f"ConSE: {probabilities.shape[1]} classes, {len(names)} names, top = {top}; expected as many "
                          "names as classes, and at least the likeliest one")
    best = probabilities.topk(min(top, len(names)), dim=1)
    weights = best.values / best.values.sum(1, keepdim=True)
    return (weights[:, :, None] * F.normalize(names, dim=1)[best.indices]).sum(1)


@lru_cache(maxsize=1)
def imagenet_names() -> tuple[str, ...]:
    """Names of the 1,000 classes of ImageNet, in the order of its classifiers; at most two words for each."""
    lines = _NAMES.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))
