"""Normalization of Dask arrays: a pass over the chunks for the statistics, and one for the output.

Statistics of chunks are merged in a tree whose shape is that of the chunks: results have the same bits for
any scheduler and any number of workers. Nothing is computed here. The functions for arrays in memory take the
chunks, each on one thread: Dask takes several at once.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Any

import dask.array as da
import numpy as np
from dask.base import DaskMethodsMixin
from dask.core import flatten
from dask.delayed import Delayed, delayed

from . import _moments, _scaling, _validate, _whitening
from .results import (
    Array,
    Moments,
    Pair,
    Range,
    Whitening,
    check_mergeable,
    correction,
    is_zero,
    merge_pairs,
)

# Statistics that are merged at once, along one axis of chunks.
SPLIT_EVERY = 8


class LazyMoments(DaskMethodsMixin):  # type: ignore[misc]
    """`Moments` to be computed: ``compute()``, ``dask.compute`` and ``Client.compute`` give these.

    mean and var are Dask arrays, and count is one where sizes of chunks are not known. It unpacks, merges and
    adds up like Moments, also with some that are in memory.
    """

    def __init__(self, count: Any, mean: Any, var: Any, mean_low: Any, m2: Any, m2_low: Any) -> None:
        self.count, self.mean, self.var = count, mean, var
        self._low = mean_low, m2, m2_low

    def __iter__(self) -> Iterator[Any]:
        return iter((self.count, self.mean, self.var))

    def __repr__(self) -> str:
        return f"LazyMoments(count={self.count!r}, mean={self.mean!r}, var={self.var!r})"

    def _pairs(self) -> tuple[Pair, Pair]:
        return (self.mean, self._low[0]), self._low[1:]

    def merge(self, other: "Moments | LazyMoments") -> "LazyMoments":
        """As `Moments.merge`."""
        check_mergeable(self, other, (Moments, LazyMoments))
        count = self.count + other.count
        if isinstance(count, da.Array):  # which of them is larger is known when they are computed
            whole = delayed(Moments.merge)(_boxed(self), _boxed(other))
            return _from_delayed(whole, _count(whole), self.mean.shape)
        a, b = (self, other) if self.count >= other.count else (other, self)
        mean, m2 = merge_pairs(a.count, *a._pairs(), b.count, *b._pairs())
        return LazyMoments(count, mean[0], (m2[0] + m2[1]) / count, mean[1], *m2)

    def __add__(self, other: Any) -> "LazyMoments":
        return self.merge(other)

    def __radd__(self, other: Any) -> "LazyMoments":
        return self if is_zero(other) else self.merge(other)

    def variance(self, ddof: int = 0) -> Any:
        """As `Moments.variance`."""
        if isinstance(self.count, da.Array):
            correction(2**62, ddof)  # what can be refused now
            return self.var * self.count.map_blocks(_correction, ddof, **_like(self.count, np.float64))
        return self.var * correction(self.count, ddof)

    def _assembled(self) -> Any:
        """An array without axes, whose one element is the Moments.

        By `blockwise`: `delayed` would optimize the graph of every field by itself, and read the chunks anew
        for each.
        """
        fields, axes = (self.mean, self.var, *self._low), tuple(range(self.mean.ndim))
        count = (self.count, () if isinstance(self.count, da.Array) else None)
        pairs = [part for field in fields for part in (field, axes)]
        options = {"dtype": object, "meta": np.empty((), object), "align_arrays": False, "concatenate": True}
        return da.blockwise(_moments_from, (), *count, *pairs, **options)

    def __dask_graph__(self) -> Any:
        return self._assembled().__dask_graph__()

    def __dask_keys__(self) -> list[Any]:
        return list(self._assembled().__dask_keys__())

    def __dask_layers__(self) -> tuple[str, ...]:
        return tuple(self._assembled().__dask_layers__())

    def __dask_tokenize__(self) -> Any:
        return self._assembled().name

    __dask_optimize__ = staticmethod(da.Array.__dask_optimize__)
    __dask_scheduler__ = staticmethod(da.Array.__dask_scheduler__)

    def __dask_postcompute__(self) -> Any:
        return _unboxed, ()

    def __dask_postpersist__(self) -> Any:
        return _persisted, (self._assembled().name, self.count, self.mean.shape)


def _moments_from(count: Any, mean: Any, var: Any, *pairs: Any) -> Array:
    """Moments in an array without axes: of a tuple in a graph Dask makes another, of its fields alone."""
    box = np.empty((), object)
    box[()] = Moments(int(count), mean, var)._with_pairs(*pairs)
    return box


def _boxed(moments: Any) -> Any:
    """Moments as an argument of a task."""
    if not isinstance(moments, LazyMoments):
        return moments
    return delayed(np.ndarray.item)(moments._assembled().to_delayed(optimize_graph=False).item())


def _correction(count: Any, ddof: int) -> Array:
    return np.asarray(correction(int(count), ddof))


def _unboxed(results: Any) -> Any:
    return results[0].item()


def _persisted(graph: Any, name: str, count: Any, shape: Any, *, rename: Any = None) -> LazyMoments:
    box = da.Array(graph, (rename or {}).get(name, name), (), object)
    moments = delayed(np.ndarray.item)(box.to_delayed(optimize_graph=False).item())
    return _from_delayed(moments, _count(moments) if isinstance(count, da.Array) else count, shape)


def _from_delayed(moments: Any, count: Any, shape: Any) -> LazyMoments:
    fields = (da.from_delayed(delayed(_field)(moments, i), shape, np.float64) for i in range(5))
    return LazyMoments(count, *fields)


def _count(moments: Any) -> Any:
    return da.from_delayed(delayed(attrgetter("count"))(moments), (), np.int64)


def moments(x: Any, axis: Any, threads: int | None) -> Any:
    """As `_moments.moments`, a `LazyMoments`."""
    x, axes, kept = _checked(x, axis, threads, fitted=True)
    parts = reduced(x, axes, functools.partial(_moments_of, threads=threads or 1), _is_empty)
    sizes = [x.shape[a] for a in axes]
    count = math.prod(sizes)
    if math.isnan(count):
        first = Delayed((parts.name, *(0 for _ in kept)), parts.dask, layer=parts.name)
        count = _count(first)
    fields = (parts.map_blocks(_field, i, **_like(parts, np.float64)) for i in range(5))
    return LazyMoments(count, *fields)


def _checked(
    x: Any, axis: Any, threads: int | None, fitted: bool
) -> tuple[Any, tuple[int, ...], tuple[Any, ...]]:
    """x, the axes of a group, and the shape of the others; fitting needs elements in a group."""
    if threads is not None and _validate.integer(threads, "threads") < 1:  # how many there are, workers know
        raise ValueError(f"threads must be 1 or more, got {threads}")
    _scaling.host_data(x._meta)
    axes = _validate.axes(axis, x.ndim)
    if fitted and any(x.shape[a] == 0 for a in axes):
        raise ValueError(f"x must have at least one element per group, got shape {x.shape} over axes {axes}")
    return x, axes, tuple(n for a, n in enumerate(x.shape) if a not in axes)


def _like(x: Any, dtype: Any) -> dict[str, Any]:
    """dtype and meta for `map_blocks`, which would call the function to find them."""
    return {"dtype": dtype, "meta": np.empty((0,) * x.ndim, dtype)}


def reduced(
    x: Any,
    axes: tuple[int, ...],
    part: Callable[..., Any],
    is_empty: Callable[[Any], bool],
    add: Callable[[Iterable[Any]], Any] = sum,
) -> Any:
    """An array over the other axes, whose blocks are no arrays, but sums of part(chunk, axes) over chunks.

    is_empty: whether such a sum is of no elements, which is refused.
    """
    return da.reduction(
        x,
        functools.partial(_part, part=part),
        functools.partial(_whole, add=add, is_empty=is_empty),
        axis=axes,
        dtype=np.float64,
        split_every=SPLIT_EVERY,
        combine=functools.partial(_sum, add=add),
        concatenate=False,
        meta=np.empty((0,) * (x.ndim - len(axes))),
    )


def _part(
    block: Any, axis: Any, keepdims: Any, part: Callable[..., Any], computing_meta: bool = False
) -> Any:
    return block if computing_meta else part(block, axis)


def _sum(parts: Any, axis: Any, keepdims: Any, add: Callable[..., Any]) -> Any:
    return add(flatten(parts if isinstance(parts, list) else [parts]))


def _is_empty(whole: Any) -> bool:
    """Of Moments or a Triangle."""
    return bool(whole.count == 0)


def _is_empty_range(whole: Range) -> bool:
    return bool(np.size(whole.min) and np.all(whole.min > whole.max))


def _whole(
    parts: Any, axis: Any, keepdims: Any, add: Callable[..., Any], is_empty: Callable[[Any], bool]
) -> Any:
    whole = _sum(parts, axis, keepdims, add)
    if is_empty(whole):
        raise ValueError("x must have at least one element per group, got none in all of its chunks")
    return whole


def _moments_of(block: Any, axes: tuple[int, ...], threads: int) -> Moments:
    kept = tuple(n for a, n in enumerate(block.shape) if a not in axes)
    if any(block.shape[a] == 0 for a in axes):
        return Moments(0, np.zeros(kept)[()], np.zeros(kept)[()])
    if not (block.flags.c_contiguous or block.flags.f_contiguous):  # as it comes back from another worker
        block = np.ascontiguousarray(block)
    return _moments.moments(block, axes, threads)


def _field(moments: Moments, i: int) -> Any:
    """mean, var, what the mean has lost, m2, what that has lost"""
    (mean, low), pair = moments._pairs()
    values = (mean, moments.var, low, *pair)
    return values[i] + np.zeros(np.shape(mean))


def _beside(x: Any, axes: tuple[int, ...], statistic: Any) -> Any:
    """A statistic over the other axes, in chunks that lie beside those of x."""
    kept = tuple(c for a, c in enumerate(x.chunks) if a not in axes)
    if not isinstance(statistic, da.Array):
        statistic = da.from_array(np.asarray(statistic), chunks=kept)
    elif not any(math.isnan(n) for sizes in kept for n in sizes):
        statistic = statistic.rechunk(kept)
    return statistic[tuple(np.newaxis if a in axes else slice(None) for a in range(x.ndim))]


def _check(statistics: Any, kind: Any, kept: tuple[Any, ...], names: tuple[str, ...]) -> None:
    """Refuse statistics that are not over the axes `kept`; of a size that is not known they must be lazy."""
    known = not any(math.isnan(n) for n in kept)
    _scaling.fields_of(statistics, kind, dict.fromkeys(names, kept) if known else {}, lazy=True)
    if not known and not all(isinstance(getattr(statistics, name), da.Array) for name in names):
        raise ValueError(
            f"x must have chunks of known size along the axes of statistics, got shape {kept}: "
            "use x.compute_chunk_sizes()"
        )


def _refuse_out(out: Any) -> None:
    if out is not None:
        raise TypeError(f"out must be None where x is a Dask array, got {type(out).__name__}")


def zscore(x: Any, axis: Any, ddof: int, statistics: Any, out: Any, threads: int | None) -> tuple[Any, Any]:
    """As `_scaling.zscore`."""
    _refuse_out(out)
    x, axes, kept = _checked(x, axis, threads, fitted=statistics is None)
    if statistics is None:
        statistics = moments(x, axes, threads)
    used = Moments(*statistics) if isinstance(statistics, LazyMoments) else statistics
    _check(used, Moments, kept, ("mean", "var"))
    count = used.count
    correction(2**62 if isinstance(count, da.Array) else count, ddof)
    mean, var = (_beside(x, axes, value) for value in used[1:])
    y = _mapped(_scores, x, mean, var, count, axes=axes, ddof=ddof, threads=threads or 1)
    return y, statistics


def _mapped(function: Callable[..., Any], x: Any, *statistics: Any, **options: Any) -> Any:
    meta = _scaling.host_data(x._meta)
    return da.map_blocks(function, x, *statistics, dtype=meta.dtype, meta=meta, **options)


def _scores(
    block: Any, mean: Array, var: Array, count: Any, axes: tuple[int, ...], ddof: int, threads: int
) -> Array:
    used = Moments(int(count), mean.squeeze(axes), var.squeeze(axes))
    x = _scaling.host_data(block)
    # Not from the pool: what Dask lets go is to go to the system, or a worker runs against its limit.
    return _scaling.zscore(x, axes, ddof, used, False, np.empty_like(x), threads)[0]


def minmax(x: Any, axis: Any, statistics: Any, out: Any) -> tuple[Any, Range]:
    """As `_scaling.minmax`."""
    _refuse_out(out)
    x, axes, kept = _checked(x, axis, None, fitted=statistics is None)
    used: Range
    if statistics is None:
        parts = reduced(x, axes, _range_of, _is_empty_range)
        dtype = _scaling.range_dtype(_scaling.host_data(x._meta).dtype)
        used = Range(*(parts.map_blocks(getattr, name, **_like(parts, dtype)) for name in Range._fields))
    else:
        _check(statistics, Range, kept, ("min", "max"))
        used = statistics
    low, high = (_beside(x, axes, value) for value in used)
    return _mapped(_in_range, x, low, high, axes=axes), used


def _range_of(block: Any, axes: tuple[int, ...]) -> Range:
    x = _scaling.host_data(block)
    x = x.astype(_scaling.range_dtype(x.dtype), copy=False)
    return Range(x.min(axes, initial=np.inf), x.max(axes, initial=-np.inf))


def _in_range(block: Any, low: Array, high: Array, axes: tuple[int, ...]) -> Array:
    return _scaling.minmax(block, axes, Range(low.squeeze(axes), high.squeeze(axes)), False, None)[0]


def whiten(x: Any, method: str, eps: float, statistics: Any) -> tuple[Any, Whitening]:
    """As `_scaling.whiten`, of features that lie in one chunk."""
    eps = _scaling.whitening_options(x.ndim, method, eps)
    x, _, (features,) = _checked(x, 0, None, fitted=statistics is None)
    if x.numblocks[1] != 1 or math.isnan(features):
        raise ValueError(
            f"x must have its features in one chunk of known size, got chunks of {x.chunks[1]}: "
            "use x.rechunk({1: -1}), or x.compute_chunk_sizes() before"
        )
    used: Whitening
    if statistics is None:
        triangle = reduced(x, (0,), _triangle_of, _is_empty)
        found = triangle.map_blocks(_whitening.of_triangle, method, eps, **_like(triangle, np.float64))
        mean = found.map_blocks(getattr, "mean", **_like(found, np.float64))
        chunks = {"new_axis": 0, "chunks": ((features,), (features,))}
        matrix = found.map_blocks(getattr, "matrix", dtype=np.float64, meta=np.empty((0, 0)), **chunks)
        used = Whitening(mean, matrix)
    else:
        shapes = {"mean": (features,), "matrix": (features, features)}
        _scaling.fields_of(statistics, Whitening, shapes, lazy=True)
        used = statistics
    mean, matrix = (da.asarray(value).rechunk(-1) for value in used)
    meta = _scaling.host_data(x._meta)
    y = da.blockwise(
        _white, "ij", x, "ij", mean, "j", matrix, "kj", dtype=meta.dtype, meta=meta, concatenate=True
    )
    return y, used


def _triangle_of(block: Any, axes: tuple[int, ...]) -> _whitening.Triangle:
    return _whitening.triangle(_scaling.host_data(block))


def _white(block: Any, mean: Array, matrix: Array) -> Array:
    return _whitening.apply(_scaling.host_data(block), Whitening(mean, matrix))
