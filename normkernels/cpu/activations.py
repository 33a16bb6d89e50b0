"""Activations and their slopes on vectors and numbers, and the exponential that they are made of.

In float32 and float64 to a few ulp, where the result is subnormal too; NaN gives NaN.
"""

import math

from llvmlite import ir

from .._layout import ACTIVATIONS
from .vectors import (
    Value,
    chosen,
    constant,
    exact_fma,
    fma,
    polynomial,
    retyped,
    where,
)

# What follows is by the number of bits of a precision.
# Added to a number it leaves the nearest integer in the last bits.
_ROUND = {32: 1.5 * 2**23, 64: 1.5 * 2**52}
# ln 2, so few bits of it that their product with any n is exact, and the rest.
_LN2 = {32: 0.693359375, 64: 0.693147180369123816490}
_LN2_REST = {32: -2.12194440054690583e-4, 64: 1.90821492927058770002e-10}
# Below these exp vanishes; above these the normal distribution is 1 to the last bit and its tail vanishes.
_LOWEST = {32: -104.0, 64: -746.0}
_FARTHEST = {32: 14.5, 64: 38.6}
_TAYLOR = {bits: [1 / math.factorial(k) for k in range(terms)] for bits, terms in ((32, 8), (64, 14))}
_DENSITY_AT_ZERO = 1 / math.sqrt(2 * math.pi)
# (a + 4) * (1 - Phi(a)) * exp(a²/2) as a polynomial of (a - 4)/(a + 4), for all a >= 0: interpolated at
# Chebyshev's points, in 50 digits; it errs by 1e-9 and 4e-17. Shepherd & Laframboise (1981) do so for erfc.
_TAIL = {
    32: [
        0.7552851305046339, -0.6078966402127833, 0.38713739441911355, -0.18652198492773026,
        0.06039664399817553, -0.007538688779951782, -0.003479943025800335, 0.001624247637261679,
        0.00013364042623394883, -0.00021777106565111796, -1.7259922922894346e-06, 2.1979043414611655e-05,
    ],
    64: [
        0.7552851304157515, -0.6078966419718923, 0.38713740074221453, -0.18652185795963533,
        0.06039657489093607, -0.007540188967419565, -0.0034796923673884156, 0.0016308184678064444,
        0.00013334431270030784, -0.00023109501999200649, -1.908265085342679e-06, 3.5145122560125815e-05,
        7.167263978705016e-07, -5.921638801978817e-06, -6.299974265164222e-07, 1.0248325060946323e-06,
        2.727176083262385e-07, -1.5982676610438677e-07, -8.713294621467491e-08, 1.7881872409503415e-08,
        2.1604426842720404e-08, -6.021003727951476e-10, -3.798041859957449e-09, -1.1742107539247065e-10,
        3.51569242668093e-10,
    ],
}  # fmt: skip


def _times_power_of_two(x: Value, t: Value) -> Value:
    """x * 2**n for t = n + _ROUND, in two steps: 2**n alone may be out of range"""
    mantissa, bias = {32: (23, 127), 64: (52, 1023)}[x.bits]
    builder, integers = x.builder, retyped(t.ir.type, ir.IntType(x.bits))

    def power_of_two(n: ir.Value) -> ir.Value:
        shifted = builder.shl(builder.add(n, constant(integers, bias)), constant(integers, mantissa))
        return builder.bitcast(shifted, t.ir.type)

    zero = builder.bitcast(constant(t.ir.type, _ROUND[x.bits]), integers)
    n = builder.sub(builder.bitcast(t.ir, integers), zero)
    half = builder.ashr(n, constant(integers, 1))
    near = builder.fmul(x.ir, power_of_two(half))
    return Value(builder, builder.fmul(near, power_of_two(builder.sub(n, half))))


def _not_below(z: Value) -> Value:
    """z, held where exp vanishes: there 0 * z is 0 as the limit is, also at -inf."""
    lowest = _LOWEST[z.bits]
    return where(z < lowest, lowest, z)


def _not_beyond(z: Value) -> Value:
    """The same on both sides"""
    return -_not_below(-_not_below(z))


def _exp(x: Value) -> Value:
    """e**x for x <= 0"""
    x, bits = _not_below(x), x.bits
    t = fma(x, 1 / math.log(2), _ROUND[bits])
    n = t - _ROUND[bits]
    rest = fma(-n, _LN2_REST[bits], fma(-n, _LN2[bits], x))
    return _times_power_of_two(polynomial(rest, _TAYLOR[bits]), t)


def _sigmoids(z: Value) -> tuple[Value, Value]:
    """sigmoid(z) and sigmoid(-z)"""
    e = _exp(where(z < 0.0, z, -z))
    r = 1.0 / (1.0 + e)
    small = e * r
    return where(z < 0.0, small, r), where(z < 0.0, r, small)


def _normal(z: Value) -> tuple[Value, Value]:
    """The normal distribution function at z, and its density"""
    a, farthest = where(z < 0.0, -z, z), _FARTHEST[z.bits]
    a = where(a > farthest, farthest, a)
    square = a * a
    rest = exact_fma(a, a, -square)
    e = _exp(-square * 0.5)
    e = fma(e, -rest * 0.5, e)
    r = 1.0 / (a + 4.0)
    tail = e * r * polynomial((a - 4.0) * r, _TAIL[z.bits])
    return where(z < 0.0, tail, 1.0 - tail), e * _DENSITY_AT_ZERO


def _relu(z: Value) -> Value:
    return where(z < 0.0, 0.0, z)


def _relu_slope(z: Value, dy: Value) -> Value:
    return where(z <= 0.0, 0.0, dy)


def _sigmoid(z: Value) -> Value:
    return _sigmoids(z)[0]


def _sigmoid_slope(z: Value, dy: Value) -> Value:
    s, t = _sigmoids(z)
    return dy * s * t


def _silu(z: Value) -> Value:
    return _not_below(z) * _sigmoids(z)[0]


def _silu_slope(z: Value, dy: Value) -> Value:
    s, t = _sigmoids(z)
    return dy * fma(s * _not_beyond(z), t, s)


def _gelu(z: Value) -> Value:
    return _not_below(z) * _normal(z)[0]


def _gelu_slope(z: Value, dy: Value) -> Value:
    phi, density = _normal(z)
    return dy * fma(_not_beyond(z), density, phi)


_FUNCTIONS = {
    "relu": (_relu, _relu_slope),
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "silu": (_silu, _silu_slope),
    "gelu": (_gelu, _gelu_slope),
}


def activation(z: Value, kind: Value) -> Value:
    """The activation at z; kind: its number in ACTIVATIONS."""
    return chosen(kind, [_FUNCTIONS[name][0] for name in ACTIVATIONS], z)


def slope(z: Value, dy: Value, kind: Value) -> Value:
    """dy times the derivative of the activation at z."""
    return chosen(kind, [_FUNCTIONS[name][1] for name in ACTIVATIONS], z, dy)
