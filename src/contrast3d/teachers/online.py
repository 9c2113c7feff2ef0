"""`Online`: a teacher that looks at the clouds it is given, and reads what is written of them."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from contrast3d.errors import ConfigError, DataError
from contrast3d.ops.shaded_views import LOOK, Look, shaded_views
from contrast3d.teachers.contract import ImageTeacher, TextTeacher
from contrast3d.types import Clouds


class Online:
    """Pictures of the clouds as they come, transformed or not, and their captions, through frozen networks.

    image, text: the networks; what is None gives no target.
    views: pictures of each shape, of whose features the mean is taken. captions: by `clouds.ids`, one or several for
    each shape, one of which is drawn; none (empty) gives a row of NaN.

    Dearer than any student: see `Cached`.
    """

    def __init__(self, image: ImageTeacher | None = None, text: TextTeacher | None = None, views: int = 1,
                 captions: Sequence[str | Sequence[str]] = (), look: Look = LOOK):
        if image is None and text is None:
            raise ConfigError("Online: neither an image nor a text teacher")
        if text is not None and not captions:
            raise ConfigError("Online: a text teacher, and no captions to read")
        self.image, self.text, self.views, self.captions, self.look = image, text, views, captions, look
        self.dims = {name: t.dim for name, t in (("img", image), ("text", text)) if t is not None}

    def __call__(self, clouds: Clouds) -> dict[str, Float[Tensor, "b _"]]:
        """{name: (B, D) float32} on the clouds' device."""
        out = {}
        if self.image is not None:
            pictures = shaded_views(clouds.dense, self.views, self.image.size, self.look)
            out["img"] = self.image.encode(pictures.flatten(0, 1)).unflatten(0, (len(clouds), -1)).mean(1)
        if self.text is not None:
            out["text"] = self._read(clouds)
        return {name: value.to(clouds.device) for name, value in out.items()}

    def _read(self, clouds: Clouds) -> Float[Tensor, "b d"]:
        if clouds.ids is None:
            raise DataError("clouds", "no ids", "ids, by which captions are found", "Clouds(..., ids=rows)")
        choices = [self.captions[i] for i in clouds.ids.tolist()]
        choices = [[c] if isinstance(c, str) else list(c) for c in choices]
        draw = random.Random(int(torch.randint(1 << 31, ())))  # torch's generator alone is saved with a run
        texts = [draw.choice(c) if c else "" for c in choices]
        known = [i for i, text in enumerate(texts) if text]
        out = torch.full((len(texts), self.text.dim), torch.nan)
        if known:
            out[known] = self.text.encode([texts[i] for i in known]).cpu()
        return out
