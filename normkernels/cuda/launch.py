"""The CUDA backend: what a pass calls, with plans and flat arrays; the names are those of the CPU's."""

from .launch_rows import group_backward, group_forward, row_backward, row_forward
from .layouts import assign, copy, empty, fits, flat, gradient, zeros

__all__ = [
    "assign",
    "copy",
    "empty",
    "fits",
    "flat",
    "gradient",
    "group_backward",
    "group_forward",
    "row_backward",
    "row_forward",
    "zeros",
]
