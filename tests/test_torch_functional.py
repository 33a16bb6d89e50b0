"""The functions of `normkernels.torch.functional`: PyTorch's numbers, gradients, operators and errors."""

import pytest

import normkernels as nk
from helpers import assert_same_bits

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

from normkernels.torch import functional as F  # noqa: E402

ACTIVATIONS = {
    None: lambda y: y, "relu": torch.relu, "silu": torch.nn.functional.silu, "gelu": torch.nn.functional.gelu,
}  # fmt: skip


def tensors(*shapes, dtype=torch.float64, seed=0):
    """Random tensors, leaves of a graph."""
    generator = torch.Generator().manual_seed(seed)
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [t.requires_grad_() for t in made]


def running(channels, dtype=torch.float64):
    return torch.full((channels,), 0.25, dtype=dtype), torch.full((channels,), 1.5, dtype=dtype)


N, C, L = 3, 8, 5
TORCH = torch.nn.functional
# Name: (ours, PyTorch's) of x, weight, bias, residual and an activation.
CASES = {
    "layer_norm": (
        lambda x, w, b, **k: F.layer_norm(x, (L,), w[:L], b[:L], **k),
        lambda x, w, b, r, a: a(TORCH.layer_norm(x + r, (L,), w[:L], b[:L])),
    ),
    "layer_norm dim=1": (
        lambda x, w, b, **k: F.layer_norm(x, C, w, b, dim=1, **k),
        lambda x, w, b, r, a: a(TORCH.layer_norm((x + r).mT, (C,), w, b).mT),
    ),
    "rms_norm": (
        lambda x, w, b, **k: F.rms_norm(x, (L,), w[:L], 1e-6, **k),
        lambda x, w, b, r, a: a(TORCH.rms_norm(x + r, (L,), w[:L], 1e-6)),
    ),
    "batch_norm": (
        lambda x, w, b, **k: F.batch_norm(x, None, None, w, b, True, **k),
        lambda x, w, b, r, a: a(TORCH.batch_norm(x, None, None, w, b, True) + r),
    ),
    "batch_norm evaluation": (
        lambda x, w, b, **k: F.batch_norm(x, *running(C, x.dtype), w, b, **k),
        lambda x, w, b, r, a: a(TORCH.batch_norm(x, *running(C, x.dtype), w, b) + r),
    ),
    "group_norm": (
        lambda x, w, b, **k: F.group_norm(x, 4, w, b, **k),
        lambda x, w, b, r, a: a(TORCH.group_norm(x, 4, w, b)),
    ),
    "instance_norm": (
        lambda x, w, b, **k: F.instance_norm(x, None, None, w, b, **k),
        lambda x, w, b, r, a: a(TORCH.instance_norm(x, None, None, w, b)),
    ),
    "local_response_norm": (
        lambda x, w, b, **k: F.local_response_norm(x, 3),
        lambda x, w, b, r, a: TORCH.local_response_norm(x, 3),
    ),
}
WITH_RESIDUAL = [name for name in CASES if name.startswith(("layer", "rms", "batch"))]
RENORM = lambda x, w, b, **k: F.batch_renorm(x, *running(C), w, b, True, r_max=1.1, d_max=0.1, **k)  # noqa: E731


def grads(y, leaves):
    given = torch.autograd.grad(
        y, leaves, torch.linspace(-1, 1, y.numel(), dtype=y.dtype).reshape(y.shape), allow_unused=True
    )
    return [torch.zeros(()) if g is None else g for g in given]


PLAIN = [(name, None) for name in CASES]
FUSED = [(name, a) for name in CASES for a in ("relu", "gelu") if name != "local_response_norm"]


@pytest.mark.parametrize(("name", "activation"), PLAIN + FUSED)
def test_is_pytorchs(name, activation):
    ours, theirs = CASES[name]
    x, w, b, r = leaves = tensors((N, C, L), (C,), (C,), (N, C, L))
    fused = {"residual": r} if name in WITH_RESIDUAL else {}
    y = ours(x, w, b, activation=activation, **fused)
    expected = theirs(x, w, b, r if fused else torch.zeros_like(x), ACTIVATIONS[activation])
    torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
    for own, other in zip(grads(y, leaves), grads(expected, leaves), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def residual_of(name, r):
    return {"residual": r} if name in WITH_RESIDUAL else {}


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_those_of_differences(name):
    function = CASES[name][0]
    leaves = tensors((N, C, L), (C,), (C,), (N, C, L))
    assert torch.autograd.gradcheck(lambda x, w, b, r: function(x, w, b, **residual_of(name, r)), leaves)


def test_batch_renorm_is_that_of_the_arrays(rng):
    """Whose gradient is not that of differences: r and d are constants to it."""
    x, dy = rng.normal(size=(2, N, C, L))
    w, b = rng.normal(size=(2, C))
    mean, var = (s.numpy() for s in running(C))
    y, saved = nk.batch_renorm_forward(x, mean, var, w, b, training=True, r_max=1.1, d_max=0.1)
    expected = nk.batch_renorm_backward(dy, saved)
    leaves = [torch.from_numpy(a).requires_grad_() for a in (x, w, b)]
    moved = running(C)
    ours = F.batch_renorm(leaves[0], *moved, leaves[1], leaves[2], True, r_max=1.1, d_max=0.1)
    ours.backward(torch.from_numpy(dy))
    assert_same_bits(ours.detach().numpy(), y)
    for leaf, grad in zip(leaves, expected, strict=True):
        assert_same_bits(leaf.grad.numpy(), grad)
    for own, other in zip(moved, (mean, var), strict=True):
        assert_same_bits(own.numpy(), other)


@pytest.mark.parametrize("name", CASES)
def test_the_operators_keep_pytorchs_rules(name):
    leaves = tensors((N, C, L), (C,), (C,), (N, C, L))
    with Recorded() as calls:
        CASES[name][0](*leaves[:3], **residual_of(name, leaves[3])).sum().backward()
    assert [function.name() for function, _ in calls] == ["normkernels::norm", "normkernels::norm_backward"]
    for function, args in calls:
        followed = function.name() == "normkernels::norm"  # its gradient is the other
        given = [a.detach().requires_grad_(followed) if isinstance(a, torch.Tensor) else a for a in args]
        torch.library.opcheck(function, given)


class Recorded(TorchDispatchMode):
    """The calls of our operators in a block."""

    def __enter__(self):
        self.calls = []
        super().__enter__()
        return self.calls

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "normkernels":
            self.calls.append((function, args))
        return function(*args, **(kwargs or {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_compiles_whole(name):
    """Same bits as eager; running statistics move alike."""
    leaves = tensors((N, C, L), (C,), (C,), (N, C, L), dtype=torch.float32)
    function = lambda x, w, b, r: CASES[name][0](x, w, b, **residual_of(name, r))  # noqa: E731
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    y, expected = compiled(*leaves), function(*leaves)
    assert torch.equal(y, expected)
    for own, other in zip(grads(y, leaves), grads(expected, leaves), strict=True):
        assert torch.equal(own, other)


@pytest.mark.parametrize("name", ["layer_norm", "batch_norm evaluation", "group_norm"])
def test_vmap_takes_one_example_after_another(name):
    leaves = [t.detach() for t in tensors((4, N, C, L), (C,), (C,))]
    function = lambda x: CASES[name][0](x, *leaves[1:])  # noqa: E731
    mapped = torch.vmap(function, in_dims=1, out_dims=1)(leaves[0].transpose(0, 1).contiguous())
    assert torch.equal(mapped.transpose(0, 1), torch.stack([function(x) for x in leaves[0]]))
    gradient = torch.func.vmap(torch.func.grad(lambda x: function(x).square().sum()))(leaves[0])
    one = leaves[0][2].clone().requires_grad_()
    function(one).square().sum().backward()
    torch.testing.assert_close(gradient[2], one.grad)


def test_second_and_forward_derivatives_are_refused():
    x = tensors((4, 6))[0]
    (dx,) = torch.autograd.grad(F.layer_norm(x, 6).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        dx.sum().backward()
    with pytest.raises(RuntimeError, match="norms of normkernels have first derivatives only"):
        torch.func.grad(lambda x: torch.func.grad(lambda x: F.layer_norm(x, 6).square().sum())(x).sum())(
            x.detach()
        )
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x.detach(), torch.ones_like(x))
        with pytest.raises((RuntimeError, NotImplementedError), match="jvp|forward"):
            F.layer_norm(dual, 6)


@pytest.mark.parametrize("name", CASES)
def test_keeps_channels_last(name):
    x, w, b = tensors((N, C, 4, L), (C,), (C,))
    last = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    # After a norm over the last dimensions y is in C order, as PyTorch's.
    wanted = torch.contiguous_format if name in ("layer_norm", "rms_norm") else torch.channels_last
    for _ in range(3):
        with torch.no_grad():
            assert CASES[name][0](last, w, b).is_contiguous(memory_format=wanted)
    y, expected = CASES[name][0](last, w, b), CASES[name][0](x, w, b)
    assert y.is_contiguous(memory_format=wanted)
    torch.testing.assert_close(y, expected)
    y.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(last.grad, x.grad)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_types_beside_float32_parameters(dtype):
    """As under autocast, whose output has the dtype of the input, like that of PyTorch."""
    x, w, b = tensors((N, C, L), (C,), (C,), dtype=torch.float32)
    half = x.detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, expected = F.group_norm(half, 4, w, b), TORCH.group_norm(half, 4, w, b)
    assert y.dtype == expected.dtype == dtype
    torch.testing.assert_close(y, expected, rtol=1e-2, atol=1e-2)
    y.float().square().sum().backward()
    assert half.grad.dtype == dtype
    assert w.grad.dtype == torch.float32


def test_a_trace_has_the_operator():
    x = torch.randn(4, 6)
    traced = torch.jit.trace(lambda x: F.layer_norm(x, 6), (x,), check_trace=False)
    other = torch.randn(4, 6)
    assert torch.equal(traced(other), F.layer_norm(other, 6))


def test_autograd_hears_of_changes_in_place():
    mean, var = running(C)
    version = mean._version
    F.batch_norm(torch.randn(N, C, L, dtype=torch.float64), mean, var, training=True)
    assert mean._version > version
    x = tensors((4, 6))[0]
    h = x * 1
    y = F.layer_norm(h, 6)
    h.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_tensors_of_no_data_have_shapes():
    x = torch.empty(4, 6, device="meta", requires_grad=True)
    y = F.layer_norm(x, 6)
    assert y.device.type == "meta"
    y.sum().backward()
    assert x.grad.shape == x.shape


def test_a_batch_without_samples_changes_nothing():
    mean, var = running(C)
    x = torch.empty(0, C, L, dtype=torch.float64, requires_grad=True)
    y = F.batch_norm(x, mean, var, training=True)
    y.sum().backward()
    assert y.shape == x.grad.shape == x.shape
    assert torch.equal(mean, running(C)[0])


REFUSED = {
    "weight must have shape": lambda x: F.layer_norm(x, 6, torch.ones(5)),
    "weight must have the dtype of x": lambda x: F.layer_norm(x, 6, torch.ones(6, dtype=torch.float64)),
    "activation must be None, relu, sigmoid, silu or gelu": lambda x: F.layer_norm(x, 6, activation="tanh"),
    "x must be float32, float64, float16 or bfloat16": lambda x: F.layer_norm(x.long(), 6),
    "tensors must lie on one device, got cpu and meta": lambda x: F.layer_norm(
        x, 6, torch.ones(6, device="meta")
    ),
    "to_dense": lambda x: F.layer_norm(x.to_sparse(), 6),
    "more than one value per channel": lambda x: F.batch_norm(x[:1], None, None, training=True),
}


@pytest.mark.parametrize("rule", REFUSED)
def test_says_in_one_line_what_is_wrong(rule):
    with pytest.raises((TypeError, ValueError), match=rule) as info:
        REFUSED[rule](torch.randn(4, 6))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("name", WITH_RESIDUAL)
def test_gradients_are_added_to_each_on_its_own(name, activation):
    """Of x and a residual that are used twice, by several backwards, and of the gradient that came in."""
    ours, theirs = CASES[name]
    found = []
    for function in (
        lambda x, w, b, r: ours(x, w, b, residual=r, activation=activation),
        lambda x, w, b, r: theirs(x, w, b, r, ACTIVATIONS[activation]),
    ):
        x, w, b, r = leaves = tensors((N, C, L), (C,), (C,), (N, C, L))
        dy = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
        for _ in range(2):
            h, s = x * 1.0, r * 1.0
            more = (h * 3).sum() + (s * 5).sum()
            (function(h, w, b, s).mul(dy).sum() + more).backward()
        y = function(x, w, b, r)
        y.backward(dy)
        assert torch.equal(dy, torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape))
        found.append([torch.zeros(()) if leaf.grad is None else leaf.grad for leaf in leaves])
    for own, other in zip(*found, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-9, atol=1e-9)


def test_a_residual_may_change_where_its_gradient_does_not_need_it():
    x, r = tensors((N, C, L), (N, C, L))
    added = r * 1.0
    y = F.batch_norm(x, None, None, training=True, residual=added)
    added.add_(1)
    y.sum().backward()
    assert torch.equal(r.grad, torch.ones_like(r))


def test_a_view_may_follow_a_norm_of_transposed_tokens():
    x = torch.randn(2, 8, 4, 4).flatten(2).transpose(1, 2)
    for _ in range(3):
        for norm in (F.layer_norm, F.rms_norm):
            assert norm(x, 8).view(32, 8).shape == (32, 8)
            assert norm(x.clone().requires_grad_(), 8).view(32, 8).shape == (32, 8)


@pytest.mark.parametrize("weight", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("x", [torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_rms_norm_takes_weights_of_any_dtype(x, weight):
    y = F.rms_norm(torch.randn(4, 6).to(x), 6, torch.ones(6, dtype=weight))
    assert y.dtype == x
