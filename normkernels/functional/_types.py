"""Names in the signatures of the public functions."""

from typing import Any

ArrayLike = Any
"""A NumPy array, an object with ``__array__`` or ``__dlpack__``, or an array on a CUDA device."""
