"""ReCon: reconstruct hidden patches, while queries learn what teachers say of a shape (Qi et al., ICML 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Bool
from torch import Tensor, nn

from contrast3d.errors import ConfigError
from contrast3d.losses.class_contrast import class_contrast
from contrast3d.losses.cross_modal_info_nce import cross_modal_info_nce
from contrast3d.losses.feature_regression import feature_regression
from contrast3d.losses.info_nce import nt_xent
from contrast3d.methods.point_mae import PointMAE
from contrast3d.nn.batch_norm import BatchNorm
from contrast3d.nn.patch_transformer import Encoded
from contrast3d.nn.patches import Patches
from contrast3d.types import Clouds

Teach = Callable[[Clouds], dict[str, Tensor]]
QUERY_LOSSES = {"smooth-l1": feature_regression, "info-nce": cross_modal_info_nce}


class ReCon(PointMAE):
    """Point-MAE, and a loss for each query that has a target; all of them are summed with weight one.

    teacher: clouds -> {query: (B, D)} what each query's projection is to be; rows of NaN, of shapes that the teacher
        knows nothing of, are left out. None where no query has a projection.
    query_loss: "smooth-l1", as released (which is a regression, whatever it is called there), or "info-nce" over the
        batch, with `temperature`.
    self_contrast: of the "cls" query, "none"; "names", as released, which attracts shapes of the same class and so
        reads labels; or "instance", which reads none: two maskings of a shape attract, for a second encoding.
    stop_gradient: the queries' losses do not reach the tokens (two-stream blocks alone). False, with standard blocks,
        is the plain multi-task learning of the paper's ablation; `nn.TwoTowers` is its other one.
    mask_ratio, mask, decoder_depth, decoder_heads, decoder_drop_path, loss: see `PointMAE`.
    """

    def __init__(self, encoder: nn.Module, teacher: Teach | None = None,
                 query_loss: Literal["smooth-l1", "info-nce"] = "smooth-l1",
                 self_contrast: Literal["none", "names", "instance"] = "none", temperature: float = 0.1,
                 stop_gradient: bool = True, **reconstruction):
        super().__init__(encoder, **reconstruction)
        if query_loss not in QUERY_LOSSES or self_contrast not in ("none", "names", "instance") or not temperature > 0:
            raise ConfigError(f"ReCon: query_loss = {query_loss!r}, self_contrast = {self_contrast!r}, temperature = "
                              f"{temperature}; expected one of {tuple(QUERY_LOSSES)}, one of none, names, instance, "
                              "and a positive number")
        if encoder.projections and teacher is None:
            raise ConfigError(f"the encoder projects {', '.join(encoder.projections)}, and there is no teacher")
        wanted = {name: layer.out_features for name, layer in encoder.projections.items()}
        told = getattr(teacher, "dims", wanted)
        if any(told.get(name) != width for name, width in wanted.items()):
            raise ConfigError(f"the encoder projects to widths {wanted}, and what the teacher says has {dict(told)}")
        if not encoder.projections and self_contrast == "none":
            raise ConfigError("ReCon without a projection and without self_contrast is PointMAE: use that")
        self.teacher, self.query_loss, self.self_contrast = teacher, query_loss, self_contrast
        self.temperature, self.stop_gradient = temperature, stop_gradient
        if self_contrast != "none":
            if "cls" not in encoder.queries:
                raise ConfigError(f"self_contrast = {self_contrast} is of the query cls; the encoder has "
                                  f"{', '.join(encoder.queries) or 'none'}")
            self.projector = nn.Sequential(
                nn.Linear(encoder.width, 128), BatchNorm(128), nn.ReLU(), nn.Linear(128, 128), BatchNorm(128))

    def objective(
        self, clouds: Clouds, patches: Patches, mask: Bool[Tensor, "b g"], encoded: Encoded
    ) -> dict[str, Tensor]:
        """The loss of an encoding, and its parts by query."""
        numbers = super().objective(clouds, patches, mask, encoded)
        loss = numbers["loss"]
        taught = self.teacher(clouds) if self.encoder.projections else {}
        for name, predicted in self.encoder.project(encoded).items():
            more = [self.temperature] if self.query_loss == "info-nce" else []
            numbers[name] = QUERY_LOSSES[self.query_loss](predicted, taught[name], *more)
            loss = loss + numbers[name]
        if self.self_contrast != "none":
            numbers["cls"] = self._self_contrast(clouds, patches, encoded)
            loss = loss + numbers["cls"]
        return {name: value.detach() for name, value in numbers.items()} | {"loss": loss}

    def _self_contrast(self, clouds: Clouds, patches: Patches, encoded: Encoded) -> Tensor:
        first = self.projector(encoded.queries["cls"])
        if self.self_contrast == "names":
            if clouds.labels is None:
                raise ConfigError("self_contrast = names reads labels, and these shapes have none. Try: instance")
            return class_contrast(first, clouds.labels, self.temperature)
        again = self.encoder.encode(patches, self.draw_mask(patches), detach=self.stop_gradient)
        return nt_xent(first, self.projector(again.queries["cls"]), self.temperature)
