"""Activations and their slopes on vectors and numbers, and the exponential that they are made of.

In float32 and float64 to a few ulp, where the result is subnormal too; NaN gives NaN.
"""

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .._layout import ACTIVATIONS
from .jit import step
from .vectors import constant, exact_fma, fma, multiply_add, retyped, scalar

RELU, SIGMOID, SILU, GELU = (ACTIVATIONS.index(a) for a in ("relu", "sigmoid", "silu", "gelu"))


def _polynomial(single: list[float], double: list[float]) -> Any:
    """A function of a vector or number: the sum of coefficients[k] * x**k, with those for its precision."""

    @intrinsic
    def value(typingctx: Any, x: Any) -> Any:
        coefficients = single if scalar(x) == types.float32 else double

        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            terms = [constant(args[0].type, c) for c in coefficients]
            result = terms.pop()
            while terms:
                result = multiply_add(builder, result, args[0], terms.pop())
            return result

        return x(x), codegen

    return value


def _constant(single: float, double: float) -> Any:
    """A function of a vector or number: in all lanes one number."""
    return _polynomial([single], [double])


def _where(comparison: str, ordered: bool) -> Any:
    """A function (x, a, b) of vectors or numbers: a where x compares so with 0, else b."""

    @intrinsic
    def value(typingctx: Any, x: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
            compare = builder.fcmp_ordered if ordered else builder.fcmp_unordered
            return builder.select(compare(comparison, args[0], constant(args[0].type, 0.0)), *args[1:])

        return x(x, x, x), codegen

    return value


_where_negative = _where("<", ordered=True)
_where_positive_or_nan = _where(">", ordered=False)


@intrinsic
def _times_power_of_two(typingctx: Any, x: Any, t: Any) -> Any:
    """x * 2**n for t = n + _ROUND, in two steps: 2**n alone may be out of range"""
    bits, mantissa, bias = (32, 23, 127) if scalar(x) == types.float32 else (64, 52, 1023)

    def codegen(context: Any, builder: Any, sig: Any, args: Any) -> ir.Value:
        x, t = args
        integers = retyped(t.type, ir.IntType(bits))

        def full(value: int) -> ir.Value:
            return constant(integers, value)

        def power_of_two(n: ir.Value) -> ir.Value:
            return builder.bitcast(builder.shl(builder.add(n, full(bias)), full(mantissa)), t.type)

        zero = builder.bitcast(constant(t.type, _HALF_ULP_IS_ONE[bits]), integers)
        n = builder.sub(builder.bitcast(t, integers), zero)
        half = builder.ashr(n, full(1))
        return builder.fmul(builder.fmul(x, power_of_two(half)), power_of_two(builder.sub(n, half)))

    return x(x, t), codegen


# Added to a number it leaves the nearest integer in the last bits.
_HALF_ULP_IS_ONE = {32: 1.5 * 2**23, 64: 1.5 * 2**52}
_ROUND = _constant(_HALF_ULP_IS_ONE[32], _HALF_ULP_IS_ONE[64])
_ZERO = _constant(0.0, 0.0)
_ONE = _constant(1.0, 1.0)
_HALF = _constant(0.5, 0.5)
_LOG2E = _constant(1 / math.log(2), 1 / math.log(2))
# ln 2, so few bits of it that their product with any n is exact, and the rest.
_LN2 = _constant(0.693359375, 0.693147180369123816490)
_LN2_REST = _constant(-2.12194440054690583e-4, 1.90821492927058770002e-10)
# Below these exp vanishes; above these the normal distribution is 1 to the last bit and its tail vanishes.
_LOWEST = _constant(-104.0, -746.0)
_FARTHEST = _constant(14.5, 38.6)
_TAYLOR = _polynomial(
    [1 / math.factorial(k) for k in range(8)], [1 / math.factorial(k) for k in range(14)]
)  # fmt: skip
_FOUR = _constant(4.0, 4.0)
_DENSITY_AT_ZERO = _constant(1 / math.sqrt(2 * math.pi), 1 / math.sqrt(2 * math.pi))
# (a + 4) * (1 - Phi(a)) * exp(a²/2) as a polynomial of (a - 4)/(a + 4), for all a >= 0: interpolated at
# Chebyshev's points, in 50 digits; it errs by 1e-9 and 4e-17. Shepherd & Laframboise (1981) do so for erfc.
_TAIL = _polynomial(
    [
        0.7552851305046339, -0.6078966402127833, 0.38713739441911355, -0.18652198492773026,
        0.06039664399817553, -0.007538688779951782, -0.003479943025800335, 0.001624247637261679,
        0.00013364042623394883, -0.00021777106565111796, -1.7259922922894346e-06, 2.1979043414611655e-05,
    ],
    [
        0.7552851304157515, -0.6078966419718923, 0.38713740074221453, -0.18652185795963533,
        0.06039657489093607, -0.007540188967419565, -0.0034796923673884156, 0.0016308184678064444,
        0.00013334431270030784, -0.00023109501999200649, -1.908265085342679e-06, 3.5145122560125815e-05,
        7.167263978705016e-07, -5.921638801978817e-06, -6.299974265164222e-07, 1.0248325060946323e-06,
        2.727176083262385e-07, -1.5982676610438677e-07, -8.713294621467491e-08, 1.7881872409503415e-08,
        2.1604426842720404e-08, -6.021003727951476e-10, -3.798041859957449e-09, -1.1742107539247065e-10,
        3.51569242668093e-10,
    ],
)  # fmt: skip


@step
def _not_below(z):
    """z, held where exp vanishes: there 0 * z is 0 as the limit is, also at -inf."""
    return _where_negative(z - _LOWEST(z), _LOWEST(z), z)


@step
def _not_beyond(z):
    """The same on both sides"""
    return -_not_below(-_not_below(z))


@step
def _exp(x):
    """e**x for x <= 0"""
    x = _not_below(x)
    t = fma(x, _LOG2E(x), _ROUND(x))
    n = t - _ROUND(x)
    rest = fma(-n, _LN2_REST(x), fma(-n, _LN2(x), x))
    return _times_power_of_two(_TAYLOR(rest), t)


@step
def _sigmoids(z):
    """sigmoid(z) and sigmoid(-z)"""
    e = _exp(_where_negative(z, z, -z))
    r = _ONE(z) / (_ONE(z) + e)
    small = e * r
    return _where_negative(z, small, r), _where_negative(z, r, small)


@step
def _normal(z):
    """The normal distribution function at z, and its density"""
    a = _where_negative(z, -z, z)
    a = _where_negative(_FARTHEST(z) - a, _FARTHEST(z), a)
    square = a * a
    rest = exact_fma(a, a, -square)
    e = _exp(-square * _HALF(z))
    e = fma(e, -rest * _HALF(z), e)
    r = _ONE(z) / (a + _FOUR(z))
    tail = e * r * _TAIL((a - _FOUR(z)) * r)
    return _where_negative(z, tail, _ONE(z) - tail), e * _DENSITY_AT_ZERO(z)


@step
def activation(z, kind):
    """The activation at z."""
    if kind == RELU:
        return _where_negative(z, _ZERO(z), z)
    if kind == SIGMOID:
        return _sigmoids(z)[0]
    if kind == SILU:
        return _not_below(z) * _sigmoids(z)[0]
    return _not_below(z) * _normal(z)[0]


@step
def slope(z, dy, kind):
    """dy times the derivative of the activation at z."""
    if kind == RELU:
        return _where_positive_or_nan(z, dy, _ZERO(z))
    if kind == SIGMOID:
        s, t = _sigmoids(z)
        return dy * s * t
    if kind == SILU:
        s, t = _sigmoids(z)
        return dy * fma(s * _not_beyond(z), t, s)
    phi, density = _normal(z)
    return dy * fma(_not_beyond(z), density, phi)
