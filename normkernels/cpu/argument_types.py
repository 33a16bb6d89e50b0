"""What `normkernels.jit` takes, decided when the user's code is compiled: types cost nothing at run time."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

FLOATS = (types.float32, types.float64)


def _nothing(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
    return context.get_dummy_value()


def _require(met: bool, rule: str, got: Any) -> None:
    if not met:
        raise TypingError(f"{rule}, got {got}")


@intrinsic
def require_row(typingctx: Any, x: Any) -> Any:
    """A one-dimensional array of float32 or float64."""
    met = isinstance(x, types.Array) and x.ndim == 1 and x.dtype in FLOATS
    _require(met, "x must be a one-dimensional array of float32 or float64", x)
    return types.void(x), _nothing


@intrinsic
def require_channels(typingctx: Any, x: Any, c: Any) -> Any:
    """An array of three axes of float32 or float64, and the number of a channel."""
    met = isinstance(x, types.Array) and x.ndim == 3 and x.dtype in FLOATS
    _require(met, "x must be an array (outer, channels, inner) of float32 or float64", x)
    _require(isinstance(c, types.Integer), "c must be an integer", c)
    return types.void(x, c), _nothing


@intrinsic
def require_alike(typingctx: Any, x: Any, other: Any) -> Any:
    """An array of the dtype and number of axes of x."""
    met = isinstance(other, types.Array) and other.dtype == x.dtype and other.ndim == x.ndim
    _require(met, f"the other arrays must have the dtype and axes of x, {x}", other)
    return types.void(x, other), _nothing


@intrinsic
def require_writeable(typingctx: Any, array: Any) -> Any:
    """An array that is not read-only."""
    _require(isinstance(array, types.Array) and array.mutable, "what is written must not be read-only", array)
    return types.void(array), _nothing
