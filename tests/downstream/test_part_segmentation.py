import copy
import json

import pytest
import torch
from torch import nn

from contrast3d.data.parts import PartScheme
from contrast3d.data.shapes import ShapeSet
from contrast3d.downstream.part_segmentation import (
    PartTuning,
    majority_parts,
    part_segmentation,
    published,
    second_steps,
)
from contrast3d.downstream.part_segmenter import PartSegmenter, predict_parts
from contrast3d.downstream.part_table import MAJORITY_PART, METRICS
from contrast3d.downstream.table import SCRATCH
from contrast3d.errors import ConfigError, DataError
from contrast3d.nn.dgcnn import DGCNN
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.ops.three_interpolate import three_interpolate

SCHEME = PartScheme(
    ("low", "high", "left", "right", "nothing"),
    torch.tensor([[True, True, False, False, False], [False, False, True, True, False]]), (0, 1, 2, 3),
)


def toy(shapes=24, points=64, seed=0):
    """Two classes of random boxes; parts are the halves of each, cut in z or in x."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(shapes) % 2
    cloud = torch.rand(shapes, points, 3, generator=generator) * 2 - 1
    axis = torch.where(labels == 0, 2, 0)
    half = (cloud.gather(2, axis[:, None, None].expand(-1, points, 1))[..., 0] > -0.3).long()
    return ShapeSet(cloud, labels, ("across", "along"), tuple(map(str, range(shapes))), title="toy train",
                    point_labels=half + 2 * labels[:, None])


def small(**changes):
    kwargs = {"width": 32, "depth": 3, "num_heads": 1, "num_patches": 8, "patch_size": 8} | changes
    return PatchTransformer(**kwargs)


def test_parameters_are_those_of_the_papers():
    count = lambda encoder: sum(p.numel() for p in PartSegmenter(encoder, 16, 50).parameters())  # noqa: E731
    with torch.device("meta"):
        recon, point_mae = PatchTransformer(), PatchTransformer(queries=(), block="standard", readout=("max",))
        assert round(count(recon) / 1e6, 2) == 48.54
        assert round(count(point_mae) / 1e6, 2) == 27.06
        assert PartSegmenter(recon, 16, 50).levels == (4, 8, 12)


@pytest.mark.parametrize("queries", [("cls", "img", "text"), ()])
def test_logits_are_those_of_the_plain_formula(queries):
    """The head written out: each point with its interpolated tokens, the coordinates and the whole shape beside."""
    torch.manual_seed(0)
    encoder = small(queries=queries, block="two-stream" if queries else "standard", readout=("max",))
    head, shapes = PartSegmenter(encoder, 2, 5).eval(), toy(4)
    clouds = shapes.clouds()
    with torch.no_grad():
        encoded = encoder.encode(encoder.patches(clouds), levels=(1, 2, 3))
        tokens = torch.cat([encoder.norm(level) for level in encoded.levels], -1)
        last: list = []
        hook = encoder.blocks[-1].register_forward_hook(lambda m, a, out: last.append(out[0]))
        encoder(clouds)
        hook.remove()
        queried = [last[0].amax(1)] if queries else []
        kind = nn.functional.leaky_relu(head.class_norm(head.of_class(torch.eye(2)[clouds.labels])), 0.2)
        whole = torch.cat([tokens.amax(1), tokens.mean(1), *queried, kind], 1)
        x = torch.cat([clouds.dense, three_interpolate(encoded.centers, tokens, clouds.dense)], -1)
        x = head.spread_norm2(head.spread2(head.spread_norm1(head.spread1(x)).relu())).relu()
        x = torch.cat([x, whole[:, None].expand(-1, 64, -1)], -1)
        x = head.parts(head.mix_norm2(head.mix2(head.mix_norm1(head.mix1(x)).relu())).relu())
        assert torch.allclose(head.logits(clouds), x, atol=1e-5)


def test_all_weights_that_matter_learn():
    for encoder in (small(), small(block="standard"), TwoTowers(32, 3, 1, 8, 8)):
        head = PartSegmenter(encoder, 2, 5)
        head([toy(4).clouds()])["loss"].backward()
        still = {name for name, p in head.named_parameters() if p.grad is None}
        assert still <= {"encoder.asked.norm.weight", "encoder.asked.norm.bias"}


def test_groups_hold_every_parameter_once():
    head = PartSegmenter(small(), 2, 5, encoder_lr=1e-4, norm_lr=1e-4)
    groups = head.param_groups()
    found = [id(p) for group in groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for p in head.parameters())
    assert "lr" not in head.param_groups()[2]


def test_learns_parts_from_pretrained_weights_and_from_scratch():
    table = part_segmentation(
        small(width=16), (toy(), toy(8, seed=1)), SCHEME, labels_per_class=(None,), draws=2, epochs=1, min_steps=45,
        batch_size=8, lr=5e-3, encoder_lr_scale=1.0,
    )
    majority = table.cell(MAJORITY_PART, None).mean
    assert majority < 0.4
    for contestant in ("pre-trained", SCRATCH):
        assert len(table.cell(contestant, None).values) == 1  # of all labels there is one draw
        assert table.cell(contestant, None).mean > majority + 0.2


def test_columns_and_draws():
    told, columns = [], []
    table = part_segmentation(
        small(), (toy(), toy(8, seed=1)), SCHEME, labels_per_class=("50%", None), draws=2, epochs=1, min_steps=0,
        batch_size=8, on_trained=lambda *of: told.append(of[:3]), on_column=lambda t: columns.append(len(t.shapes)),
    )
    assert table.contestants == [MAJORITY_PART, SCRATCH, "pre-trained"]
    assert table.dataset == "toy"
    assert table.shapes == {"50%": 12, None: 24}
    assert len(table.cell("pre-trained", "50%").values) == 2
    assert [of[1:] for of in told] == [("50%", 0)] * 2 + [("50%", 1)] * 2 + [(None, 0)] * 2
    assert columns == [1, 2]
    assert table.gain("50%").std is not None


def test_results_hold_every_metric_and_print():
    table = part_segmentation(small(), (toy(), toy(8, seed=1)), SCHEME, labels_per_class=(4,), draws=1, epochs=1,
                              min_steps=0, batch_size=8)
    results = table.to_results("recipe", commit="c", command="x", device="cpu", paper=0.8)
    assert [r["metric"] for r in results] == list(METRICS)
    assert set(results[2]["parts"][0]) == {"low", "high", "left", "right"}
    assert set(results[0]["baselines"]) == {MAJORITY_PART, SCRATCH}
    assert results[0]["labels_per_class"] == "4"
    assert results[0]["paper"] is None
    assert "min_steps 0" in results[0]["protocol"]
    json.dumps(results, allow_nan=False)
    assert table.render().row_count == 4


def test_the_encoder_is_left_as_it_was():
    encoder = small()
    before = copy.deepcopy(encoder.state_dict())
    part_segmentation(encoder, (toy(8), toy(4, seed=1)), SCHEME, labels_per_class=(None,), draws=1, epochs=1,
                      min_steps=0, batch_size=4, make_untrained=False)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


def test_predictions_keep_to_the_parts_of_the_class():
    shapes = toy(6)
    predicted = predict_parts(PartSegmenter(small(), 2, 5), shapes, SCHEME.of_class, batch_size=4)
    assert bool(SCHEME.of_class[shapes.labels].gather(1, predicted).all())


def test_parts_that_are_not_scored_have_no_label():
    scheme = PartScheme(SCHEME.names, SCHEME.of_class, (0, 2, 3))
    shapes, head = toy(4), PartSegmenter(small(), 2, 5).eval()
    assert not bool((predict_parts(head, shapes, scheme.allowed) == 1).any())
    labels = scheme.known(shapes.point_labels, 255)
    assert bool(((labels == 255) == (shapes.point_labels == 1)).all())
    clouds = shapes.clouds()
    unlabelled = clouds.replace(point_labels=labels.flatten())
    logits = head.logits(clouds).flatten(0, 1)
    kept = labels.flatten() != 255
    expected = nn.functional.cross_entropy(logits[kept], clouds.point_labels[kept])
    assert torch.allclose(head([unlabelled])["loss"], expected)
    assert float(head([clouds.replace(point_labels=torch.full_like(clouds.point_labels, 255))])["loss"].detach()) == 0
    assert majority_parts(toy(), toy(2), scheme).unique(dim=1).tolist() == [[0], [3]]


def test_majority_part_is_that_of_the_class():
    assert majority_parts(toy(), toy(2), SCHEME).unique(dim=1).tolist() == [[1], [3]]


def test_as_released_steps_twice_and_clips_between():
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5))
    twin = nn.Parameter(weight.detach().clone())
    gradient = torch.randn(5) * 100
    ours, theirs = torch.optim.AdamW([weight], 0.1), torch.optim.AdamW([twin], 0.1)
    with second_steps(1.0):
        for _ in range(3):
            weight.grad = gradient.clone()
            ours.step()
    for _ in range(3):
        twin.grad = gradient.clone()
        theirs.step()
        nn.utils.clip_grad_norm_([twin], 1.0)
        theirs.step()
    assert torch.equal(weight, twin)
    before = weight.detach().clone()
    weight.grad, twin.grad = gradient.clone(), gradient.clone()
    ours.step()
    theirs.step()
    assert torch.equal(weight, twin)  # once again once
    assert not torch.equal(weight, before)


def test_as_released_draws_with_replacement():
    how = PartTuning(1, 0, 4, num_points=96, published=True)
    table = part_segmentation(small(), (toy(8), toy(4, seed=1)), SCHEME, labels_per_class=(None,), draws=1, tuning=how,
                              make_untrained=False)
    assert table.protocol.startswith("part segmentation as released (epochs 1")
    assert published(small()).encoder_lr_scale == 0.1
    assert published(small(block="standard")).lr == 2e-4


def test_wrong_inputs():
    data = (toy(8), toy(4, seed=1))
    with pytest.raises(ConfigError, match="tokens of patches, which DGCNN has not"):
        PartSegmenter(DGCNN(embed_dim=32), 2, 5)
    with pytest.raises(ConfigError, match="no field epoch in PartTuning"):
        part_segmentation(small(), data, SCHEME, epoch=3)
    with pytest.raises(ConfigError, match=r"epochs = 0.*expected at least 1"):
        PartTuning(epochs=0)
    with pytest.raises(DataError, match="parts 0 to 3; expected 0 to 2"):
        part_segmentation(small(), data, PartScheme(SCHEME.names[:3], SCHEME.of_class[:, :3], (0, 1)))
    plain = ShapeSet(data[0].points, data[0].labels, data[0].classes)
    with pytest.raises(DataError, match=r"no labels of points; expected.*LDraw40Parts"):
        part_segmentation(small(), (plain, data[1]), SCHEME)
    with pytest.raises(ConfigError, match="called 'from scratch'"):
        part_segmentation(small(), data, SCHEME, name=SCRATCH)
