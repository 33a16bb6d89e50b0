"""Kernels compiled before they are needed: every way that a call can take, called once on small arrays."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from threading import get_ident
from time import perf_counter
from typing import Any

import numpy as np
from numba.core import event

from . import functional
from ._layout import ACTIVATIONS, bfloat16
from .cpu.jit import KERNELS
from .cpu.parallel import at_least
from .norms import NORMS, NormSpec

DTYPES = ("float32", "float64", "float16", "bfloat16")
DATA = ("moments", "zscore")
"""Functions of data that have kernels."""
NAMES = (*NORMS, *DATA)
# One for each kind of kernel: rows and columns, a long row, short runs, runs, few channels of many elements.
SHAPES = ((4, 33), (1, 40_000), (1_100, 3), (2, 8, 3, 3), (2, 8, 12, 12), (2, 3, 50, 50))
# What to switch off for evaluation.
EVALUATION = {"batch_norm": "training", "batch_renorm": "training", "instance_norm": "use_input_stats"}


@dataclass(frozen=True)
class Compiled:
    """Seconds that it took to compile a kernel for a dtype and for what is fused with the norm.

    Examples
    --------
    >>> from normkernels import Compiled
    >>> Compiled("rows.forward", "float32", fused="relu", seconds=1.5).seconds
    1.5
    """

    kernel: str
    dtype: str
    fused: str
    seconds: float


def compile(
    names: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float32",),
    fused: Sequence[str] | None = ("",),
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Compiled]:
    """Compile kernels for host arrays ahead of use, and keep them on disk.

    A kernel is compiled at its first call otherwise, which then takes seconds. What is on disk already is
    loaded.

    Parameters
    ----------
    names : sequence of str, optional
        Norms, "moments" and "zscore"; None is all of them.
    dtypes : sequence of {"float32", "float64", "float16", "bfloat16"}
        Half types need ``ml_dtypes``.
    fused : sequence of str, optional
        What is fused with the norms, joined by +: "" (nothing), "residual", "residual+relu",
        "residual+sum" (with `sum_out`). One activation serves for all. None is everything that a norm takes;
        what a norm does not take is left out.
    progress : callable, optional
        Called with the number of steps done, that of all steps, and the name of the next one.

    Returns
    -------
    list of Compiled
        Kernel, dtype, what is fused, and seconds, of what was compiled now.

    Raises
    ------
    TypeError
        If a string stands where a sequence of strings is meant.
    ValueError
        If a name, a dtype or a word of `fused` does not exist, or no norm takes what is to be fused.

    Examples
    --------
    >>> import normkernels as nk
    >>> compiled = nk.compile(["layer_norm"], ["float32"])
    """
    for argument, value in (("names", names), ("dtypes", dtypes), ("fused", fused)):
        if isinstance(value, str):
            raise TypeError(f"{argument} must be a sequence of strings, got {value!r}")
    names = NAMES if names is None else names
    check(names, dtypes, fused or ())
    steps = [(d, n, f) for d, n in product(dtypes, names) for f in _fusions(n) if _wanted(f, fused)]
    if names and dtypes and not steps:
        raise ValueError(f"fused must be what {', '.join(names)} take, got {', '.join(fused or ())}")
    compiled = []
    for done, (dtype, name, fuse) in enumerate(steps):
        if progress:
            progress(done, len(steps), " ".join(filter(None, (name, fuse, dtype))))
        with listening() as seconds, at_least(2), warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            for shape in SHAPES:
                _call(name, shape, dtype, fuse.split("+") if fuse else [])
        compiled += [Compiled(kernel, dtype, fuse, s) for kernel, s in seconds.items()]
    if progress:
        progress(len(steps), len(steps), "")
    return compiled


def check(
    names: Sequence[str],
    dtypes: Sequence[str],
    fused: Sequence[str],
    called: tuple[str, str, str] = ("names", "dtypes", "fused"),
) -> None:
    """Raise a ValueError where one of these does not exist, with what the user calls them."""
    words = [word for fuse in fused for word in fuse.split("+") if fuse]
    rules = (names, NAMES), (dtypes, DTYPES), (words, ("residual", "sum", *ACTIVATIONS))
    for argument, (values, allowed) in zip(called, rules, strict=True):
        for value in values:
            if value not in allowed:
                raise ValueError(f"{argument} must be one of {', '.join(allowed)}, got {value}")


def _fusions(name: str) -> list[str]:
    """All that a norm takes, with the first activation for every one: kernels know them by number."""
    if name in DATA:
        return [""]
    spec = NORMS[name]
    residuals = {None: [""], "after": ["", "residual"], "before": ["", "residual", "residual+sum"]}[
        spec.residual
    ]
    activations = ["", ACTIVATIONS[0]] if spec.activation else [""]
    return ["+".join(filter(None, pair)) for pair in product(residuals, activations)]


def _wanted(fuse: str, fused: Sequence[str] | None) -> bool:
    """Whether this is among what is to be fused, whichever activation that names."""
    if fused is None:
        return True
    return fuse in {"+".join(ACTIVATIONS[0] if w in ACTIVATIONS else w for w in f.split("+")) for f in fused}


def _call(name: str, shape: tuple[int, ...], dtype: str, words: Sequence[str]) -> None:
    rng, kind = np.random.default_rng(0), bfloat16() if dtype == "bfloat16" else np.dtype(dtype)
    if name in DATA:
        function, x = getattr(functional, name), rng.standard_normal(shape).astype(kind)
        for axis in range(len(shape)):
            function(x, axis)
        return
    spec = NORMS[name]
    shape = (*shape, *[2] * (spec.min_ndim - len(shape)))
    if spec.family == "channels" and shape[0] * np.prod(shape[2:]) == 1:
        return  # one value per channel cannot train
    x = rng.standard_normal(shape).astype(kind)
    options: dict[str, Any] = {}
    if "residual" in words:
        options["residual"] = x
    if ACTIVATIONS[0] in words:
        options["activation"] = ACTIVATIONS[0]
    if "sum" in words:
        options["sum_out"] = np.empty_like(x)
    for axis in {1, len(shape) - 1} if spec.family == "rows" else {1}:
        arguments = spec.arguments(shape, x.dtype, rng, channel_axis=axis) | options
        _passes(spec, x, arguments, {"dsum": x} if "sum" in words else {})


def _passes(spec: NormSpec, x: Any, arguments: dict[str, Any], beside_dy: dict[str, Any]) -> None:
    """Every pass of a norm, and its evaluation."""
    kernels = spec.kernels
    kernels.call(x, **arguments)
    kernels.backward(x, kernels.forward(x, **arguments)[1], **beside_dy)
    if arguments.get("running_mean") is not None:
        with suppress(ValueError):  # batch renormalization needs them
            kernels.forward(x, **{**arguments, "running_mean": None, "running_var": None})
    if spec.name in EVALUATION:
        arguments = {**arguments, EVALUATION[spec.name]: False}
        kernels.backward(x, kernels.forward(x, **arguments)[1])


@contextmanager
def listening() -> Iterator[dict[str, float]]:
    """Seconds spent compiling, by kernel."""
    started: dict[int, float] = {}
    seconds: dict[str, float] = {}
    here = get_ident()  # other threads compile for themselves

    class Listener(event.Listener):  # type: ignore[misc]  # numba is untyped
        def on_start(self, event: Any) -> None:
            if get_ident() == here:
                started[id(event.data["dispatcher"])] = perf_counter()

        def on_end(self, event: Any) -> None:
            kernel = event.data["dispatcher"]
            began = started.pop(id(kernel), None) if get_ident() == here else None
            if began is not None and kernel in KERNELS:
                seconds[kernel.name] = seconds.get(kernel.name, 0.0) + perf_counter() - began

    with event.install_listener("numba:compile", Listener()):
        yield seconds
