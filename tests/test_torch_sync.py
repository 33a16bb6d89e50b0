"""`SyncBatchNorm`: processes that talk over gloo have the statistics of all of them."""

from datetime import timedelta

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import torch.distributed as distributed  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402

import normkernels.torch as nt  # noqa: E402

CHANNELS = 5


def joined(rank, world, file, function, results, args):
    """Run a function in a process of a group, and hand its result, or error, back."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{file}", rank=rank, world_size=world, timeout=timedelta(seconds=60)
    )
    try:
        results.put((rank, function(rank, world, *args)))
    except Exception as error:
        results.put((rank, f"{type(error).__name__}: {error}"))
    finally:
        distributed.destroy_process_group()


def together(tmp_path, world, function, *args):
    """What the function gives in each of the processes."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = multiprocessing.start_processes(
        joined, (world, tmp_path / "group", function, results, args), world, join=False, start_method="spawn"
    )
    found = dict(results.get(timeout=120) for _ in range(world))
    while not processes.join(timeout=60):
        pass
    return [found[rank] for rank in range(world)]


def batches(world, mean=0.0, sizes=None):
    """A batch for each process, the last one empty if there are more than two."""
    rng = np.random.default_rng(0)
    sizes = sizes or [3, 4, *[2] * (world - 3), 0][:world] if world > 2 else [3, 4]
    return [torch.from_numpy(rng.normal(mean, 1, (n, CHANNELS, 2, 3)).astype(np.float32)) for n in sizes]


def step(rank, world, mean):
    module = nt.SyncBatchNorm(CHANNELS)
    module.weight.data = torch.linspace(0.5, 1.5, CHANNELS)
    x = batches(world, mean)[rank].requires_grad_()
    y = module(x)
    (y * torch.linspace(-1, 1, 6).reshape(2, 3)).square().sum().backward()
    return [t.detach().numpy() for t in (y, x.grad, module.weight.grad, module.bias.grad, *module.buffers())]


def whole(world, mean):
    """The same in one process."""
    module = nt.BatchNorm2d(CHANNELS)
    module.weight.data = torch.linspace(0.5, 1.5, CHANNELS)
    x = torch.cat(batches(world, mean)).requires_grad_()
    y = module(x)
    (y * torch.linspace(-1, 1, 6).reshape(2, 3)).square().sum().backward()
    return [t.detach().numpy() for t in (y, x.grad, module.weight.grad, module.bias.grad, *module.buffers())]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "mean"), [(2, 1e4), (3, 0.0)])
def test_is_batch_norm_of_the_whole_batch(tmp_path, world, mean):
    """Same statistics on all ranks, to the bit, and an empty batch takes part."""
    parts, expected = together(tmp_path, world, step, mean), whole(world, mean)
    assert all(isinstance(part, list) for part in parts), parts
    for part in parts[1:]:
        for own, first in zip(part[4:], parts[0][4:], strict=True):
            np.testing.assert_array_equal(own, first)
    scale = 1 + abs(mean) * 1e-4
    for k in range(2):
        np.testing.assert_allclose(
            np.concatenate([part[k] for part in parts]), expected[k], atol=2e-6 * scale
        )
    for k in range(2, 4):
        np.testing.assert_allclose(sum(part[k] for part in parts), expected[k], rtol=1e-4, atol=1e-4)
    for k in range(4, 7):
        np.testing.assert_allclose(parts[0][k], expected[k], rtol=1e-6, atol=1e-7)


INPUTS = "ValueError: inputs must be floating-point tensors on the CPU in all processes"
SINGLE = "ValueError: inputs must have more than one value per channel in all processes together"
# What of rank 1 is wrong, and what both say.
WRONG = {
    "channels": INPUTS,
    "features": INPUTS,
    "dimensions": INPUTS,
    "dtype": INPUTS,
    "a single value": SINGLE,
}


def wrong(rank, world):
    """What is said to each of the inputs that do not fit, in one group."""
    said = []
    for kind in WRONG:
        shape, dtype = (2, CHANNELS, 3), torch.float32
        module = nt.SyncBatchNorm(7 if rank == 1 and kind == "features" else CHANNELS)
        if kind == "a single value":
            shape = 1 - rank, CHANNELS
        elif rank == 1:
            shape = {"channels": (2, CHANNELS + 1, 3), "features": (2, 7, 3), "dimensions": (2,)}.get(
                kind, shape
            )
            dtype = torch.int64 if kind == "dtype" else dtype
        try:
            module(torch.zeros(shape, dtype=dtype))
            said.append("nothing")
        except Exception as error:
            said.append(f"{type(error).__name__}: {error}")
    return said


@pytest.mark.slow
def test_all_processes_hear_what_is_wrong_in_one(tmp_path):
    for said in together(tmp_path, 2, wrong):
        for text, rule in zip(said, WRONG.values(), strict=True):
            assert text.startswith(rule), text
            assert "\n" not in text


def half_step(rank, world, dtype):
    """dx of gradients that nearly cancel, of SyncBatchNorm and of batch norm of the whole batch."""
    torch.manual_seed(0)
    x = torch.randn(world * 4, CHANNELS, 6).to(dtype)
    dy = (1 + 0.01 * torch.randn(x.shape)).to(dtype)
    own, whole = x[rank * 4 : rank * 4 + 4].clone().requires_grad_(), x.double().requires_grad_()
    model = torch.nn.parallel.DistributedDataParallel(nt.SyncBatchNorm(CHANNELS).to(dtype))
    model(own).backward(dy[rank * 4 : rank * 4 + 4])
    torch.nn.BatchNorm1d(CHANNELS).double()(whole).backward(dy.double())
    expected = whole.grad[rank * 4 : rank * 4 + 4]
    return float((own.grad.double() - expected).abs().max() / expected.abs().max())


@pytest.mark.slow
def test_half_types_under_ddp(tmp_path):
    for error in together(tmp_path, 2, half_step, torch.bfloat16):
        assert error < 1e-2, error


def test_without_a_group_it_is_batch_norm():
    assert not distributed.is_initialized()
    x = torch.randn(4, CHANNELS, 3)
    sync, norm = nt.SyncBatchNorm(CHANNELS), nt.BatchNorm1d(CHANNELS)
    assert torch.equal(sync(x), norm(x))
    assert torch.equal(sync.running_var, norm.running_var)


def test_converts_a_model():
    model = torch.nn.Sequential(
        torch.nn.BatchNorm2d(3), torch.nn.Linear(2, 2), nt.BatchNorm1d(3), nt.BatchRenorm2d(3)
    )
    converted = nt.SyncBatchNorm.convert_sync_batchnorm(model)
    assert [type(m) for m in converted] == [
        nt.SyncBatchNorm, torch.nn.Linear, nt.SyncBatchNorm, nt.BatchRenorm2d,
    ]  # fmt: skip
