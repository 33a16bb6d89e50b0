"""What a type checker knows of the public functions."""

from pathlib import Path

import pytest

USER = """
from typing import Literal, assert_type

import numpy as np
import numpy.typing as npt

import normkernels as nk
from normkernels.results import Array

x = np.ones((4, 6), np.float32)
weight, mean, var = x[0], x[1], x[2]

assert_type(nk.layer_norm(x, 6, weight, activation="gelu", out=x), Array)
y, saved = nk.layer_norm_forward(x, 6, weight, weight)
dx, dweight, dbias = nk.layer_norm_backward(y, saved)
assert_type(nk.layer_norm_backward(y, saved), nk.Grads)

y, added = nk.rms_norm_forward(x, (6,), residual=x, sum_out=y)
dx, dweight, dbias, dresidual = nk.rms_norm_backward(y, added, dsum=x)
assert_type(dresidual, Array)

y, saved = nk.batch_norm_forward(x, mean, var, training=True)
dx, dweight, dbias = nk.batch_norm_backward(y, saved)
y, added = nk.batch_renorm_forward(x, mean, var, residual=x)
assert_type(nk.batch_renorm_backward(y, added), nk.ResidualGrads)

y, saved = nk.group_norm_forward(x, 2)
dx, dweight, dbias = nk.group_norm_backward(y, saved)


class Layer:
    saved: nk.Saved[nk.Grads]
    activation: Literal["relu", "silu"] | None = None

    def forward(self, x: npt.NDArray[np.float32], residual: npt.NDArray[np.float32] | None) -> Array:
        y, self.saved = nk.instance_norm_forward(x, activation=self.activation)
        y, _ = nk.layer_norm_forward(y, 6, residual=residual)
        return y
"""

WRONG = """
import numpy as np
import normkernels as nk

x = np.ones((4, 6), np.float32)
nk.layer_norm([1.0], 6)
nk.layer_norm(x, 6, activation="swish")
nk.layer_norm(None, 6)
y, saved = nk.layer_norm_forward(x, 6, residual=x)
dx, dweight, dbias = nk.layer_norm_backward(y, saved)
"""


def mypy(text: str, tmp_path: Path) -> list[str]:
    """The lines in which mypy finds errors."""
    api = pytest.importorskip("mypy.api")
    file = tmp_path / "user.py"
    file.write_text(text)
    options = ["--strict", "--follow-imports=silent", f"--cache-dir={tmp_path}", "--no-error-summary"]
    out, err, _ = api.run([*options, str(file)])
    assert not err
    return [line.partition("user.py:")[2] for line in out.splitlines() if ": error:" in line]


@pytest.mark.slow
def test_what_a_user_writes_has_types(tmp_path: Path) -> None:
    assert mypy(USER, tmp_path) == []
    lines = [int(line.split(":")[0]) for line in mypy(WRONG, tmp_path)]
    assert lines == [6, 7, 8, 10]
