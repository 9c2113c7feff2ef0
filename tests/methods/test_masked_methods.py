"""Point-MAE and ReCon: their losses by hand, missing targets, the ablations, and what they refuse."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contrast3d.errors import ConfigError
from contrast3d.methods.point_mae import PointMAE
from contrast3d.methods.recon import ReCon
from contrast3d.nn.patch_transformer import PatchTransformer
from contrast3d.nn.patches import select
from contrast3d.nn.pointnet import PointNet
from contrast3d.nn.two_towers import TwoTowers
from contrast3d.types import Clouds, Features

DIMS = {"img": 6, "text": 5}
SHAPE = {"width": 16, "depth": 2, "num_heads": 2, "num_patches": 6, "patch_size": 4, "drop_path": 0.0}
B = 6


def encoder(**options):
    torch.manual_seed(0)
    return PatchTransformer(**SHAPE, **options)


def towers(**options):
    torch.manual_seed(0)
    return TwoTowers(**SHAPE, **options)


def teacher(clouds, missing=()):
    """Says of shape i what no other shape is told; nothing of those `missing`."""
    told = {name: torch.randn(50, d, generator=torch.Generator().manual_seed(d)) for name, d in DIMS.items()}
    out = {name: values[clouds.ids].clone() for name, values in told.items()}
    for values in out.values():
        values[[i for i, n in enumerate(clouds.ids.tolist()) if n in missing]] = torch.nan
    return out


def recon(teach=teacher, make=encoder, **options):
    made = make(projections=DIMS if teach else None)
    return ReCon(made, teach, decoder_depth=1, decoder_drop_path=0.0, **options)


def batch(seed=0, labels=None):
    points = torch.randn(B, 20, 3, generator=torch.Generator().manual_seed(seed))
    return [Clouds.from_dense(points, ids=torch.arange(B), labels=labels)]


def run(method, seed=3, **given):
    torch.manual_seed(seed)
    return method(batch(**given))


def encoded_as_in(method, seed=3, **given):
    """What the loss is computed of, with the mask of `run`."""
    torch.manual_seed(seed)
    (clouds,) = batch(**given)
    patches = method.encoder.patches(clouds)
    mask = method.draw_mask(patches)
    return clouds, patches, mask, method.encoder.encode(patches, mask, detach=method.stop_gradient)


# Reconstruction.


@pytest.mark.parametrize("loss", ["chamfer-l2", "chamfer-l1"])
@pytest.mark.parametrize("mask", ["random", "block"])
def test_reconstruction_by_hand(mask, loss):
    """Every hidden patch by itself, each point with the nearest of the other side."""
    method = PointMAE(encoder(), mask=mask, loss=loss, decoder_depth=1, decoder_drop_path=0.0).eval()
    outputs = run(method)
    _, patches, hidden, encoded = encoded_as_in(method)
    assert hidden.sum(1).tolist() == [3] * B  # floor(0.6 * 6)
    predicted, there, back = method.decode(patches, hidden, encoded), [], []
    for b in range(B):
        for prediction, true in zip(predicted[b], patches.points[b][hidden[b]], strict=True):
            distances = torch.stack([torch.stack([(p - t).square().sum() for t in true]) for p in prediction])
            distances = distances.sqrt() if loss == "chamfer-l1" else distances
            there.append(distances.amin(1).mean())
            back.append(distances.amin(0).mean())
    expected = torch.stack(there).mean() + torch.stack(back).mean()
    torch.testing.assert_close(outputs["loss"], expected / (2 if loss == "chamfer-l1" else 1))
    assert outputs.keys() == {"loss", "reconstruction"}
    assert not outputs["reconstruction"].requires_grad


def test_idle_queries_get_a_gradient_of_zero():
    method = PointMAE(encoder(), decoder_depth=1)
    run(method)["loss"].backward()
    idle = [p for name, p in method.named_parameters() if ".queries." in name or "tokens." in name]
    assert len(idle) > 20
    assert all(p.grad is not None and not p.grad.any() for p in idle)
    local = [p for name, p in method.named_parameters() if ".local." in name]
    assert all(p.grad.any() for p in local)


def test_reconstruct():
    method = PointMAE(encoder(), decoder_depth=1).eval()
    (clouds,) = batch()
    mask = torch.stack([torch.arange(6).roll(i) < 2 for i in range(B)])
    found = method.reconstruct(clouds, mask)
    assert torch.equal(found.mask, mask)
    assert found.hidden.shape == (B, 2, 4, 3)
    assert not found.hidden.requires_grad
    encoded = method.encoder.encode(found.patches, mask)
    centers = select(found.patches.centers, mask)
    torch.testing.assert_close(found.hidden, method.decoder(encoded.tokens, encoded.centers, centers))
    torch.manual_seed(5)
    drawn = method.reconstruct(clouds)
    torch.manual_seed(5)
    assert torch.equal(drawn.mask, method.draw_mask(found.patches))


def test_masks_are_drawn_anew():
    method = PointMAE(encoder(), decoder_depth=1).eval()
    assert run(method, seed=1)["loss"] == run(method, seed=1)["loss"]
    assert run(method, seed=1)["loss"] != run(method, seed=2)["loss"]


# Queries.


@pytest.mark.parametrize("make", [encoder, towers])
def test_regression_by_hand(make):
    method = recon(make=make).eval()
    outputs = run(method)
    clouds, _, _, encoded = encoded_as_in(method)
    total = outputs["reconstruction"]
    for name, target in teacher(clouds).items():
        r = (method.encoder.project(encoded)[name] - target).abs()
        expected = torch.where(r < 1, r.square() / 2, r - 0.5).mean()
        torch.testing.assert_close(outputs[name], expected.detach())
        total = total + expected
    torch.testing.assert_close(outputs["loss"], total)
    assert outputs.keys() == {"loss", "reconstruction", "img", "text"}
    assert [name for name, value in outputs.items() if value.requires_grad] == ["loss"]


def test_info_nce_by_hand():
    method = recon(query_loss="info-nce", temperature=0.2).eval()
    outputs = run(method)
    clouds, _, _, encoded = encoded_as_in(method)
    for name, target in teacher(clouds).items():
        p, t = (F.normalize(x, dim=1) for x in (method.encoder.project(encoded)[name], target))
        logits, own = p @ t.T / 0.2, torch.arange(B)
        expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
        torch.testing.assert_close(outputs[name], expected.detach())


@pytest.mark.parametrize("query_loss", ["smooth-l1", "info-nce"])
def test_missing_targets_are_left_out(query_loss):
    """The loss of a query is that of the shapes that have a target; reconstruction is of all."""
    method = recon(lambda clouds: teacher(clouds, missing=(1, 4)), query_loss=query_loss).eval()
    outputs = run(method)
    clouds, _, _, encoded = encoded_as_in(method)
    known = torch.tensor([0, 2, 3, 5])
    whole = recon(query_loss=query_loss).eval()
    torch.testing.assert_close(outputs["reconstruction"], run(whole)["reconstruction"])
    for name, target in teacher(clouds).items():
        predicted = method.encoder.project(encoded)[name][known]
        if query_loss == "smooth-l1":
            expected = F.smooth_l1_loss(predicted, target[known])
        else:
            logits = F.normalize(predicted, dim=1) @ F.normalize(target[known], dim=1).T / 0.1
            expected = (F.cross_entropy(logits, torch.arange(4)) + F.cross_entropy(logits.T, torch.arange(4))) / 2
        torch.testing.assert_close(outputs[name], expected.detach())
    outputs["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("query_loss", ["smooth-l1", "info-nce"])
def test_no_target_at_all_is_a_zero_that_touches(query_loss):
    method = recon(lambda clouds: teacher(clouds, missing=range(B)), query_loss=query_loss)
    outputs = run(method)
    assert outputs["img"] == outputs["text"] == 0
    torch.testing.assert_close(outputs["loss"], outputs["reconstruction"], check_stride=False)
    outputs["loss"].backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in method.parameters())
    assert not any(p.grad.any() for p in method.encoder.projections.parameters())


def test_stop_gradient():
    """Tokens learn from reconstruction alone, unless the gradient may flow."""
    def of_tokens(teach=teacher, **options):
        method = recon(teach, **options)
        run(method)["loss"].backward()
        return method.encoder.embed.conv1.weight.grad

    untaught = of_tokens(lambda clouds: teacher(clouds, missing=range(B)))
    torch.testing.assert_close(of_tokens(), untaught)
    assert (of_tokens(stop_gradient=False) - untaught).abs().max() > 1e-4 * untaught.abs().max()


def test_plain_multi_task_learning():
    """The paper's ablation: queries among the tokens, one gradient."""
    method = recon(make=lambda **kw: encoder(block="standard", **kw), stop_gradient=False)
    run(method)["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
    with pytest.raises(ConfigError, match="one stream"):
        run(recon(make=lambda **kw: encoder(block="standard", **kw)))


def test_towers_learn_apart():
    method = recon(make=towers)
    outputs = run(method)
    local, asked = (list(t.parameters()) for t in (method.encoder.local, method.encoder.asked))
    outputs["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())
    alone = recon(lambda clouds: teacher(clouds, missing=range(B)), make=towers)
    alone.load_state_dict(method.state_dict())
    run(alone)["loss"].backward()
    for p, q in zip(local, alone.encoder.local.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)  # whatever the other one is taught
    assert not any(p.grad.any() for p in alone.encoder.asked.parameters())
    assert any(p.grad.any() for p in asked)


# Contrast of the class query.


def test_contrast_of_names_by_hand():
    """Two classes and a shape of an unknown one."""
    labels = torch.tensor([0, 0, 1, 1, 0, -1])
    method = recon(None, self_contrast="names", temperature=0.3).eval()
    outputs = run(method, labels=labels)
    z = F.normalize(method.projector(encoded_as_in(method, labels=labels)[3].queries["cls"]), dim=1)
    logits, losses = z @ z.T / 0.3, []
    for i in range(B):
        same = [j for j in range(B) if j == i or (labels[i] >= 0 and labels[i] == labels[j])]
        positive = logits[i][same].mean()
        rest = [logits[i, j] for j in range(B) if j not in same]
        losses.append(torch.stack([positive, *rest]).logsumexp(0) - positive)
    torch.testing.assert_close(outputs["cls"], torch.stack(losses).mean().detach())
    torch.testing.assert_close(outputs["loss"].detach(), outputs["reconstruction"] + outputs["cls"])


def test_contrast_of_instances_by_hand():
    """Two maskings of a shape attract; labels are not read."""
    method = recon(None, self_contrast="instance", temperature=0.3).eval()
    outputs, labelled = run(method), run(method, labels=torch.zeros(B, dtype=torch.long))
    assert outputs["cls"] == labelled["cls"]
    _, patches, mask, first = encoded_as_in(method)
    again = method.draw_mask(patches)  # the next draw
    assert not torch.equal(mask, again)
    second = method.encoder.encode(patches, again)
    z = F.normalize(method.projector(torch.cat([first.queries["cls"], second.queries["cls"]])), dim=1)
    logits = (z @ z.T / 0.3).fill_diagonal_(-torch.inf)
    torch.testing.assert_close(outputs["cls"], F.cross_entropy(logits, torch.arange(2 * B).roll(B)).detach())


@pytest.mark.parametrize("contrast", ["names", "instance"])
def test_contrast_and_teachers_together(contrast):
    method = recon(self_contrast=contrast)
    outputs = run(method, labels=torch.arange(B) % 2)
    assert outputs.keys() == {"loss", "reconstruction", "img", "text", "cls"}
    torch.testing.assert_close(
        outputs["loss"].detach(), sum(value for name, value in outputs.items() if name != "loss"))
    outputs["loss"].backward()
    assert all(p.grad is not None for p in method.parameters())


# Precision, modes, refusals.


@pytest.mark.parametrize("which", ["point-mae", "recon"])
def test_bfloat16_autocast_stays_close(which):
    method = recon(self_contrast="instance") if which == "recon" else PointMAE(encoder(), decoder_depth=1)
    full = run(copy.deepcopy(method).eval())["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        half = run(method.eval())["loss"]
    half.backward()
    assert half.dtype == torch.float32
    assert abs(half - full) < 1e-2 * full
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_evaluation_is_repeatable_and_trains_nothing():
    method = recon(self_contrast="instance").eval()
    assert run(method)["loss"] == run(method)["loss"]
    before = copy.deepcopy(method.state_dict())
    run(method.train())
    changed = {k for k, v in method.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert all("running" in k or "num_batches" in k for k in changed)


def test_what_is_not_a_transformer_of_patches_is_refused():
    class Tokens(nn.Module):
        gives, embed_dim = frozenset({"pooled", "tokens"}), 3

        def forward(self, clouds):
            return Features(pooled=clouds.dense.mean(1))

    for kind in (PointMAE, ReCon):
        with pytest.raises(ConfigError, match="needs an encoder that gives tokens; PointNet gives"):
            kind(PointNet(16))
        with pytest.raises(ConfigError, match=f"{kind.__name__}: Tokens has no patches, encode.*nn.PatchTransformer"):
            kind(Tokens())


@pytest.mark.parametrize(("options", "told"), [
    ({"teach": None}, "without a projection and without self_contrast is PointMAE"),
    ({"temperature": 0.0}, "temperature = 0.0"),
    ({"mask_ratio": 0.1}, "mask_ratio = 0.1 hides 0 of 6 patches; expected at least one hidden and one visible"),
    ({"mask_ratio": 1.0}, "hides 6 of 6 patches"),
])
def test_impossible_arguments(options, told):
    with pytest.raises(ConfigError, match=told):
        recon(**options)


def test_queries_that_are_not_there():
    with pytest.raises(ConfigError, match="the encoder projects img, and there is no teacher"):
        ReCon(encoder(projections={"img": 4}))
    short = lambda clouds: {}  # noqa: E731
    for dims in ({"img": 3}, {"text": 4}):
        short.dims = dims
        with pytest.raises(ConfigError, match=r"projects to widths {'img': 4}, and what the teacher says has {"):
            ReCon(encoder(projections={"img": 4}), short)
    with pytest.raises(ConfigError, match="self_contrast = instance is of the query cls; the encoder has img"):
        ReCon(encoder(queries=("img",), readout=("max",)), self_contrast="instance")
    with pytest.raises(ConfigError, match=r"reads labels, and these shapes have none\. Try: instance"):
        run(recon(None, self_contrast="names"))
