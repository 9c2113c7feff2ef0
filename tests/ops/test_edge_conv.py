"""The fused edge convolutions against the layer as the paper writes it, edges and all."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from contrast3d.errors import DataError
from contrast3d.nn.edge_conv import EdgeConv
from contrast3d.ops import neighbor_reduce as graph
from contrast3d.ops.edge_conv import edge_conv, scalar
from contrast3d.ops.edge_mlp import _backward, _forward, _torch_backward, _torch_forward, edge_mlp


def edges_of(center, neighbor, index):
    rows = torch.arange(len(index))[:, None, None]
    return center[:, :, None] + neighbor[rows, index]


def naive_conv(center, neighbor, index, weight, bias, mean, var, training, slope):
    e = edges_of(center, neighbor, index)
    y = F.batch_norm(e.flatten(0, 2), mean, var, weight, bias, training).view(e.shape)
    return F.leaky_relu(y, slope).amax(2)


def naive_mlp(center, neighbor, index, weight, bias, mean, var, out_weight, out_bias, training, slope):
    e = edges_of(center, neighbor, index)
    y = F.batch_norm(e.flatten(0, 2), mean, var, weight, bias, training).view(e.shape)
    return (F.leaky_relu(y, slope) @ out_weight.T + out_bias).amax(2)


def problem(b=3, m=17, n=17, k=5, c=8, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    leaf = lambda *shape: torch.randn(*shape, generator=g, dtype=dtype).requires_grad_()  # noqa: E731
    index = torch.rand(b, m, n, generator=g).argsort(2)[..., :k]
    statistics = torch.randn(c, generator=g, dtype=dtype), torch.rand(c, generator=g, dtype=dtype) + 0.5
    return leaf(b, m, c), leaf(b, n, c), index, leaf(c), leaf(c), *statistics


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slope", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("m", [17, 6], ids=["all points", "some points"])
def test_edge_conv_equals_the_unfused_layer(training, slope, m):
    """Values, all gradients and the running statistics, with channel weights of both signs."""
    center, neighbor, index, weight, bias, mean, var = problem(m=m)
    assert (weight < 0).any()
    assert (weight > 0).any()
    ours_stats, naive_stats = [mean.clone(), var.clone()], [mean.clone(), var.clone()]
    ours = edge_conv(center, neighbor, index, weight, bias, *ours_stats, training, negative_slope=slope)
    naive = naive_conv(center, neighbor, index, weight, bias, *naive_stats, training, slope)
    grad = torch.randn_like(ours)
    inputs = center, neighbor, weight, bias
    torch.testing.assert_close(ours, naive, rtol=0, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(naive, inputs, grad)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(ours_stats, naive_stats):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("m", [17, 6], ids=["all points", "some points"])
def test_edge_mlp_equals_the_unfused_layer(training, m):
    center, neighbor, index, weight, bias, mean, var = problem(m=m)
    out_weight = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    out_bias = torch.randn(6, dtype=torch.float64, requires_grad=True)
    ours_stats, naive_stats = [mean.clone(), var.clone()], [mean.clone(), var.clone()]
    ours = edge_mlp(center, neighbor, index, weight, bias, *ours_stats, out_weight, out_bias, training,
                    negative_slope=0.1)
    naive = naive_mlp(center, neighbor, index, weight, bias, *naive_stats, out_weight, out_bias, training, 0.1)
    grad = torch.randn_like(ours)
    inputs = center, neighbor, weight, bias, out_weight, out_bias
    torch.testing.assert_close(ours, naive, rtol=0, atol=1e-12)
    for a, b in zip(torch.autograd.grad(ours, inputs, grad), torch.autograd.grad(naive, inputs, grad)):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)
    for a, b in zip(ours_stats, naive_stats):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-14)


def test_gradcheck():
    center, neighbor, index, weight, bias, mean, var = problem(b=2, m=5, n=7, k=3, c=2)
    out_weight = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    out_bias = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def conv(*args):
        return edge_conv(args[0], args[1], index, *args[2:], mean.clone(), var.clone(), True, negative_slope=0.2)

    def mlp(c, n, w, b, ow, ob):
        return edge_mlp(c, n, index, w, b, mean.clone(), var.clone(), ow, ob, True, negative_slope=0.2)

    assert torch.autograd.gradcheck(conv, (center, neighbor, weight, bias))
    assert torch.autograd.gradcheck(mlp, (center, neighbor, weight, bias, out_weight, out_bias))
    assert torch.autograd.gradcheck(lambda v: graph.neighbor_max(v, index), (neighbor,))


def test_float32_is_as_accurate_as_the_unfused_layer():
    """Both against float64, with a mean far from zero, where sums of squares cancel."""
    exact = problem(b=4, m=64, n=64, k=8, c=16)
    exact = (exact[0].detach() + 20, exact[1].detach() - 3, *exact[2:])
    single = [t.detach().float() if t.is_floating_point() else t for t in exact]
    truth = naive_conv(*exact, True, 0.2)
    ours = edge_conv(*single, True, negative_slope=0.2)
    unfused = naive_conv(*single, True, 0.2)
    assert (ours - truth).abs().max() < 4 * (unfused - truth).abs().max()


def test_the_torch_path_equals_the_kernels(monkeypatch):
    """The path of other devices, run here on CPU tensors by hiding what they are."""
    center, neighbor, index, *_ = problem(m=9)
    center, neighbor = center.detach(), neighbor.detach()
    best, arg = graph.max_with_arg(neighbor, index)
    torch_best, torch_arg = graph._torch_max(neighbor, index)
    assert torch.equal(best, torch_best)
    assert torch.equal(arg, torch_arg)
    scale, shift, out_weight = torch.rand(8).double(), torch.randn(8).double(), torch.randn(6, 8).double()
    out, slot = _torch_forward(center, neighbor, index, scale, shift, 0.2, out_weight)
    grad = torch.randn_like(out)
    ours, our_slot = _forward(center, neighbor, index, scale, shift, 0.2, out_weight)
    torch.testing.assert_close(ours, out)
    assert torch.equal(slot, our_slot)
    args = (grad, index, slot, center, neighbor, out_weight, scale, shift, 0.2)
    for a, b in zip(_backward(*args), _torch_backward(*args)):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("threads", [1, 2])
def test_results_do_not_depend_on_the_number_of_threads(threads):
    center, neighbor, index, weight, bias, mean, var = problem(b=3, m=40, n=40, dtype=torch.float32)
    before = torch.get_num_threads()

    def run():
        out = edge_conv(center, neighbor, index, weight, bias, mean.clone(), var.clone(), True)
        return [out, *torch.autograd.grad(out.square().sum(), (center, neighbor))]

    try:
        torch.set_num_threads(1)
        one = run()
        torch.set_num_threads(threads)
        assert all(torch.equal(a, b) for a, b in zip(one, run()))
    finally:
        torch.set_num_threads(before)


@settings(max_examples=25, deadline=None)
@given(b=st.integers(1, 3), m=st.integers(1, 9), n=st.integers(1, 9), c=st.integers(1, 5), seed=st.integers(0, 99))
def test_graph_reductions_equal_loops(b, m, n, c, seed):
    g = torch.Generator().manual_seed(seed)
    values = torch.randint(-3, 4, (b, n, c), generator=g).double()  # ties on purpose
    index = torch.randint(0, n, (b, m, 1 + seed % 4), generator=g)
    best, arg, total = graph.max_with_sum(values, index)
    edges = edges_of(torch.zeros(b, m, c).double(), values, index)
    torch.testing.assert_close(best, edges.amax(2))
    torch.testing.assert_close(total, edges.sum(2))
    torch.testing.assert_close(graph.sum_over(values, index), edges.sum(2))
    torch.testing.assert_close(values.gather(1, arg.long()), best)
    source = torch.randn(b, m, c, generator=g).double()
    reverse, degree = graph.scatter_over(source, index, n)
    expected, count = torch.zeros(b, n, c).double(), torch.zeros(b, n, dtype=torch.int32)
    for cloud in range(b):
        for i in range(m):
            for j in index[cloud, i].tolist():
                expected[cloud, j] += source[cloud, i]
                count[cloud, j] += 1
    torch.testing.assert_close(reverse, expected)
    assert torch.equal(degree, count)


def test_non_contiguous_inputs():
    center, neighbor, index, weight, bias, mean, var = problem()
    strided = lambda t: t.detach().transpose(1, 2).contiguous().transpose(1, 2)  # noqa: E731
    ours = edge_conv(strided(center), strided(neighbor), strided(index), weight, bias, mean.clone(), var.clone(), True)
    assert torch.equal(ours, edge_conv(center, neighbor, index, weight, bias, mean.clone(), var.clone(), True))


def test_wrong_graphs_are_named():
    center, neighbor, index, weight, bias, mean, var = problem()
    rest = weight, bias, mean, var, True
    with pytest.raises(DataError, match="entries up to 17"):
        edge_conv(center, neighbor, index.clone().fill_(17), *rest)
    with pytest.raises(DataError, match="negative_slope"):
        edge_conv(center, neighbor, index, *rest, negative_slope=-0.1)
    with pytest.raises(DataError, match="K at least 1"):
        edge_conv(center, neighbor, index[..., :0], *rest)
    assert scalar(0.2, torch.zeros(1)).dtype == "float32"


@pytest.mark.parametrize("op", ["edge_conv", "edge_mlp"])
@pytest.mark.parametrize(
    ("name", "shape"), [("center", (2, 8, 3)), ("center", (2, 7, 4)), ("weight", (3,)), ("running_var", (5,))]
)
def test_sizes_that_do_not_fit_are_refused(op, name, shape):
    """The kernels check no bounds: without this they read foreign memory (the type checks run in tests only)."""
    sizes = {"center": (2, 8, 4), "neighbor": (2, 9, 4)}
    sizes |= dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (4,))
    tensors = {key: torch.rand(shape if key == name else size) for key, size in sizes.items()}
    tensors["index"] = torch.zeros(2, 8, 3, dtype=torch.long)
    if op == "edge_mlp":
        tensors |= {"out_weight": torch.rand(6, 4), "out_bias": torch.rand(6)}
    function = {"edge_conv": edge_conv, "edge_mlp": edge_mlp}[op]
    with pytest.raises(DataError, match=name):
        getattr(function, "__wrapped__", function)(**tensors, training=True)


@pytest.mark.parametrize("plain_last", [False, True])
def test_the_layer_folds_the_signs_of_batch_norm_into_its_product(plain_last):
    """Where a negative weight of batch norm turns the maximum round, value, gradients and statistics stay exact."""
    torch.manual_seed(0)
    layer = EdgeConv(5, (7, 6) if plain_last else (7,), plain_last).double()
    with torch.no_grad():
        layer.norm.weight.normal_()
    assert (layer.norm.weight < 0).any()
    x = torch.randn(3, 12, 5, dtype=torch.float64, requires_grad=True)
    index = torch.randint(0, 12, (3, 12, 4))
    norm = torch.nn.BatchNorm1d(7).double()
    norm.load_state_dict(layer.norm.state_dict())

    def unfused():
        neighbors = x[torch.arange(3)[:, None, None], index]
        edges = torch.cat([x[:, :, None].expand_as(neighbors), neighbors - x[:, :, None]], -1)
        y = norm(layer.first(edges).flatten(0, 2)).unflatten(0, (3, 12, 4))
        y = torch.nn.functional.leaky_relu(y, layer.negative_slope)
        return (layer.last(y) if plain_last else y).amax(2)

    ours, expected = layer(x, index), unfused()
    torch.testing.assert_close(ours, expected)
    inputs = [x, layer.first.weight]
    for a, b in zip(torch.autograd.grad(ours.square().sum(), [*inputs, layer.norm.weight, layer.norm.bias]),
                    torch.autograd.grad(expected.square().sum(), [*inputs, norm.weight, norm.bias])):
        torch.testing.assert_close(a, b)
    torch.testing.assert_close(layer.norm.running_mean, norm.running_mean)
    torch.testing.assert_close(layer.norm.running_var, norm.running_var)
