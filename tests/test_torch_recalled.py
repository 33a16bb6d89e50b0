"""Calls that are prepared for a layer: what is kept is right, and goes with the layer."""

import copy
import gc

import pytest

torch = pytest.importorskip("torch")

import normkernels.torch as nt  # noqa: E402
from normkernels.torch import _norms, _recalled  # noqa: E402
from normkernels.torch import functional as F  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(_recalled, "_known", {})
    monkeypatch.setattr(_recalled, "_once", {})


MODULES = {
    "BatchNorm2d": (lambda: nt.BatchNorm2d(6).eval(), (4, 6, 5, 3)),
    "LayerNorm": (lambda: nt.LayerNorm(3), (4, 6, 5, 3)),
    "LayerNorm of no weights": (lambda: nt.LayerNorm((5, 3), elementwise_affine=False), (4, 6, 5, 3)),
    "RMSNorm": (lambda: nt.RMSNorm(3), (4, 6, 5, 3)),
    "GroupNorm": (lambda: nt.GroupNorm(3, 6), (4, 6, 5, 3)),
    "InstanceNorm2d of statistics": (
        lambda: nt.InstanceNorm2d(6, affine=True, track_running_stats=True).eval(),
        (4, 6, 5, 3),
    ),
    "BatchNorm2d of the batch": (lambda: nt.BatchNorm2d(6, track_running_stats=False), (4, 6, 5, 3)),
    "InstanceNorm2d": (lambda: nt.InstanceNorm2d(6, affine=True), (4, 6, 5, 3)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_later_calls_give_what_the_first_gives(name, memory_format, dtype):
    make, shape = MODULES[name]
    module = make().to(dtype)
    for p in module.parameters():
        p.uniform_(0.5, 1.5)
    x = torch.randn(shape).to(dtype).to(memory_format=memory_format)
    first = module(x)
    for _ in range(3):
        again = module(x)
        assert torch.equal(again, first)
        assert again.stride() == first.stride()
    assert len(_recalled._known) <= 1
    half = x[:2].clone(memory_format=memory_format)
    if name != "BatchNorm2d of the batch":
        assert torch.equal(module(half), first[:2])


@torch.no_grad()
def test_changes_of_parameters_are_seen():
    norm, x = nt.BatchNorm2d(6).eval(), torch.randn(4, 6, 5, 3)
    norm(x)
    norm(x)
    assert _recalled._known
    for change in (
        lambda: norm.weight.mul_(2),
        lambda: setattr(norm.weight, "data", torch.full((6,), 3.0)),
        lambda: norm.running_mean.add_(1),
        lambda: setattr(norm, "running_var", torch.full((6,), 9.0)),
        lambda: norm.load_state_dict(nt.BatchNorm2d(6).state_dict()),
    ):
        before = norm(x)
        change()
        expected = torch.nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        assert not torch.equal(norm(x), before)
        for _ in range(2):
            torch.testing.assert_close(norm(x), expected, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_parameters_at_one_address_are_told_apart():
    x, w = torch.randn(4, 6), torch.arange(12.0)
    for weight in (w[:6], w[::2], w[:6]) * 2:
        torch.testing.assert_close(
            F.layer_norm(x, 6, weight), torch.nn.functional.layer_norm(x, (6,), weight)
        )
    with pytest.raises(ValueError, match="weight must have shape"):
        F.layer_norm(x, 6, w)


@torch.no_grad()
def test_running_statistics_with_gaps():
    x, mean, var = torch.randn(4, 6, 5), torch.randn(12), torch.rand(12) + 0.5
    mean, var = mean[::2], var[::2]
    expected = torch.nn.functional.batch_norm(x, mean, var)
    for _ in range(4):
        torch.testing.assert_close(F.batch_norm(x, mean, var), expected)


def step(module, x, dy):
    """y, the gradients of x and of the parameters, and the buffers after it."""
    x = x.detach().requires_grad_()
    y = module(x)
    grads = torch.autograd.grad(y, [x, *module.parameters()], dy)
    return [y.detach(), *grads, *(b.clone() for b in module.buffers())]


TRAINED = {
    **MODULES,
    "BatchNorm2d in training": (lambda: nt.BatchNorm2d(6), (4, 6, 5, 3)),
    "BatchNorm1d of columns": (lambda: nt.BatchNorm1d(6), (40, 6)),
    "InstanceNorm2d in training": (
        lambda: nt.InstanceNorm2d(6, affine=True, track_running_stats=True), (4, 6, 5, 3),
    ),
    "RMSNorm of no weight": (lambda: nt.RMSNorm(3, elementwise_affine=False), (4, 6, 5, 3)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("name", TRAINED)
def test_later_steps_give_what_a_first_one_gives(name, memory_format, dtype, monkeypatch):
    make, shape = TRAINED[name]
    module = make().to(dtype)
    with torch.no_grad():
        for p in module.parameters():
            p.uniform_(0.5, 1.5)
    fresh = copy.deepcopy(module)
    lies = memory_format if len(shape) == 4 else torch.contiguous_format
    for _ in range(4):
        x, dy = (torch.randn(shape).to(dtype).to(memory_format=lies) for _ in range(2))
        found = step(module, x, dy)
        with monkeypatch.context() as forgetful:
            forgetful.setattr(_norms, "recall", lambda *_: None)
            expected = step(fresh, x, dy)
        for own, other in zip(found, expected, strict=True):
            assert torch.equal(own, other)
            assert own.stride() == other.stride()


def kept_layer():
    """A batch norm in training whose calls are prepared, and an input."""
    norm, x = nt.BatchNorm2d(6), torch.randn(4, 6, 5, 3, requires_grad=True)
    for _ in range(3):
        norm(x).sum().backward()
    assert any(_recalled._known.values())
    return norm, x


@pytest.mark.parametrize("shape", [(), (4, 1, 1, 1), (4, 6, 5, 3)], ids=str)
def test_gradients_that_lie_otherwise_than_x(shape):
    norm, x = kept_layer()
    dy = torch.randn(shape).expand(x.shape)
    expected = torch.nn.functional.batch_norm(x, None, None, norm.weight, norm.bias, True)
    own = torch.autograd.grad(norm(x), [x, norm.weight, norm.bias], dy)
    for found, other in zip(own, torch.autograd.grad(expected, [x, norm.weight, norm.bias], dy), strict=True):
        torch.testing.assert_close(found, other, rtol=1e-4, atol=1e-5)


def test_parameters_that_change_before_the_backward_are_noticed():
    norm, x = kept_layer()
    y = norm(x)
    with torch.no_grad():
        norm.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_statistics_that_another_norm_has_kept_are_noticed():
    norm, x = kept_layer()
    y = torch.nn.functional.batch_norm(x, norm.running_mean, norm.running_var)
    norm(x)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_first_gradient_has_no_gradient():
    norm, x = kept_layer()
    (dx,) = torch.autograd.grad(norm(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dx.sum().backward()


def test_statistics_inside_x_are_refused_each_time():
    x = torch.randn(4, 6, 5)
    for _ in range(4):
        with pytest.raises(ValueError, match="running_mean"):
            F.batch_norm(x, x.view(-1)[:6], torch.ones(6), training=True)
    mean, var = torch.zeros(6 + x.numel())[:6], torch.ones(6)
    for _ in range(3):
        F.batch_norm(x, mean, var, training=True)
    inside = torch.as_strided(mean, x.shape, x.stride(), 0)
    with pytest.raises(ValueError, match="running_mean"):
        F.batch_norm(inside, mean, var, training=True)


def test_what_cannot_be_prepared_is_not_tried_again():
    norm, x = nt.LayerNorm2d(6), torch.randn(4, 6, 5, 3)
    for _ in range(5):
        norm(x)
    assert list(_recalled._known.values()) == [None]
    assert not _recalled._once


def test_axes_may_be_a_list():
    x = torch.randn(4, 6, 5)
    for _ in range(3):
        torch.testing.assert_close(
            F.layer_norm(x, [6, 5], dim=[1, 2]), torch.nn.functional.layer_norm(x, [6, 5])
        )


@pytest.mark.parametrize("followed", [False, True])
def test_nothing_outlives_its_layer(followed):
    norm = nt.LayerNorm(6).requires_grad_(followed)
    for _ in range(3):
        y = norm(torch.randn(4, 6))
        if followed:
            y.sum().backward()
    assert len(_recalled._known) == 1
    del norm, y
    gc.collect()
    assert not _recalled._known


@torch.no_grad()
def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(_recalled, "LIMIT", 3)
    norm = nt.LayerNorm(6)
    for n in range(1, 9):
        norm(torch.randn(n, 6))
        norm(torch.randn(n, 6))
    assert len(_recalled._known) <= 3


def test_gradients_are_wanted_again():
    norm, x = nt.LayerNorm(6), torch.randn(4, 6)
    with torch.no_grad():
        for _ in range(3):
            norm(x)
    assert norm(x).requires_grad
    assert torch.func.vmap(norm)(x).shape == x.shape
