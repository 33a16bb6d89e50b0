"""moments, zscore, minmax and whiten of Dask arrays."""

import math
import pickle

import numpy as np
import pytest

import normkernels as nk
from helpers import DTYPES, assert_same_bits, epsilon
from test_moments import exact_at_1e7, relative_error

dask = pytest.importorskip("dask")
da = pytest.importorskip("dask.array")

FUNCTIONS = [nk.zscore, nk.minmax]
CHUNKS = [(7, 3, 4), (20, 5, 6), (3, -1, 5), ((0, 5, 0, 15), (2, 3), 6)]


def values(statistics):
    """Fields of statistics as arrays in memory."""
    return dask.compute(*statistics)


@pytest.mark.parametrize("axis", [None, 0, 1, -1, (0, 2), (1, 2)], ids=str)
@pytest.mark.parametrize("chunks", CHUNKS, ids=str)
def test_as_in_memory_over_any_axes_and_chunks(axis, chunks, rng):
    array = rng.normal(3, 2, (20, 5, 6))
    x = da.from_array(array, chunks=chunks)
    lazy, expected = nk.moments(x, axis), nk.moments(array, axis)
    found = lazy.compute()
    assert type(found) is nk.Moments
    assert found.count == lazy.count == expected.count
    for a, b in zip(found[1:], expected[1:], strict=True):
        assert type(a) is type(b)
        np.testing.assert_allclose(a, b, rtol=1e-14)
    for function in FUNCTIONS:
        y, statistics = function(x, axis, return_statistics=True)
        assert (y.shape, y.dtype, y.chunks) == (x.shape, x.dtype, x.chunks)
        np.testing.assert_allclose(y.compute(), function(array, axis), rtol=0, atol=1e-14)
        for a, b in zip(values(statistics), function(array, axis, return_statistics=True)[1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-14)


@pytest.mark.parametrize("dtype", [*DTYPES, np.int16, np.bool_], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_dtypes(function, dtype, rng):
    array = (10 * rng.normal(size=(30, 4))).astype(dtype)
    y, statistics = function(da.from_array(array, chunks=(7, 2)), return_statistics=True)
    expected, kept = function(array, return_statistics=True)
    computed = y.compute()
    assert y.dtype == computed.dtype == expected.dtype
    tolerance = 4 * epsilon(expected.dtype)
    np.testing.assert_allclose(computed.astype(float), expected.astype(float), rtol=0, atol=4 * tolerance)
    for a, b, c in zip(values(statistics), kept, statistics, strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        assert isinstance(c, int) or c.dtype == b.dtype


def test_the_bits_do_not_depend_on_the_workers(rng):
    array = rng.normal(1e3, 1, (1000, 6))
    x = da.from_array(array, chunks=(37, 4))

    def all_of():
        y, w = nk.zscore(x), nk.whiten(x.rechunk({1: -1}))
        return dask.compute(nk.moments(x, None), nk.moments(x).variance(1), y, nk.minmax(x), w)

    with dask.config.set(scheduler="synchronous"):
        expected = all_of()
    for workers in (1, 2, 5):
        with dask.config.set(scheduler="threads", num_workers=workers, split_every=2):
            found = all_of()
        assert_same_bits(found[0], expected[0])
        assert_same_bits(found[0]._pairs(), expected[0]._pairs())
        assert_same_bits(found[1:], expected[1:])


def test_nothing_is_computed_before_it_is_asked_for():
    def refuse(block):
        raise AssertionError("computed")

    x = da.ones((20, 4), chunks=(5, 4)).map_blocks(refuse, dtype=float, meta=np.empty((0, 0)))
    moments = nk.moments(x)
    moments = sum([moments, moments, nk.moments(np.ones((3, 4)))])
    assert moments.variance(1).shape == (4,)
    nk.zscore(x, statistics=moments)
    nk.zscore(x, ddof=1)
    nk.minmax(x, None)
    nk.whiten(x)
    unknown = x[x[:, 0] > 0]
    nk.zscore(unknown, statistics=nk.moments(unknown) + nk.moments(unknown), ddof=1)


def test_chunks_merge_to_the_variance_of_the_whole(rng):
    array = rng.normal(1e7, 1, (13, 100_001))
    _, var = exact_at_1e7(array)
    whole = nk.moments(da.from_array(array, chunks=(1, -1)), None).compute()
    assert relative_error(whole.var, var) < 1e-15
    # What is computed keeps what it lost, and goes on merging.
    parts = [nk.moments(da.from_array(a, chunks=30_000), None).compute() for a in array]
    assert relative_error(sum(parts).var, var) < 1e-15
    lazy = sum(nk.moments(da.from_array(a, chunks=30_000), None) for a in array)
    assert relative_error(lazy.compute().var, var) < 1e-15


def test_lazy_moments_are_a_collection(rng):
    array = rng.normal(size=(40, 4))
    lazy = nk.moments(da.from_array(array, chunks=(9, 3)))
    found = lazy.compute()
    assert_same_bits(dask.compute(lazy)[0], found)
    assert_same_bits(dask.compute({"a": [lazy]})[0]["a"][0], found)
    assert_same_bits(dask.delayed(lambda m: m)(lazy).compute(), found)
    assert_same_bits(values((lazy.mean, lazy.var)), found[1:])
    kept = lazy.persist()
    assert isinstance(kept.mean, da.Array)
    assert_same_bits(kept.compute(), found)
    assert_same_bits(kept.compute()._pairs(), found._pairs())
    assert_same_bits(pickle.loads(pickle.dumps(lazy)).compute(), found)
    count, mean, _ = lazy
    assert count == 40
    np.testing.assert_allclose((mean + 1).compute(), array.mean(0) + 1, rtol=1e-14, atol=1e-15)


def test_lazy_moments_merge(rng):
    a, b = rng.normal(1e7, 1, (2, 500, 3))
    lazy, expected = nk.moments(da.from_array(a, chunks=(90, 2))), nk.moments(a) + nk.moments(b)
    for merged in (lazy + nk.moments(b), nk.moments(b) + lazy, lazy.merge(nk.moments(da.from_array(b)))):
        found = merged.compute()
        assert found.count == merged.count == 1000
        np.testing.assert_allclose(found.var, expected.var, rtol=1e-15)
        y = nk.zscore(da.from_array(a, chunks=(500, 1)), statistics=merged)
        np.testing.assert_allclose(y.compute(), nk.zscore(a, statistics=expected), rtol=1e-12)
    with pytest.raises(ValueError, match=r"other must have the shape \(3,\), got \(\)"):
        lazy.merge(nk.moments(da.from_array(b), None))
    with pytest.raises(TypeError, match="other must be a Moments, got int"):
        lazy.merge(1)


def test_merges_lose_nothing_whatever_their_order():
    far, near = np.array([1e13]), np.arange(-5e5, 5e5 + 1)
    expected = nk.moments(far, None) + nk.moments(near, None)
    for wrap in (
        lambda a: da.from_array(a, chunks=300_000),
        lambda a: lazily(a)[da.ones(len(a), chunks=300_000) > 0],
    ):
        a, b = (nk.moments(wrap(x), None) for x in (far, near))
        for merged in (a + b, b + a, a + nk.moments(near, None), nk.moments(far, None) + b):
            found = merged.compute()
            assert found.count == expected.count
            assert relative_error(found.mean, expected.mean) < 1e-15
            assert relative_error(found.var, expected.var) < 1e-14
        assert_same_bits((a + b).compute(), (b + a).compute())


def lazily(array):
    return da.from_array(array, chunks=300_000)


def test_degrees_of_freedom_of_unknown_sizes():
    x = da.from_array(np.arange(6.0), chunks=2)
    unknown = nk.moments(x[x > 2], None)
    np.testing.assert_allclose(unknown.variance(1).compute(), 1.0)
    with pytest.raises(ValueError, match="ddof must be 0 or more and below the count, 3, got 5"):
        unknown.variance(5).compute()
    with pytest.raises(TypeError, match="ddof must be an integer"):
        unknown.variance(1.5)


@pytest.mark.parametrize(
    ("function", "passes"),
    [
        (lambda x: nk.moments(x), 1),
        (lambda x: nk.minmax(x, return_statistics=True)[1], 1),
        (lambda x: nk.whiten(x, return_statistics=True)[1], 1),
        (lambda x: nk.zscore(x, statistics=nk.moments(x).compute()), 2),
    ],
)
def test_passes_over_the_chunks(function, passes, rng):
    read = []

    def seen(block):
        read.append(len(block))
        return block

    x = da.from_array(rng.normal(size=(40, 4)), chunks=(10, 4))
    x = x.map_blocks(seen, dtype=float, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="synchronous"):
        dask.compute(function(x))
    assert read == [10] * 4 * passes


def test_blocks_that_have_been_copied(rng):
    """As a block comes back that Dask has moved: in C order, whatever it was."""
    array = rng.normal(1e3, 1, (7, 9, 11))
    own = nk.moments(da.from_array(array, chunks=-1).transpose(1, 0, 2), (0, 1)).compute()
    copied = nk.moments(da.from_array(array.transpose(1, 0, 2).copy(), chunks=-1), (0, 1)).compute()
    assert_same_bits(own, copied)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("function", [nk.zscore, nk.minmax, nk.whiten])
def test_given_statistics_need_one_pass(function, lazy, rng):
    array, new = rng.normal(size=(2, 40, 4))
    _, statistics = function(da.from_array(array) if lazy else array, return_statistics=True)
    read = []

    def seen(block):
        read.append(block.shape)
        return block

    x = da.from_array(new, chunks=(10, 4)).map_blocks(seen, dtype=float, meta=np.empty((0, 0)))
    with dask.config.set(scheduler="synchronous"):
        y, used = function(x, statistics=statistics, return_statistics=True)
        found = y.compute()
    assert used is statistics
    assert read == [(10, 4)] * 4
    expected = function(array, return_statistics=True)[1]
    np.testing.assert_allclose(found, function(new, statistics=expected), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("ddof", [0, 1])
def test_chunks_of_unknown_size(ddof, rng):
    array = rng.normal(5, 2, (300, 4))
    chosen = array[array[:, 0] > 4]
    x = da.from_array(array, chunks=(40, 3))
    x = x[x[:, 0] > 4]
    assert math.isnan(x.shape[0])
    moments = nk.moments(x)
    found, expected = moments.compute(), nk.moments(chosen)
    assert (found.count, type(found.count)) == (len(chosen), int)
    np.testing.assert_allclose(found.var, expected.var, rtol=1e-14)
    np.testing.assert_allclose(moments.variance(ddof).compute(), chosen.var(0, ddof=ddof), rtol=1e-14)
    assert moments.persist().compute().count == len(chosen)
    for axis in (0, 1, None):
        y = nk.zscore(x, axis, ddof=ddof)
        np.testing.assert_allclose(y.compute(), nk.zscore(chosen, axis, ddof=ddof), atol=1e-13)
    np.testing.assert_allclose(nk.minmax(x).compute(), nk.minmax(chosen), atol=1e-15)
    np.testing.assert_allclose(nk.whiten(x[:, :3]).compute(), nk.whiten(chosen[:, :3]), atol=1e-13)
    with pytest.raises(ValueError, match=r"x must have chunks of known size.*compute_chunk_sizes"):
        nk.zscore(x, 1, statistics=nk.moments(chosen, 1))


def test_chunks_of_which_nothing_is_left():
    x = da.ones((20, 3), chunks=(5, 3))
    nothing = x[x[:, 0] > 1]
    for lazy in (nk.moments(nothing), nk.zscore(nothing)):
        with pytest.raises(ValueError, match="at least one element per group, got none in all of its chunks"):
            lazy.compute()


@pytest.mark.parametrize("method", ["zca", "pca"])
@pytest.mark.parametrize("offset", [5, 1e6])
def test_whiten(method, offset, rng):
    array = rng.normal(size=(500, 6)) @ rng.normal(size=(6, 6)) + offset
    y, statistics = nk.whiten(da.from_array(array, chunks=(61, 6)), method, return_statistics=True)
    expected, kept = nk.whiten(array, method, return_statistics=True)
    assert isinstance(statistics, nk.Whitening)
    np.testing.assert_allclose(y.compute(), expected, atol=1e-11)
    mean, matrix = values(statistics)
    np.testing.assert_allclose(mean, kept.mean, rtol=1e-15)
    np.testing.assert_allclose(matrix, kept.matrix, atol=1e-12)


def test_whiten_keeps_small_features_and_leaves_constant_ones_out(rng):
    """As in memory: each direction is right relative to itself, over many decades."""
    array = rng.normal(size=(400, 5)) * [1.0, 1e-4, 1e-9, 1e3, 0.0] + 3.0
    array[:, 2] -= 3.0
    x = da.from_array(array, chunks=(3, 5))  # fewer samples than features in a chunk
    y = nk.whiten(x, "pca", 0.0).compute()
    np.testing.assert_allclose((y.T @ y / len(y)).round(6), np.diag([1, 1, 1, 1, 0]), atol=1e-5)
    array[7, 1] = np.nan
    assert np.isnan(nk.whiten(da.from_array(array, chunks=(50, 5))).compute()).all()


@pytest.mark.parametrize("function", [nk.zscore, nk.minmax])
def test_nan_stays_in_its_slice(function, rng):
    array = rng.normal(size=(40, 3))
    array[17, 1] = np.nan
    y = function(da.from_array(array, chunks=(10, 3))).compute()
    assert np.isnan(y).all(0).tolist() == np.isnan(y).any(0).tolist() == [False, True, False]


X = da.ones((6, 4), chunks=(3, 2))
BAD = [
    (lambda: nk.moments(X, 2), ValueError, "axis must be in"),
    (lambda: nk.moments(X[:0]), ValueError, r"at least one element per group, got shape \(0, 4\)"),
    (lambda: nk.zscore(X, ddof=6), ValueError, "ddof must be 0 or more and below the count, 6, got 6"),
    (lambda: nk.zscore(X, ddof=1.5), TypeError, "ddof must be an integer, got 1.5"),
    (lambda: nk.zscore(X, threads=0), ValueError, "threads must be 1 or more, got 0"),
    (lambda: nk.zscore(X, threads=1.5), TypeError, "threads must be an integer"),
    (lambda: nk.moments(np.ones(3), None) + da.ones(3), TypeError, "other must be a Moments, got Array"),
    (lambda: nk.zscore(X, out=np.ones((6, 4))), TypeError, "out must be None.*Dask array, got ndarray"),
    (lambda: nk.minmax(X, out=np.ones((6, 4))), TypeError, "out must be None.*Dask array, got ndarray"),
    (lambda: nk.zscore(X, statistics=(1, 2)), TypeError, "statistics must be a Moments, got tuple"),
    (
        lambda: nk.zscore(X, statistics=nk.moments(X, 1)),
        ValueError,
        r"statistics.mean must have shape \(4,\), got \(6,\)",
    ),
    (
        lambda: nk.zscore(np.ones((6, 4)), statistics=nk.moments(X)),
        TypeError,
        r"statistics must be a Moments, got LazyMoments: use statistics.compute\(\)",
    ),
    (
        lambda: nk.minmax(np.ones((6, 4)), statistics=nk.minmax(X, return_statistics=True)[1]),
        TypeError,
        "statistics.min must be an array in memory, got a Array that Dask has yet to compute",
    ),
    (lambda: nk.moments(X.astype(complex)), TypeError, "x must be real numbers, got complex128"),
    (lambda: nk.moments(X.astype(">f8")), TypeError, "x must be float32, float64.*got >f8"),
    (lambda: nk.moments(da.ma.masked_equal(X, 2)), TypeError, "mask would be lost"),
    (lambda: nk.whiten(X), ValueError, r"features in one chunk.*\(2, 2\).*rechunk\(\{1: -1\}\)"),
    (lambda: nk.whiten(X[0]), ValueError, "x must have 2 dimensions"),
    (lambda: nk.whiten(X, "lda"), ValueError, "method must be one of"),
    (lambda: nk.layer_norm(X, 4), TypeError, "array in memory, got a Array that Dask has yet to compute"),
]


@pytest.mark.parametrize(("call", "error", "match"), BAD)
def test_bad_input_is_one_line(call, error, match):
    with pytest.raises(error, match=match) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_memory_maps_and_iterators_of_chunks(tmp_path, rng):
    array = rng.normal(1e7, 1, (1000, 3))
    mapped = np.memmap(tmp_path / "x.bin", np.float64, "w+", shape=array.shape)
    mapped[:] = array
    expected = nk.moments(array)
    of_chunks = sum(nk.moments(mapped[i : i + 100]) for i in range(0, 1000, 100))
    of_dask = nk.moments(da.from_array(mapped, chunks=(100, 3))).compute()
    for found in (nk.moments(mapped), of_chunks, of_dask):
        assert found.count == 1000
        np.testing.assert_allclose(found.var, expected.var, rtol=1e-15)
    out = np.memmap(tmp_path / "y.bin", np.float64, "w+", shape=array.shape)
    da.store(nk.zscore(da.from_array(mapped, chunks=(100, 3)), statistics=of_chunks), out)
    np.testing.assert_allclose(out, nk.zscore(array), atol=1e-12)


def test_xarray(rng):
    xarray = pytest.importorskip("xarray")
    array = rng.normal(size=(12, 30))
    field = xarray.DataArray(array, dims=("time", "place"), attrs={"unit": "K"})
    lazy = field.chunk(time=5, place=10)
    with pytest.raises(TypeError, match=r"got a DataArray that Dask has yet to compute.*\.data"):
        nk.zscore(lazy)
    scores = lazy.copy(data=nk.zscore(lazy.data))
    assert isinstance(scores.data, da.Array)
    assert scores.attrs == field.attrs
    np.testing.assert_allclose(scores, nk.zscore(array), atol=1e-14)
    along = xarray.apply_ufunc(
        nk.zscore, lazy.chunk(time=-1), kwargs={"axis": -1}, input_core_dims=[["time"]],
        output_core_dims=[["time"]], dask="parallelized", output_dtypes=[float],
    )  # fmt: skip
    np.testing.assert_allclose(along.transpose("time", "place"), nk.zscore(array), atol=1e-14)
