"""Is the result right? Asked before anything is timed, of the whole result, against float64."""

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np

from ..norms import NORMS, Passes
from .cases import DTYPES, Case
from .inputs import Array, Inputs, copied

Tensors = dict[str, Array | None]

# Elements compared at a time: the float64 reference then stays small.
PIECE = 1 << 18


class Mismatch(Exception):
    """A kernel and the reference disagree."""


def tolerance(case: Case) -> float:
    """The largest error that rounding explains, relative to the largest value."""
    eps = float(ml_dtypes.finfo(case.dtype).eps)
    return 128 * eps if DTYPES[case.dtype] > 2 else 128 * float(np.finfo(np.float32).eps) + eps


def check(case: Case, inputs: Inputs, passes: Passes | None = None) -> float:
    """The worst error of `passes`, by default the kernels, on a case; raises Mismatch above `tolerance`."""
    passes = passes or NORMS[case.op].kernels
    arguments = copied(inputs.arguments)
    results: Tensors
    if case.pass_ == "forward":
        results = {"y": passes.call(inputs.x, **arguments, **inputs.beside_x)}
        if "sum_out" in inputs.beside_x:
            results["sum_out"] = inputs.beside_x["sum_out"]
    else:
        _, saved = passes.forward(inputs.x, **arguments, **inputs.beside_x)
        results = passes.backward(inputs.dy, saved, **inputs.beside_dy)._asdict()
    return compare(case, inputs, results, arguments)


def compare(
    case: Case, inputs: Inputs, results: Tensors, arguments: dict[str, Any], slack: float = 1.0
) -> float:
    """The worst error of the results of a case, whoever computed them; raises Mismatch above `tolerance`.

    `slack` multiplies the tolerance. `arguments` are those that the computation leaves, running statistics
    too; what is absent is not compared.
    """
    error, allowed = worst_error(case, inputs, results, arguments), slack * tolerance(case)
    if not error <= allowed:
        raise Mismatch(f"{case.id} must agree with the reference to {allowed:.1e}, got {error:.1e}")
    return error


def worst_error(case: Case, inputs: Inputs, results: Tensors, arguments: dict[str, Any]) -> float:
    """The largest difference from the reference in float64, relative to its largest value or 1."""
    if case.op == "weight_norm":  # every slice has a parameter, as every channel
        return _error_by_channel(0, case, inputs, arguments, results)
    if NORMS[case.op].family == "channels":
        return _error_by_channel(case.channel_axis, case, inputs, arguments, results)
    return _error_by_row(case, inputs, results)


def _reference(
    case: Case, inputs: Inputs, where: slice | tuple[slice, ...], arguments: dict[str, Any]
) -> Tensors:
    """What a piece of the result should be."""

    def wide(tensors: dict[str, Array]) -> dict[str, Array]:
        return {name: a[where].astype(np.float64) for name, a in tensors.items()}

    spec = NORMS[case.op]
    reference = spec.in_steps(spec.reference)
    beside = wide(inputs.beside_x)
    y, saved = reference.forward(inputs.x[where].astype(np.float64), **arguments, **beside)
    if case.pass_ == "forward":
        return {"y": y, "sum_out": beside["sum_out"]} if "sum_out" in beside else {"y": y}
    dy = inputs.dy[where].astype(np.float64)
    return dict(reference.backward(dy, saved, **wide(inputs.beside_dy))._asdict())


class _Errors:
    """The worst error of every result, and the scale to judge it by: the largest value of all pieces."""

    def __init__(self) -> None:
        self._worst: dict[str, list[float]] = {}

    def compare(self, name: str, got: Array | None, want: Array | None, scale: float = 0.0) -> None:
        """Beside `scale`, where the terms of a sum are larger than what they leave."""
        error = 0.0
        if got is not None and want is not None and got.shape == want.shape:
            error, scale = float(np.abs(got - want).max()), max(scale, float(np.abs(want).max()))
        elif got is not want:
            error = np.inf
        before = self._worst.get(name, [0.0, 1.0])
        self._worst[name] = [float(np.maximum(error, before[0])), max(scale, before[1])]

    def worst(self) -> float:
        return float(np.max([error / scale for error, scale in self._worst.values()]))


def _error_by_channel(
    axis: int, case: Case, inputs: Inputs, after: dict[str, Any], results: Tensors
) -> float:
    """Channel by channel; `after` holds the arguments as the kernels left them, running statistics too."""
    channels = inputs.x.shape[axis]
    errors = _Errors()
    for piece in _pieces(channels, inputs.x.size // channels):
        where = (slice(None),) * axis + (piece,)
        arguments = {
            name: a[piece].astype(np.float64) if isinstance(a, np.ndarray) else a
            for name, a in inputs.arguments.items()
        }
        for name, want in _reference(case, inputs, where, arguments).items():
            got, scale = results[name], 0.0
            if name == "dx" and case.op == "weight_norm":
                scale = float(np.abs(_first_term(inputs, piece, arguments["g"])).max())
            errors.compare(name, got if got is None else got[where if got.ndim > 1 else piece], want, scale)
        for name, a in arguments.items():
            if isinstance(a, np.ndarray) and name in after:
                errors.compare(name, after[name][piece], a)
    return errors.worst()


def _first_term(inputs: Inputs, piece: slice, g: Array) -> Array:
    """Of the gradient of weight norm, g * dy / ‖v‖: nothing is left of it where a slice has one element."""
    v, dy = (a[piece].astype(np.float64).reshape(len(g), -1) for a in (inputs.x, inputs.dy))
    term: Array = g.reshape(-1, 1) * dy / np.linalg.norm(v, axis=1, keepdims=True)
    return term


def _error_by_row(case: Case, inputs: Inputs, results: Tensors) -> float:
    """Blocks of rows, whose dweight and dbias add up."""
    arguments = {
        name: a.astype(np.float64) if isinstance(a, np.ndarray) else a for name, a in inputs.arguments.items()
    }
    rows = len(inputs.x) if inputs.x.ndim > 1 else 1
    errors, sums = _Errors(), Tensors()
    for piece in _pieces(rows, inputs.x.size // rows):
        where = piece if inputs.x.ndim > 1 else slice(None)
        for name, want in _reference(case, inputs, where, arguments).items():
            got = results[name]
            if name in ("y", "sum_out", "dx", "dresidual"):
                errors.compare(name, got if got is None else got[where], want)
            else:
                total = sums.get(name)
                sums[name] = want if total is None or want is None else total + want
    for name, want in sums.items():
        errors.compare(name, results[name], want)
    return errors.worst()


def _pieces(groups: int, size: int) -> Iterator[slice]:
    step = max(1, PIECE // size)
    for start in range(0, groups, step):
        yield slice(start, min(start + step, groups))
