"""The fused mini-PointNet against the network as the paper writes it, point by point."""

import threading

import pytest
import torch
from torch.nn import functional as F

from contrast3d.errors import DataError
from contrast3d.ops import patch_passes
from contrast3d.ops.patch_embed import PatchWeights, Running, patch_embed
from contrast3d.ops.portable import portable

SMALL, RELEASED = (5, 7, 9, 6), (128, 256, 512, 384)


def naive(points, w, running, training, visible=None):
    """Every layer of every point, in plain torch; tokens of visible patches are picked at the end."""
    b, g, k, _ = points.shape
    first = F.linear(points.reshape(-1, 3), w.conv1, w.bias1)
    h = F.batch_norm(first, running.mean1, running.var1, w.norm1, w.shift1, training).relu()
    f = F.linear(h, w.conv2, w.bias2).view(b * g, k, -1)
    y = F.linear(torch.cat([f.amax(1, keepdim=True).expand_as(f), f], -1).flatten(0, 1), w.conv3, w.bias3)
    y = F.batch_norm(y, running.mean2, running.var2, w.norm2, w.shift2, training).relu()
    tokens = F.linear(y, w.conv4, w.bias4).view(b, g, k, -1).amax(2)
    return tokens if visible is None else tokens[visible].view(b, -1, tokens.shape[-1])


def problem(sizes=SMALL, b=3, g=8, k=5, shown=3, dtype=torch.float64, seed=0):
    """-> points, visible, weights, running statistics; batch norms have weights of both signs."""
    generator = torch.Generator().manual_seed(seed)

    def leaf(*shape):
        values = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return (values / shape[-1] ** 0.5 if len(shape) > 1 else values).to(dtype).requires_grad_()

    h, f, i, c = sizes
    weights = PatchWeights(leaf(h, 3), leaf(h), leaf(h), leaf(h), leaf(f, h), leaf(f), leaf(i, 2 * f), leaf(i), leaf(i),
                           leaf(i), leaf(c, i), leaf(c))
    running = [leaf(h), leaf(h).square() + 0.5, leaf(i), leaf(i).square() + 0.5]
    visible = torch.rand(b, g, generator=generator).argsort(1) < shown
    points = 0.2 * torch.randn(b, g, k, 3, generator=generator, dtype=torch.float64)
    return points.to(dtype).requires_grad_(), visible, weights, Running(*(t.detach() for t in running))


def copy(running):
    return Running(*(t.clone() for t in running))


def close(ours, expected, tolerance):
    """Within `tolerance` of the largest entry; of biases, which are rounding noise in training, the largest of all."""
    largest = max(b.abs().max() for b in expected)
    for name, a, b in zip(("points", *PatchWeights._fields), ours, expected):
        scale = largest if name in ("bias1", "bias2", "bias3") else b.abs().max()
        assert (a - b).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("b", "g", "k"), [(3, 8, 5), (1, 1, 2), (2, 50, 1), (1, 3, 101)])
def test_it_equals_the_network_point_by_point(training, masked, b, g, k):
    """Tokens, running statistics and all gradients, of the points too."""
    points, visible, weights, running = problem(b=b, g=g, k=k, shown=min(g, 3))
    visible = visible if masked else None
    ours_running, naive_running = copy(running), copy(running)
    ours = patch_embed(points, weights, ours_running, training, visible)
    expected = naive(points, weights, naive_running, training, visible)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    for a, b in zip(ours_running, naive_running):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    grad = torch.randn_like(ours)
    inputs = points, *weights
    close(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(expected, inputs, grad), 1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_released_widths_in_float32(training):
    points, visible, weights, running = problem(RELEASED, b=2, g=16, k=32, shown=6, dtype=torch.float32)
    ours, expected = (patch_embed(points, weights, copy(running), training, visible),
                      naive(points, weights, copy(running), training, visible))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)
    grad = torch.randn_like(ours)
    inputs = points, *weights
    close(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(expected, inputs, grad), 1e-4)


def test_float32_is_as_accurate_as_the_network_where_means_are_large():
    points, visible, weights, running = problem(b=4, g=32, k=16, shown=9)
    weights = weights._replace(shift1=weights.shift1 + 30)  # means of the first layer far beyond its spread
    truth = naive(points + 5, weights, copy(running), True, visible)
    points, *single = [t.detach().float() for t in (points + 5, *weights)]
    running, weights = Running(*(t.float() for t in running)), PatchWeights(*single)
    ours = (patch_embed(points, weights, copy(running), True, visible) - truth).abs().max()
    assert ours <= 2 * (naive(points, weights, copy(running), True, visible) - truth).abs().max()


@pytest.mark.parametrize("training", [True, False])
def test_gradcheck(training):
    points, visible, weights, running = problem((2, 3, 2, 2), b=2, g=2, k=3, shown=1)

    def embed(points, *weights):
        return patch_embed(points, PatchWeights(*weights), copy(running), training, visible)

    assert torch.autograd.gradcheck(embed, (points, *weights))


def test_gradients_of_gradients():
    points, visible, weights, running = problem()

    def second(embed):
        tokens = embed(points, weights, copy(running), True, visible)
        (slope,) = torch.autograd.grad(tokens.square().sum(), points, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (points, weights.conv3))

    for a, b in zip(second(patch_embed), second(naive)):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_hidden_patches_count_in_training_only():
    points, visible, weights, running = problem()
    other = torch.where(visible[..., None, None], points.detach(), 7 * points.detach().roll(1, 2))
    train = [patch_embed(p, weights, copy(running), True, visible) for p in (points, other)]
    assert (train[0] - train[1]).abs().max() > 1e-3
    evaluated = [patch_embed(p, weights, running, False, visible) for p in (points, other)]
    assert torch.equal(*evaluated)
    before = copy(running)
    (slope,) = torch.autograd.grad(evaluated[0].square().sum(), points)
    assert not slope[~visible].any()
    assert slope[visible].any()
    assert all(map(torch.equal, running, before)), "evaluation must leave the statistics alone"


def test_biases_before_batch_norm_get_no_gradient_in_training():
    points, visible, weights, running = problem()
    tokens = patch_embed(points, weights, running, True, visible)
    biases = torch.autograd.grad(tokens.square().sum(), (weights.bias1, weights.bias2, weights.bias3))
    assert not any(b.any() for b in biases)


@pytest.mark.parametrize("low", [False, True])
def test_results_do_not_depend_on_threads(low):
    points, visible, weights, running = problem((32, 64, 96, 64), b=4, g=20, k=7, dtype=torch.float32)
    before = torch.get_num_threads()

    def results():
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            tokens = patch_embed(points, weights, copy(running), True, visible)
        return [tokens, *torch.autograd.grad(tokens.square().sum(), (points, *weights))]

    try:
        torch.set_num_threads(1)
        one = results()
        torch.set_num_threads(3)
        assert all(map(torch.equal, one, results()))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("training", [True, False])
def test_the_plain_path_equals_the_kernels(training):
    points, visible, weights, running = problem()
    ours_running, plain_running = copy(running), copy(running)
    ours = patch_embed(points, weights, ours_running, training, visible)
    with portable():
        plain = patch_embed(points, weights, plain_running, training, visible)
    torch.testing.assert_close(plain, ours, rtol=0, atol=1e-12)
    for a, b in zip(ours_running, plain_running):
        torch.testing.assert_close(a, b)


def test_bfloat16_products_under_autocast():
    points, visible, weights, running = problem(RELEASED, b=2, g=16, k=32, shown=6, dtype=torch.float32)
    exact = patch_embed(points, weights, copy(running), True, visible)
    with torch.autocast("cpu", torch.bfloat16):
        low = patch_embed(points, weights, copy(running), True, visible)
    assert low.dtype == torch.float32
    assert 0 < (low - exact).abs().mean() < 0.01 * exact.std()
    grad = torch.randn_like(exact)
    for name, a, b in zip(PatchWeights._fields, *(torch.autograd.grad(t, weights, grad) for t in (low, exact))):
        if b.any():
            assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99, name


def test_nothing_as_large_as_a_layer_of_all_points_is_kept():
    points, visible, weights, running = problem(RELEASED, b=2, g=64, k=32, shown=26, dtype=torch.float32)
    node = patch_embed(points, weights, running, True, visible).grad_fn
    while not hasattr(node, "run"):
        node = node.next_functions[0][0]
    kept = sum(t.nbytes for t in vars(node.run).values() if isinstance(t, torch.Tensor))
    assert 0 < kept < points[..., 0].numel() * 128 * 4, "the first layer of all points alone is as large"


def test_two_processes_are_one_batch(monkeypatch):
    """Two threads that sum as processes do: tokens, statistics and sums of gradients are those of the joint batch."""
    points, visible, weights, running = problem(b=4)
    grad = torch.randn(4, 3, SMALL[-1], dtype=torch.float64)
    joint = patch_embed(points, weights, joint_running := copy(running), True, visible)
    expected = torch.autograd.grad(joint, (points, *weights), grad)
    barrier, sent, results = threading.Barrier(2, timeout=60), {}, {}

    def world_sum_(values):
        sent[threading.current_thread().name] = values.clone()
        barrier.wait()
        values.copy_(sent["0"] + sent["1"])
        barrier.wait()
        return values

    monkeypatch.setattr(patch_passes, "world_size", lambda: 2)
    monkeypatch.setattr(patch_passes, "world_sum_", world_sum_)

    def rank(i):
        mine, own = slice(2 * i, 2 * i + 2), copy(running)
        x = points.detach()[mine].requires_grad_()
        tokens = patch_embed(x, weights, own, True, visible[mine])
        results[i] = tokens, own, torch.autograd.grad(tokens, (x, *weights), grad[mine])

    threads = [threading.Thread(target=rank, args=(i,), name=str(i)) for i in range(2)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    (first, own, one), (second, _, two) = results[0], results[1]
    torch.testing.assert_close(torch.cat([first, second]), joint, rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.cat([one[0], two[0]]), expected[0])
    close([expected[0], *(a + b for a, b in zip(one[1:], two[1:]))], expected, 1e-9)
    for a, b in zip(own, joint_running):
        torch.testing.assert_close(a, b)


def test_non_contiguous_points_and_none_visible():
    points, visible, weights, running = problem()
    strided = points.detach().transpose(1, 3).contiguous().transpose(1, 3)
    assert torch.equal(patch_embed(strided, weights, running, False, visible),
                       patch_embed(points, weights, running, False, visible))
    assert patch_embed(points, weights, running, True, torch.zeros_like(visible)).shape == (3, 0, 6)


def test_wrong_input_is_named():
    points, visible, weights, running = problem()
    embed = getattr(patch_embed, "__wrapped__", patch_embed)
    with pytest.raises(DataError, match="conv3"):
        embed(points, weights._replace(conv3=weights.conv3[:, 1:]), running, True)
    with pytest.raises(DataError, match="var2"):
        embed(points, weights, running._replace(var2=running.var2[1:]), True)
    with pytest.raises(DataError, match="float32"):
        embed(points.float(), weights, running, True)
    with pytest.raises(DataError, match="points in each"):
        embed(points[:, :, :0], weights, running, True)
    visible[0] = True
    with pytest.raises(DataError, match="equally many"):
        embed(points, weights, running, True, visible)
    with pytest.raises(DataError, match="more than one"):
        embed(points[:1, :1, :1], weights, running, True)
