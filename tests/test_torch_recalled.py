"""Calls that are prepared for a layer: what is kept is right, and goes with the layer."""

import gc

import pytest

torch = pytest.importorskip("torch")

import normkernels.torch as nt  # noqa: E402
from normkernels.torch import _recalled  # noqa: E402
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


@torch.no_grad()
def test_nothing_outlives_its_layer():
    norm = nt.LayerNorm(6)
    for _ in range(2):
        norm(torch.randn(4, 6))
    assert len(_recalled._known) == 1
    del norm
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
