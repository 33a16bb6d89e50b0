"""What has been compiled ahead is not compiled again, whatever is called."""

import os
import subprocess
import sys
import threading
from itertools import product
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import event

import normkernels as nk
from helpers import DTYPES, accepted, fitted
from normkernels import _ahead
from normkernels.cpu.jit import KERNELS
from normkernels.norms import NORMS, NormSpec


def calls(spec: NormSpec, dtype: Any, rng: np.random.Generator) -> None:
    """Public calls: small and large, with and without parameters, fused, in evaluation."""
    shapes = [(3, 7), (40, 600), (1, 33_000), (1, 200_000), (4, 2, 3, 3), (16, 16, 7, 7), (4, 3, 90, 90)]
    for shape in (fitted(spec, shape) for shape in shapes):
        x, dy = (rng.normal(size=shape).astype(dtype) for _ in range(2))
        if spec.family == "channels" and x.size == shape[1]:
            continue
        axis = -1 if spec.family == "rows" and shape[1] == 2 else 1  # of rows both kinds
        full = spec.arguments(shape, dtype, rng, channel_axis=axis)
        none = accepted(spec, weight=None, bias=None)
        off = accepted(spec, training=False, use_input_stats=False)
        activations, residuals = (None, *["silu"] * spec.activation), (None, *[dy] * bool(spec.residual))
        for more, activation, residual in product(({}, none, off), activations, residuals):
            arguments = full | more | accepted(spec, activation=activation, residual=residual)
            spec.kernels.backward(dy, spec.kernels.forward(x, **arguments)[1])
            spec.kernels.call(x, **arguments)
            if residual is not None and spec.residual == "before":
                _, saved = spec.kernels.forward(x, **arguments, sum_out=np.empty_like(x))
                spec.kernels.backward(dy, saved, dsum=dy)
                spec.kernels.call(x, **arguments, sum_out=np.empty_like(x))


def assert_ahead(spec: NormSpec, dtypes: Any, rng: np.random.Generator) -> None:
    nk.compile([spec.name], [np.dtype(d).name for d in dtypes], None)
    with _ahead.listening() as compiled:
        for dtype in dtypes:
            calls(spec, dtype, rng)
    assert compiled == {}


@pytest.mark.parametrize("name", ["weight_norm", "group_norm"])
def test_nothing_is_left_to_compile(name, rng):
    assert_ahead(NORMS[name], [np.float32], rng)


@pytest.mark.slow
@pytest.mark.parametrize("name", NORMS)
def test_nothing_is_left_to_compile_for_any_dtype(name, rng):
    assert_ahead(NORMS[name], DTYPES, rng)


def test_functions_of_data(rng):
    nk.compile(_ahead.DATA, ["float32"])
    with _ahead.listening() as compiled:
        for shape, axis in product([(40, 7), (300, 200), (2, 3, 90, 90)], (0, 1, -1, None)):
            x = rng.normal(size=shape).astype(np.float32)
            nk.moments(x, axis)
            nk.zscore(x, axis)
    assert compiled == {}


def test_progress():
    steps: list[Any] = []
    nk.compile(["layer_norm", "moments"], progress=lambda *step: steps.append(step))
    assert steps == [(0, 2, "layer_norm float32"), (1, 2, "moments float32"), (2, 2, "")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["layernorm"]}, "names must be one of layer_norm, .*, got layernorm"),
        ({"dtypes": ["int8"]}, "dtypes must be one of float32, .*, got int8"),
        ({"fused": ["residual+swish"]}, "fused must be one of residual, .*, got swish"),
        ({"names": ["weight_norm"], "fused": ["relu"]}, "fused must be what weight_norm take, got relu"),
        ({"names": "layer_norm"}, "names must be a sequence of strings, got 'layer_norm'"),
        ({"dtypes": "float32"}, "dtypes must be a sequence of strings, got 'float32'"),
    ],
)
def test_what_does_not_exist(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        nk.compile(**arguments)
    assert nk.compile([]) == []


def test_the_command_has_nothing_left_to_do(normkernels: Any) -> None:
    command = "compile", "--op", "weight_norm"
    assert normkernels(*command).code == 0
    shown = normkernels(*command)
    assert shown.out.startswith("nothing to compile, kept in /")
    assert shown.err == "normkernels: compiling weight_norm float32 (1 of 1)\n"


def test_the_command_needs_the_folder_that_was_named(
    normkernels: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    shown = normkernels("compile", "--op", "weight_norm")
    assert (shown.code, shown.out) == (2, "")
    assert shown.err == (
        f"normkernels: NUMBA_CACHE_DIR must be a folder that can be written, got {tmp_path / 'file'}\n"
    )


def test_what_other_threads_compile_is_theirs() -> None:
    with _ahead.listening() as compiled:
        kernel = KERNELS[0]
        events = [
            event.Event("numba:compile", status, {"dispatcher": kernel}) for status in event.EventStatus
        ]
        thread = threading.Thread(target=lambda: [event.broadcast(e) for e in events])
        thread.start()
        thread.join()
        event.broadcast(events[1])  # the end of what had begun before
    assert compiled == {}


@pytest.mark.slow
def test_a_machine_of_one_thread_compiles_for_all(tmp_path: Path) -> None:
    code = """
import sys, numpy as np, normkernels as nk
if sys.argv[1] == "ahead": nk.compile(["rms_norm"], ["float32"], None)
else:
    from normkernels import _ahead
    x = np.ones((1, 300_000), np.float32)
    with _ahead.listening() as compiled: nk.rms_norm_backward(x, nk.rms_norm_forward(x, 300_000)[1])
    assert compiled == {}, compiled
"""
    for threads, what in ((1, "ahead"), (2, "use")):
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_NUM_THREADS": str(threads)}
        subprocess.run([sys.executable, "-c", code, what], env=environment, check=True)


@pytest.mark.slow
def test_the_command_fills_an_empty_cache(tmp_path: Path) -> None:
    """In processes of their own: the second has nothing left to do."""
    page = tmp_path / "page.md"
    page.write_text("<!-- normkernels:results -->\n<!-- /normkernels:results -->\n")
    command = [sys.executable, "-m", "normkernels.cli", "compile", "--op", "weight_norm"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}
    first, second = (
        subprocess.run([*command, *more], env=environment, capture_output=True, text=True, check=True)
        for more in (["--markdown", str(page)], [])
    )
    kept = f", kept in {tmp_path / 'cache'}"
    assert first.stdout.startswith("compiled ")
    assert second.stdout.startswith(f"nothing to compile{kept}")
    line = "normkernels: compiling weight_norm float32 (1 of 1)\n"
    assert (first.stderr, second.stderr) == (f"{line}normkernels: wrote {page}\n", line)
    assert "Measured with `normkernels compile --op weight_norm`" in page.read_text()
    assert "| groups.forward |" in page.read_text()


@pytest.mark.parametrize(
    "options",
    [
        ("--op", "norm"),
        ("--dtype", "int8"),
        ("--fuse", "x"),
        ("--markdown", "none"),
        ("--all", "--fuse", "relu"),
    ],
)
def test_the_command_says_what_is_wrong(normkernels: Any, options: tuple[str, ...]) -> None:
    shown = normkernels("compile", *options)
    assert shown.code == 2
    assert options[0] in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize("shape", [(4, 33), (2000, 8), (64, 300), (2, 1, 100, 100), (2, 8, 20, 20)], ids=str)
def test_batch_norm_without_running_statistics_is_compiled_ahead(shape):
    nk.compile(["batch_norm"], ["float32"], [""])
    x = np.ones(shape, np.float32)
    with _ahead.listening() as seconds:
        nk.batch_norm(x, None, None, training=True)
        nk.batch_norm(x, np.zeros(shape[1], np.float32), np.ones(shape[1], np.float32), training=True)
    assert not seconds
