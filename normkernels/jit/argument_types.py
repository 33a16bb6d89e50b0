"""What `normkernels.jit` takes: types are checked when the user's code is compiled, lengths when it runs.

Each function gives what the caller goes on with, such as a pointer: what numba has to compile after a wrong
argument has no type then, and the error is the one from here. Python itself runs none of them.
"""

from numba import types
from numba.core.errors import TypingError
from numba.extending import overload

from ..cpu.pointers import pointer

FLOATS = (types.float32, types.float64)


def _require(met, rule, got):
    if not met:
        raise TypingError(f"{rule}, got {got}")


def _said(name):
    # numba tries a literal first, and its bare type when that is refused.
    return str(getattr(name, "literal_value", "an argument"))


def row(x):
    """Of a contiguous one-dimensional array of float32 or float64, the pointer."""


@overload(row)
def _row(x):
    met = isinstance(x, types.Array) and x.ndim == 1 and x.dtype in FLOATS
    _require(met, "x must be a one-dimensional array of float32 or float64", x)

    def checked(x):
        if len(x) > 1 and x.strides[0] != x.itemsize:
            raise ValueError("x must be contiguous")
        return pointer(x)

    return checked


def beside(x, other, name):
    """Of a contiguous array of the dtype of x, as long as x or longer, the pointer."""


def beside_or_none(x, other, name):
    """As `beside`, for what may be absent."""


def written(x, other, name):
    """As `beside`, for what is written."""


@overload(beside, prefer_literal=True)
def _beside(x, other, name):
    _require_alike(x, other, _said(name))
    scattered, short = f"{_said(name)} must be contiguous", f"{_said(name)} must be as long as x"

    def checked(x, other, name):
        if len(other) > 1 and other.strides[0] != other.itemsize:
            raise ValueError(scattered)
        if len(other) < len(x):
            raise ValueError(short)
        return pointer(other)

    return checked


@overload(beside_or_none, prefer_literal=True)
def _beside_or_none(x, other, name):
    return (lambda x, other, name: None) if other is types.none else _beside(x, other, name)


@overload(written, prefer_literal=True)
def _written(x, other, name):
    _require_writeable(other, _said(name))
    return _beside(x, other, name)


def _require_alike(x, other, name):
    _require(isinstance(x, types.Array) and x.dtype in FLOATS, "x must be an array of float32 or float64", x)
    met = isinstance(other, types.Array) and other.dtype == x.dtype and other.ndim == x.ndim
    axes = "one dimension" if x.ndim == 1 else f"{x.ndim} dimensions"
    _require(met, f"{name} must be an array of {x.dtype} with {axes}, like x", other)


def _require_writeable(array, name):
    readonly = isinstance(array, types.Array) and not array.mutable
    _require(not readonly, f"{name} is written and must not be read-only", array)


def channels_of(x):
    """Of a contiguous array (outer, channels, inner) of float32 or float64, the pointer."""


def _require_channels(x):
    met = isinstance(x, types.Array) and x.ndim == 3 and x.dtype in FLOATS
    _require(met, "x must be an array (outer, channels, inner) of float32 or float64", x)


@overload(channels_of)
def _channels_of(x):
    _require_channels(x)

    def checked(x):
        if not x.flags.c_contiguous:
            raise ValueError("x must be contiguous with the axes (outer, channels, inner)")
        return pointer(x)

    return checked


def channel(x, c):
    """c, the number of a channel."""


@overload(channel)
def _channel(x, c):
    _require_channels(x)
    _require(isinstance(c, types.Integer), "c must be an integer", c)

    def checked(x, c):
        if not 0 <= c < x.shape[1]:
            raise ValueError("c must be the number of a channel")
        return c

    return checked


def alike(x, other, name):
    """Of a contiguous array of the dtype and shape of x, the pointer."""


def written_alike(x, other, name):
    """As `alike`, for what is written."""


@overload(alike, prefer_literal=True)
def _alike(x, other, name):
    _require_alike(x, other, _said(name))
    rule = f"{_said(name)} must be contiguous and have the shape of x"

    def checked(x, other, name):
        if other.shape != x.shape or not other.flags.c_contiguous:
            raise ValueError(rule)
        return pointer(other)

    return checked


@overload(written_alike, prefer_literal=True)
def _written_alike(x, other, name):
    _require_writeable(other, _said(name))
    return _alike(x, other, name)


def number(value, name):
    """Make a number a float if it is an integer."""


@overload(number, prefer_literal=True)
def _number(value, name):
    _require(isinstance(value, types.Integer | types.Float), f"{_said(name)} must be a number", value)
    if isinstance(value, types.Integer):
        return lambda value, name: float(value)
    return lambda value, name: value
