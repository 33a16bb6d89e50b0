"""The modules of `normkernels.torch`: those of `torch.nn` to who builds, saves, loads and prints them."""

import copy
import doctest
import importlib
import io
import pickle

import pytest

torch = pytest.importorskip("torch")

import normkernels.torch as nt  # noqa: E402

nn = torch.nn
# Class, arguments, shape of an input.
MODULES = [
    ("BatchNorm1d", (6,), (4, 6)),
    ("BatchNorm1d", (6,), (4, 6, 5)),
    ("BatchNorm2d", (6,), (4, 6, 5, 3)),
    ("BatchNorm3d", (6,), (4, 6, 5, 3, 2)),
    ("LayerNorm", ((5, 3),), (4, 6, 5, 3)),
    ("RMSNorm", (5,), (4, 6, 5)),
    ("GroupNorm", (3, 6), (4, 6, 5)),
    ("InstanceNorm1d", (6,), (4, 6, 5)),
    ("InstanceNorm2d", (6,), (6, 5, 3)),
    ("InstanceNorm2d", (6,), (4, 6, 5, 3)),
    ("InstanceNorm3d", (6,), (4, 6, 5, 3, 2)),
    ("LocalResponseNorm", (3,), (4, 6, 5)),
]
IDS = [f"{name}-{len(shape)}d" for name, _, shape in MODULES]
OPTIONS = [{}, {"track_running_stats": True}, {"affine": False}, {"affine": True}, {"momentum": None}]


def pair(name, arguments, **options):
    """A module of ours and the one of PyTorch with the same parameters."""
    ours, theirs = getattr(nt, name)(*arguments, **options), getattr(nn, name)(*arguments, **options)
    generator = torch.Generator().manual_seed(1)
    for p in theirs.parameters():
        p.data = torch.rand(p.shape, generator=generator, dtype=p.dtype) + 0.5
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def accepted(name, options):
    kind = getattr(nn, name)
    return set(options) <= set(kind.__init__.__code__.co_varnames)


@pytest.mark.parametrize(("name", "arguments", "shape"), MODULES, ids=IDS)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_computes_what_pytorch_does(name, arguments, shape, options):
    """Training, twice, then evaluation; buffers and gradients too."""
    if not accepted(name, options):
        pytest.skip("has no such option")
    ours, theirs = pair(name, arguments, **options)
    for step, mode in enumerate((True, True, False)):
        x = torch.randn(shape, generator=torch.Generator().manual_seed(step)) * 2 + 1
        own, other = (x.clone().requires_grad_() for _ in range(2))
        y, expected = ours.train(mode)(own), theirs.train(mode)(other)
        torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-5)
        dy = torch.randn(shape, generator=torch.Generator().manual_seed(10 + step))
        y.backward(dy)
        expected.backward(dy)
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-4)
    for (key, value), theirs_value in zip(
        ours.state_dict().items(), theirs.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(value, theirs_value, rtol=1e-5, atol=1e-5, msg=key)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "arguments", "shape"), MODULES, ids=IDS)
def test_is_saved_loaded_and_printed_as_pytorchs(name, arguments, shape):
    ours, theirs = pair(name, arguments)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    assert isinstance(ours, type(theirs))


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: _through_a_file(m)],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_copies_compute_alike(copied):
    x = torch.randn(4, 6, 5, 3)
    for name in ("BatchNorm2d", "BatchRenorm2d", "LayerNorm2d", "GroupNorm", "SyncBatchNorm"):
        module = getattr(nt, name)(*((3, 6) if name == "GroupNorm" else (6,)))
        module(x)
        assert torch.equal(copied(module)(x), module(x))


def _through_a_file(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_batch_renorm_begins_as_batch_norm_and_says_its_limits():
    x = torch.randn(8, 6, 5, 3)
    renorm, norm = nt.BatchRenorm2d(6, r_max=1.0, d_max=0.0), nt.BatchNorm2d(6)
    assert torch.equal(renorm(x), norm(x))
    assert "r_max=1.0, d_max=0.0" in repr(renorm)


def test_a_batch_that_is_refused_is_not_counted():
    norm = nt.BatchNorm1d(3)
    for x in (torch.ones(1, 3), torch.ones(4, 2), torch.ones(4, 3, dtype=torch.int64)):
        with pytest.raises((TypeError, ValueError)):
            norm(x)
    assert norm.num_batches_tracked == 0
    assert torch.equal(norm.running_var, torch.ones(3))


def test_layer_norm_2d_is_that_of_permuted_channels():
    x = torch.randn(4, 6, 5, 3)
    norm = nt.LayerNorm2d(6)
    torch.testing.assert_close(norm(x), nn.LayerNorm(6)(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2))


@pytest.mark.slow
def test_models_can_be_exported():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nt.BatchNorm2d(6), nt.LayerNorm2d(6), nt.GroupNorm(3, 6)).eval()
    x = torch.randn(2, 3, 8, 8)
    program = torch.export.export(model, (x,))
    torch.testing.assert_close(program.module()(x), model(x))


@pytest.mark.parametrize("name", ["functional", "modules", "replace"])
def test_examples_run(name):
    tested = doctest.testmod(importlib.import_module(f"normkernels.torch.{name}"))
    assert tested.attempted > 0
    assert tested.failed == 0


def test_a_compiled_module_is_trained_for_several_steps():
    """Running statistics are no part of the gradient of the next step."""
    ours, theirs = nt.BatchNorm2d(4), nn.BatchNorm2d(4)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(2, 4, 3, 3)
        for module in (compiled, theirs):
            module(x).square().sum().backward()
    assert not ours.running_mean.requires_grad
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad, rtol=1e-4, atol=1e-4)
