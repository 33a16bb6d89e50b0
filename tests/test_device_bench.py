"""The benchmark on a device, without one: clocks, data, checks, and how a run goes on."""

import ctypes
import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rich")
pytest.importorskip("numba_cuda")

from bench_examples import case
from cuda_fakes import fake_driver  # noqa: F401  a fixture
from normkernels.bench.cases import Case
from normkernels.bench.check import Mismatch
from normkernels.bench.device import check, clock, copy, inputs, libraries, worker
from normkernels.bench.inputs import make_inputs
from normkernels.cuda import devices
from normkernels.cuda.simulated import wrap
from normkernels.norms import NORMS

ROOT = Path(__file__).parent.parent
MB = 1 << 20


# The clock


@pytest.fixture
def spun(driver: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many steps each spinning kernel had; a step takes a microsecond, all else a millisecond."""
    steps: list[int] = []
    driver.on_cuEventElapsedTime = lambda *_: (steps[-1] * 1e-3 if steps[-1] == clock.STEPS else 1.0,)

    def launch(kernel: Any, form: Any, blocks: int, like: Any, *args: Any) -> None:
        steps.append(args[-1])
        driver.calls.append(("spin",))

    monkeypatch.setattr(clock, "launch", launch)
    return steps


def test_events_stand_around_the_work_behind_a_spinning_kernel(driver: Any, spun: list[int]) -> None:
    made = clock.EventClock()
    driver.calls.clear()
    start = made.start()
    driver.calls.append(("work",))
    assert made.seconds(start) == 1e-3
    order = [name for name, *_ in driver.calls if name in ("spin", "work", "cuEventRecord")]
    assert order == ["spin", "cuEventRecord", "work", "cuEventRecord"]
    names = [name for name, *_ in driver.calls]
    assert names.index("cuEventSynchronize") < names.index("cuEventElapsedTime")


def test_the_device_spins_for_as_long_as_the_host_queues(
    spun: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, now = clock.EventClock(), [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])
    leads = []
    for queueing in (1e-3, 4e-3, 100.0, 0.0):
        start = made.start()
        leads.append(spun[-1] * 1e-6)
        now[0] += queueing
        made.seconds(start)
    made.start()
    leads.append(spun[-1] * 1e-6)
    wanted = [clock.LEAST_LEAD, 2.5e-3, 1e-2, clock.MOST_LEAD, clock.LEAST_LEAD]
    assert leads == pytest.approx(wanted, rel=0.05)


def test_the_clock_of_calls_begins_and_ends_with_an_idle_device(driver: Any) -> None:
    made = clock.CallClock(stream=5)
    start = made.start()
    driver.calls.append(("work",))
    made.seconds(start)
    order = [call for call in driver.calls if call[0] in ("work", "cuStreamSynchronize")]
    assert order == [("cuStreamSynchronize", 5), ("work",), ("cuStreamSynchronize", 5)]


def test_an_error_of_an_event_is_raised(driver: Any) -> None:
    made = clock.CallClock()
    driver.fails["cuStreamSynchronize"] = driver.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    with pytest.raises(devices.FatalDeviceError):
        made.start()


# The data


def test_tensors_that_take_turns_fill_the_cache_and_leave_memory_free() -> None:
    l2, most = 60 * MB, 1 << 37
    small, large = case(shape=(512, 1024)), case(shape=(1 << 18, 1024))
    assert inputs.slots(small, l2, most) * small.bytes_moved >= 4 * l2
    assert inputs.slots(case(shape=(64, 512)), l2, most) == inputs.MOST_SLOTS
    assert inputs.slots(large, l2, most) == 2
    assert inputs.slots(case(shape=(4, 64)), l2, most) == 1
    assert inputs.slots(small, l2, 16 * small.bytes_moved) == 6


@pytest.mark.parametrize(
    ("made", "times"),
    [
        (case(shape=(1 << 16, 1024)), 32),
        (case(shape=(10, 10)), 1),
        (case(shape=(7, 4 * MB)), 7),
        (case(shape=(100_003, 1024)), 1),
        (case("batch_norm", shape=(32, 64, 112, 112)), 16),
        (case("batch_norm", shape=(2, 64, 640, 959)), 1),
        (case("weight_norm", shape=(1 << 16, 1024)), 1),
        (case(shape=(1 << 25,)), 1),
    ],
)
def test_a_block_is_a_part_of_the_first_axis(made: Case, times: int) -> None:
    assert inputs.blocks(made) == times
    assert inputs.block_of(made).shape == (made.shape[0] // times, *made.shape[1:])


def test_a_copy_goes_through_pieces_of_the_large_one(driver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copy, "upload", lambda host, *_: wrap(host))
    monkeypatch.setattr(copy, "empty", lambda shape, dtype, *_: wrap(np.empty(shape, dtype)))
    monkeypatch.setattr(inputs, "empty", lambda shape, dtype, *_: wrap(np.empty(shape, dtype)))
    monkeypatch.setattr(copy, "kernel_copy", inputs.transfer)
    from normkernels.bench.timing import HostClock

    made = copy.DeviceCopy(MB, HostClock)
    assert made.bytes_moved == 2 * MB
    assert made.plain() > 0 < made.streaming()
    (pieces, _) = (each.arguments for each in made.alike(MB // 4))
    assert len(pieces) == 8
    assert {target.nbytes for target, _ in pieces} == {MB // 8}
    assert len({target.address for target, _ in pieces}) == 8
    np.testing.assert_array_equal(pieces[3][0].memory, pieces[3][1].memory)


# Checks


def judged(c: Case, fault: Any = None) -> float:
    """The verdict on what the kernels of the CPU make of a case; `fault` changes the results before."""
    block = make_inputs(inputs.block_of(c))
    times = inputs.blocks(c)
    x, dy = (np.concatenate([a] * times) for a in (block.x, block.dy))
    arguments = dict(block.arguments)
    y, saved = NORMS[c.op].kernels.forward(x, **arguments)
    result = y if c.pass_ == "forward" else NORMS[c.op].kernels.backward(dy, saved)
    named = {k: v if v is None else v.copy() for k, v in check.named(c, result).items()}
    if fault:
        fault(named)
    seen = {k: v if v is None else wrap(v) for k, v in named.items()}
    return check.judge(c, make_inputs(inputs.block_of(c)), seen, {})


CASES = [
    case(op, pass_, shape, dtype=dtype)
    for op, shape in (("layer_norm", (64, 40)), ("rms_norm", (64, 40)), ("batch_norm", (8, 5, 6, 4)))
    for pass_ in ("forward", "backward")
    for dtype in ("float32", "bfloat16")
]


@pytest.mark.parametrize("c", CASES, ids=lambda c: c.id)
def test_every_block_is_judged(c: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "BLOCK_BYTES", c.tensor_bytes // 4)
    assert inputs.blocks(c) == 4
    assert judged(c) <= check.tolerance(c)
    wrong = "y" if c.pass_ == "forward" else "dx"
    for value in (np.nan, 100.0):
        for place in (0, -1):

            def spoil(found: Any, place: int = place, value: float = value) -> None:
                found[wrong].reshape(-1)[place] = value

            with pytest.raises(Mismatch, match=c.id):
                judged(c, spoil)
    if c.pass_ == "backward":
        with pytest.raises(Mismatch):
            judged(c, lambda found: found["dweight"].__setitem__(3, 0.0))


# Libraries


def test_naming_libraries_imports_none(tmp_path: Path) -> None:
    names = "torch", "triton", "cupy"
    code = (
        "import sys; import normkernels.bench.commands, normkernels.bench.device.run; "
        f"sys.stdout.write(' '.join(n for n in {names} if n in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    folder = Path(libraries.__file__).parent
    assert all((folder / f"{source.module}.py").is_file() for source in libraries.LIBRARIES.values())
    assert libraries.library(libraries.OWN).takes_out


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "find_spec", lambda name: name != "triton" or None)
    assert libraries.LIBRARIES["torch.compile"].missing() == "triton"
    assert libraries.LIBRARIES["torch"].missing() is None


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("op", ["layer_norm", "rms_norm", "batch_norm"])
def test_what_a_user_of_cupy_writes_is_right(op: str, pass_: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With NumPy in the place of CuPy, which has the same functions but for two."""
    from types import ModuleType

    from normkernels.bench.check import compare

    stand_in = ModuleType("cupy")
    stand_in.__dict__.update(np.__dict__ | {"fuse": lambda: lambda f: f, "from_dlpack": lambda a: a})
    monkeypatch.setitem(sys.modules, "cupy", stand_in)
    monkeypatch.delitem(sys.modules, "normkernels.bench.device.with_cupy", raising=False)
    c = case(op, pass_, (6, 5, 4, 2) if op == "batch_norm" else (6, 40))
    given = make_inputs(c)
    contender = libraries.library("cupy").contender(c, given, 2)
    assert contender is not None
    found = check.named(c, contender.once())
    after = given.arguments if pass_ == "forward" else {}
    assert compare(c, make_inputs(c), found, after) < 1e-6
    assert libraries.library("cupy").contender(dataclasses.replace(c, dtype="bfloat16"), given, 1) is None


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("op", [op for op in NORMS if op != "batch_renorm"])
def test_pytorch_is_asked_for_what_autograd_gives(op: str, pass_: str) -> None:
    torch = pytest.importorskip("torch")
    from normkernels.bench.check import compare

    c = case(op, pass_, (6, 40) if NORMS[op].family == "rows" else (6, 5, 4, 2))
    before = torch.is_grad_enabled()
    try:
        contender = libraries.library("torch").contender(c, make_inputs(c), 2)
        assert contender is not None
        found = {
            name: value if value is None else value.numpy().reshape(value.shape if value.ndim > 2 else -1)
            for name, value in check.named(c, contender.once()).items()
        }
    finally:
        torch.set_grad_enabled(before)
    first = "y" if pass_ == "forward" else "dx"
    found[first] = found[first].reshape(c.shape)
    assert compare(c, make_inputs(c), found, {}) < 1e-5


def test_a_problem_of_a_case_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr(worker, "measure", fails)
    answer = worker.answer(case(), libraries.Library(fails), None)  # type: ignore[arg-type]
    assert answer == {
        "problem": "layer_norm/forward/shape/8x16/float32: ValueError: two lines",
        "lost": False,
    }


@pytest.fixture
def host_memory(driver: Any) -> Any:
    """A driver whose device memory is the host's."""
    kept = []

    def allocate(nbytes: int, pool: Any, stream: int) -> tuple[int]:
        kept.append(ctypes.create_string_buffer(b"\xff" * nbytes, nbytes))
        return (ctypes.addressof(kept[-1]),)

    def move(target: int, source: int, nbytes: int, stream: int) -> tuple[()]:
        ctypes.memmove(target, source, nbytes)
        return ()

    driver.on_cuMemAllocFromPoolAsync = allocate
    for name in ("HtoD", "DtoD", "DtoH"):
        setattr(driver, f"on_cuMemcpy{name}Async", move)
    return driver


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_go_to_device_memory_and_come_back(dtype: str, host_memory: Any) -> None:
    block = make_inputs(case("batch_norm", "backward", (4, 3, 5), dtype=dtype))
    there = inputs.on_device(block, 3)
    assert there.x.shape == (12, 3, 5)
    for i in (0, 4, 8):
        np.testing.assert_array_equal(inputs.part(there.dy, i, 4), block.dy)
    np.testing.assert_array_equal(inputs.part(inputs.clone(there.x), 3, 2), [block.x[3], block.x[0]])
    swapped = there.x.transpose((0, 2, 1))
    np.testing.assert_array_equal(inputs.part(swapped, 5, 3), block.x[1:].transpose(0, 2, 1))
    assert np.isnan(inputs.poisoned(block.x, 2).copy_to_host().astype(np.float32)).all()
    np.testing.assert_array_equal(there.arguments["weight"].copy_to_host(), block.arguments["weight"])
    alone = inputs.on_device(make_inputs(case()), 1)
    assert alone.dy is alone.x


def test_the_large_copy_is_one_of_device_memory(host_memory: Any, spun: list[int], monkeypatch: Any) -> None:
    copied = []

    def launch(kernel: Any, form: Any, blocks: int, like: Any, *args: Any) -> None:
        source, target, size, cols = args
        copied.append((blocks, size, cols))
        ctypes.memmove(target.address, source.address, 4 * size)

    monkeypatch.setattr(copy, "launch", launch)
    monkeypatch.setattr(copy, "properties", lambda device: devices.SIMULATED)
    made = copy.DeviceCopy(MB, clock.EventClock)
    made.plain()
    assert copied[-1] == (64, MB // 4, copy.FORM.capacity)
    count = len(host_memory.named("cuMemcpyDtoDAsync"))
    made.streaming()
    assert len(host_memory.named("cuMemcpyDtoDAsync")) > count
    made.alike(32 * 100)
    assert copied[-1][1] == 400
