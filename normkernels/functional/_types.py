"""Names in the signatures of the public functions."""

from typing import Any

ArrayLike = Any
"""A NumPy array, or an object in host memory with ``__array__`` or ``__dlpack__``."""
