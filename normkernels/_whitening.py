"""The whitening matrix of data, by orthogonal transformations: a covariance would square what is small.

Part by part the data become a triangle R of the same covariance, in which each column is right relative to
itself. The singular values of R over sqrt(n) are the sds of the directions, its right singular vectors the
directions. An SVD errs relative to the largest sd; where the features differ so much that the smallest would
be lost, one-sided Jacobi rotations take its place. They err relative to each feature (Demmel & Veselić 1992).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import _formulas
from .results import Array, Whitening

# Elements of x in float64 at a time.
PART = 2**20
# Ratio of the sds of features above which an SVD, whose error is 1e-16 of the largest sd, is not enough.
GRADED = 1e6
# What rounding leaves of a direction without variance, in sqrt(features) times the machine epsilon times the
# sds of its features: up to 0.94 (measured with 3 to 600 features and 12 to 20 000 samples).
ROUNDING = 8
# Jacobi sweeps; 4 to 8 are needed.
SWEEPS = 40


class Triangle(NamedTuple):
    """Count of samples, mean, what the mean lost by rounding, and R with RᵀR = (x - mean)ᵀ(x - mean)."""

    count: int  # type: ignore[assignment]  # tuple.count gives way
    mean: Array
    low: Array
    r: Array

    def __radd__(self, other: Any) -> "Triangle":
        """`sum` begins with 0, which is nothing."""
        return self

    def __add__(self, other: "Triangle") -> "Triangle":  # type: ignore[override]  # not that of a tuple
        """The triangle of both sets of samples: Chan's merge, whose rank-one term is one more row."""
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        count = self.count + other.count
        share = other.count / count
        with np.errstate(over="ignore", invalid="ignore"):
            delta = (other.mean - self.mean) + (other.low - self.low)
            mean, low = _formulas.two_sum(self.mean, self.low + delta * share)
            row = delta[None] * np.sqrt(self.count * share)
            return Triangle(count, mean, low, _qr(self.r, other.r, row))


def fit(x: Array, method: str, eps: float) -> Whitening:
    """The whitening of x by x itself."""
    return of_triangle(triangle(x), method, eps)


def of_triangle(triangle: Triangle, method: str, eps: float) -> Whitening:
    """Mean, and W = V rstd Vᵀ (zca) or rstd Vᵀ (pca); V: the directions in which x varies."""
    count, mean, _, r = triangle
    features = len(mean)
    if not np.isfinite(r).all():
        return Whitening(mean, np.full((features, features), np.nan))
    sd, v = _directions(r / np.sqrt(count), mean)
    rstd = 1 / np.hypot(sd, np.sqrt(eps))
    if method == "zca":
        return Whitening(mean, (v * rstd) @ v.T)
    matrix = np.zeros((features, features))
    largest = np.take_along_axis(v, np.abs(v).argmax(0, keepdims=True), 0) if v.size else v[:1]
    matrix[: len(sd)] = (v * np.copysign(rstd, largest)).T
    return Whitening(mean, matrix)


def inverse(matrix: Array, method: str) -> Array:
    """The pseudoinverse of a whitening matrix, right relative to each feature, as the matrix is.

    That of NumPy errs relative to the smallest sd, and drops a direction whose sd is 1e15 times as large.
    """
    if not np.isfinite(matrix).all():
        return np.full_like(matrix, np.nan)
    if method == "pca":  # orthogonal rows
        squares = np.square(matrix).sum(1)
        return np.asarray(matrix.T / np.where(squares == 0, 1.0, squares))
    found, varies = np.zeros_like(matrix), np.flatnonzero(np.diag(matrix) > 0)
    own = matrix[np.ix_(varies, varies)]
    scale = np.sqrt(np.diag(own))
    unit = np.outer(scale, scale)
    whole = np.linalg.matrix_rank(own / unit, hermitian=True) == len(own)
    found[np.ix_(varies, varies)] = np.linalg.inv(own / unit) / unit if whole else np.linalg.pinv(own)
    return found


def apply(x: Array, statistics: Whitening) -> Array:
    """(x - mean) @ matrix.T, in the dtype of x."""
    y = np.empty_like(x)
    start = 0
    for part in _parts(x):
        y[start : start + len(part)] = (part - statistics.mean) @ statistics.matrix.T
        start += len(part)
    return y


def _parts(x: Array) -> Iterator[Array]:
    """Samples in float64, some at a time."""
    features = x.shape[1]
    step = max(features, PART // max(1, features))
    for start in range(0, len(x), step or 1):
        yield x[start : start + step].astype(np.float64)


def _mean(x: Array, origin: Array) -> Array:
    """mean(x - origin)"""
    return np.asarray(sum((part - origin).sum(0) for part in _parts(x)) / len(x))


def triangle(x: Array) -> Triangle:
    """The triangle of x, which may be empty; a constant column of x is 0 in R."""
    r = np.empty((0, x.shape[1]))
    if not len(x):
        return Triangle(0, np.zeros(x.shape[1]), np.zeros(x.shape[1]), r)
    with np.errstate(over="ignore", invalid="ignore"):
        first = x[0].astype(np.float64)
        mean = first + _mean(x, first)
        rest = _mean(x, mean)  # what the mean lost by being rounded
        for part in _parts(x):
            r = _qr(r, part - mean - rest)
    return Triangle(len(x), mean, rest, r)


def _qr(*rows: Array) -> Array:
    return np.asarray(np.linalg.qr(np.concatenate(rows), mode="r"))


def _directions(r: Array, mean: Array) -> tuple[Array, Array]:
    """The sds of the directions in which the data vary, the largest first, and the directions as columns."""
    unit = np.abs(r).max(initial=0) or 1.0  # squares stay in range
    r = r / unit
    sd = np.linalg.norm(r, axis=0)
    varies = sd > 0
    if not varies.any():
        return np.empty(0), np.empty((len(sd), 0))
    r, sd = r[:, varies], sd[varies]
    # What may be no more than rounding of a column; never one that varies all on its own.
    rounding = ROUNDING * np.sqrt(len(sd)) * np.finfo(np.float64).eps
    noise = np.minimum(rounding * np.hypot(mean[varies] / unit, sd), sd / 2)
    if sd.max() > GRADED * sd.min():
        lengths, vt = _orthogonal(_pivoted(r, noise))
    else:
        _, lengths, vt = np.linalg.svd(r, full_matrices=False)
        found = lengths > rounding * lengths[0] + np.linalg.norm(vt * noise, axis=1)
        lengths, vt = lengths[found], vt[found]
    v = np.zeros((len(varies), len(lengths)))
    v[varies] = vt.T
    return lengths * unit, v


def _pivoted(r: Array, noise: Array) -> Array:
    """Independent rows with the RᵀR of r, by Gram-Schmidt from the longest column to the shortest.

    The columns that are independent have been chosen before, by how far they rise above noise: what a sum of
    a long and a short column leaves beside the long one looks like the short one, but is less accurate.
    """
    _, independent = _gram_schmidt(r, noise, np.arange(r.shape[1]), 0.25)
    return _gram_schmidt(r, noise, independent, 0.0)[0]


def _gram_schmidt(r: Array, noise: Array, candidates: Array, clear: float) -> tuple[Array, Array]:
    """Orthogonal rows, and the column that made each: the longest of what is left.

    Only columns count that rise above their noise by `clear` times what the best one does.
    """
    r, rows, chosen = r.copy(), [], []
    for _ in range(min(r.shape)):
        left = np.linalg.norm(r[:, candidates], axis=0)
        clearness = left / noise[candidates]
        best = np.where(clearness > max(1.0, clear * clearness.max()), left, 0).argmax()
        if clearness[best] <= 1:
            break
        q = r[:, candidates[best]] / left[best]
        row = q @ r
        row[np.abs(row) <= noise] = 0
        r -= np.outer(q, row)
        r[:, candidates[best]] = 0
        rows.append(row)
        chosen.append(candidates[best])
    return np.array(rows), np.array(chosen)


def _orthogonal(rows: Array) -> tuple[Array, Array]:
    """Singular values and right singular vectors of independent rows: rotated in pairs until orthogonal."""
    count, columns = rows.shape
    order = np.arange(count + count % 2)
    half = len(order) // 2
    for _ in range(SWEEPS):
        worst = 0.0
        for _ in range(len(order) - 1):
            pairs = np.stack([order[:half], order[: half - 1 : -1]])
            p, q = pairs[:, (pairs < count).all(0)]
            worst = max(worst, _rotate(rows, p, q))
            order[1:] = np.roll(order[1:], 1)
        if worst <= columns * np.finfo(np.float64).eps:
            break
    lengths = np.linalg.norm(rows, axis=1)
    by_length = np.argsort(-lengths, kind="stable")
    return lengths[by_length], (rows / lengths[:, None])[by_length]


def _rotate(rows: Array, p: Array, q: Array) -> Any:
    """Make row p[i] orthogonal to row q[i] for every i; the largest cosine there was."""
    a, b = rows[p], rows[q]
    aa, bb, ab = (np.einsum("ij,ij->i", *pair) for pair in ((a, a), (b, b), (a, b)))
    with np.errstate(divide="ignore", invalid="ignore"):
        zeta = (bb - aa) / (2 * ab)
        t = np.where(ab == 0, 0, np.copysign(1 / (np.abs(zeta) + np.hypot(1, zeta)), zeta))[:, None]
    c = 1 / np.hypot(1, t)
    rows[p], rows[q] = c * (a - t * b), c * (b + t * a)
    return np.abs(ab / np.sqrt(aa) / np.sqrt(bb)).max(initial=0)
