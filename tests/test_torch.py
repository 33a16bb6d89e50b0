"""The same numbers as PyTorch, where it is installed."""

import numpy as np
import pytest

from helpers import accepted, assert_same_bits, assert_within, bounds, oracle, run
from normkernels.norms import NORMS

torch = pytest.importorskip("torch")


def as_tensors(arguments):
    """Copies of the arrays among the arguments, as tensors."""
    return {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}


def as_torch(arguments):
    """The arguments of one of the norms for the function of the same name in PyTorch."""
    result = as_tensors(arguments)
    if isinstance(result.get("normalized_shape"), int):
        result["normalized_shape"] = (result["normalized_shape"],)
    result.pop("channel_axis", None)
    return result


SHARED = [spec for spec in NORMS.values() if hasattr(torch.nn.functional, spec.name)]


@pytest.mark.covering(2)
@pytest.mark.parametrize("spec", SHARED, ids=lambda spec: spec.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("affine", [True, False])
def test_matches_pytorch(spec, dtype, training, affine, rng):
    x, dy = (rng.normal(1, 2, (8, 6, 5, 33)).astype(dtype) for _ in range(2))
    arguments = spec.arguments(x.shape, dtype, rng)
    arguments |= accepted(spec, training=training, use_input_stats=training)
    if not affine:
        arguments |= accepted(spec, weight=None, bias=None)

    theirs = as_torch(arguments)
    leaves = {"x": torch.tensor(x), **{k: theirs[k] for k in spec.parameters if theirs[k] is not None}}
    for leaf in leaves.values():
        leaf.requires_grad_()
    y = getattr(torch.nn.functional, spec.name)(leaves["x"], **theirs)
    y.backward(torch.tensor(dy))

    ours = run(spec.kernels, x, dy, arguments)
    y_bound, grad_bounds = bounds(spec, x, dy, oracle(spec, x, dy, arguments).saved)
    assert_within(ours.y, y.detach().numpy(), 2 * y_bound, "y")  # twice: both round
    for name, leaf in leaves.items():
        bound = getattr(grad_bounds, f"d{name}")
        assert_within(getattr(ours.grads, f"d{name}"), leaf.grad.numpy(), 2 * bound, f"d{name}")
    for name in ("running_mean", "running_var"):
        if name in arguments:
            rtol = 20 * np.finfo(dtype).eps
            np.testing.assert_allclose(ours.arguments[name], theirs[name].numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("spec", NORMS.values(), ids=NORMS)
def test_takes_tensors(spec, rng):
    """On the CPU, also for what is updated in place, and hands back the ones that it wrote."""
    x, dy = (rng.normal(size=(8, 6, 33)).astype(np.float32) for _ in range(2))
    arguments = spec.arguments(x.shape, np.float32, rng)
    tensors = as_tensors(arguments)
    y, dx = torch.empty(x.shape), torch.empty(x.shape)
    out, saved = spec.kernels.forward(torch.tensor(x), **tensors, out=y)
    grads = spec.kernels.backward(torch.tensor(dy), saved, out=dx)
    expected = run(spec.kernels, x, dy, arguments)
    assert out is y
    assert grads.dx is dx
    moved = {k: v.numpy() for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    assert_same_bits(moved, {k: v for k, v in expected.arguments.items() if k in moved})
    for a, b in zip((y.numpy(), dx.numpy(), *grads[1:]), (expected.y, *expected.grads), strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
