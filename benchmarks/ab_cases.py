"""What `normkernels ab` compares: every norm and pass on literal shapes, through the public functions.

Loaded from head in both arms, so both time the same cases, whatever commit they run: nothing but NumPy and
`normkernels` itself is imported. A case is a function that prepares a call and its check.
"""

from functools import partial

import numpy as np

import normkernels as nk

EPS = 1e-5

# One shape whose tensors stay in a cache, one whose tensors come from memory.
SHAPES = {
    "layer_norm": ((256, 768), (4096, 1024)),
    "rms_norm": ((256, 768), (4096, 1024)),
    "group_norm": ((1, 320, 32, 32), (8, 320, 32, 32)),
    "instance_norm": ((1, 64, 64, 64), (4, 64, 128, 128)),
    "weight_norm": ((256, 2048), (1024, 4096)),
    "local_response_norm": ((1, 96, 27, 27), (4, 96, 55, 55)),
    "batch_norm": ((4, 256, 14, 14), (16, 64, 56, 56)),
    "batch_renorm": ((4, 192, 17, 17), (8, 192, 35, 35)),
}
SHORT = ("layer_norm", "rms_norm", "batch_norm")


def cases():
    """Every norm: about six minutes."""
    return collect(SHAPES)


def short():
    """Three norms, in the cache: about two minutes."""
    return collect({op: SHAPES[op][:1] for op in SHORT})


def collect(shapes):
    return {
        f"{op}/{pass_}/{'x'.join(map(str, shape))}": partial(prepare, op, pass_, shape)
        for op in shapes
        for shape in shapes[op]
        for pass_ in ("forward", "backward")
    }


def arguments(op, shape, rng):
    """Keyword arguments of a typical call in training."""
    channels = shape[-1] if op in ("layer_norm", "rms_norm") else shape[1]
    weight = rng.uniform(0.5, 1.5, channels).astype(np.float32)
    bias = rng.standard_normal(channels).astype(np.float32)
    running = {"running_mean": np.zeros(channels, np.float32), "running_var": np.ones(channels, np.float32)}
    affine = {"weight": weight, "bias": bias, "eps": EPS}
    return {
        "layer_norm": {"normalized_shape": channels, **affine},
        "rms_norm": {"normalized_shape": channels, "weight": weight, "eps": EPS},
        "group_norm": {"num_groups": 32, **affine},
        "instance_norm": affine,
        "weight_norm": {"g": np.ones(shape[0], np.float32)},
        "local_response_norm": {"size": 5},
        "batch_norm": {**running, **affine, "training": True},
        "batch_renorm": {**running, **affine, "training": True, "r_max": 1.0, "d_max": 0.0},
    }[op]


def prepare(op, pass_, shape):
    """The call that is timed, a check of its last result, and the bytes that it must move."""
    rng = np.random.default_rng(0)
    x, dy = (np.resize(rng.standard_normal(99991, dtype=np.float32), shape) for _ in range(2))
    forward, backward = getattr(nk, f"{op}_forward"), getattr(nk, f"{op}_backward")
    keywords = arguments(op, shape, rng)
    y, saved = forward(x, **keywords)
    last = [y]

    def call():
        last[0] = forward(x, **keywords)[0] if pass_ == "forward" else backward(dy, saved).dx

    def check():
        want = EXPECTED.get(op, affine_norm)(op, pass_, x, dy, keywords)
        np.testing.assert_allclose(last[0][want[0]], want[1], rtol=1e-3, atol=1e-3)

    return call, check, (2 if pass_ == "forward" else 3) * x.nbytes


def affine_norm(op, pass_, x, dy, keywords):
    """Where to look, and what should be there: one group of x, normalized in float64."""
    where, weight, bias = group(op, x.shape, keywords)
    h, g = x[where].astype(np.float64), dy[where].astype(np.float64)
    mean = 0.0 if op in ("rms_norm", "weight_norm") else h.mean()
    scale = np.sqrt(np.square(h - mean).sum() if op == "weight_norm" else np.square(h - mean).mean() + EPS)
    x_hat = (h - mean) / scale
    if pass_ == "forward":
        return where, x_hat * weight + bias
    wdy, count = g * weight, 1 if op == "weight_norm" else h.size
    centre = wdy.mean() if op not in ("rms_norm", "weight_norm") else 0.0
    return where, (wdy - centre - x_hat * (wdy * x_hat).sum() / count) / scale


def group(op, shape, keywords):
    """The first group that shares its statistics, with its weight and bias."""
    weight, bias = keywords.get("weight", np.ones(1)), keywords.get("bias", np.zeros(1))
    if op in ("layer_norm", "rms_norm", "weight_norm"):
        return np.index_exp[0], weight, bias
    if op in ("batch_norm", "batch_renorm"):
        return np.index_exp[:, 0], weight[0], bias[0]
    channels = shape[1] // keywords.get("num_groups", shape[1])
    each = (slice(channels), None, None)
    return np.index_exp[0, :channels], weight[each], bias[each]


def local_response(op, pass_, x, dy, keywords, alpha=1e-4, beta=0.75, k=1.0, size=5):
    """As `affine_norm`, for the first channels of the first sample."""
    h, g = x[0, :32].astype(np.float64), dy[0, :32].astype(np.float64)
    d = k + alpha / size * windows(np.square(h), size)
    if pass_ == "forward":
        return np.index_exp[0, :16], (h * d**-beta)[:16]
    dx = g * d**-beta - 2 * alpha * beta / size * h * windows(g * h * d ** (-beta - 1), size)
    return np.index_exp[0, :16], dx[:16]


def windows(values, size):
    """The sum over each channel and its neighbours."""
    padded = np.pad(values, ((size // 2, size // 2), (0, 0), (0, 0)))
    return sum(padded[i : i + len(values)] for i in range(size))


EXPECTED = {"local_response_norm": local_response}
