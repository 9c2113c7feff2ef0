"""What the report of a masked run shows beside the rest: reconstructions, attention, maps of features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.features import evaluating, extract
from contrast3d.engine.distributed import pick_device
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.ops.shaded_views import shaded_views
from contrast3d.recipes.runs import Run
from contrast3d.report.masked import Attentions, Reconstructions, masked_sections, renders_section
from contrast3d.report.page import Section
from contrast3d.types import Clouds

SHOWN, MOST_VIEWS = 6, 4  # shapes, and renders of each


def sections_of(run: Run, shapes: ShapeSet, features: Tensor, device: str = "auto") -> list[Section]:
    """The sections of a run, about some of the shapes and about all of their features.

    features: of the shapes, by the trained encoder.
    """
    recipe, target = run.recipe, pick_device(device)
    method = trained_method(run).to(target)
    rows = torch.linspace(0, len(shapes) - 1, SHOWN).long().unique()
    points = shapes.points[rows, : recipe.num_points]
    names = tuple(shapes.descriptions[i] if shapes.descriptions else shapes.name(i) for i in rows.tolist())
    with evaluating(method), torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        found = method.reconstruct(Clouds.from_dense(points.to(target)))
        seen = _reader_of_tokens(method.encoder).attention(found.patches)
    where = (points.numpy(), found.patches.centers.cpu().numpy(), found.patches.index.cpu().numpy())
    queries = {name: weights.cpu().numpy() for name, weights in seen[0].items()}
    seen_by_teacher = []
    if recipe.method == "recon" and recipe.image_teacher != "none":
        views = min(recipe.teacher_views, MOST_VIEWS)
        seen_by_teacher = [renders_section(shaded_views(shapes.points[rows], views).numpy(), names)]
    fresh = extract(run.make_reader().to(target), shapes)
    return seen_by_teacher + masked_sections(
        Reconstructions(*where, found.mask.cpu().numpy(), found.hidden.float().cpu().numpy(), names),
        Attentions(*where, queries, seen[1].cpu().numpy(), names),
        {"trained": features.numpy(), "untrained": fresh.numpy()},
        None if shapes.labels is None else shapes.labels.numpy(), shapes.classes,
    )


def trained_method(run: Run) -> nn.Module:
    """The method as its last checkpoint left it, decoder included; its teacher says nothing."""
    method = run.recipe.make_method(teacher=lambda clouds: {}, projections=run.projections())
    method.load_state_dict(run.folder.load_state()["method"])
    return method


def _reader_of_tokens(encoder: PatchTransformer | TwoTowers) -> PatchTransformer:
    """What has queries: of two towers the second."""
    return encoder.asked if isinstance(encoder, TwoTowers) else encoder
